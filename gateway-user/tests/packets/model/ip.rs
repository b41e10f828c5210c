//! IP headers, up to what they carry.

use std::net::{IpAddr, SocketAddr};

use lungate_gateway_common::verdict::Reason;

use super::{address, word};
use crate::frame::{ICMP, ICMPV6, TCP};

/// IPv6 extension headers that are looked through (IANA protocol numbers).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const OPTIONS: u8 = 60;
/// How many of them at most.
const MAX_EXTENSIONS: usize = 4;

/// Where a header begins at most in a frame, and how long a packet is that is no jumbogram.
const LAST_HEADER: usize = 2047;
const LONGEST: usize = 65535;

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Tcp,
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp,
    LaterFragment,
    Other,
}

/// An IP packet in a frame.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) is_v6: bool,
    /// Where its header begins, and where what it carries does.
    pub(super) start: usize,
    pub(super) carried: usize,
    /// Its length, header included, as it says itself.
    pub(super) length: usize,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hops: u8,
    pub(super) body: Body,
    /// It is the first of several fragments.
    pub(super) is_fragment: bool,
    /// IPv4 options or IPv6 extension headers are there.
    pub(super) has_options: bool,
    /// It must not be cut up on its way.
    pub(super) is_whole: bool,
}

impl Packet {
    /// Where the source and destination addresses are.
    pub(super) fn address_places(&self) -> (usize, usize) {
        if self.is_v6 { (self.start + 8, self.start + 24) } else { (self.start + 12, self.start + 16) }
    }

    /// How long an address is.
    pub(super) fn address_length(&self) -> usize {
        if self.is_v6 { 16 } else { 4 }
    }

    /// Where the hop limit is.
    pub(super) fn hops_place(&self) -> usize {
        if self.is_v6 { self.start + 7 } else { self.start + 8 }
    }

    /// Where IPv4 has the checksum of its header.
    pub(super) fn checksum_place(&self) -> Option<usize> {
        if self.is_v6 { None } else { Some(self.start + 10) }
    }

    /// Where it ends, as it says itself.
    pub(super) fn end(&self) -> usize {
        self.start + self.length
    }
}

/// Reads the headers of a packet that begins at `start`.
pub(super) fn read(frame: &[u8], start: usize, is_v6: bool) -> Result<Packet, Reason> {
    let packet = if is_v6 { read_v6(frame, start) } else { read_v4(frame, start) };
    let packet = packet.filter(|packet| packet.carried <= LAST_HEADER && packet.length <= LONGEST);
    packet.ok_or(Reason::Malformed)
}

fn read_v4(frame: &[u8], start: usize) -> Option<Packet> {
    let bytes = frame.get(start..)?;
    let header = usize::from(*bytes.first()? & 15) * 4;
    if bytes[0] >> 4 != 4 || header < 20 || bytes.len() < header {
        return None;
    }
    let fragment = word(bytes, 6)?;
    let body = match bytes[9] {
        _ if fragment & 0x1fff != 0 => Body::LaterFragment,
        TCP => Body::Tcp,
        ICMP => Body::Icmp,
        _ => Body::Other,
    };
    Some(Packet {
        is_v6: false,
        start,
        carried: start + header,
        length: usize::from(word(bytes, 2)?),
        source: address(bytes, 12, false),
        destination: address(bytes, 16, false),
        hops: bytes[8],
        body,
        is_fragment: fragment & 0x2000 != 0,
        has_options: header > 20,
        is_whole: fragment & 0x4000 != 0,
    })
}

fn read_v6(frame: &[u8], start: usize) -> Option<Packet> {
    let bytes = frame.get(start..)?;
    if bytes.len() < 40 || bytes[0] >> 4 != 6 {
        return None;
    }
    let mut packet = Packet {
        is_v6: true,
        start,
        carried: start + 40,
        length: 40 + usize::from(word(bytes, 4)?),
        source: address(bytes, 8, true),
        destination: address(bytes, 24, true),
        hops: bytes[7],
        body: Body::Other,
        is_fragment: false,
        has_options: false,
        is_whole: true,
    };
    let mut next = bytes[6];
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | OPTIONS) {
            break;
        }
        let header = frame.get(packet.carried..)?;
        let length = if next == FRAGMENT { 8 } else { 8 + 8 * usize::from(*header.get(1)?) };
        header.get(..4)?;
        packet.has_options = true;
        match next {
            ROUTING if header[3] != 0 => return Some(packet),
            FRAGMENT if word(header, 2)? & 0xfff8 != 0 => {
                packet.body = Body::LaterFragment;
                return Some(packet);
            }
            FRAGMENT => packet.is_fragment |= header[3] & 1 != 0,
            _ => {}
        }
        next = header[0];
        packet.carried += length;
    }
    packet.body = match next {
        TCP => Body::Tcp,
        ICMPV6 => Body::Icmp,
        _ => Body::Other,
    };
    Some(packet)
}

/// A TCP header.
pub(super) struct Segment {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) flags: u8,
    /// Where its options are, and where they end.
    pub(super) options: std::ops::Range<usize>,
}

/// Reads the TCP header that a packet carries.
pub(super) fn tcp(frame: &[u8], packet: &Packet) -> Result<Segment, Reason> {
    let at = packet.carried;
    let header = frame.get(at..at + 20).ok_or(Reason::Malformed)?;
    let length = usize::from(header[12] >> 4) * 4;
    let is_held = packet.end() <= frame.len() && at + length <= packet.end();
    if length < 20 || !is_held {
        return Err(Reason::Malformed);
    }
    let port = |at| word(header, at).ok_or(Reason::Malformed);
    Ok(Segment {
        source: SocketAddr::new(packet.source, port(0)?),
        destination: SocketAddr::new(packet.destination, port(2)?),
        flags: header[13],
        options: at + 20..at + length,
    })
}

/// A message of ICMP or ICMPv6.
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) code: u8,
    /// Its header is whole, and the packet's length as true as can be seen.
    pub(super) is_whole: bool,
}

/// Reads the ICMP header that a packet carries.
pub(super) fn icmp(frame: &[u8], packet: &Packet) -> Result<Message, Reason> {
    let at = packet.carried;
    let header = frame.get(at..at + 2).ok_or(Reason::Malformed)?;
    let is_whole = packet.end() <= frame.len() && at + 8 <= packet.end();
    Ok(Message { kind: header[0], code: header[1], is_whole })
}
