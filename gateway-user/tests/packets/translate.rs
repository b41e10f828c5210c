//! What is translated, both ways. The expected frame is built from nothing, so its checksums are computed in full
//! and those that the kernel's program has updated must equal them.

use crate::ends::{BOTH, DEVICE, Ends, HOST, V4, V6, both_lines, leaving};
use crate::frame::{ACK, DF, FIN, Frame, RST, SYN, faults};
use crate::network::{D0, G0, H0, K0};
use crate::runner::{Runner, Then, line};

/// What makes a frame special, in either direction.
type Variation = (&'static str, fn(&mut Frame));

const VARIATIONS: &[Variation] = &[
    ("a data segment", |_| {}),
    ("a SYN with options", |frame| {
        frame.flags = SYN;
        frame.tcp_options = vec![2, 4, 5, 0xb4, 1, 3, 3, 7];
        frame.payload.clear();
    }),
    ("a SYN ACK", |frame| frame.flags = SYN | ACK),
    ("a reset", |frame| frame.flags = RST),
    ("the end", |frame| frame.flags = FIN | ACK),
    ("all the TCP options there can be", |frame| frame.tcp_options = vec![1; 40]),
    ("an odd number of bytes", |frame| frame.payload = vec![0xff; 101]),
    ("no payload", |frame| frame.payload.clear()),
    ("the last hop but one", |frame| frame.hops = 2),
    ("the most hops", |frame| frame.hops = 255),
    ("a class of service", |frame| frame.class = 0xb9),
    ("a full segment", |frame| frame.payload = (0..1428_u16).map(|i| i.to_be_bytes()[1]).collect()),
];

const V4_VARIATIONS: &[Variation] = &[
    ("IP options", |frame| frame.ip_options = vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("all the IP options there can be", |frame| frame.ip_options = vec![1; 40]),
    ("may be fragmented", |frame| frame.fragment = 0),
    ("the reserved bit", |frame| frame.fragment = 0x8000 | DF),
];

const V6_VARIATIONS: &[Variation] = &[
    ("hop-by-hop options", |frame| frame.extensions = vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0])]),
    ("three extension headers", |frame| {
        let long = [&[0, 1, 1, 12], [0; 12].as_slice()].concat();
        let short = vec![0, 0, 1, 4, 0, 0, 0, 0];
        let routing = vec![0, 0, 4, 0, 0, 0, 0, 0];
        frame.extensions = vec![(0, short), (43, routing), (60, long)];
    }),
    ("four extension headers", |frame| {
        frame.extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0]); 4];
    }),
    ("long extension headers", |frame| {
        let long = [&[0, 31, 1, 254], [0; 252].as_slice()].concat();
        frame.extensions = vec![(0, long.clone()), (60, long)];
    }),
    ("an atomic fragment", |frame| frame.extensions = vec![(44, vec![0, 0, 0, 0, 0, 0, 0, 7])]),
];

#[test]
fn both_ways_with_whole_checksums() {
    let runner = Runner::new(&both_lines());
    let mut count = 0;
    for (ends, own) in [(V4, V4_VARIATIONS), (V6, V6_VARIATIONS)] {
        for (what, vary) in VARIATIONS.iter().chain(own) {
            let varied = |(mut before, mut after): (Frame, Frame)| {
                vary(&mut before);
                vary(&mut after);
                (before.bytes(), after)
            };
            let (before, after) = varied(ends.to_device());
            let sent = leaving(&after, D0, DEVICE).bytes();
            assert_eq!(faults(&sent), Vec::<&str>::new());
            runner.expect(&format!("{what}, {ends:?} to device"), H0, &before, Then::Redirected(sent));
            let (before, after) = varied(ends.to_host());
            let sent = leaving(&after, H0, HOST).bytes();
            runner.expect(&format!("{what}, {ends:?} to host"), D0, &before, Then::Redirected(sent));
            count += 1;
        }
    }
    let traffic = runner.traffic();
    let packets = [0, 2].map(|i| traffic[0][i] + traffic[1][i]);
    assert_eq!(packets, [count, count], "each packet is counted once, in its direction");
}

/// A checksum that is wrong stays wrong by as much, so that the receiver finds out.
#[test]
fn wrong_checksums_stay_wrong() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        for ((before, after), ingress, egress, last) in
            [(ends.to_device(), H0, D0, DEVICE), (ends.to_host(), D0, H0, HOST)]
        {
            let (mut before, mut after) = (before.bytes(), leaving(&after, egress, last).bytes());
            for frame in [&mut before, &mut after] {
                let at = frame.len() - 1;
                frame[at] ^= 0x55;
            }
            runner.expect("a bad payload", ingress, &before, Then::Redirected(after.clone()));
            assert_eq!(faults(&after), ["TCP"]);
        }
    }
}

/// What follows the IP packet in its frame is not looked at.
#[test]
fn padding_stays() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        let (before, after) = ends.to_device();
        let padded = |frame: Vec<u8>| [frame.as_slice(), &[0xaa; 33]].concat();
        let (before, after) = (padded(before.bytes()), padded(leaving(&after, D0, DEVICE).bytes()));
        runner.expect("padding", H0, &before, Then::Redirected(after));
    }
}

/// The filter of the first look has a bit for many addresses; a stranger's packet is found out all the same, and a
/// packet goes by the device that its peer is behind, be it the one that it came by.
#[test]
fn a_device_beside_the_host_is_answered_where_the_packet_came_from() {
    let ends = [Ends { device: "10.1.0.11:5005", ..V4 }, Ends { device: "[fd01::11]:5005", ..V6 }];
    let runner = Runner::new(&ends.map(|ends| ends.line()));
    for ends in ends {
        let (before, after) = ends.to_device();
        let sent = leaving(&after, H0, DEVICE).bytes();
        runner.expect("to device", H0, &before.bytes(), Then::SentBack(sent.clone()));
        runner.expect("from elsewhere", D0, &before.bytes(), Then::Redirected(sent));
        let (before, after) = ends.to_host();
        let sent = leaving(&after, H0, HOST).bytes();
        runner.expect("to host", H0, &before.bytes(), Then::SentBack(sent));
    }
}

/// From the program above the driver a frame can be redirected to any interface, from one in the driver only to another
/// such.
#[test]
fn redirects_reach_what_they_can() {
    let lines = [line("10.9.0.1:1", "10.1.6.11:1"), line("[fd09::1]:1", "[fd01:0:0:6::11]:1")];
    let runner = Runner::new(&lines);
    for (host, vip, device) in [
        ("10.1.6.2:7", "10.9.0.1:1", "10.1.6.11:1"),
        ("[fd01:0:0:6::2]:7", "[fd09::1]:1", "[fd01:0:0:6::11]:1"),
    ] {
        let (before, after) = (Frame::new(host, vip), Frame::new(host, device));
        let sent = leaving(&after, G0, DEVICE).bytes();
        runner.expect("generic to itself", G0, &before.bytes(), Then::SentBack(sent));
        let kernel = lungate_gateway_common::verdict::Reason::KernelRoute;
        for ingress in [H0, D0, K0] {
            let handed = Then::Handed(kernel, after.bytes());
            runner.expect("native to generic", ingress, &before.bytes(), handed);
        }
    }
}
