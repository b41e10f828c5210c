//! Frames that lie in several buffers of the driver, of which the program sees the first one.

use lungate_gateway_common::verdict::Reason;

use crate::ends::{BOTH, DEVICE, HOST, both_lines, leaving};
use crate::frame::{Body, CUSTOMER, Frame};
use crate::model;
use crate::network::{D0, H0};
use crate::runner::{Runner, Then};

/// Payloads that make a frame of more than a page, up to the largest that the network takes.
const PAYLOADS: [usize; 5] = [4000, 4096, 4097, 8191, 8900];

#[test]
fn jumbo_frames_both_ways() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        for payload in PAYLOADS {
            for tags in [vec![], vec![(CUSTOMER, 0xe005)]] {
                let sized = |(mut before, mut after): (Frame, Frame)| {
                    for frame in [&mut before, &mut after] {
                        frame.payload = (0..payload).map(|i| i.to_be_bytes()[7]).collect();
                    }
                    (before, after)
                };
                let (mut before, after) = sized(ends.to_device());
                before.tags.clone_from(&tags);
                let sent = Then::Redirected(leaving(&after, D0, DEVICE).bytes());
                runner.expect(&format!("{payload} bytes"), H0, &before.bytes(), sent);
                let (before, after) = sized(ends.to_host());
                let sent = Then::Redirected(leaving(&after, H0, HOST).bytes());
                runner.expect(&format!("{payload} bytes"), D0, &before.bytes(), sent);
            }
        }
    }
}

/// However much of the payload is in the first buffer.
#[test]
fn frames_split_anywhere_behind_the_headers() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        let (mut before, mut after) = ends.to_device();
        for frame in [&mut before, &mut after] {
            frame.payload = vec![0x77; 5000];
            frame.tcp_options = vec![1; 12];
        }
        let (before, after) = (before.bytes(), leaving(&after, D0, DEVICE).bytes());
        let headers = before.len() - 5000;
        for first in [headers, headers + 1, headers + 100, 2000] {
            let (action, out) = runner.run_split(H0, &before, first);
            assert_eq!((action, out), (model::REDIRECT, after.clone()), "{first} bytes in the first buffer");
        }
    }
}

#[test]
fn answers_to_jumbo_frames() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        for payload in PAYLOADS {
            let (mut frame, _) = ends.to_device();
            frame.destination.set_port(4009);
            frame.payload = vec![1; payload];
            let frame = frame.bytes();
            let answer = model::run(&runner.world, H0, &frame);
            assert_eq!(runner.outcome(H0, &frame), answer, "a reset");
            assert_eq!(answer.reasons, [Reason::PortClosed]);
        }
    }
    for (from, to, reply) in [("10.1.0.2", "10.9.0.1", 0), ("fd01::2", "fd09::1", 129)] {
        for payload in PAYLOADS {
            let mut ping = Frame::echo(from, to);
            ping.payload = vec![3; payload];
            let mut pong = ping.clone();
            (pong.source, pong.destination, pong.hops) = (ping.destination, ping.source, 64);
            pong.link = (ping.link.1, ping.link.0);
            pong.body = Body::Icmp(reply, 0, [0, 7, 0, 1]);
            let then = Then::SentBackFor(Reason::Echo, pong.bytes());
            runner.expect("a ping", H0, &ping.bytes(), then);
        }
    }
}

/// An error may quote as much as it likes.
#[test]
fn errors_with_long_quotes() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        let (mut sent, mut seen) = ends.to_device();
        for frame in [&mut sent, &mut seen] {
            frame.payload = vec![9; 6000];
        }
        let ip = |portal: &str| crate::runner::ip(portal).to_string();
        let error = |from, about: &Frame| Frame::error(&ip(from), &ip(ends.host), (3, 1), &about.packet());
        let (before, after) = (error(ends.device, &seen), error(ends.vip, &sent));
        let then = Then::RedirectedFor(Reason::ErrorToHost, leaving(&after, H0, HOST).bytes());
        runner.expect("a long quote", D0, &before.bytes(), then);
    }
}
