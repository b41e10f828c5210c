//! The parts of random frames: what headers have beside, and what is wrong with them.

use std::net::{IpAddr, SocketAddr};

use super::Rng;
use crate::frame::{Arp, CUSTOMER, DF, Frame, ICMP, ICMPV6, MF, SERVICE, TCP};
use crate::network::{D0, G0, H0};
use crate::runner::Line;

/// The IPv6 address that holds an IPv4 one: in no table of IPv6.
pub(super) fn mapped(end: SocketAddr) -> SocketAddr {
    match end.ip() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), end.port()),
        IpAddr::V6(_) => end,
    }
}

/// Adds options, extension headers, fragmentation and a hop limit.
pub(super) fn dress(rng: &mut Rng, frame: &mut Frame) {
    if frame.hops != 255 {
        frame.hops = rng.pick(&[64, 64, 64, 64, 64, 64, 64, 64, 64, 255, 255, 2, 2, 1, 0]);
    }
    frame.fragment = rng.pick(&[
        DF,
        DF,
        DF,
        DF,
        DF,
        DF,
        DF,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        MF,
        MF | DF,
        1,
        0x1fff | MF,
        0x8000,
    ]);
    if rng.chance(15) {
        let length = 4 * (1 + rng.below(10));
        frame.ip_options = rng.bytes(length);
    }
    if rng.chance(20) {
        frame.extensions = (0..1 + rng.below(5)).map(|_| extension(rng)).collect();
    }
}

fn extension(rng: &mut Rng) -> (u8, Vec<u8>) {
    match rng.below(20) {
        0..2 => {
            let offset = rng.pick(&[[0, 1], [0, 0], [0, 8], [0xff, 0xf9]]);
            (44, vec![0, rng.byte(), offset[0], offset[1], 0, 0, 0, 7])
        }
        2..5 => (43, vec![0, 0, 4, rng.pick(&[0, 0, 0, 1]), 0, 0, 0, 0]),
        5..6 => (rng.pick(&[51, 135, 139]), vec![0, 0, 0, 0, 0, 0, 0, 0]),
        n => {
            let words = rng.pick(&[0, 0, 0, 1, 2, 7]);
            let mut header = rng.bytes(8 + 8 * usize::from(words));
            header[1] = words;
            (if n % 2 == 0 { 0 } else { 60 }, header)
        }
    }
}

/// Options in any order, some of them broken.
pub(super) fn tcp_options(rng: &mut Rng) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..rng.below(8) {
        let mss = rng.pick(&[1460_u16, 8960, 536, 1380, 1361, 0, 65535]).to_be_bytes();
        let option = match rng.below(16) {
            0..6 => vec![2, 4, mss[0], mss[1]],
            6..10 => vec![1],
            10 => vec![3, 3, rng.byte()],
            11 => vec![4, 2],
            12 => [&[8, 10], rng.bytes(8).as_slice()].concat(),
            13 => vec![0],
            14 => vec![rng.byte(), rng.pick(&[0, 1, 2, 3, 41])],
            _ => vec![2, 3, mss[0]],
        };
        options.extend(option);
    }
    options.truncate(40);
    options.resize(options.len().next_multiple_of(4), rng.pick(&[0, 1, 2]));
    options
}

pub(super) fn payload(rng: &mut Rng) -> Vec<u8> {
    let length = match rng.below(100) {
        0..30 => 0,
        30..80 => rng.below(60),
        80..96 => rng.pick(&[540, 541, 560, 561, 600, 1220, 1221, 1460]),
        96..99 => rng.below(1500),
        _ => 1500 + rng.below(7500),
    };
    rng.bytes(length)
}

/// Tags that may or may not be those of a VLAN on the interface.
pub(super) fn tags(rng: &mut Rng, ingress: u32) -> Vec<(u16, u16)> {
    let known: &[&[(u16, u16)]] = match ingress {
        H0 => &[&[(CUSTOMER, 5)], &[(CUSTOMER, 5)], &[(CUSTOMER, 4)], &[(CUSTOMER, 6)]],
        D0 => &[&[(CUSTOMER, 7)], &[(SERVICE, 9), (CUSTOMER, 10)]],
        G0 => &[&[(CUSTOMER, 3)]],
        _ => &[],
    };
    let mut tags = match rng.below(20) {
        0..12 => Vec::new(),
        12..17 if !known.is_empty() => rng.pick(known).to_vec(),
        17 | 18 => vec![(rng.pick(&[CUSTOMER, SERVICE]), 0)],
        _ => (0..rng.below(4)).map(|_| (rng.pick(&[CUSTOMER, SERVICE]), rng.pick(&[0, 5, 7, 9]))).collect(),
    };
    for (_, control) in &mut tags {
        if rng.chance(30) {
            *control |= u16::from(rng.byte()) << 8 & 0xf000;
        }
    }
    tags
}

pub(super) fn arp(rng: &mut Rng, lines: &[Line], ingress: u32) -> Vec<u8> {
    let asker = [2, 0, 0, 0, rng.byte(), 2];
    let line = &lines[rng.below(lines.len())];
    let IpAddr::V4(target) = rng.pick(&[line.vip, line.vip, line.vip, line.device]).ip() else {
        return rng.bytes(60);
    };
    let target = target.octets();
    let sender = rng.pick(&[[10, 1, 0, 2], [10, 1, 0, 2], [0, 0, 0, 0], target]);
    let mut arp = Arp::request(asker, sender, target);
    arp.link.1 = asker;
    arp.operation = rng.pick(&[1, 1, 1, 1, 2]);
    arp.tags = tags(rng, ingress);
    arp.bytes()
}

/// Changes some bytes, most of them of the headers.
pub(super) fn bend(rng: &mut Rng, frame: &mut [u8]) {
    let protocols = [TCP, ICMP, ICMPV6, 0, 44, 60, 43];
    for _ in 0..1 + rng.below(3) {
        let reach = if rng.chance(90) { frame.len().min(110) } else { frame.len() };
        let at = rng.below(reach);
        frame[at] = match rng.below(10) {
            0..3 => rng.byte(),
            3..5 => frame[at] ^ 1 << rng.below(8),
            5..6 => rng.pick(&protocols),
            6..7 => frame[at].wrapping_add(1),
            7..8 => frame[at].wrapping_sub(1),
            8..9 => 0,
            _ => 0xff,
        };
        if rng.chance(3) && at + 1 < frame.len() {
            let word = rng.pick(&[0, 0xff]);
            frame[at & !1..(at & !1) + 2].fill(word);
        }
    }
}
