//! Frames that are right in every byte, made from nothing; as words in network byte order.

use super::End;

/// Words of the link header, of an IPv4 and a TCP header, and of an ICMP header.
const LINK: usize = 7;
const IP: usize = 10;
const TCP: usize = 10;
const ICMP: usize = 4;

/// Places in the headers, in words.
const IP_CHECKSUM: usize = 5;
const IP_ADDRESSES: usize = 6;
const TCP_CHECKSUM: usize = 8;
const ICMP_CHECKSUM: usize = 1;
const ICMP_MTU: usize = 3;

/// Where the quote of an ICMP error begins.
const QUOTE: usize = LINK + IP + ICMP;

/// Bytes of an ICMP error's IP packet.
const ICMP_ERROR_BYTES: u16 = 68;
const _: () = assert!(2 * (IP + ICMP + IP + TCP) == ICMP_ERROR_BYTES as usize);

/// TCP flags (RFC 9293, 3.1).
pub const SYN: u16 = 0x02;
/// See [`SYN`].
pub const ACK: u16 = 0x10;

/// The headers of a segment.
pub type Segment = [u16; LINK + IP + TCP];
/// An ICMP error with the headers of a segment.
pub type IcmpError = [u16; QUOTE + IP + TCP];

/// A TCP segment in an IPv4 packet of `length` bytes; what is behind the headers is zeros.
#[inline(always)]
pub fn segment(source: End, destination: End, flags: u16, length: u16) -> Segment {
    let mut words = [0; LINK + IP + TCP];
    put_link(&mut words);
    put_headers(&mut words, LINK, source, destination, flags, length);
    in_network_order(words)
}

/// "Fragmentation needed" about a segment from `vip` to `host`, as a router near the host sends it (RFC 1191).
#[inline(always)]
pub fn icmp_error(host: End, vip: End) -> IcmpError {
    let mut words = [0; QUOTE + IP + TCP];
    put_link(&mut words);
    put_ip(&mut words, LINK, host.address, vip.address, 1, ICMP_ERROR_BYTES);
    put_headers(&mut words, QUOTE, vip, host, ACK, 1500);
    words[LINK + IP] = 0x0304;
    words[LINK + IP + ICMP_MTU] = 1400;
    let sum = sum(&words, LINK + IP, QUOTE + IP + TCP);
    words[LINK + IP + ICMP_CHECKSUM] = !fold(sum);
    in_network_order(words)
}

/// To the gateway's interface, from a host.
#[inline(always)]
fn put_link<const N: usize>(words: &mut [u16; N]) {
    words[0] = 0x0200;
    words[2] = 0x0101;
    words[3] = 0x0200;
    words[5] = 0x0102;
    words[6] = 0x0800;
}

#[inline(always)]
fn put_headers<const N: usize>(
    words: &mut [u16; N],
    start: usize,
    source: End,
    destination: End,
    flags: u16,
    length: u16,
) {
    put_ip(words, start, source.address, destination.address, 6, length);
    let tcp = start + IP;
    words[tcp] = source.port;
    words[tcp + 1] = destination.port;
    words[tcp + 3] = 1;
    words[tcp + 5] = 2;
    words[tcp + 6] = 0x5000 | flags;
    words[tcp + 7] = 0x2000;
    let pseudo_header = sum(words, start + IP_ADDRESSES, start + IP) + 6 + u32::from(length) - 20;
    words[tcp + TCP_CHECKSUM] = !fold(pseudo_header + sum(words, tcp, tcp + TCP));
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "each half of an address has 16 bits")]
fn put_ip<const N: usize>(
    words: &mut [u16; N],
    start: usize,
    source: u32,
    destination: u32,
    protocol: u16,
    length: u16,
) {
    words[start] = 0x4500;
    words[start + 1] = length;
    words[start + 3] = 0x4000;
    words[start + 4] = 64 << 8 | protocol;
    words[start + IP_ADDRESSES] = (source >> 16) as u16;
    words[start + IP_ADDRESSES + 1] = source as u16;
    words[start + IP_ADDRESSES + 2] = (destination >> 16) as u16;
    words[start + IP_ADDRESSES + 3] = destination as u16;
    words[start + IP_CHECKSUM] = !fold(sum(words, start, start + IP));
}

/// The one's complement sum before folding (RFC 1071).
#[inline(always)]
fn sum<const N: usize>(words: &[u16; N], from: usize, to: usize) -> u32 {
    let (mut sum, mut i) = (0, from);
    while i < to {
        sum += u32::from(words[i]);
        i += 1;
    }
    sum
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[inline(always)]
fn in_network_order<const N: usize>(mut words: [u16; N]) -> [u16; N] {
    let mut i = 0;
    while i < N {
        words[i] = words[i].to_be();
        i += 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: End = End { address: 0x0a01_0101, port: 40_000 };
    const VIP: End = End { address: 0x0a80_0001, port: 4001 };

    /// Whether a checksum among these words is right; both byte orders tell.
    fn is_right(words: &[u16], pseudo_header: &[u16]) -> bool {
        let numbers = words.iter().chain(pseudo_header).map(|word| u32::from(u16::from_be(*word)));
        fold(numbers.sum()) == 0xffff
    }

    fn is_whole(packet: &[u16], segment_bytes: u16) -> bool {
        let addresses = &packet[IP_ADDRESSES..IP];
        let pseudo_header =
            [addresses[0], addresses[1], addresses[2], addresses[3], 6_u16.to_be(), segment_bytes.to_be()];
        is_right(&packet[..IP], &[]) && is_right(&packet[IP..IP + TCP], &pseudo_header)
    }

    #[test]
    fn a_segment_is_whole() {
        assert!(is_whole(&segment(HOST, VIP, ACK, 40)[LINK..], 20));
        assert!(is_whole(&segment(HOST, VIP, ACK, 1500)[LINK..], 1480));
    }

    #[test]
    fn an_icmp_error_and_its_quote_are_whole() {
        let words = icmp_error(HOST, VIP);
        assert!(is_right(&words[LINK..LINK + IP], &[]));
        assert!(is_right(&words[LINK + IP..], &[]));
        assert!(is_whole(&words[QUOTE..], 1480));
    }
}
