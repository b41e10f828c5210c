//! What a VIP answers itself: ARP and neighbour discovery, so that hosts in its own network find the gateway; echo,
//! so that people see that it is there; and a reset for a port that is not mapped, so that a client fails at once.
//! Each question is turned into its answer where it lies.

use network_types::ip::Ipv6Hdr;
use network_types::tcp::TcpHdr;

use crate::bytes::{Packet, change, fold};
use crate::gateway::{Kernel, Outcome, is_vip};
use crate::headers::{self, ACK, FIN, Fragment, Ip, Link, RST, SYN, TCP, Tcp};
use crate::rewrite::{TCP_CHECKSUM, V4_CHECKSUM, replace_address, set_hops};
use crate::table::{Address, ETHERNET, Word};
use crate::verdict::Reason;

/// The hop limit of what the gateway sends itself.
const HOPS: u8 = 64;
/// The hop limit that shows that a packet is from the same link (RFC 4861, 7.1).
const ON_LINK: u8 = 255;

/// ARP for IPv4 over Ethernet, up to its operation; request and reply (RFC 826).
const ARP_HEADER: [Word; 3] = [1_u16.to_be(), 0x0800_u16.to_be(), 0x0604_u16.to_be()];
const REQUEST: Word = 1_u16.to_be();
const REPLY: Word = 2_u16.to_be();

/// Types and codes of messages (RFC 792, RFC 4443, RFC 4861).
const ECHO: u8 = 8;
const ECHO_REPLY: Word = Word::from_ne_bytes([0, 0]);
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: Word = Word::from_ne_bytes([129, 0]);
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: Word = Word::from_ne_bytes([136, 0]);
/// The flag of a solicited advertisement; it may be overridden, as a proxy's must (RFC 4861, 7.2.8).
const SOLICITED: Word = Word::from_ne_bytes([0x40, 0]);
/// Options with a link address: the source's and the target's, one unit of 8 bytes long (RFC 4861, 4.6.1).
const SOURCE_LINK: Word = Word::from_ne_bytes([1, 1]);
const TARGET_LINK: Word = Word::from_ne_bytes([2, 1]);
/// Where a solicitation's target and its first option are, and its length with that option.
const TARGET: usize = 8;
const OPTION: usize = 24;
const WITH_OPTION: usize = 32;

/// Answers ARP for a VIP with the link address of the interface that it came in by.
#[inline(always)]
pub(crate) fn arp<P: Packet + ?Sized>(
    packet: &mut P,
    kernel: &impl Kernel,
    link: &Link,
    arrival: u32,
) -> Result<Outcome, Reason> {
    let at = link.l3();
    let [a, b, c, operation] = packet.read(at).ok_or(Reason::NotIp)?;
    if [a, b, c] != ARP_HEADER || operation != REQUEST {
        return Err(Reason::NotIp);
    }
    let asker: [Word; 5] = packet.read(at + 8).ok_or(Reason::NotIp)?;
    let target: [Word; 2] = packet.read(at + 24).ok_or(Reason::NotIp)?;
    let is_announced = [asker[3], asker[4]] == target;
    if is_announced || !is_vip(kernel, Address::from_v4_words(target)) {
        return Err(Reason::NotIp);
    }
    let own = own_link(kernel, arrival).ok_or(Reason::NotIp)?;
    let mut answer = || {
        let [a, b, c, ..] = asker;
        packet.write(0, [a, b, c, own[0], own[1], own[2]])?;
        packet.write(at + 6, [REPLY, own[0], own[1], own[2], target[0], target[1]])?;
        packet.write(at + 18, asker)
    };
    answered(answer(), Reason::Arp)
}

/// What a message asks of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether it is there.
    Echo,
    /// Which link address it has.
    Neighbour,
}

/// Whether a message is a question that the gateway knows.
#[inline(always)]
pub(crate) fn question(ip: &Ip, kind: u8, code: u8) -> Option<Question> {
    match (ip.is_v6, kind, code) {
        (false, ECHO, 0) => Some(Question::Echo),
        (true, ECHO_V6, 0) if ip.is_plain() => Some(Question::Echo),
        (true, SOLICITATION, 0) if ip.is_plain() && ip.hops == ON_LINK => Some(Question::Neighbour),
        _ => None,
    }
}

