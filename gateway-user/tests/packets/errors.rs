//! Error messages about packets of mappings: the outer addresses and the quoted packet become those that their receiver
//! knows.

use lungate_gateway_common::verdict::Reason;

use crate::ends::{BOTH, DEVICE, Ends, HOST, V4, V6, both_lines, leaving};
use crate::frame::{Body, Frame, faults};
use crate::network::{D0, H0, V7};
use crate::runner::{Line, Runner, Then, ip, line};

/// Types and codes of errors: in IPv4 unreachable, too big, source quench, time exceeded, parameter problem; in IPv6 unreachable,
/// too big, time exceeded, parameter problem.
const KINDS_V4: [(u8, u8); 6] = [(3, 1), (3, 4), (3, 13), (4, 0), (11, 0), (12, 0)];
const KINDS_V6: [(u8, u8); 5] = [(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)];

fn kinds(ends: &Ends) -> &'static [(u8, u8)] {
    if ends.is_v4() { &KINDS_V4 } else { &KINDS_V6 }
}

/// A message about a packet, of which it quotes so many bytes.
fn error(from: &str, to: &str, kind: (u8, u8), about: &Frame, quoted: usize) -> Frame {
    let packet = about.packet();
    Frame::error(&ip(from).to_string(), &ip(to).to_string(), kind, &packet[..quoted.min(packet.len())])
}

/// An error on its way to the host, before and after: about what the host has sent.
fn to_host(ends: &Ends, from: &str, kind: (u8, u8), quoted: usize, vary: fn(&mut Frame)) -> (Frame, Frame) {
    let (mut sent, mut seen) = ends.to_device();
    for frame in [&mut sent, &mut seen] {
        frame.hops = 63;
        vary(frame);
    }
    (error(from, ends.host, kind, &seen, quoted), error(ends.vip, ends.host, kind, &sent, quoted))
}

/// An error on its way to the device, before and after: about what the device has sent.
fn to_device(ends: &Ends, from: &str, kind: (u8, u8), quoted: usize, vary: fn(&mut Frame)) -> (Frame, Frame) {
    let (mut sent, mut seen) = ends.to_host();
    for frame in [&mut sent, &mut seen] {
        frame.hops = 63;
        vary(frame);
    }
    (error(from, ends.vip, kind, &seen, quoted), error(from, ends.device, kind, &sent, quoted))
}

fn router(ends: &Ends) -> &'static str {
    if ends.is_v4() { "10.2.99.1:0" } else { "[fd02:0:0:99::1]:0" }
}

#[test]
fn each_kind_from_the_peer_and_from_a_router() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        for kind in kinds(&ends) {
            for from in [ends.device, router(&ends)] {
                let (before, after) = to_host(&ends, from, *kind, usize::MAX, |_| {});
                let sent = leaving(&after, H0, HOST).bytes();
                assert_eq!(faults(&sent), Vec::<&str>::new());
                let then = Then::RedirectedFor(Reason::ErrorToHost, sent);
                runner.expect(&format!("{kind:?} to host"), D0, &before.bytes(), then);
            }
            for from in [ends.host, router(&ends)] {
                let (before, after) = to_device(&ends, from, *kind, usize::MAX, |_| {});
                let sent = leaving(&after, D0, DEVICE).bytes();
                let then = Then::RedirectedFor(Reason::ErrorToDevice, sent);
                runner.expect(&format!("{kind:?} to device"), H0, &before.bytes(), then);
            }
        }
    }
    assert_eq!(runner.traffic(), [[0; 4]; 2], "errors are not a mapping's traffic");
}

/// The quoted TCP checksum is corrected where it is in the quote.
#[test]
fn quotes_of_every_length() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        let header = if ends.is_v4() { 20 } else { 40 };
        // Half a checksum cannot be corrected.
        for quoted in (0..header + 36).filter(|quoted| *quoted != header + 17) {
            let ((before, after), (back, forth)) = (
                to_host(&ends, router(&ends), (3, 0), quoted, |_| {}),
                to_device(&ends, ends.host, (3, 0), quoted, |_| {}),
            );
            let what = format!("{quoted} bytes quoted");
            if quoted < header + 4 {
                runner.expect(&what, D0, &before.bytes(), Then::Stopped(Reason::NotTcp));
                runner.expect(&what, H0, &back.bytes(), Then::Stopped(Reason::NotServed));
            } else {
                let sent = leaving(&after, H0, HOST).bytes();
                runner.expect(&what, D0, &before.bytes(), Then::RedirectedFor(Reason::ErrorToHost, sent));
                let sent = leaving(&forth, D0, DEVICE).bytes();
                runner.expect(&what, H0, &back.bytes(), Then::RedirectedFor(Reason::ErrorToDevice, sent));
            }
        }
    }
}

