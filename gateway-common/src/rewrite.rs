//! Rewrites a packet's addresses, ports and hop limit, and keeps its checksums right by what changed
//! (RFC 1624, eqn. 3).

use crate::packet::{Flow, L3, Packet, V4_ADDRESSES, V6_ADDRESSES};
use crate::table::{Portal, Word};
use crate::verdict::Direction;

/// Offsets in the IPv4, IPv6 and TCP headers.
const V4_TTL: usize = L3 + 8;
const V4_CHECKSUM: usize = L3 + 10;
const V6_NEXT_HEADER: usize = L3 + 6;
const TCP_CHECKSUM: usize = 16;

/// Gives a packet its new address and port: the destination's on the way to a device, the source's on the way to
/// a host. `None` where the packet ends too early, which [`crate::packet::parse`] has excluded.
#[inline(always)]
pub fn translate(
    packet: &mut (impl Packet + ?Sized),
    flow: &Flow,
    direction: Direction,
    peer: &Portal,
) -> Option<()> {
    let side = match direction {
        Direction::ToHost => 0,
        Direction::ToDevice => 1,
    };
    let new = peer.address().words();
    let addresses = if flow.is_v6 {
        let old: [Word; 8] = packet.read(V6_ADDRESSES[side])?;
        packet.write(V6_ADDRESSES[side], new)?;
        change(old, new)
    } else {
        let new = [new[6], new[7]];
        let old: [Word; 2] = packet.read(V4_ADDRESSES[side])?;
        packet.write(V4_ADDRESSES[side], new)?;
        let addresses = change(old, new);
        update(packet, V4_CHECKSUM, addresses)?;
        addresses
    };
    let port = flow.l4 + 2 * side;
    let old: [Word; 1] = packet.read(port)?;
    packet.write(port, [peer.port()])?;
    update(packet, flow.l4 + TCP_CHECKSUM, addresses + change(old, [peer.port()]))
}

/// Counts one hop, as every router does. The caller has seen that more than one is left.
#[inline(always)]
pub fn count_hop(packet: &mut (impl Packet + ?Sized), flow: &Flow) -> Option<()> {
    if flow.is_v6 {
        let [old] = packet.read(V6_NEXT_HEADER)?;
        let [next, hops] = old.to_ne_bytes();
        return packet.write(V6_NEXT_HEADER, [Word::from_ne_bytes([next, hops.wrapping_sub(1)])]);
    }
    let [old] = packet.read(V4_TTL)?;
    let [hops, protocol] = old.to_ne_bytes();
    let new = Word::from_ne_bytes([hops.wrapping_sub(1), protocol]);
    packet.write(V4_TTL, [new])?;
    update(packet, V4_CHECKSUM, change([old], [new]))
}

/// Gives the frame its new link addresses: destination and source, three words each.
#[inline(always)]
pub fn set_link(
    packet: &mut (impl Packet + ?Sized),
    destination: [Word; 3],
    source: [Word; 3],
) -> Option<()> {
    packet.write(0, destination)?;
    packet.write(6, source)
}

/// The sum of what changed, in one's complement, before folding: ~m + m' for each word. The byte order of the
/// words does not matter as long as it is one (RFC 1071, 2).
type Change = u32;

#[inline(always)]
fn change<const N: usize>(old: [Word; N], new: [Word; N]) -> Change {
    let mut sum = 0;
    let mut i = 0;
    while i < N {
        sum += u32::from(!old[i]) + u32::from(new[i]);
        i += 1;
    }
    sum
}

/// HC' = ~(~HC + ~m + m').
#[inline(always)]
fn update(packet: &mut (impl Packet + ?Sized), offset: usize, change: Change) -> Option<()> {
    let [checksum] = packet.read(offset)?;
    let sum = u32::from(!checksum) + change;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
    let folded = sum as u16;
    packet.write(offset, [!folded])
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::packet::parse;
    use crate::table::Address;

    /// The one's complement sum of 16-bit words, folded: 0xffff where a checksum among them is right.
    fn sum(words: &[u8]) -> u16 {
        let pairs = words.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0)));
        let mut sum: u32 = pairs.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    fn pseudo_header(packet: &[u8], flow: &Flow) -> Vec<u8> {
        let tcp = &packet[flow.l4..];
        let addresses = if flow.is_v6 { &packet[L3 + 8..L3 + 40] } else { &packet[L3 + 12..L3 + 20] };
        let length = u32::try_from(tcp.len()).unwrap().to_be_bytes();
        [addresses, &length, &[0, 0, 0, 6], tcp].concat()
    }

    fn checksums_are_right(packet: &[u8], flow: &Flow) -> bool {
        let header = flow.is_v6 || sum(&packet[L3..flow.l4]) == 0xffff;
        header && sum(&pseudo_header(packet, flow)) == 0xffff
    }

    fn packet(
        is_v6: bool,
        source: [u8; 16],
        destination: [u8; 16],
        ports: [u8; 4],
        hops: u8,
        data: &[u8],
    ) -> Vec<u8> {
        let tcp = [&ports[..], &[1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0], data].concat();
        let mut packet = [[2; 12].as_slice(), if is_v6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
        if is_v6 {
            let length = u16::try_from(tcp.len()).unwrap().to_be_bytes();
            packet.extend([0x60, 0, 0, 0, length[0], length[1], 6, hops]);
            packet.extend(source.iter().chain(&destination));
        } else {
            let length = u16::try_from(tcp.len() + 20).unwrap().to_be_bytes();
            packet.extend([0x45, 0, length[0], length[1], 9, 9, 0x40, 0, hops, 6, 0, 0]);
            packet.extend(source[..4].iter().chain(&destination[..4]));
        }
        packet.extend(tcp);
        let flow = parse(&packet[..]).unwrap();
        if !is_v6 {
            let checksum = !sum(&packet[L3..flow.l4]);
            packet[L3 + 10..L3 + 12].copy_from_slice(&checksum.to_be_bytes());
        }
        let checksum = !sum(&pseudo_header(&packet, &flow));
        packet[flow.l4 + 16..flow.l4 + 18].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    proptest! {
        #[test]
        fn checksums_stay_right(
            is_v6: bool, source: [u8; 16], destination: [u8; 16], new: [u8; 16], ports: [u8; 4], port: [u8; 2],
            hops in 2_u8.., to_host: bool, data in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut packet = packet(is_v6, source, destination, ports, hops, &data);
            let flow = parse(&packet[..]).unwrap();
            prop_assert!(checksums_are_right(&packet, &flow));
            let ends = |packet: &[u8], flow: &Flow| (flow.source(packet).unwrap(), flow.destination(packet).unwrap());
            let before = ends(&packet, &flow);
            let address = if is_v6 { Address::v6(new) } else { Address::v4([new[0], new[1], new[2], new[3]]) };
            let peer = Portal::new(address, Word::from_ne_bytes(port));
            let direction = if to_host { Direction::ToHost } else { Direction::ToDevice };
            translate(&mut packet[..], &flow, direction, &peer).unwrap();
            count_hop(&mut packet[..], &flow).unwrap();
            let after = parse(&packet[..]).unwrap();
            prop_assert!(checksums_are_right(&packet, &after));
            let now = ends(&packet, &after);
            prop_assert_eq!(now, if to_host { (peer, before.1) } else { (before.0, peer) });
            prop_assert_eq!(after.hops, hops - 1);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120), v6: bool) {
            let mut bytes = bytes;
            if bytes.len() > 14 {
                bytes[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
                bytes[14] = if v6 { 0x60 } else { 0x45 };
            }
            let _ = parse(&bytes[..]);
        }
    }
}
