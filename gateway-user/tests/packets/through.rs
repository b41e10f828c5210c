//! Frames on their whole way: in by the far end of one veth, out by that of another, and the kernel's own answers where a
//! packet cannot go on.

use aya::programs::TcAttachType;

use crate::ends::{BOTH, DEVICE, Ends, HOST, V4, V6, leaving};
use crate::foreign::Foreign;
use crate::frame::{CUSTOMER, Frame, faults};
use crate::live::{Tap, Tun, attach_tcx, attach_xdp};
use crate::network::{D0, H0, V5, V7, Wire, shell};
use crate::runner::{Runner, hex, ip};

/// A network whose programs are at all their hooks on the interfaces of hosts and devices.
struct Network {
    runner: Runner,
    _far: [Foreign; 2],
    hosts: Tap,
    devices: Tap,
}

impl Network {
    fn new(ends: &[Ends]) -> Self {
        let lines: Vec<_> = ends.iter().map(Ends::line).collect();
        let mut runner = Runner::new(&lines);
        let far = ["h0", "d0"].map(|name| attach_xdp(&mut runner, name));
        for name in ["h0", "d0"] {
            attach_tcx(&mut runner, "lungate_egress", name, TcAttachType::Egress);
        }
        // Who asks for a neighbour does so from an address of the link.
        shell("ip addr add fe80::1/64 dev d0 nodad");
        Self { runner, _far: far, hosts: Tap::new("h0p"), devices: Tap::new("d0p") }
    }
}

/// The frame with the gateway's interface as its destination.
fn to_gateway(mut frame: Frame, index: u32, last: u8) -> Frame {
    let wire = Wire::of(index);
    frame.link = (wire.link(1), wire.link(last));
    frame
}

fn expect(tap: &Tap, what: &str, expected: &[u8]) {
    let mut seen = String::new();
    let came = tap.receive(|frame| frame == expected).is_some();
    if !came {
        seen = format!("; nothing like {}", hex(expected));
    }
    assert!(came, "{what}: did not come{seen}");
}

#[test]
fn frames_come_out_where_they_should() {
    let Network { hosts, devices, .. } = &Network::new(&BOTH);
    for ends in BOTH {
        let (before, after) = ends.to_device();
        hosts.send(&to_gateway(before, H0, HOST).bytes());
        expect(devices, "to device", &leaving(&after, D0, DEVICE).bytes());
        let (before, after) = ends.to_host();
        devices.send(&to_gateway(before, D0, DEVICE).bytes());
        expect(hosts, "to host", &leaving(&after, H0, HOST).bytes());
        let address = |portal| ip(portal).to_string();
        let ping = to_gateway(Frame::echo(&address(ends.host), &address(ends.vip)), H0, HOST);
        hosts.send(&ping.bytes());
        let is_pong = |frame: &[u8]| frame[..6] == Wire::of(H0).link(HOST) && faults(frame).is_empty();
        assert!(hosts.receive(is_pong).is_some(), "no answer to a ping");
    }
}

/// A VLAN's frames leave by the interface below it.
#[test]
fn tagged_frames_leave_by_the_interface_below() {
    let ends = [Ends { device: "10.2.7.11:5005", ..V4 }, Ends { device: "[fd02:0:0:7::11]:5005", ..V6 }];
    let Network { hosts, devices, .. } = &Network::new(&ends);
    for ends in ends {
        let (mut before, after) = ends.to_device();
        before.tags = vec![(CUSTOMER, 5)];
        let before = Frame { link: (Wire::of(V5).link(1), Wire::of(V5).link(HOST)), ..before };
        hosts.send(&before.bytes());
        // The kernel keeps the tag beside the frame where it shows it.
        let came = Frame { tags: vec![], ..leaving(&after, V7, DEVICE) };
        expect(devices, "to device", &came.bytes());
    }
}

/// What the kernel says of a packet: that it has gone too far, or is too big, or has nowhere to go.
struct Complaint {
    ends: Ends,
    hops: u8,
    payload: usize,
    kind: (u8, u8),
}

