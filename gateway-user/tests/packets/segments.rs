//! The largest segment size that SYNs tell of: lowered to what the mapping says.

use crate::ends::{BOTH, DEVICE, HOST, leaving};
use crate::frame::{ACK, Frame, SYN};
use crate::network::{D0, H0};
use crate::runner::{Line, Runner, Then};

/// What a mapping of these tests has at most.
const MSS: u16 = 1380;
const OPTION: [u8; 4] = [2, 4, 0x05, 0xb4];
const LOWERED: [u8; 4] = [2, 4, 0x05, 0x64];

/// Options before and after.
type Row = (&'static str, Vec<u8>, Vec<u8>);

fn rows() -> Vec<Row> {
    let join = |parts: &[&[u8]]| parts.concat();
    let time: &[u8] = &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let same = |what, options: Vec<u8>| (what, options.clone(), options);
    vec![
        ("alone", OPTION.to_vec(), LOWERED.to_vec()),
        (
            "as Linux does",
            join(&[&OPTION, &[4, 2], time, &[1, 3, 3, 7]]),
            join(&[&LOWERED, &[4, 2], time, &[1, 3, 3, 7]]),
        ),
        ("at an odd place", join(&[&[1], &OPTION, &[1, 1, 1]]), join(&[&[1], &LOWERED, &[1, 1, 1]])),
        ("behind two bytes", join(&[&[1, 1], &OPTION, &[0, 0]]), join(&[&[1, 1], &LOWERED, &[0, 0]])),
        ("behind three bytes", join(&[&[3, 3, 7], &OPTION, &[0]]), join(&[&[3, 3, 7], &LOWERED, &[0]])),
        ("at the very end", join(&[&[1; 36], &OPTION]), join(&[&[1; 36], &LOWERED])),
        (
            "nearly at the end, at an odd place",
            join(&[&[1; 35], &OPTION, &[0]]),
            join(&[&[1; 35], &LOWERED, &[0]]),
        ),
        ("behind an unknown option", join(&[&[253, 4, 1, 2], &OPTION]), join(&[&[253, 4, 1, 2], &LOWERED])),
        (
            "behind one of its kind with another length",
            join(&[&[2, 3, 9], &OPTION, &[0]]),
            join(&[&[2, 3, 9], &LOWERED, &[0]]),
        ),
        ("jumbo frames", vec![2, 4, 0x23, 0], LOWERED.to_vec()),
        ("one more than it may", vec![2, 4, 0x05, 0x65], LOWERED.to_vec()),
        ("the largest", vec![2, 4, 0xff, 0xff], LOWERED.to_vec()),
        same("just what it may", LOWERED.to_vec()),
        same("smaller", vec![2, 4, 0x02, 0x18]),
        same("zero", vec![2, 4, 0, 0]),
        same("not there", vec![1, 1, 1, 0]),
        same("no options", Vec::new()),
        same("behind the end of the options", join(&[&[0, 0, 0, 0], &OPTION])),
        same("behind an option of no length", join(&[&[3, 0, 0, 0], &OPTION])),
        same("behind an option of length 1", join(&[&[3, 1, 1, 1], &OPTION])),
        same("an option that goes on behind the header", vec![1, 1, 1, 2]),
        same("a value that goes on behind the header", vec![1, 2, 4, 0xff]),
        same("an option longer than the header", vec![254, 40, 5, 0xb4]),
    ]
}

fn runner(mss: u16) -> Runner {
    Runner::new(&BOTH.map(|ends| Line { mss, ..ends.line() }))
}

/// Sends frames with these options both ways, and expects these.
fn both_ways(runner: &Runner, what: &str, flags: u8, before: &[u8], after: &[u8]) {
    for ends in BOTH {
        for ((mut frame, mut sent), ingress, egress, last) in
            [(ends.to_device(), H0, D0, DEVICE), (ends.to_host(), D0, H0, HOST)]
        {
            for (frame, options) in [(&mut frame, before), (&mut sent, after)] {
                frame.flags = flags;
                frame.tcp_options = options.to_vec();
                frame.payload = vec![0xff; 5];
            }
            let sent = Then::Redirected(leaving(&sent, egress, last).bytes());
            runner.expect(what, ingress, &frame.bytes(), sent);
        }
    }
}

#[test]
fn larger_ones_are_lowered() {
    let runner = runner(MSS);
    for (what, before, after) in rows() {
        for flags in [SYN, SYN | ACK] {
            both_ways(&runner, what, flags, &before, &after);
        }
    }
}

#[test]
fn a_mapping_may_leave_them() {
    let runner = runner(0);
    for (what, before, _) in rows() {
        both_ways(&runner, what, SYN, &before, &before);
    }
}

#[test]
fn only_segments_that_open_a_connection_tell_of_it() {
    let runner = runner(MSS);
    for (what, before, _) in rows() {
        both_ways(&runner, what, ACK, &before, &before);
    }
}

/// Also where the kernel goes on with the packet.
#[test]
fn handed_packets_are_no_exception() {
    let line = crate::runner::line("10.9.0.1:1", "10.2.0.77:1");
    let runner = Runner::new(&[Line { mss: MSS, ..line }]);
    let frame = |destination, options: [u8; 4]| {
        let mut frame = Frame::new("10.1.0.2:7", destination);
        frame.flags = SYN;
        frame.tcp_options = options.to_vec();
        frame.bytes()
    };
    let handed =
        Then::Handed(lungate_gateway_common::verdict::Reason::NoNeighbour, frame("10.2.0.77:1", LOWERED));
    runner.expect("no neighbour", H0, &frame("10.9.0.1:1", OPTION), handed);
}
