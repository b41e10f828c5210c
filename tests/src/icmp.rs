//! Error messages of ICMP and ICMPv6 in frames, and what they quote.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An error message that quotes a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// What it says.
    pub kind: Kind,
    /// Who says so.
    pub from: IpAddr,
    /// Who sent the segment.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// The quoted header's checksum is right, where it has one.
    pub is_sound: bool,
}

/// What an error message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Too big for a link of this MTU.
    TooBig(u32),
    /// Its hops are used up.
    TimeExceeded,
    /// Nobody knows the way.
    Unreachable,
    /// Something else.
    Other(u8, u8),
}

impl IcmpError {
    /// Reads a frame; nothing where it is something else.
    pub fn read(frame: &[u8]) -> Option<Self> {
        match frame.get(12..14)? {
            [0x08, 0x00] => Self::v4(frame.get(14..)?),
            [0x86, 0xdd] => Self::v6(frame.get(14..)?),
            _ => None,
        }
    }

    fn v4(packet: &[u8]) -> Option<Self> {
        let (from, _, protocol, message) = v4_header(packet)?;
        let (kind, code) = (*message.first()?, *message.get(1)?);
        if protocol != 1 || ![3, 4, 11, 12].contains(&kind) {
            return None;
        }
        let quote = message.get(8..)?;
        let (source, destination, _, segment) = v4_header(quote)?;
        let mtu = u32::from(u16::from_be_bytes([*message.get(6)?, *message.get(7)?]));
        let kind = match (kind, code) {
            (3, 4) => Kind::TooBig(mtu),
            (3, 0 | 1) => Kind::Unreachable,
            (11, 0) => Kind::TimeExceeded,
            _ => Kind::Other(kind, code),
        };
        let is_sound = sum(quote.get(..quote.len() - segment.len())?) == 0xffff;
        Self::of(kind, from, source, destination, segment, is_sound)
    }

    fn v6(packet: &[u8]) -> Option<Self> {
        let (from, _, protocol, message) = v6_header(packet)?;
        let (kind, code) = (*message.first()?, *message.get(1)?);
        if protocol != 58 || !(1..=4).contains(&kind) {
            return None;
        }
        let (source, destination, _, segment) = v6_header(message.get(8..)?)?;
        let kind = match (kind, code) {
            (2, 0) => Kind::TooBig(u32::from_be_bytes(message.get(4..8)?.try_into().ok()?)),
            (1, 0 | 3) => Kind::Unreachable,
            (3, 0) => Kind::TimeExceeded,
            _ => Kind::Other(kind, code),
        };
        Self::of(kind, from, source, destination, segment, true)
    }

    fn of(
        kind: Kind,
        from: IpAddr,
        source: IpAddr,
        destination: IpAddr,
        segment: &[u8],
        is_sound: bool,
    ) -> Option<Self> {
        let port = |at| Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?]));
        let (source, destination) =
            (SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?));
        Some(Self { kind, from, source, destination, is_sound })
    }
}

/// Source, destination, protocol, and what follows.
fn v4_header(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let address = |at| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)));
    let length = usize::from(packet.first()? & 0xf) * 4;
    Some((address(12)?, address(16)?, *packet.get(9)?, packet.get(length..)?))
}

fn v6_header(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let address =
        |at| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)));
    Some((address(8)?, address(24)?, *packet.get(6)?, packet.get(40..)?))
}

/// The sum of 16-bit words in ones' complement (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(0)
}
