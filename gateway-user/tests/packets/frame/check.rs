//! Whether every checksum in a frame is right, by computing each in full.

use super::{ICMP, ICMPV6, TCP, UDP, pseudo, sum};

/// The checksums of a frame that are wrong: those of the IPv4 header and of TCP, UDP and ICMP, and in an error's
/// quote that of the IPv4 header, and of TCP where the quote is whole. The frame's headers must be whole.
pub(crate) fn faults(frame: &[u8]) -> Vec<&'static str> {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    match frame[at..at + 2] {
        [0x08, 0x00] | [0x86, 0xdd] => packet_faults(&frame[at + 2..]),
        _ => Vec::new(),
    }
}

/// As [`faults`], of an IP packet.
fn packet_faults(packet: &[u8]) -> Vec<&'static str> {
    let mut faults = Vec::new();
    let packet = Packet::read(packet);
    if !packet.is_header_right() {
        faults.push("IPv4 header");
    }
    if packet.is_later_fragment {
        return faults;
    }
    let name = match packet.protocol {
        TCP => "TCP",
        UDP => "UDP",
        ICMP | ICMPV6 => "ICMP",
        _ => return faults,
    };
    if !packet.is_body_right() {
        faults.push(name);
    }
    let is_error = match packet.protocol {
        ICMP => matches!(packet.body.first(), Some(3 | 4 | 11 | 12)),
        ICMPV6 => packet.body.first().is_some_and(|kind| *kind < 128),
        _ => false,
    };
    let quote = packet.body.get(8..).unwrap_or_default();
    if is_error && quote.len() >= if packet.is_v4 { 20 } else { 40 } {
        let quote = Packet::read(quote);
        if !quote.is_header_right() {
            faults.push("quoted IPv4 header");
        }
        if quote.is_whole && quote.protocol == TCP && !quote.is_body_right() {
            faults.push("quoted TCP");
        }
    }
    faults
}

/// An IP packet with what its checksums cover.
struct Packet<'a> {
    is_v4: bool,
    header: &'a [u8],
    addresses: &'a [u8],
    protocol: u8,
    is_later_fragment: bool,
    body: &'a [u8],
    /// All bytes that its length promises are there.
    is_whole: bool,
}

impl<'a> Packet<'a> {
    fn read(packet: &'a [u8]) -> Self {
        let word = |at: usize| usize::from(packet[at]) << 8 | usize::from(packet[at + 1]);
        if packet[0] >> 4 == 4 {
            let header = usize::from(packet[0] & 15) * 4;
            let end = word(2).min(packet.len());
            return Self {
                is_v4: true,
                header: &packet[..header.min(packet.len())],
                addresses: &packet[12..20],
                protocol: packet[9],
                is_later_fragment: word(6) & 0x1fff != 0,
                body: packet.get(header..end).unwrap_or_default(),
                is_whole: packet.len() >= word(2),
            };
        }
        let end = (40 + word(4)).min(packet.len());
        let (mut protocol, mut at, mut is_later_fragment) = (packet[6], 40, false);
        while matches!(protocol, 0 | 43 | 44 | 60) && at + 8 <= end && !is_later_fragment {
            let is_fragment = protocol == 44;
            is_later_fragment = is_fragment && word(at + 2) & 0xfff8 != 0;
            protocol = packet[at];
            at += if is_fragment { 8 } else { 8 + 8 * usize::from(packet[at + 1]) };
        }
        Self {
            is_v4: false,
            header: &packet[..40],
            addresses: &packet[8..40],
            protocol,
            is_later_fragment,
            body: packet.get(at..end).unwrap_or_default(),
            is_whole: packet.len() >= 40 + word(4),
        }
    }

    fn is_header_right(&self) -> bool {
        !self.is_v4 || sum(self.header) == 0xffff
    }

    fn is_body_right(&self) -> bool {
        let covered = [&pseudo(self.protocol, self.addresses, self.body.len()), self.body].concat();
        sum(&covered) == 0xffff
    }
}
