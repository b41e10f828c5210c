//! Packets about which program and model have once differed: each goes the way that the rules say.

use crate::ends::{DEVICE, both_lines, leaving};
use crate::frame::{Frame, SYN};
use crate::generate::lines;
use crate::model;
use crate::network::{D0, G0, H0, K0, N0, T0};
use crate::runner::{Runner, Then};

/// A packet in hexadecimal that comes in by an interface: what becomes of it is what the model says.
type Row = (&'static str, u32, &'static str);

const ROWS: [Row; 12] = [
    (
        "an IPv4 header longer than its frame",
        D0,
        "00000000000000000000000008004a0000000000000100000000000000000a090003",
    ),
    (
        "an IPv4 header longer than its frame, to a VIP",
        N0,
        "00000000000000000000000008004b0000000000000000000000000000000a090001",
    ),
    (
        "a TCP header longer than its packet, to a device",
        T0,
        "00000000000000000000000086dd690000000018060200000000000000000000000000000000fd09000000000000000000000000\
         00030000000c0000000000000000eb0000000000000000000000",
    ),
    (
        "a TCP header longer than its packet, to a closed port",
        H0,
        "0000000000000000000000000800450000340000000000060000000000000a090003000000000000000000000000a000000000\
         000000000000000000",
    ),
    (
        "a ping of no length",
        H0,
        "0000000000000000000000000800450000000000000000010000000000000a09000108000000",
    ),
    (
        "a ping that ends before its checksum",
        D0,
        "000000000000000000000000810000000800450000000000000000010000000000000a0900020800",
    ),
    (
        "an error that is cut, to a host",
        K0,
        "0000000000000000000000000800450000620000000040010000000000000a0100ff03000000000000004500000000000000000\
         600000a0100ff0a02000b0000138d",
    ),
    (
        "an error that is cut, to a device",
        D0,
        "00000000000000000000000086dd6000000000443aff00000000000000000000000000000000fd0900000000000000000000000\
         0000202000000000000006000000000000600fd090000000000000000000000000002000000000000000000000000000000000f\
         a10000",
    ),
    (
        "a solicitation that is cut",
        G0,
        "00000000000000000000000088a8000086dd6400000000283aff00000000000000000000000000000002000000000000000000\
         000000000000008700000000000000fd0900000000000000000000000000010101000000000000",
    ),
    (
        "segments left on a route to a VIP",
        D0,
        "00000000000000000000000086dd6000000000002b0000000000000000000000000000000000fd09000000000000000000000000\
         000100000001",
    ),
    (
        "an IPv4 mapping's addresses in IPv6",
        G0,
        "00000000000000000000000086dd60000000001406000000000000000000000000000000000000000000000000000000ffff0a0\
         9000100000fa100000000000000005000000000000000",
    ),
    (
        "a host's IPv4 address in IPv6",
        H0,
        "0000000000000000000000008100000086dd6000000000140640fd02000000000021000000000000001100000000000000000000\
         ffff0a0100020001000000000000000000005000000000000000",
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn past_differences() {
    let runner = Runner::new(&lines());
    let mut differing = Vec::new();
    for (what, ingress, hex) in ROWS {
        let frame = bytes(hex);
        let (kernel, model) = (runner.outcome(ingress, &frame), model::run(&runner.world, ingress, &frame));
        if kernel != model {
            differing.push(format!("{what}: kernel {:?}, model {:?}", kernel.reasons, model.reasons));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Only the first option of its kind counts, as only one may be there.
#[test]
fn a_second_segment_size_stays() {
    let mut lines = both_lines();
    lines[0].mss = 1000;
    let runner = Runner::new(&lines);
    let frame = |destination, second| {
        let mut frame = Frame::new("10.1.0.2:7", destination);
        frame.flags = SYN;
        frame.tcp_options = [[2, 4, 2, 0], second].concat();
        frame
    };
    let stays = [2, 4, 0x23, 0];
    let sent = leaving(&frame("10.2.0.11:5005", stays), D0, DEVICE).bytes();
    runner.expect("two", H0, &frame("10.9.0.1:4001", stays).bytes(), Then::Redirected(sent));
}
