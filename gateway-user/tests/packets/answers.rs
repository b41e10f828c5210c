//! What is answered in a VIP's place.

use lungate_gateway_common::verdict::Reason;

use crate::ends::{BOTH, V4, V6, both_lines};
use crate::frame::{ACK, Arp, Body, CUSTOMER, FIN, Frame, MF, RST, SERVICE, SYN, faults};
use crate::network::{D0, H0, N0, V5, Wire};
use crate::runner::{Runner, Then};

/// The asker's link address.
const ASKER: [u8; 6] = [2, 0, 0, 0, 1, 2];
const OWN: [u8; 4] = [10, 1, 0, 2];
const VIP: [u8; 4] = [10, 9, 0, 1];

/// An answer to a frame: from whom it was for, to whom it came from.
fn back(frame: &Frame) -> Frame {
    Frame {
        link: (frame.link.1, frame.link.0),
        source: frame.destination,
        destination: frame.source,
        hops: 64,
        ..frame.clone()
    }
}

#[test]
fn who_has_a_vip() {
    let runner = Runner::new(&both_lines());
    for (ingress, tags, logical) in [
        (H0, vec![], H0),
        (D0, vec![], D0),
        (H0, vec![(CUSTOMER, 0xe005)], V5),
        (H0, vec![(CUSTOMER, 0xe000)], H0),
        (H0, vec![(SERVICE, 0)], H0),
    ] {
        for sender in [OWN, [0; 4]] {
            let own = Wire::of(logical).link(1);
            let mut request = Arp::request(ASKER, sender, VIP);
            request.tags.clone_from(&tags);
            let answer = Arp {
                link: (ASKER, own),
                operation: 2,
                sender: (own, VIP),
                target: (ASKER, sender),
                ..request.clone()
            };
            let then = Then::SentBackFor(Reason::Arp, answer.bytes());
            runner.expect("who has a VIP", ingress, &request.bytes(), then);
        }
    }
}

#[test]
fn other_arp_passes() {
    let runner = Runner::new(&both_lines());
    let request = Arp::request(ASKER, OWN, VIP);
    let bent = |at: usize, value| {
        let mut frame = request.bytes();
        frame[at] = value;
        frame
    };
    for (what, frame) in [
        ("for a device", Arp::request(ASKER, OWN, [10, 2, 0, 11]).bytes()),
        ("for a VIP by itself", Arp::request(ASKER, VIP, VIP).bytes()),
        ("an answer", Arp { operation: 2, ..request.clone() }.bytes()),
        ("of other hardware", bent(15, 6)),
        ("of another protocol", bent(17, 1)),
        ("of longer link addresses", bent(18, 8)),
        ("of longer addresses", bent(19, 16)),
        ("cut", request.bytes()[..14 + 27].to_vec()),
    ] {
        runner.expect(what, H0, &frame, Then::Stopped(Reason::NotIp));
    }
    runner.expect("by an unknown interface", N0, &request.bytes(), Then::Stopped(Reason::NotIp));
}

#[test]
fn who_has_an_ipv6_vip() {
    let runner = Runner::new(&both_lines());
    for (ingress, tags, logical) in [(H0, vec![], H0), (H0, vec![(CUSTOMER, 0x2005)], V5)] {
        let own = Wire::of(logical).link(1);
        for to in ["ff02::1:ff00:1", "fd09::1"] {
            for class in [0, 0xc0] {
                let mut asked = Frame::solicitation("fd01::2", to, "fd09::1", ASKER);
                asked.tags.clone_from(&tags);
                asked.class = class;
                let mut answer = Frame::error("fd09::1", "fd01::2", (136, 0), &asked.payload[..16]);
                answer.body = Body::Icmp(136, 0, [0x40, 0, 0, 0]);
                answer.payload.extend([2, 1]);
                answer.payload.extend(own);
                (answer.hops, answer.link, answer.class) = (255, (ASKER, own), class);
                answer.tags.clone_from(&tags);
                let then = Then::SentBackFor(Reason::Solicitation, answer.bytes());
                runner.expect("who has a VIP", ingress, &asked.bytes(), then);
            }
        }
    }
}