/// Answers neighbour discovery for a VIP with the link address of the interface that it came in by (RFC 4861, 7.2).
#[inline(always)]
pub(crate) fn solicitation<P: Packet + ?Sized>(
    packet: &mut P,
    kernel: &impl Kernel,
    ip: &Ip,
    arrival: u32,
) -> Result<Outcome, Reason> {
    let target = Address::from_v6_words(packet.read(ip.l4() + TARGET).ok_or(Reason::NotTcp)?);
    // As it is, even where it is no address for the table.
    let asker = Address::from_words(packet.read(ip.source_at()).ok_or(Reason::NotTcp)?);
    let option: [Word; 4] = packet.read(ip.l4() + OPTION).ok_or(Reason::NotTcp)?;
    let is_whole = usize::from(ip.length) >= Ipv6Hdr::LEN + WITH_OPTION && packet.has(ip.end());
    let has_option = is_whole && option[0] == SOURCE_LINK;
    if !has_option || asker.is(Address::v6([0; 16])) || !is_vip(kernel, target) {
        return Err(Reason::NotTcp);
    }
    let own = own_link(kernel, arrival).ok_or(Reason::NotTcp)?;
    let mut answer = || {
        let l4 = ip.l4();
        let head: [Word; 1] = packet.read(l4)?;
        let flags: [Word; 2] = packet.read(l4 + 4)?;
        packet.write(l4, [ADVERTISEMENT])?;
        packet.write(l4 + 4, [SOLICITED, 0])?;
        let new = [TARGET_LINK, own[0], own[1], own[2]];
        packet.write(l4 + OPTION, new)?;
        let own_change = change(head, [ADVERTISEMENT]) + change(flags, [SOLICITED, 0]) + change(option, new);
        let source = replace_address(packet, true, ip.source_at(), target)?;
        let destination = replace_address(packet, true, ip.destination_at(), asker)?;
        packet.update_segment(l4 + 2, source + destination, own_change, true)?;
        let [a, b, c]: [Word; 3] = packet.read(6)?;
        packet.write(0, [a, b, c, own[0], own[1], own[2]])
    };
    answered(answer(), Reason::Solicitation)
}

/// Answers an echo request (RFC 792; RFC 4443, 4.2).
#[inline(always)]
pub(crate) fn echo<P: Packet + ?Sized>(packet: &mut P, link: &Link, ip: &Ip) -> Result<Outcome, Reason> {
    let mut answer = || {
        let old: [Word; 1] = packet.read(ip.l4())?;
        let new = [if ip.is_v6 { ECHO_REPLY_V6 } else { ECHO_REPLY }];
        packet.write(ip.l4(), new)?;
        packet.update_segment(ip.l4() + 2, 0, change(old, new), ip.is_v6)?;
        send_back(packet, link, ip)
    };
    answered(answer(), Reason::Echo)
}

/// Turns a segment for a port that is not mapped into a reset (RFC 9293, 3.10.7.1).
#[inline(always)]
pub(crate) fn reset<P: Packet + ?Sized>(packet: &mut P, link: &Link, ip: &Ip) -> Result<Outcome, Reason> {
    let tcp = headers::tcp(packet, ip)?;
    if ip.fragment != Fragment::No {
        return Err(Reason::Fragment);
    }
    if tcp.flags & RST != 0 || !ip.is_plain() {
        return Err(Reason::NotServed);
    }
    answered(make_reset(packet, link, ip, &tcp), Reason::PortClosed)
}