/// What an outer packet or a quoted one may have beside.
#[test]
fn headers_with_options() {
    type Variation = (&'static str, fn(&mut Frame), fn(&mut Frame));
    const OPTIONS: &[Variation] = &[
        ("outer options", |_| {}, |frame| frame.ip_options = vec![1; 8]),
        ("quoted options", |frame| frame.ip_options = vec![1; 40], |_| {}),
        ("a quoted first fragment", |frame| frame.fragment = 0x2000, |_| {}),
        ("TCP options", |frame| frame.tcp_options = vec![1; 40], |_| {}),
        ("a class of service", |frame| frame.class = 0x10, |frame| frame.class = 0xc0),
        (
            "outer extension headers",
            |_| {},
            |frame| frame.extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0]); 2],
        ),
        (
            "quoted extension headers",
            |frame| frame.extensions = vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0]); 4],
            |_| {},
        ),
    ];
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        for (what, quoted, outer) in OPTIONS {
            for length in [64, 128, 548] {
                let (mut before, mut after) = to_host(&ends, router(&ends), (3, 1), length, *quoted);
                outer(&mut before);
                outer(&mut after);
                let sent = leaving(&after, H0, HOST).bytes();
                let has_ports = length > 64 || !what.starts_with("quoted");
                let then = if has_ports {
                    Then::RedirectedFor(Reason::ErrorToHost, sent)
                } else {
                    continue;
                };
                runner.expect(what, D0, &before.bytes(), then);
            }
        }
    }
}

/// None of these is about a mapping's packet that came this way.
#[test]
fn other_errors_pass_or_are_dropped() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        let (to_host, to_device) = (
            |vary| to_host(&ends, router(&ends), (3, 1), 128, vary).0,
            |vary| to_device(&ends, ends.host, (3, 1), 128, vary).0,
        );
        let expect = |what: &str, ingress, frame: Frame, reason| {
            runner.expect(what, ingress, &frame.bytes(), Then::Stopped(reason));
        };
        expect("about UDP", D0, to_host(|frame| frame.body = Body::Udp), Reason::NotTcp);
        expect("about UDP, to a VIP", H0, to_device(|frame| frame.body = Body::Udp), Reason::NotServed);
        expect("another port", D0, to_host(|frame| frame.destination.set_port(1)), Reason::NotTcp);
        expect("another port, to a VIP", H0, to_device(|frame| frame.source.set_port(1)), Reason::NotServed);
        let mut elsewhere = to_host(|_| {});
        elsewhere.destination.set_ip(if ends.is_v4() { [10, 1, 0, 9].into() } else { ip("[fd01::9]:0") });
        expect("to another than has sent the packet", D0, elsewhere, Reason::NotTcp);
        let mut message = to_host(|_| {});
        message.body = Body::Icmp(if ends.is_v4() { 5 } else { 137 }, 1, [0; 4]);
        expect("a redirect", D0, message, Reason::NotTcp);
        if ends.is_v4() {
            expect("about a later fragment", D0, to_host(|frame| frame.fragment = 0x0010), Reason::NotTcp);
            let mut first = to_host(|_| {});
            first.fragment = 0x2000;
            expect("a first fragment itself", D0, first, Reason::NotTcp);
        } else {
            let later = |frame: &mut Frame| frame.extensions = vec![(44, vec![0, 0, 1, 0, 0, 0, 0, 7])];
            expect("about a later fragment", D0, to_host(later), Reason::NotTcp);
            let mut first = to_host(|_| {});
            first.extensions = vec![(44, vec![0, 0, 0, 1, 0, 0, 0, 7])];
            expect("a first fragment itself", D0, first, Reason::NotTcp);
            expect(
                "more extension headers than are looked through",
                D0,
                to_host(|frame| frame.extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0]); 5]),
                Reason::NotTcp,
            );
        }
    }
    // A message of one family cannot be about a packet of the other.
    let quote = V6.to_device().1.packet();
    let mixed = Frame::error("10.2.99.1", "10.1.0.2", (3, 1), &quote);
    runner.expect("IPv6 in IPv4", D0, &mixed.bytes(), Then::Stopped(Reason::NotTcp));
}

