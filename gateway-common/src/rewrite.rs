//! Rewrites a packet's addresses, ports, hop limit and link header, and keeps its checksums right by what changed.

use crate::bytes::{Change, Packet, change};
use crate::headers::{ETHERTYPE, Ip, Link, TAG, TAG_PRIORITY};
use crate::table::{Address, Hop, Portal, Word};
use crate::verdict::Direction;

/// Offsets in the IPv4, IPv6 and TCP headers.
const V4_TTL: usize = 8;
pub(crate) const V4_CHECKSUM: usize = 10;
const V6_NEXT_HEADER: usize = 6;
pub(crate) const TCP_CHECKSUM: usize = 16;

/// Gives a segment its new address and port: the destination's on the way to a device, the source's on the way to
/// a host. `None` where the packet ends too early, which reading its headers has excluded.
#[inline(always)]
pub fn translate(
    packet: &mut (impl Packet + ?Sized),
    ip: &Ip,
    direction: Direction,
    peer: &Portal,
) -> Option<()> {
    let (address, port) = match direction {
        Direction::ToHost => (ip.source_at(), ip.l4()),
        Direction::ToDevice => (ip.destination_at(), ip.l4() + 2),
    };
    let addresses = replace_address(packet, ip.is_v6, address, peer.address())?;
    if !ip.is_v6 {
        packet.update_header(ip.l3() + V4_CHECKSUM, addresses)?;
    }
    let old: [Word; 1] = packet.read(port)?;
    packet.write(port, [peer.port()])?;
    packet.update_segment(ip.l4() + TCP_CHECKSUM, addresses, change(old, [peer.port()]), ip.is_v6)
}

/// [`translate`] and [`count_hop`] in one, with a single update of the IPv4 header's checksum.
#[inline(always)]
pub(crate) fn forward(
    packet: &mut (impl Packet + ?Sized),
    ip: &Ip,
    direction: Direction,
    peer: &Portal,
) -> Option<()> {
    let (address, port) = match direction {
        Direction::ToHost => (ip.source_at(), ip.l4()),
        Direction::ToDevice => (ip.destination_at(), ip.l4() + 2),
    };
    let addresses = replace_address(packet, ip.is_v6, address, peer.address())?;
    let hops = write_hops(packet, ip, ip.hops.wrapping_sub(1))?;
    if !ip.is_v6 {
        packet.update_header(ip.l3() + V4_CHECKSUM, addresses + hops)?;
    }
    let old: [Word; 1] = packet.read(port)?;
    packet.write(port, [peer.port()])?;
    packet.update_segment(ip.l4() + TCP_CHECKSUM, addresses, change(old, [peer.port()]), ip.is_v6)
}

/// Writes an address; gives what it means for checksums.
#[inline(always)]
pub(crate) fn replace_address(
    packet: &mut (impl Packet + ?Sized),
    is_v6: bool,
    at: usize,
    new: Address,
) -> Option<Change> {
    let new = new.words();
    if is_v6 {
        let old: [Word; 8] = packet.read(at)?;
        packet.write(at, new)?;
        Some(change(old, new))
    } else {
        let new = [new[6], new[7]];
        let old: [Word; 2] = packet.read(at)?;
        packet.write(at, new)?;
        Some(change(old, new))
    }
}

/// Counts one hop, as every router does. The caller has seen that more than one is left.
#[inline(always)]
pub fn count_hop(packet: &mut (impl Packet + ?Sized), ip: &Ip) -> Option<()> {
    set_hops(packet, ip, ip.hops.wrapping_sub(1))
}

/// Sets TTL or hop limit.
#[inline(always)]
pub(crate) fn set_hops(packet: &mut (impl Packet + ?Sized), ip: &Ip, hops: u8) -> Option<()> {
    let change = write_hops(packet, ip, hops)?;
    if ip.is_v6 {
        return Some(());
    }
    packet.update_header(ip.l3() + V4_CHECKSUM, change)
}

/// Writes TTL or hop limit; gives what it means for an IPv4 header's checksum.
#[inline(always)]
fn write_hops(packet: &mut (impl Packet + ?Sized), ip: &Ip, hops: u8) -> Option<Change> {
    let at = ip.l3() + if ip.is_v6 { V6_NEXT_HEADER } else { V4_TTL };
    let old: [Word; 1] = packet.read(at)?;
    let [first, second] = old[0].to_ne_bytes();
    let new = [Word::from_ne_bytes(if ip.is_v6 { [first, hops] } else { [hops, second] })];
    packet.write(at, new)?;
    Some(change(old, new))
}

/// Gives a frame the link header of its next hop, tags included. Offsets into the packet mean something else
/// afterwards where the number of tags changes.
#[inline(always)]
pub fn set_link<P: Packet + ?Sized>(packet: &mut P, link: &Link, hop: &Hop) -> Option<()> {
    let (tag, tags) = hop.tags();
    if tags == 0 && !link.is_in_vlan() {
        return packet.write(0, hop.link());
    }
    let priority = match link.tags {
        0 => 0,
        _ => packet.read::<1>(ETHERTYPE + 2)?[0] & TAG_PRIORITY,
    };
    match (link.tags, tags) {
        (0, 1) | (1, 2) => packet.shift(-4)?,
        (0, 2) => packet.shift(-8)?,
        (1, 0) | (2, 1) => packet.shift(4)?,
        (2, 0) => packet.shift(8)?,
        _ => {}
    }
    packet.write(0, hop.link())?;
    match tags {
        0 => packet.write(ETHERTYPE, [link.ethertype]),
        1 => packet.write(ETHERTYPE, [tag[0].protocol, tag[0].id | priority, link.ethertype]),
        _ => {
            packet.write(ETHERTYPE, [tag[0].protocol, tag[0].id | priority])?;
            packet.write(ETHERTYPE + TAG, [tag[1].protocol, tag[1].id, link.ethertype])
        }
    }
}
