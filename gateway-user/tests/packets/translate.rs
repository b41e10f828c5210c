//! What is translated, both ways. The expected frame is built from nothing, so its checksums are computed in full
//! and those that the kernel's program has updated must equal them.

use crate::frame::{ACK, Frame, SYN};
use crate::runner::{D0, DEVICE, H0, HOST, Runner, line};

const V4: (&str, &str, &str) = ("10.1.0.2:40000", "10.9.0.1:4001", "10.2.0.11:5005");
const V6: (&str, &str, &str) = ("[fd01::2]:40000", "[fd09::1]:4001", "[fd02::11]:5005");

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
    ("an odd number of bytes", |frame| frame.payload = vec![0xff; 101]),
    ("no payload", |frame| frame.payload.clear()),
    ("the last hop but one", |frame| frame.hops = 2),
    ("a full segment", |frame| frame.payload = (0..1428_u16).map(|i| i.to_be_bytes()[1]).collect()),
];

const V4_VARIATIONS: &[Variation] = &[
    ("IP options", |frame| frame.ip_options = vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("all the IP options there can be", |frame| frame.ip_options = vec![1; 40]),
];

const V6_VARIATIONS: &[Variation] = &[
    ("hop-by-hop options", |frame| frame.extensions = vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0])]),
    ("three extension headers", |frame| {
        let long = [&[0, 1, 1, 12], [0; 12].as_slice()].concat();
        let short = vec![0, 0, 1, 4, 0, 0, 0, 0];
        let routing = vec![0, 0, 4, 0, 0, 0, 0, 0];
        frame.extensions = vec![(0, short), (43, routing), (60, long)];
    }),
];

#[test]
fn both_ways_with_whole_checksums() {
    let runner = Runner::new(&[line(V4.1, V4.2), line(V6.1, V6.2)]);
    let mut count = 0;
    for ((host, vip, device), own) in [(V4, V4_VARIATIONS), (V6, V6_VARIATIONS)] {
        for (what, vary) in VARIATIONS.iter().chain(own) {
            let both = |source: &str, destination: &str| {
                let mut frame = Frame::new(source, destination);
                vary(&mut frame);
                frame
            };
            let sent = |frame: Frame, link| Frame { link, hops: frame.hops - 1, ..frame }.bytes();
            let to_device = sent(both(host, device), (DEVICE, D0));
            runner.expect_sent(&format!("{what}, {host} to {vip}"), &both(host, vip).bytes(), &to_device);
            let to_host = sent(both(vip, host), (HOST, H0));
            runner.expect_sent(&format!("{what}, {device} to {host}"), &both(device, host).bytes(), &to_host);
            count += 1;
        }
    }
    let (v4, v6) = (runner.traffic(0), runner.traffic(1));
    assert_eq!((v4.0 + v6.0, v4.1 + v6.1), (count, count), "each packet is counted once, in its direction");
}