#[test]
fn lists_and_states_of_mappings() {
    let restricted = |ends: Ends, allow| Line { allow, ..ends.line() };
    let runner = Runner::new(&[restricted(V4, &["10.1.0.8/30"]), restricted(V6, &["fd01::8/125"])]);
    for ends in BOTH {
        let (before, _) = to_host(&ends, router(&ends), (3, 1), 128, |_| {});
        runner.expect("to a host that may not", D0, &before.bytes(), Then::Stopped(Reason::Refused));
        let (before, _) = to_device(&ends, router(&ends), (3, 1), 128, |_| {});
        runner.expect("about packets to such", H0, &before.bytes(), Then::Stopped(Reason::Refused));
    }
    let frozen = Runner::new(&BOTH.map(|ends| Line { is_frozen: true, ..ends.line() }));
    let retired = Runner::new(&BOTH.map(|ends| Line { is_retired: true, ..ends.line() }));
    for ends in BOTH {
        let (before, after) = to_device(&ends, router(&ends), (3, 1), 128, |_| {});
        let then = Then::RedirectedFor(Reason::ErrorToDevice, leaving(&after, D0, DEVICE).bytes());
        frozen.expect("of a frozen mapping", H0, &before.bytes(), then);
        retired.expect("of a retired one", H0, &before.bytes(), Then::Stopped(Reason::NotTcp));
        let (before, after) = to_host(&ends, router(&ends), (3, 1), 128, |_| {});
        let sent = leaving(&after, H0, HOST).bytes();
        for runner in [&frozen, &retired] {
            let then = Then::RedirectedFor(Reason::ErrorToHost, sent.clone());
            runner.expect("to a host", D0, &before.bytes(), then);
        }
    }
}

/// What the gateway itself has sent is its own business.
#[test]
fn errors_about_own_traffic_pass() {
    let runner = Runner::new(&both_lines());
    for ends in [Ends { host: "10.2.0.1:7", ..V4 }, Ends { host: "[fd02::1]:7", ..V6 }] {
        let (before, _) = to_host(&ends, router(&ends), (3, 1), 128, |_| {});
        runner.expect("own", D0, &before.bytes(), Then::Stopped(Reason::OwnTraffic));
    }
}

/// Where the fast way ends, the kernel gets the message translated.
#[test]
fn errors_the_kernel_goes_on_with() {
    let lines = [
        line("10.9.0.1:1", "10.2.0.77:1"),
        line("10.9.0.1:2", "10.2.22.11:1"),
        line("10.9.0.1:3", "10.2.30.11:1"),
        line("10.9.0.1:4", "10.2.7.11:1"),
    ];
    let runner = Runner::new(&lines);
    let ends = |vip, device| Ends { host: "10.1.0.2:7", vip, device };
    for (vip, device, reason) in [
        ("10.9.0.1:1", "10.2.0.77:1", Reason::NoNeighbour),
        ("10.9.0.1:2", "10.2.22.11:1", Reason::KernelRoute),
        ("10.9.0.1:3", "10.2.30.11:1", Reason::NoRoute),
    ] {
        let (before, after) = to_device(&ends(vip, device), "10.1.0.2:0", (3, 1), 128, |_| {});
        let then = Then::HandedError([Reason::ErrorToDevice, reason], after.bytes());
        runner.expect(reason.name(), H0, &before.bytes(), then);
    }
    let tagged = ends("10.9.0.1:4", "10.2.7.11:1");
    let (before, after) = to_device(&tagged, "10.1.0.2:0", (3, 1), 128, |_| {});
    let then = Then::RedirectedFor(Reason::ErrorToDevice, leaving(&after, V7, DEVICE).bytes());
    runner.expect("into a VLAN", H0, &before.bytes(), then);
    let (mut before, mut after) = to_host(&tagged, "10.2.99.1:0", (3, 1), 128, |_| {});
    (before.hops, after.hops) = (1, 1);
    let then = Then::HandedError([Reason::ErrorToHost, Reason::HopLimit], after.bytes());
    runner.expect("the last hop", D0, &before.bytes(), then);
}