#[inline(always)]
fn make_reset<P: Packet + ?Sized>(packet: &mut P, link: &Link, ip: &Ip, tcp: &Tcp) -> Option<()> {
    let l4 = ip.l4();
    let header = ip.header();
    let old: [Word; 6] = packet.read(l4)?;
    let long = |high: Word, low: Word| u32::from(u16::from_be(high)) << 16 | u32::from(u16::from_be(low));
    let occupied = usize::from(ip.length) - header - tcp.header
        + usize::from(tcp.flags & SYN != 0)
        + usize::from(tcp.flags & FIN != 0);
    let (sequence, acknowledged, flags) = if tcp.flags & ACK != 0 {
        (long(old[4], old[5]), 0, RST)
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "an IP packet has less than 65,536 bytes")]
        let end = long(old[2], old[3]).wrapping_add(occupied as u32);
        (0, end, RST | ACK)
    };
    let halves = |long: u32| {
        let [a, b, c, d] = long.to_be_bytes();
        [Word::from_ne_bytes([a, b]), Word::from_ne_bytes([c, d])]
    };
    let ([s0, s1], [a0, a1]) = (halves(sequence), halves(acknowledged));
    // No window, and nothing urgent; the checksum between them is replaced at the end.
    let segment: [Word; 8] = [old[1], old[0], s0, s1, a0, a1, Word::from_ne_bytes([0x50, flags]), 0];
    packet.write(l4, segment)?;
    packet.write(l4 + TCP_CHECKSUM + 2, [0])?;
    let length = set_length(packet, ip, header + TcpHdr::LEN)?;
    let whole = !fold(sum(&segment) + pseudo_header(packet, ip)?);
    packet.replace_segment(l4 + TCP_CHECKSUM, length, whole)?;
    send_back(packet, link, ip)?;
    packet.cut(l4 + TcpHdr::LEN)
}

/// Sets the IP packet's length in its header; gives what that means for the checksum of a segment.
#[inline(always)]
fn set_length(packet: &mut (impl Packet + ?Sized), ip: &Ip, length: usize) -> Option<u64> {
    let word = |length: usize| u16::try_from(length).map(u16::to_be).ok();
    if ip.is_v6 {
        let (old, new) = (usize::from(ip.length) - Ipv6Hdr::LEN, length - Ipv6Hdr::LEN);
        packet.write(ip.l3() + 4, [word(new)?])?;
        return Some(change([word(old)?], [word(new)?]));
    }
    let (old, new) = ([word(usize::from(ip.length))?], [word(length)?]);
    packet.write(ip.l3() + 2, new)?;
    packet.update_header(ip.l3() + V4_CHECKSUM, change(old, new))?;
    // Both headers are of the same length, so the segment has grown and shrunk by as much as the packet.
    Some(change(old, new))
}

/// The sum of a segment's pseudo-header; the segment is nothing but a header.
#[inline(always)]
fn pseudo_header(packet: &(impl Packet + ?Sized), ip: &Ip) -> Option<u64> {
    let addresses = if ip.is_v6 {
        sum(&packet.read::<8>(ip.source_at())?) + sum(&packet.read::<8>(ip.destination_at())?)
    } else {
        sum(&packet.read::<4>(ip.source_at())?)
    };
    #[expect(clippy::cast_possible_truncation, reason = "20")]
    let length = (TcpHdr::LEN as u16).to_be();
    Some(addresses + u64::from(length) + u64::from(u16::from(TCP).to_be()))
}

#[inline(always)]
fn sum(words: &[Word]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += u64::from(*word);
    }
    sum
}

/// Swaps the two ends of a packet, on the link and in IP, and gives it a new hop limit.
#[inline(always)]
fn send_back<P: Packet + ?Sized>(packet: &mut P, link: &Link, ip: &Ip) -> Option<()> {
    if ip.is_v6 {
        let (source, destination): ([Word; 8], [Word; 8]) =
            (packet.read(ip.source_at())?, packet.read(ip.destination_at())?);
        packet.write(ip.source_at(), destination)?;
        packet.write(ip.destination_at(), source)?;
    } else {
        let [a, b, c, d]: [Word; 4] = packet.read(ip.source_at())?;
        packet.write(ip.source_at(), [c, d, a, b])?;
    }
    set_hops(packet, ip, HOPS)?;
    if !link.is_ethernet {
        return Some(());
    }
    let [a, b, c, d, e, f]: [Word; 6] = packet.read(0)?;
    packet.write(0, [d, e, f, a, b, c])
}

/// The link address of the interface that a question came in by.
#[inline(always)]
fn own_link(kernel: &impl Kernel, arrival: u32) -> Option<[Word; 3]> {
    let interface = kernel.interface(arrival).filter(|interface| interface.flags & ETHERNET != 0)?;
    let [a, b, c, d, e, f] = interface.link;
    Some([Word::from_ne_bytes([a, b]), Word::from_ne_bytes([c, d]), Word::from_ne_bytes([e, f])])
}

#[inline(always)]
fn answered(answer: Option<()>, reason: Reason) -> Result<Outcome, Reason> {
    Err(if answer.is_some() { reason } else { Reason::Malformed })
}