#[test]
fn other_neighbour_discovery_passes() {
    let runner = Runner::new(&both_lines());
    let asked = || Frame::solicitation("fd01::2", "ff02::1:ff00:1", "fd09::1", ASKER);
    let vary = |vary: fn(&mut Frame)| {
        let mut frame = asked();
        vary(&mut frame);
        frame.bytes()
    };
    let extended = vary(|frame| frame.extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0])]);
    for (what, frame) in [
        ("for a device", Frame::solicitation("fd01::2", "ff02::1:ff00:11", "fd02::11", ASKER).bytes()),
        ("from nobody", Frame::solicitation("::", "ff02::1:ff00:1", "fd09::1", ASKER).bytes()),
        ("from afar", vary(|frame| frame.hops = 254)),
        ("without its asker's link address", vary(|frame| frame.payload.truncate(16))),
        ("with another option", vary(|frame| frame.payload[16] = 14)),
        (
            "with a longer option",
            vary(|frame| {
                frame.payload[17] = 2;
                frame.payload.extend([0; 8]);
            }),
        ),
        ("an advertisement", vary(|frame| frame.body = Body::Icmp(136, 0, [0; 4]))),
        ("another code", vary(|frame| frame.body = Body::Icmp(135, 1, [0; 4]))),
        ("behind an extension header", extended),
        ("cut", asked().bytes()[..14 + 40 + 31].to_vec()),
    ] {
        runner.expect(what, H0, &frame, Then::Stopped(Reason::NotTcp));
    }
    runner.expect("by an unknown interface", N0, &asked().bytes(), Then::Stopped(Reason::NotTcp));
}

#[test]
fn pings() {
    let runner = Runner::new(&both_lines());
    for (from, to, reply) in [("10.1.0.2", "10.9.0.1", 0), ("fd01::2", "fd09::1", 129)] {
        for (hops, length, tags) in
            [(64, 16, vec![]), (1, 0, vec![]), (255, 1400, vec![(CUSTOMER, 0x6005)]), (7, 56, vec![])]
        {
            let mut ping = Frame::echo(from, to);
            (ping.hops, ping.tags) = (hops, tags);
            ping.payload = (0..length).map(|i: u16| i.to_be_bytes()[1]).collect();
            let mut pong = back(&ping);
            pong.body = Body::Icmp(reply, 0, [0, 7, 0, 1]);
            assert_eq!(faults(&pong.bytes()), Vec::<&str>::new());
            let then = Then::SentBackFor(Reason::Echo, pong.bytes());
            runner.expect("a ping", H0, &ping.bytes(), then);
        }
        let ping = Frame::echo(from, to);
        let mut reply_itself = ping.clone();
        reply_itself.body = Body::Icmp(reply, 0, [0; 4]);
        runner.expect("a pong", H0, &reply_itself.bytes(), Then::Stopped(Reason::NotServed));
        let mut code = ping.clone();
        code.body = Body::Icmp(if ping.source.is_ipv4() { 8 } else { 128 }, 1, [0; 4]);
        runner.expect("another code", H0, &code.bytes(), Then::Stopped(Reason::NotServed));
    }
    let mut part = Frame::echo("10.1.0.2", "10.9.0.1");
    part.fragment = MF;
    runner.expect("a first fragment", H0, &part.bytes(), Then::Stopped(Reason::NotServed));
    let mut optional = Frame::echo("fd01::2", "fd09::1");
    optional.extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0])];
    let stopped = Then::Stopped(Reason::NotServed);
    runner.expect("behind an extension header", H0, &optional.bytes(), stopped);
    let elsewhere = Frame::echo("10.1.0.2", "10.2.0.11");
    runner.expect("to a device", H0, &elsewhere.bytes(), Then::Stopped(Reason::NotTcp));
}

