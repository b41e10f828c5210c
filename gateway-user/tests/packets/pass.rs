//! What is none of the gateway's business, or the kernel's to answer: it passes as it came.

use lungate_gateway_common::verdict::Reason;

use crate::frame::Frame;
use crate::runner::{PASS, Runner, line};

#[test]
fn foreign_packets_pass_untouched() {
    let runner = Runner::new(&[line("10.9.0.1:4001", "10.2.0.11:5005"), line("[fd09::1]:1", "[fd02::11]:1")]);
    let tcp = |source: &str, destination: &str| Frame::new(source, destination).bytes();
    let mut udp = tcp("10.1.0.2:1", "10.9.0.1:4001");
    udp[14 + 9] = 17;
    let mut arp = vec![0xff; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut tagged = tcp("10.1.0.2:1", "10.9.0.1:4001");
    tagged.splice(12..12, [0x81, 0x00, 0, 5]);
    let mut later_fragment = Frame::new("10.1.0.2:1", "10.9.0.1:4001");
    later_fragment.fragment = 100;
    let mut last_hop = Frame::new("10.1.0.2:1", "10.9.0.1:4001");
    last_hop.hops = 1;
    let mut routed = Frame::new("[fd01::2]:1", "[fd09::1]:1");
    routed.extensions = vec![(43, vec![0, 0, 4, 1, 0, 0, 0, 0])];
    let rows: [(&str, Vec<u8>, Reason); 10] = [
        ("segments left on its route", routed.bytes(), Reason::NotTcp),
        ("another port of the VIP", tcp("10.1.0.2:1", "10.9.0.1:4002"), Reason::NoMapping),
        ("between strangers", tcp("10.1.0.2:1", "10.2.0.12:5005"), Reason::NoMapping),
        ("another port of the device", tcp("10.2.0.11:5006", "10.1.0.2:1"), Reason::NoMapping),
        ("a device to the gateway itself", tcp("10.2.0.11:5005", "10.2.0.1:1"), Reason::OwnTraffic),
        ("UDP", udp, Reason::NotTcp),
        ("ARP", arp, Reason::NotIp),
        ("a VLAN tag", tagged, Reason::NotIp),
        ("a fragment without ports", later_fragment.bytes(), Reason::NotTcp),
        ("the last hop", last_hop.bytes(), Reason::HopLimit),
    ];
    for (what, frame, reason) in rows {
        runner.expect_stopped(what, &frame, reason);
    }
}

/// Without a link address the packet is translated whole, but for the hop, which the kernel counts itself.
#[test]
fn an_unknown_neighbour_is_the_kernels_to_ask_for() {
    let runner = Runner::new(&[line("10.9.0.1:4001", "10.2.0.77:5005")]);
    let frame = Frame::new("10.1.0.2:40000", "10.9.0.1:4001").bytes();
    let expected = Frame::new("10.1.0.2:40000", "10.2.0.77:5005").bytes();
    let (action, out) = runner.run(&frame);
    assert_eq!((action, out), (PASS, expected));
    assert_eq!(runner.reason(Reason::NoNeighbour), 1);
}
