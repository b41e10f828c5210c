//! Headers that contradict themselves or end too early: dropped or passed by the written rule, never changed.

use lungate_gateway_common::verdict::Reason;

use crate::ends::{BOTH, DEVICE, V4, V6, both_lines, leaving};
use crate::frame::{CUSTOMER, Frame, SERVICE};
use crate::network::{D0, H0};
use crate::runner::{Runner, Then};

/// A segment that is cut is never translated: its IP length is that of the whole.
#[test]
fn cut_at_every_length() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        for tags in [vec![], vec![(CUSTOMER, 0xe000)], vec![(SERVICE, 9), (CUSTOMER, 10)]] {
            for (frame, _) in [ends.to_device(), ends.to_host()] {
                let whole = Frame { tags: tags.clone(), ..frame }.bytes();
                let l3 = 14 + 4 * tags.len();
                // The kernel takes no frame below the Ethernet header.
                for length in 14..whole.len() {
                    let reason = if length < l3 { Reason::NotIp } else { Reason::Malformed };
                    let cut = &whole[..length];
                    runner.expect(&format!("cut at {length}"), D0, cut, Then::Stopped(reason));
                }
            }
        }
    }
}

/// A byte at a place of an IPv4 packet without payload.
type Row = (&'static str, usize, u8);

const ROWS_V4: [Row; 8] = [
    ("IP version 5", 0, 0x55),
    ("IP version 6 by IPv4's EtherType", 0, 0x65),
    ("an IP header of 16 bytes", 0, 0x44),
    ("an IP header longer than the packet", 0, 0x4f),
    ("an IP packet shorter than its headers", 3, 39),
    ("an IP packet longer than its frame", 3, 41),
    ("a TCP header of 16 bytes", 20 + 12, 0x40),
    ("a TCP header longer than the packet", 20 + 12, 0x60),
];

const ROWS_V6: [Row; 7] = [
    ("IP version 4 by IPv6's EtherType", 0, 0x40),
    ("an IP packet shorter than its headers", 5, 19),
    ("an IP packet longer than its frame", 5, 21),
    ("an IP packet much longer than its frame", 4, 0xff),
    ("an extension header longer than the frame", 6, 60),
    ("a TCP header of 0 bytes", 40 + 12, 0x00),
    ("a TCP header longer than the packet", 40 + 12, 0xf0),
];

#[test]
fn lengths_that_contradict_each_other() {
    let runner = Runner::new(&both_lines());
    for (ends, rows) in [(V4, ROWS_V4.as_slice()), (V6, ROWS_V6.as_slice())] {
        for (what, at, value) in rows {
            for (ingress, (mut frame, _)) in [(H0, ends.to_device()), (D0, ends.to_host())] {
                frame.payload.clear();
                // As an extension header the ports say how long it is.
                frame.source.set_port(if *at == 6 { 0x06ff } else { frame.source.port() });
                let mut frame = frame.bytes();
                frame[14 + at] = *value;
                runner.expect(what, ingress, &frame, Then::Stopped(Reason::Malformed));
            }
        }
    }
}

/// A packet that is shorter than its frame is not: what follows is padding.
#[test]
fn a_header_that_fills_the_packet() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        let (mut before, mut after) = ends.to_device();
        for frame in [&mut before, &mut after] {
            frame.payload.clear();
            frame.tcp_options = vec![1; 40];
        }
        let sent = Then::Redirected(leaving(&after, D0, DEVICE).bytes());
        runner.expect("no payload", H0, &before.bytes(), sent);
    }
}

/// Of other protocols nothing is read that could be wrong; a message that is cut is not answered.
#[test]
fn other_protocols() {
    let runner = Runner::new(&both_lines());
    for (from, to) in [("10.1.0.2", "10.9.0.1"), ("fd01::2", "fd09::1")] {
        let whole = Frame::echo(from, to).bytes();
        for cut in 1..16 {
            let cut = &whole[..whole.len() - cut];
            runner.expect("a ping that is cut", H0, cut, Then::Stopped(Reason::NotServed));
        }
    }
}