/// Flags and payload, and what the reset says: sequence, acknowledgement, flags.
type Reset = (u8, usize, u32, u32, u8);

const SEQUENCE: u32 = 0xffff_fff0;
const ACKNOWLEDGED: u32 = 0x1234_5678;

const RESETS: [Reset; 8] = [
    (SYN, 0, 0, SEQUENCE + 1, RST | ACK),
    (SYN, 100, 0, SEQUENCE.wrapping_add(101), RST | ACK),
    (SYN | FIN, 3, 0, SEQUENCE + 5, RST | ACK),
    (0, 9, 0, SEQUENCE + 9, RST | ACK),
    (FIN, 0, 0, SEQUENCE + 1, RST | ACK),
    (ACK, 100, ACKNOWLEDGED, 0, RST),
    (SYN | ACK, 0, ACKNOWLEDGED, 0, RST),
    (FIN | ACK | 8, 1400, ACKNOWLEDGED, 0, RST),
];

#[test]
fn closed_ports_are_reset() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        for (flags, payload, sequence, acknowledged, answer) in RESETS {
            for (options, tags, padding) in
                [(0, vec![], 0), (40, vec![(CUSTOMER, 0xc005)], 0), (4, vec![], 7)]
            {
                let (mut frame, _) = ends.to_device();
                frame.destination.set_port(4009);
                (frame.flags, frame.sequence, frame.acknowledged) = (flags, SEQUENCE, ACKNOWLEDGED);
                frame.tcp_options = vec![1; options];
                frame.payload = vec![0x5a; payload];
                (frame.class, frame.tags) = (0x28, tags);
                let mut reset = back(&frame);
                (reset.flags, reset.sequence, reset.acknowledged) = (answer, sequence, acknowledged);
                (reset.tcp_options, reset.payload) = (Vec::new(), Vec::new());
                let mut sent = reset.bytes();
                let at = sent.len() - 6;
                // Its window is none.
                let checksum = u16::from_be_bytes([sent[at + 2], sent[at + 3]]);
                let (fixed, carry) = checksum.overflowing_add(0x2000);
                let fixed = (fixed + u16::from(carry)).to_be_bytes();
                sent[at..at + 4].copy_from_slice(&[0, 0, fixed[0], fixed[1]]);
                assert_eq!(faults(&sent), Vec::<&str>::new());
                let mut frame = frame.bytes();
                frame.extend(vec![0; padding]);
                let then = Then::SentBackFor(Reason::PortClosed, sent);
                runner.expect(&format!("{ends:?}, flags {flags:#x}"), H0, &frame, then);
            }
        }
    }
    assert_eq!(runner.traffic(), [[0; 4]; 2], "nothing was carried");
}

#[test]
fn what_is_not_reset() {
    let runner = Runner::new(&both_lines());
    let to_closed = |frame: Frame| {
        let mut frame = frame;
        frame.destination.set_port(4009);
        frame
    };
    for ends in BOTH {
        for flags in [RST, RST | ACK] {
            let reset = Frame { flags, ..to_closed(ends.to_device().0) };
            runner.expect("a reset", H0, &reset.bytes(), Then::Stopped(Reason::NotServed));
        }
    }
    let optional = Frame { ip_options: vec![1; 4], ..to_closed(V4.to_device().0) };
    runner.expect("IP options", H0, &optional.bytes(), Then::Stopped(Reason::NotServed));
    let extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0])];
    let extended = Frame { extensions, ..to_closed(V6.to_device().0) };
    runner.expect("an extension header", H0, &extended.bytes(), Then::Stopped(Reason::NotServed));
    let part = Frame { fragment: MF, ..to_closed(V4.to_device().0) };
    runner.expect("a first fragment", H0, &part.bytes(), Then::Stopped(Reason::Fragment));
}
