//! What mappings do not let through, and what is no mapping's: dropped or passed, never changed.

use lungate_gateway_common::verdict::Reason;

use crate::ends::{BOTH, DEVICE, Ends, HOST, V4, V6, both_lines, leaving};
use crate::frame::{ACK, Body, Frame, MF, SYN, UDP};
use crate::network::{D0, H0};
use crate::runner::{Line, Runner, Then, line};

#[test]
fn frozen_mappings_hold_off_hosts_and_let_replies_pass() {
    let runner = Runner::new(&BOTH.map(|ends| Line { is_frozen: true, ..ends.line() }));
    for ends in BOTH {
        for flags in [SYN, ACK] {
            let (mut before, _) = ends.to_device();
            before.flags = flags;
            runner.expect("from a host", H0, &before.bytes(), Then::Stopped(Reason::Frozen));
        }
        let (before, after) = ends.to_host();
        let sent = leaving(&after, H0, HOST).bytes();
        runner.expect("to a host", D0, &before.bytes(), Then::Redirected(sent));
    }
}

/// A device that was left: its way back is known beside that of the new one.
#[test]
fn late_replies_are_still_translated() {
    let old = [Ends { device: "10.2.0.12:9", ..V4 }, Ends { device: "[fd02::12]:9", ..V6 }];
    let lines = BOTH.into_iter().map(|ends| ends.line());
    let retired = old.into_iter().map(|ends| Line { is_retired: true, ..ends.line() });
    let runner = Runner::new(&lines.chain(retired).collect::<Vec<_>>());
    for ends in BOTH.into_iter().chain(old) {
        let (before, after) = ends.to_host();
        let sent = leaving(&after, H0, HOST).bytes();
        runner.expect(ends.device, D0, &before.bytes(), Then::Redirected(sent));
    }
    for ends in old {
        let (before, _) = ends.to_device();
        let sent = BOTH.into_iter().find(|new| new.vip == ends.vip).unwrap().to_device().1;
        let sent = Then::Redirected(leaving(&sent, D0, DEVICE).bytes());
        runner.expect("to the new one", H0, &before.bytes(), sent);
        let mut past = Frame::new(ends.host, ends.device);
        past.flags = SYN;
        runner.expect("past the VIP", H0, &past.bytes(), Then::Stopped(Reason::PastVip));
    }
}

/// A line, a host's address, and whether it may.
type Row = (usize, &'static str, bool);

const ROWS: [Row; 18] = [
    (0, "[fd01::2]:7", true),
    (0, "[fd01::ffff:0:0:1]:7", true),
    (0, "[fd01:0:0:1::2]:7", false),
    (0, "[fd07::f]:7", true),
    (0, "[fd07::10]:7", false),
    (0, "[fd08::1]:7", false),
    (1, "[fd01::2]:7", true),
    (1, "[fd01::3]:7", false),
    (2, "10.1.0.254:7", true),
    (2, "10.1.1.0:7", false),
    (3, "10.1.1.0:7", true),
    (3, "203.0.113.9:7", true),
    (4, "10.1.0.8:7", true),
    (4, "10.1.0.11:7", true),
    (4, "10.1.0.12:7", false),
    (4, "10.1.0.7:7", false),
    (4, "10.7.200.1:7", true),
    (4, "10.8.0.1:7", false),
];

#[test]
fn a_list_is_its_mappings_own() {
    let lines = [
        Line { allow: &["fd01::/64", "fd07::8/125"], ..line("[fd09::1]:1", "[fd02::11]:1") },
        Line { allow: &["fd01::2/128"], ..line("[fd09::1]:2", "[fd02::11]:2") },
        Line { allow: &["10.1.0.0/24"], ..line("10.9.0.1:3", "10.2.0.11:3") },
        Line { allow: &["0.0.0.0/0"], ..line("10.9.0.1:4", "10.2.0.11:4") },
        Line { allow: &["10.1.0.8/30", "10.7.0.0/16"], ..line("10.9.0.1:5", "10.2.0.11:5") },
    ];
    let runner = Runner::new(&lines);
    for (mapping, host, may) in ROWS {
        let (host, line) = (host.parse().unwrap(), &lines[mapping]);
        for (ingress, frame) in
            [(H0, Frame::between(host, line.vip)), (D0, Frame::between(line.device, host))]
        {
            let what = format!("{} to {}", frame.source, frame.destination);
            if may {
                let outcome = runner.outcome(ingress, &frame.bytes());
                assert!(!outcome.reasons.contains(&Reason::Refused), "{what} was refused");
            } else {
                runner.expect(&what, ingress, &frame.bytes(), Then::Stopped(Reason::Refused));
            }
        }
    }
}

#[test]
fn fragments() {
    let runner = Runner::new(&both_lines());
    let stopped = |what: &str, ingress, frame: &Frame, reason| {
        runner.expect(what, ingress, &frame.bytes(), Then::Stopped(reason));
    };
    for fragment in [MF, MF | 0x4000] {
        for (ingress, (frame, _)) in [(H0, V4.to_device()), (D0, V4.to_host())] {
            let mut first = Frame { fragment, ..frame };
            stopped("a first one", ingress, &first, Reason::Fragment);
            first.destination.set_port(9);
            first.source.set_port(9);
            let reason = if ingress == H0 { Reason::Fragment } else { Reason::NoMapping };
            stopped("a first one for nobody", ingress, &first, reason);
        }
    }
    for body in [Body::Tcp, Body::Udp, Body::Plain(UDP)] {
        for fragment in [1, 0x1fff, MF | 100] {
            let later = |frame| Frame { fragment, body, ..frame };
            stopped("a later one to a VIP", H0, &later(V4.to_device().0), Reason::Fragment);
            stopped("a later one to a host", D0, &later(V4.to_host().0), Reason::NotTcp);
        }
        let later = |frame| Frame { extensions: vec![(44, vec![0, 0, 0, 8, 0, 0, 0, 7])], body, ..frame };
        stopped("a later one to a VIP", H0, &later(V6.to_device().0), Reason::Fragment);
        stopped("a later one to a host", D0, &later(V6.to_host().0), Reason::NotTcp);
    }
    let extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0]), (44, vec![0, 0, 0, 1, 0, 0, 0, 7])];
    for (ingress, (frame, _)) in [(H0, V6.to_device()), (D0, V6.to_host())] {
        let first = Frame { extensions: extensions.clone(), ..frame };
        stopped("a first one", ingress, &first, Reason::Fragment);
    }
    let mut first = Frame { fragment: MF, body: Body::Udp, ..V4.to_device().0 };
    stopped("a first one of UDP", H0, &first, Reason::NotServed);
    first.destination = V4.device.parse().unwrap();
    stopped("a first one of UDP, to a device", H0, &first, Reason::NotTcp);
}

