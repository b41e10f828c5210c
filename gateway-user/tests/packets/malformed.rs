//! Headers that contradict themselves or end too early: dropped or passed by the written rule, never changed.

use lungate_gateway_common::packet::parse;
use lungate_gateway_common::verdict::Reason;

use crate::frame::Frame;
use crate::runner::{Runner, line};

#[test]
fn cut_at_every_length() {
    let runner = Runner::new(&[line("10.9.0.1:4001", "10.2.0.11:5005"), line("[fd09::1]:1", "[fd02::11]:1")]);
    for whole in [Frame::new("10.1.0.2:1", "10.9.0.1:4001"), Frame::new("[fd01::2]:1", "[fd09::1]:1")] {
        let whole = whole.bytes();
        // The kernel takes no frame below the Ethernet header; the payload is of no interest to the gateway.
        for length in 14..whole.len() {
            let cut = &whole[..length];
            match parse(cut) {
                Ok(flow) => assert!(length >= flow.l4 + 18, "cut at {length}: headers were found"),
                Err(reason) => runner.expect_stopped(&format!("cut at {length}"), cut, reason),
            }
        }
    }
}

#[test]
fn lengths_that_contradict_each_other() {
    let runner = Runner::new(&[line("10.9.0.1:4001", "10.2.0.11:5005")]);
    let rows: [(&str, usize, u8); 5] = [
        ("IP version 5", 14, 0x55),
        ("an IP header of 16 bytes", 14, 0x44),
        ("an IP packet shorter than its headers", 17, 39),
        ("a TCP header of 16 bytes", 14 + 20 + 12, 0x40),
        ("an IP header longer than the packet", 14, 0x4f),
    ];
    for (what, at, value) in rows {
        let mut frame = Frame::new("10.1.0.2:1", "10.9.0.1:4001");
        frame.payload.clear();
        let mut frame = frame.bytes();
        frame[at] = value;
        runner.expect_stopped(what, &frame, Reason::Malformed);
    }
}
