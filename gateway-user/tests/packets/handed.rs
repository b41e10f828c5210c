//! What the kernel has to go on with, and what it gets then.

use lungate_gateway_common::verdict::Reason;

use crate::ends::{BOTH, DEVICE, Ends, HOST, V4, V6, both_lines, leaving};
use crate::frame::{DF, Frame};
use crate::network::{D0, F0, H0, N0, shell};
use crate::runner::{Runner, Then};

/// Mappings to a device at these addresses.
fn to(devices: [&'static str; 2]) -> ([Ends; 2], Runner) {
    let [v4, v6] = devices;
    let ends = [Ends { device: v4, ..V4 }, Ends { device: v6, ..V6 }];
    (ends, Runner::new(&ends.map(|ends| ends.line())))
}

/// Mappings whose hosts are at these addresses.
fn from(hosts: [&'static str; 2]) -> ([Ends; 2], Runner) {
    let [v4, v6] = hosts;
    let ends = [Ends { host: v4, ..V4 }, Ends { host: v6, ..V6 }];
    (ends, Runner::new(&ends.map(|ends| ends.line())))
}

/// Without a link address the packet is translated whole, but for the hop, which the kernel counts itself. It is
/// carried all the same.
#[test]
fn an_unknown_neighbour_is_the_kernels_to_ask_for() {
    let (ends, runner) = to(["10.2.0.77:5005", "[fd02::77]:5005"]);
    for ends in ends {
        let (before, after) = ends.to_device();
        let handed = Then::Handed(Reason::NoNeighbour, after.bytes());
        runner.expect("to device", H0, &before.bytes(), handed);
    }
    let (ends, runner) = from(["10.1.0.77:7", "[fd01::77]:7"]);
    for ends in ends {
        let (before, after) = ends.to_host();
        let handed = Then::Handed(Reason::NoNeighbour, after.bytes());
        runner.expect("to host", D0, &before.bytes(), handed);
    }
}

/// An interface that is not known, that has no program, or no Ethernet.
#[test]
fn some_interfaces_are_the_kernels_alone() {
    for devices in [
        ["10.2.21.11:5005", "[fd02:0:0:21::11]:5005"],
        ["10.2.22.11:5005", "[fd02:0:0:22::11]:5005"],
        ["10.2.23.11:5005", "[fd02:0:0:23::11]:5005"],
        ["10.1.6.11:5005", "[fd01:0:0:6::11]:5005"],
    ] {
        let (ends, runner) = to(devices);
        for ends in ends {
            let (before, after) = ends.to_device();
            let handed = Then::Handed(Reason::KernelRoute, after.bytes());
            runner.expect(ends.device, H0, &before.bytes(), handed);
        }
    }
    let (ends, runner) = from(["10.2.22.2:7", "[fd02:0:0:22::2]:7"]);
    for ends in ends {
        let (before, after) = ends.to_host();
        runner.expect("to host", D0, &before.bytes(), Then::Handed(Reason::KernelRoute, after.bytes()));
    }
}

/// The kernel tells the sender. It gets the packet to a device translated, so that it finds the same dead end; that to a
/// host as it came, or it would answer to a VIP.
#[test]
fn the_last_hop() {
    let runner = Runner::new(&both_lines());
    for ends in BOTH {
        for hops in [0, 1] {
            let vary = |(before, after): (Frame, Frame)| (Frame { hops, ..before }, Frame { hops, ..after });
            let (before, after) = vary(ends.to_device());
            runner.expect("to device", H0, &before.bytes(), Then::Handed(Reason::HopLimit, after.bytes()));
            let (before, _) = vary(ends.to_host());
            runner.expect("to host", D0, &before.bytes(), Then::Stopped(Reason::HopLimit));
        }
    }
    assert_eq!(runner.traffic(), [[0; 4]; 2], "nothing was carried");
}

#[test]
fn dead_ends() {
    for devices in [
        ["10.2.30.11:1", "[fd02:0:0:30::11]:1"],
        ["10.2.31.11:1", "[fd02:0:0:31::11]:1"],
        ["10.2.32.11:1", "[fd02:0:0:31::11]:1"],
        ["10.8.0.1:1", "[fd08::1]:1"],
    ] {
        let (ends, runner) = to(devices);
        for ends in ends {
            let (before, after) = ends.to_device();
            runner.expect(ends.device, H0, &before.bytes(), Then::Handed(Reason::NoRoute, after.bytes()));
        }
    }
    let (ends, runner) = from(["10.2.30.5:7", "[fd02:0:0:30::5]:7"]);
    for ends in ends {
        let (before, _) = ends.to_host();
        runner.expect("to host", D0, &before.bytes(), Then::Stopped(Reason::NoRoute));
    }
}

/// Just what the route takes, and a byte more.
#[test]
fn too_big() {
    let (ends, runner) = to(["10.2.50.9:1", "[fd02:0:0:50::9]:1"]);
    let sized = |frame: &mut Frame, length: usize, fragment| {
        let headers = if frame.source.is_ipv4() { 40 } else { 60 };
        frame.payload = vec![7; length - headers];
        frame.fragment = fragment;
    };
    for (ends, mtu) in ends.into_iter().zip([600, 1280]) {
        for fragment in [0, DF] {
            let (mut before, mut after) = ends.to_device();
            for frame in [&mut before, &mut after] {
                sized(frame, mtu, fragment);
            }
            let sent = leaving(&after, D0, DEVICE).bytes();
            runner.expect("fits", H0, &before.bytes(), Then::Redirected(sent));
            for frame in [&mut before, &mut after] {
                sized(frame, mtu + 1, fragment);
            }
            let handed = Then::Handed(Reason::TooBig, after.bytes());
            runner.expect("one byte more", H0, &before.bytes(), handed);
        }
    }
    let (ends, runner) = from(["10.1.51.9:7", "[fd01:0:0:51::9]:7"]);
    for (ends, mtu) in ends.into_iter().zip([600, 1280]) {
        for fragment in [0, DF] {
            let (mut before, mut after) = ends.to_host();
            for frame in [&mut before, &mut after] {
                sized(frame, mtu, fragment);
            }
            let sent = leaving(&after, H0, HOST).bytes();
            runner.expect("fits", D0, &before.bytes(), Then::Redirected(sent));
            for frame in [&mut before, &mut after] {
                sized(frame, mtu + 1, fragment);
            }
            let then = if ends.is_v4() && fragment == 0 {
                Then::Handed(Reason::TooBig, after.bytes())
            } else {
                Then::Stopped(Reason::TooBig)
            };
            runner.expect("one byte more", D0, &before.bytes(), then);
        }
    }
}

/// The kernel gets the packet as it came: it is a machine for which the gateway has nothing to do.
#[test]
fn a_machine_that_does_not_forward() {
    let mut runner = Runner::new(&both_lines());
    for ends in BOTH {
        let (before, _) = ends.to_device();
        runner.expect("by one interface", F0, &before.bytes(), Then::Stopped(Reason::NotForwarding));
        let (before, _) = ends.to_host();
        runner.expect("by one interface", F0, &before.bytes(), Then::Stopped(Reason::NotForwarding));
    }
    shell("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    runner.control(lungate_gateway_common::table::control::GENERATION, 1);
    for ends in BOTH {
        for (ingress, (before, _)) in [(H0, ends.to_device()), (D0, ends.to_host())] {
            let before = before.bytes();
            let outcome = runner.outcome(ingress, &before);
            assert_eq!((outcome.frame, outcome.reasons), (before, vec![Reason::NotForwarding]));
        }
    }
    assert_eq!(runner.traffic(), [[0; 4]; 2], "nothing was carried");
}

#[test]
fn a_router_on_the_way_has_the_link_address() {
    let (ends, runner) = to(["10.2.40.9:1", "[fd02:0:0:40::9]:1"]);
    for ends in ends {
        let (before, after) = ends.to_device();
        for ingress in [H0, N0] {
            let sent = leaving(&after, D0, DEVICE).bytes();
            runner.expect("by a router", ingress, &before.bytes(), Then::Redirected(sent));
        }
    }
}