#[test]
fn strays() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        let mut past = Frame::new(ends.host, ends.device);
        for (what, flags, reason) in [
            ("a connection past the VIP", SYN, Reason::PastVip),
            ("a segment past the VIP", ACK, Reason::NoMapping),
            ("an answer past the VIP", SYN | ACK, Reason::NoMapping),
        ] {
            past.flags = flags;
            runner.expect(what, H0, &past.bytes(), Then::Stopped(reason));
        }
        let own = if ends.is_v4() { "10.2.0.1:7" } else { "[fd02::1]:7" };
        let to_gateway = Frame::new(ends.device, own);
        runner.expect("to the gateway", D0, &to_gateway.bytes(), Then::Stopped(Reason::OwnTraffic));
        let from_gateway = Frame::new(own, ends.device);
        runner.expect("by the gateway", H0, &from_gateway.bytes(), Then::Stopped(Reason::NoMapping));
        let mut other = Frame::new(ends.device, ends.host);
        other.source.set_port(5006);
        runner.expect("another port", D0, &other.bytes(), Then::Stopped(Reason::NoMapping));
        let mut udp = Frame { body: Body::Udp, ..ends.to_host().0 };
        runner.expect("UDP", D0, &udp.bytes(), Then::Stopped(Reason::NotTcp));
        udp = Frame { body: Body::Udp, ..ends.to_device().0 };
        runner.expect("UDP to a VIP", H0, &udp.bytes(), Then::Stopped(Reason::NotServed));
        let plain = Frame { body: Body::Plain(50), ..ends.to_device().0 };
        runner.expect("ESP to a VIP", H0, &plain.bytes(), Then::Stopped(Reason::NotServed));
    }
    let mut lldp = vec![0; 60];
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    runner.expect("LLDP", H0, &lldp, Then::Stopped(Reason::NotIp));
    lldp[12..14].copy_from_slice(&[0x00, 0x2e]);
    runner.expect("a length in place of a type", H0, &lldp, Then::Stopped(Reason::NotIp));
}

/// Extension headers that are not looked through hide what is behind them.
#[test]
fn hidden_segments() {
    let runner = Runner::new(&both_lines());
    let plain = vec![0, 0, 1, 4, 0, 0, 0, 0];
    for (what, extensions) in [
        ("segments left on its route", vec![(43, vec![0, 0, 4, 1, 0, 0, 0, 0])]),
        ("five extension headers", vec![(60, plain.clone()); 5]),
        ("an authentication header", vec![(51, vec![0; 12])]),
        ("mobility", vec![(135, plain)]),
    ] {
        let hidden = |frame: Frame| Frame { extensions: extensions.clone(), ..frame }.bytes();
        runner.expect(what, H0, &hidden(V6.to_device().0), Then::Stopped(Reason::NotServed));
        runner.expect(what, D0, &hidden(V6.to_host().0), Then::Stopped(Reason::NotTcp));
    }
}

/// An IPv6 address that holds an IPv4 one is in no table of IPv6.
#[test]
fn mapped_addresses_are_strangers() {
    let runner = Runner::new(&both_lines());
    let to_device = Frame::new("[::ffff:10.1.0.2]:40000", "[::ffff:10.9.0.1]:4001");
    runner.expect("to a VIP", H0, &to_device.bytes(), Then::Stopped(Reason::NoMapping));
    let to_host = Frame::new("[::ffff:10.2.0.11]:5005", "[::ffff:10.1.0.2]:40000");
    runner.expect("from a device", D0, &to_host.bytes(), Then::Stopped(Reason::NoMapping));
}
