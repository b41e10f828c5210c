//! What the forwarding table says no to, or answers in a way of its own.

use std::process::Command;

use lungate_gateway_common::verdict::Reason;

use crate::frame::Frame;
use crate::runner::{HOST, PASS, REDIRECT, Runner, line};

/// Runs a command in the namespace of the test's thread.
fn shell(command: &str) {
    let done = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
}

fn runner() -> Runner {
    Runner::new(&[
        line("10.9.0.1:4001", "10.2.0.11:5005"),
        line("10.9.0.1:4002", "10.3.0.1:5005"),
        line("[fd09::1]:4001", "[fd02::11]:5005"),
    ])
}

#[test]
fn a_machine_that_does_not_forward_gets_the_packet_as_it_came() {
    let runner = runner();
    shell("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    for (host, vip, device) in [
        ("10.1.0.2:40000", "10.9.0.1:4001", "10.2.0.11:5005"),
        ("[fd01::2]:40000", "[fd09::1]:4001", "[fd02::11]:5005"),
    ] {
        runner.expect_stopped(vip, &Frame::new(host, vip).bytes(), Reason::NotForwarding);
        runner.expect_stopped(device, &Frame::new(device, host).bytes(), Reason::NotForwarding);
    }
    assert_eq!((runner.traffic(0), runner.traffic(2)), ((0, 0), (0, 0)), "nothing was carried");
}

#[test]
fn dead_ends_are_dropped_as_they_came() {
    let runner = runner();
    for kind in ["blackhole", "unreachable", "prohibit"] {
        shell(&format!("ip route replace {kind} 10.3.0.0/24"));
        let frame = Frame::new("10.1.0.2:1", "10.9.0.1:4002").bytes();
        runner.expect_stopped(kind, &frame, Reason::NoRoute);
    }
    assert_eq!(runner.traffic(1), (0, 0), "nothing was carried");
}

#[test]
fn a_link_that_is_too_narrow_takes_what_fits() {
    let runner = runner();
    shell("ip link set d0 mtu 1400");
    // Headers of 40 bytes.
    for (payload, fits) in [(1360, true), (1361, false)] {
        let mut frame = Frame::new("10.1.0.2:1", "10.9.0.1:4001");
        frame.payload = vec![7; payload];
        let frame = frame.bytes();
        if fits {
            assert_eq!(runner.run(&frame).0, REDIRECT, "{payload} bytes");
        } else {
            runner.expect_stopped("one byte more", &frame, Reason::TooBig);
        }
    }
    assert_eq!(runner.traffic(0), (1, 0));
}

#[test]
fn a_route_through_a_gateway_leads_to_its_link_address() {
    let runner = runner();
    shell("ip route add 10.3.0.0/24 via 10.1.0.2");
    let (action, out) = runner.run(&Frame::new("10.1.0.9:1", "10.9.0.1:4002").bytes());
    assert_eq!(action, REDIRECT);
    assert_eq!(out[..6], HOST, "the next router's, not the device's");
    let mut expected = Frame::new("10.1.0.9:1", "10.3.0.1:5005");
    expected.hops -= 1;
    assert_eq!(out[14..], expected.bytes()[14..]);
}

/// Without a link address an IPv6 packet is translated as well, but for the hop.
#[test]
fn an_unknown_ipv6_neighbour_is_the_kernels_to_ask_for() {
    let runner = Runner::new(&[line("[fd09::1]:4001", "[fd02::77]:5005")]);
    let frame = Frame::new("[fd01::2]:40000", "[fd09::1]:4001").bytes();
    let expected = Frame::new("[fd01::2]:40000", "[fd02::77]:5005").bytes();
    assert_eq!(runner.run(&frame), (PASS, expected));
    assert_eq!(runner.reason(Reason::NoNeighbour), 1);
    assert_eq!(runner.traffic(0), (1, 0), "it is carried all the same");
}
