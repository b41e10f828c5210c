//! The quick way: a plain segment of an open connection whose next hop is known, which is nearly every packet. It
//! does what [`gateway`](crate::gateway) does, with headers at places that the compiler knows, and leaves all else
//! to it, untouched.

use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use crate::bytes::Packet;
use crate::gateway::{Kernel, Outcome};
use crate::headers::{ETHERTYPE, IPV4, IPV6, Ip, SYN, TCP};
use crate::hop;
use crate::rewrite::forward;
use crate::table::{Access, FROZEN, Portal, RESTRICTED, Way, Word};
use crate::verdict::{Direction, Reason};

/// The bytes of the headers of a plain segment, in an Ethernet frame without tags.
pub const V4_HEADERS: usize = EthHdr::LEN + Ipv4Hdr::LEN + TcpHdr::LEN;
/// The same for IPv6.
pub const V6_HEADERS: usize = EthHdr::LEN + Ipv6Hdr::LEN + TcpHdr::LEN;

/// IPv4 without options, and TCP without options, as the first byte of their headers says it.
const PLAIN_V4: u8 = 0x45;

/// Whether it may be a plain IPv4 segment, by its first [`V4_HEADERS`] bytes.
#[inline(always)]
pub fn is_v4(packet: &(impl Packet + ?Sized)) -> bool {
    packet.read(ETHERTYPE) == Some([IPV4])
}

/// Whether it may be a plain IPv6 segment, by its first [`V6_HEADERS`] bytes.
#[inline(always)]
pub fn is_v6(packet: &(impl Packet + ?Sized)) -> bool {
    packet.read(ETHERTYPE) == Some([IPV6])
}

/// A plain IPv4 segment, of which the first [`V4_HEADERS`] bytes are there. Nothing where it is something else.
#[inline(always)]
pub fn v4(packet: &mut (impl Packet + ?Sized), kernel: &impl Kernel, ingress: u32) -> Option<Outcome> {
    let l3 = EthHdr::LEN;
    let [first, length, _, fragment, hops_protocol] = packet.read(l3)?;
    let [version, class] = first.to_ne_bytes();
    let [hops, protocol] = hops_protocol.to_ne_bytes();
    let is_fragment = fragment & 0x3fff_u16.to_be() != 0;
    if version != PLAIN_V4 || protocol != TCP || is_fragment {
        return None;
    }
    segment(packet, kernel, ingress, &Ip::plain_v4(u16::from_be(length), hops, class))
}

/// A plain IPv6 segment, of which the first [`V6_HEADERS`] bytes are there. Nothing where it is something else.
#[inline(always)]
pub fn v6(packet: &mut (impl Packet + ?Sized), kernel: &impl Kernel, ingress: u32) -> Option<Outcome> {
    let l3 = EthHdr::LEN;
    let [first, _, payload, next_hops] = packet.read(l3)?;
    let [high, low] = first.to_ne_bytes();
    let [protocol, hops] = next_hops.to_ne_bytes();
    if high >> 4 != 6 || protocol != TCP {
        return None;
    }
    let length = u16::from_be(payload).checked_add(40)?;
    segment(packet, kernel, ingress, &Ip::plain_v6(length, hops, (high << 4) | (low >> 4)))
}

#[inline(always)]
fn segment(
    packet: &mut (impl Packet + ?Sized),
    kernel: &impl Kernel,
    ingress: u32,
    ip: &Ip,
) -> Option<Outcome> {
    let [offset_flags]: [Word; 1] = packet.read(ip.l4() + 12)?;
    let [offset, flags] = offset_flags.to_ne_bytes();
    let header = usize::from(offset >> 4) * 4;
    let is_short = header < TcpHdr::LEN || usize::from(ip.length) < ip.header() + header;
    if flags & SYN != 0 || is_short || ip.hops <= 1 || !packet.has(ip.end()) {
        return None;
    }
    let filter = kernel.filter()?;
    let destination = ip.destination(packet)?;
    if filter.may_be_vip(destination) {
        let portal = ip.destination_portal(packet)?;
        if let Some(line) = Line::find(kernel, &portal, ip.is_v6, Direction::ToDevice) {
            return line.send(packet, kernel, ingress, ip, Direction::ToDevice);
        }
        // A port that is not mapped, or one that is frozen. Other addresses only share their bits with a VIP.
        if kernel.is_vip(&destination) {
            return None;
        }
    }
    if filter.may_be_device(ip.source(packet)?)
        && let Some(line) = Line::find(kernel, &ip.source_portal(packet)?, ip.is_v6, Direction::ToHost)
    {
        // Whether the reply is for the gateway itself is not asked: such a packet has no known next hop.
        return line.send(packet, kernel, ingress, ip, Direction::ToHost);
    }
    Some(Outcome::Stopped(Reason::NoMapping))
}

/// What a segment needs of a line of the table.
struct Line {
    peer: Portal,
    counter: u32,
    is_restricted: bool,
}

impl Line {
    /// The line of a portal, by the index first. Nothing where there is none, or one that is frozen.
    #[inline(always)]
    fn find(kernel: &impl Kernel, portal: &Portal, is_v6: bool, direction: Direction) -> Option<Self> {
        let entry = if is_v6 { None } else { kernel.bucket(portal) };
        if let Some(entry) = entry.and_then(|bucket| bucket.find(portal, direction)) {
            let (peer, counter, is_restricted) = (entry.peer(), entry.counter(), entry.is_restricted());
            return Some(Self { peer, counter, is_restricted });
        }
        let mapping = match direction {
            Direction::ToDevice => kernel.forward(portal)?,
            Direction::ToHost => kernel.reverse(portal)?,
        };
        let is_held = mapping.flags() & FROZEN != 0 && matches!(direction, Direction::ToDevice);
        let is_restricted = mapping.flags() & RESTRICTED != 0;
        let (peer, counter) = (*mapping.peer(), mapping.counter());
        (!is_held).then_some(Self { peer, counter, is_restricted })
    }

    /// Sends a segment on, where its next hop is known.
    #[inline(always)]
    fn send(
        &self,
        packet: &mut (impl Packet + ?Sized),
        kernel: &impl Kernel,
        ingress: u32,
        ip: &Ip,
        direction: Direction,
    ) -> Option<Outcome> {
        let (source, destination, host) = match direction {
            Direction::ToDevice => (ip.source(packet)?, self.peer.address(), ip.source(packet)?),
            Direction::ToHost => (self.peer.address(), ip.destination(packet)?, ip.destination(packet)?),
        };
        if self.is_restricted && !kernel.is_listed(Access::new(self.counter, host)) {
            return None;
        }
        let way = Way::new(source, destination, ip.is_v6, ingress, ip.class);
        let hop = hop::known(kernel, &way, ip.length)?;
        forward(packet, ip, direction, &self.peer)?;
        packet.write(0, hop.link())?;
        kernel.count_traffic(self.counter, direction, ip.length);
        let interface = hop.interface();
        Some(if interface == ingress { Outcome::SendBack } else { Outcome::Redirect(interface) })
    }
}
