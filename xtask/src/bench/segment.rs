//! A TCP segment without payload in a frame, right in every byte: conntrack looks at the checksums.

use lungate_gateway_common::sample::{End, Frame};

/// Where the headers begin, in words.
const IP: usize = 7;
const TCP: usize = 17;
const TCP_END: usize = 27;

/// The frame, as its words lie in memory.
pub(super) fn frame(source: End, destination: End) -> Frame {
    let [a, b] = halves(source.address);
    let [c, d] = halves(destination.address);
    let mut words = [0_u16; 30];
    // To the gateway's interface, from the host.
    words[..7].copy_from_slice(&[0x0200, 0, 0x0101, 0x0200, 0, 0x0102, 0x0800]);
    words[IP..TCP].copy_from_slice(&[0x4500, 40, 0, 0x4000, 0x4006, 0, a, b, c, d]);
    words[TCP..TCP_END].copy_from_slice(&[source.port, destination.port, 0, 1, 0, 2, 0x5010, 0x2000, 0, 0]);
    words[IP + 5] = !sum(&words[IP..TCP]);
    // The pseudo header: addresses, the protocol and the segment's length.
    words[TCP + 8] = !sum(&[&words[IP + 6..TCP_END], &[6, 20]].concat());
    words.map(u16::to_be)
}

#[expect(clippy::cast_possible_truncation, reason = "each half has 16 bits")]
fn halves(address: u32) -> [u16; 2] {
    [(address >> 16) as u16, address as u16]
}

/// The one's complement sum (RFC 1071).
fn sum(words: &[u16]) -> u16 {
    let sum: u32 = words.iter().map(|word| u32::from(*word)).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(u16::MAX)
}
