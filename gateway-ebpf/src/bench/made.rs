//! Frames that are right in every byte, written from nothing. Numbers are in the machine's byte order until they
//! are written.

use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::sample::End;

/// Words of the link header and of an IPv4 and a TCP header.
const LINK: usize = 7;
const IP: usize = 10;
const TCP: usize = 10;
/// Words of an ICMP header.
const ICMP: usize = 4;

/// Places in an IPv4 header, in words.
const IP_CHECKSUM: usize = 5;
const TCP_CHECKSUM: usize = 8;
const ICMP_CHECKSUM: usize = 1;

/// Writes a TCP segment in an IPv4 packet of `length` bytes; what is behind the headers must be zeros.
#[inline(always)]
pub(crate) fn put_tcp(
    ctx: &XdpContext,
    source: End,
    destination: End,
    flags: u16,
    length: u16,
) -> Option<()> {
    let mut words = [0; LINK + IP + TCP];
    put_link(&mut words);
    put_headers(&mut words, LINK, source, destination, flags, length);
    write(ctx, words)
}

/// Writes "fragmentation needed" about a segment from `vip` to `host`, as a router near the host sends it
/// (RFC 1191).
#[inline(always)]
pub(crate) fn put_icmp_error(ctx: &XdpContext, host: End, vip: End) -> Option<()> {
    const QUOTE: usize = LINK + IP + ICMP;
    let mut words = [0; QUOTE + IP + TCP];
    put_link(&mut words);
    put_ip(&mut words, LINK, host.address, vip.address, 1, 2 * (IP + ICMP + IP + TCP) as u16);
    put_headers(&mut words, QUOTE, vip, host, 0x10, 1500);
    words[LINK + IP] = 0x0304;
    words[LINK + IP + 3] = 1400;
    let sum = sum(&words, LINK + IP, QUOTE + IP + TCP);
    words[LINK + IP + ICMP_CHECKSUM] = !fold(sum);
    write(ctx, words)
}

/// Swaps the link addresses.
#[inline(always)]
pub(crate) fn swap_link(ctx: &XdpContext) -> Option<()> {
    let place = at::<[[u16; 3]; 2]>(ctx, 0)?;
    // SAFETY: `at` has checked the packet's bounds; drivers place frames at even addresses.
    unsafe {
        let [destination, source] = place.read();
        place.write([source, destination]);
    }
    Some(())
}

/// The place of a `T` in the packet, `offset` bytes behind its start.
#[inline(always)]
pub(crate) fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() { None } else { Some(start as *mut T) }
}

#[inline(always)]
fn put_link<const N: usize>(words: &mut [u16; N]) {
    // To the gateway's interface, from a host.
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
    let pseudo_header = sum(words, start + 6, start + IP) + 6 + u32::from(length) - 20;
    words[tcp + TCP_CHECKSUM] = !fold(pseudo_header + sum(words, tcp, tcp + TCP));
}

#[inline(always)]
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
    words[start + 6] = (source >> 16) as u16;
    words[start + 7] = source as u16;
    words[start + 8] = (destination >> 16) as u16;
    words[start + 9] = destination as u16;
    words[start + IP_CHECKSUM] = !fold(sum(words, start, start + IP));
}

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
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[inline(always)]
fn write<const N: usize>(ctx: &XdpContext, mut words: [u16; N]) -> Option<()> {
    let mut i = 0;
    while i < N {
        words[i] = words[i].to_be();
        i += 1;
    }
    let place = at::<[u16; N]>(ctx, 0)?;
    // SAFETY: as in `swap_link`.
    unsafe { place.write(words) };
    Some(())
}
