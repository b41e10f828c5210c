//! How bytes of a packet are reached, and what its headers say. Only what a translation needs is looked at, and
//! nothing is copied that can be read again: the BPF virtual machine has 512 bytes of stack.

use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use crate::table::{Address, Portal, Word};
use crate::verdict::Reason;

/// The bytes of a packet, from the Ethernet header on, two at a time. Every access is checked against the packet's
/// end; all offsets are even, as every header's fields are that are looked at.
pub trait Packet {
    /// `N` words from `offset` (in bytes) on; `None` where the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]>;
    /// Replaces `N` words from `offset` (in bytes) on; `None` where the packet ends before.
    fn write<const N: usize>(&mut self, offset: usize, words: [Word; N]) -> Option<()>;
}

impl Packet for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]> {
        let bytes = self.get(offset..offset.checked_add(2 * N)?)?;
        Some(core::array::from_fn(|i| Word::from_ne_bytes([bytes[2 * i], bytes[2 * i + 1]])))
    }

    fn write<const N: usize>(&mut self, offset: usize, words: [Word; N]) -> Option<()> {
        let bytes = self.get_mut(offset..offset.checked_add(2 * N)?)?;
        for (place, word) in bytes.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }
}

/// EtherTypes (IEEE 802), as they lie in the header.
const IPV4: Word = 0x0800_u16.to_be();
const IPV6: Word = 0x86dd_u16.to_be();

/// Protocol numbers (IANA).
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// More extension headers than any sender uses before TCP.
const MAX_EXTENSIONS: usize = 4;

/// TCP flags in byte 13 of its header (RFC 9293, 3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Where the IP header begins.
pub const L3: usize = EthHdr::LEN;
/// Where source and destination address begin in the IP headers.
pub(crate) const V4_ADDRESSES: [usize; 2] = [L3 + 12, L3 + 16];
pub(crate) const V6_ADDRESSES: [usize; 2] = [L3 + 8, L3 + 24];

/// A TCP packet's headers, but for what can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IPv6 instead of IPv4.
    pub is_v6: bool,
    /// Where the TCP header begins, in bytes.
    pub l4: usize,
    /// Bytes of the IP packet, header included.
    pub length: u16,
    /// TTL or hop limit.
    pub hops: u8,
    /// A part of a packet that was cut up; its ports are those of the whole.
    pub is_fragment: bool,
    /// It opens a connection: SYN without ACK.
    pub is_opening: bool,
}

impl Flow {
    /// Where the packet comes from.
    #[inline(always)]
    pub fn source(&self, packet: &(impl Packet + ?Sized)) -> Option<Portal> {
        self.portal(packet, 0)
    }

    /// Where the packet goes.
    #[inline(always)]
    pub fn destination(&self, packet: &(impl Packet + ?Sized)) -> Option<Portal> {
        self.portal(packet, 1)
    }

    #[inline(always)]
    fn portal(&self, packet: &(impl Packet + ?Sized), side: usize) -> Option<Portal> {
        let address = if self.is_v6 {
            Address::from_words(packet.read(V6_ADDRESSES[side])?)
        } else {
            Address::from_v4_words(packet.read(V4_ADDRESSES[side])?)
        };
        let [port] = packet.read(self.l4 + 2 * side)?;
        Some(Portal::new(address, port))
    }
}

/// Reads the headers of a packet; where it is nothing to translate, says why.
#[inline(always)]
pub fn parse(packet: &(impl Packet + ?Sized)) -> Result<Flow, Reason> {
    match packet.read(12) {
        Some([IPV4]) => parse_v4(packet),
        Some([IPV6]) => parse_v6(packet),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn parse_v4(packet: &(impl Packet + ?Sized)) -> Result<Flow, Reason> {
    let [first, length] = packet.read(L3).ok_or(Reason::Malformed)?;
    let [version, _] = first.to_ne_bytes();
    let header = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header < Ipv4Hdr::LEN {
        return Err(Reason::Malformed);
    }
    let [fragment, hops_protocol] = packet.read(L3 + 6).ok_or(Reason::Malformed)?;
    let [hops, protocol] = hops_protocol.to_ne_bytes();
    if protocol != TCP {
        return Err(Reason::NotTcp);
    }
    let fragment = u16::from_be(fragment);
    // A later fragment has no ports to look at.
    if fragment & 0x1fff != 0 {
        return Err(Reason::NotTcp);
    }
    let is_fragment = fragment & 0x2000 != 0;
    parse_tcp(packet, Ip { is_v6: false, header, length: u16::from_be(length), hops, is_fragment })
}

#[inline(always)]
fn parse_v6(packet: &(impl Packet + ?Sized)) -> Result<Flow, Reason> {
    let [first] = packet.read(L3).ok_or(Reason::Malformed)?;
    if first.to_ne_bytes()[0] >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let [payload, next_hops] = packet.read(L3 + 4).ok_or(Reason::Malformed)?;
    let [mut next, hops] = next_hops.to_ne_bytes();
    let mut header = Ipv6Hdr::LEN;
    let mut is_fragment = false;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                // Length in units of 8 bytes, the first not counted (RFC 8200, 4.3).
                let [extension, specific] = packet.read(L3 + header).ok_or(Reason::Malformed)?;
                let [following, length] = extension.to_ne_bytes();
                // With segments left the packet is for a router on its way, and its checksum for another
                // address than the one in its header (RFC 8200, 4.4 and 8.1).
                if next == ROUTING && specific.to_ne_bytes()[1] != 0 {
                    return Err(Reason::NotTcp);
                }
                next = following;
                header += (usize::from(length) + 1) * 8;
            }
            FRAGMENT => {
                let [extension, offset] = packet.read(L3 + header).ok_or(Reason::Malformed)?;
                if u16::from_be(offset) & 0xfff8 != 0 {
                    return Err(Reason::NotTcp);
                }
                is_fragment = true;
                next = extension.to_ne_bytes()[0];
                header += 8;
            }
            _ => break,
        }
    }
    if next != TCP {
        return Err(Reason::NotTcp);
    }
    let length = u16::from_be(payload).checked_add(40).ok_or(Reason::Malformed)?;
    parse_tcp(packet, Ip { is_v6: true, header, length, hops, is_fragment })
}

struct Ip {
    is_v6: bool,
    header: usize,
    length: u16,
    hops: u8,
    is_fragment: bool,
}

#[inline(always)]
fn parse_tcp(packet: &(impl Packet + ?Sized), ip: Ip) -> Result<Flow, Reason> {
    let l4 = L3 + ip.header;
    if usize::from(ip.length) < ip.header + TcpHdr::LEN {
        return Err(Reason::Malformed);
    }
    // Up to the checksum, so that all that is rewritten later is there.
    let [offset_flags, _, _] = packet.read(l4 + 12).ok_or(Reason::Malformed)?;
    let [offset, flags] = offset_flags.to_ne_bytes();
    if offset >> 4 < 5 {
        return Err(Reason::Malformed);
    }
    Ok(Flow {
        is_v6: ip.is_v6,
        l4,
        length: ip.length,
        hops: ip.hops,
        is_fragment: ip.is_fragment,
        is_opening: flags & (SYN | ACK) == SYN,
    })
}