fn complaints() -> Vec<Complaint> {
    let complaint = |ends, hops, payload, kind| Complaint { ends, hops, payload, kind };
    vec![
        complaint(V4, 1, 100, (11, 0)),
        complaint(V6, 1, 100, (3, 0)),
        complaint(Ends { vip: "10.9.0.1:5", device: "10.2.50.9:1", ..V4 }, 64, 700, (3, 4)),
        complaint(Ends { vip: "[fd09::1]:5", device: "[fd02:0:0:50::9]:1", ..V6 }, 64, 1300, (2, 0)),
        complaint(Ends { vip: "10.9.0.1:6", device: "10.2.31.11:1", ..V4 }, 64, 100, (3, 1)),
        complaint(Ends { vip: "[fd09::1]:6", device: "[fd02:0:0:31::11]:1", ..V6 }, 64, 100, (1, 0)),
    ]
}

/// Waits for an error from the gateway about what the host has sent to the VIP, as the host has sent it.
fn expect_complaint(hosts: &Tap, complaint: &Complaint, sent: &Frame) {
    let Complaint { ends, kind, .. } = complaint;
    let (l3, l4) = if ends.is_v4() { (14, 34) } else { (14, 54) };
    let is_one = |frame: &[u8]| {
        frame.len() > l4 + 48
            && frame[..6] == Wire::of(H0).link(HOST)
            && frame[l3 + if ends.is_v4() { 9 } else { 6 }] == if ends.is_v4() { 1 } else { 58 }
            && (frame[l4], frame[l4 + 1]) == *kind
    };
    let error = hosts.receive(is_one).unwrap_or_else(|| panic!("no {kind:?} about {ends:?}"));
    assert_eq!(faults(&error), Vec::<&str>::new(), "{kind:?}: {}", hex(&error));
    let quote = &error[l4 + 8..];
    let sent = &sent.packet()[..quote.len().min(sent.packet().len())];
    let headers = if ends.is_v4() { 40 } else { 60 };
    // Its hops and what goes with them are as they were when it got stuck.
    let (quote, sent) = (&quote[headers - 28..headers], &sent[headers - 28..headers]);
    assert_eq!(hex(quote), hex(sent), "{kind:?}: the quoted ends and ports of {}", hex(&error));
}

#[test]
fn the_kernel_complains_to_the_sender() {
    let complaints = complaints();
    let ends: Vec<_> = complaints.iter().map(|complaint| complaint.ends).collect();
    let Network { hosts, .. } = &Network::new(&ends);
    for complaint in &complaints {
        let (mut before, _) = complaint.ends.to_device();
        (before.hops, before.payload) = (complaint.hops, vec![1; complaint.payload]);
        hosts.send(&to_gateway(before.clone(), H0, HOST).bytes());
        expect_complaint(hosts, complaint, &before);
    }
}

/// Also about what has come by a tunnel.
#[test]
fn the_kernel_complains_about_packets_of_tunnels() {
    let complaints = complaints();
    let ends: Vec<_> = complaints.iter().map(|complaint| complaint.ends).collect();
    let Network { runner, hosts, .. } = &mut Network::new(&ends);
    let mut tun = Tun::new(runner, "u0");
    for complaint in &complaints {
        let (mut before, _) = complaint.ends.to_device();
        (before.hops, before.payload) = (complaint.hops, vec![1; complaint.payload]);
        tun.send_finished(&before.packet());
        expect_complaint(hosts, complaint, &before);
    }
}

/// Where there is a neighbour to be found first, the kernel sends the packet itself.
#[test]
fn the_kernel_finds_neighbours() {
    let ends = [
        Ends { vip: "10.9.0.1:1", device: "10.2.0.77:1", ..V4 },
        Ends { vip: "[fd09::1]:1", device: "[fd02::77]:1", ..V6 },
    ];
    let Network { hosts, devices, .. } = &Network::new(&ends);
    hosts.send(&to_gateway(Frame::new("10.1.0.2:7", "10.9.0.1:1"), H0, HOST).bytes());
    let is_question = |frame: &[u8]| frame[12..14] == [0x08, 0x06] && frame[38..42] == [10, 2, 0, 77];
    assert!(devices.receive(is_question).is_some(), "nobody asks for the device");
    hosts.send(&to_gateway(Frame::new("[fd01::2]:7", "[fd09::1]:1"), H0, HOST).bytes());
    let target: std::net::Ipv6Addr = "fd02::77".parse().unwrap();
    let is_question =
        |frame: &[u8]| frame.len() >= 78 && frame[54] == 135 && frame[62..78] == target.octets();
    assert!(devices.receive(is_question).is_some(), "nobody asks for the device");
}
