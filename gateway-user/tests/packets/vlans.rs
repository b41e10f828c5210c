//! VLAN tags that are looked through, changed, added and taken away.

use lungate_gateway_common::verdict::Reason;

use crate::ends::{DEVICE, HOST, leaving};
use crate::frame::{Arp, CUSTOMER, Frame, SERVICE};
use crate::network::{D0, G0, G3, H0, Q9, V5, V7, Wire};
use crate::runner::{Line, Runner, Then};

type Tags = &'static [(u16, u16)];

/// The interface and the tags that a frame comes with, the interface that it goes to and the tags that it has there.
type Row = (&'static str, u32, Tags, u32, Tags);

/// Priority and "may be dropped" in a tag.
const HIGH: u16 = 0xe000;
const DROPPABLE: u16 = 0x1000;

const ROWS: &[Row] = &[
    ("none", H0, &[], D0, &[]),
    ("added", H0, &[], V7, &[(CUSTOMER, 7)]),
    ("two added", H0, &[], Q9, &[(SERVICE, 9), (CUSTOMER, 10)]),
    ("taken away", H0, &[(CUSTOMER, 5)], D0, &[]),
    ("taken away with its priority", H0, &[(CUSTOMER, HIGH | 5)], D0, &[]),
    ("changed", H0, &[(CUSTOMER, 5)], V7, &[(CUSTOMER, 7)]),
    (
        "changed, priority stays",
        H0,
        &[(CUSTOMER, HIGH | DROPPABLE | 5)],
        V7,
        &[(CUSTOMER, HIGH | DROPPABLE | 7)],
    ),
    ("one to two", H0, &[(CUSTOMER, HIGH | 5)], Q9, &[(SERVICE, HIGH | 9), (CUSTOMER, 10)]),
    ("added, on the same interface", H0, &[], V5, &[(CUSTOMER, 5)]),
    ("kept, on the same interface", H0, &[(CUSTOMER, 0x6005)], V5, &[(CUSTOMER, 0x6005)]),
    ("two kept", D0, &[(SERVICE, HIGH | 9), (CUSTOMER, 10)], Q9, &[(SERVICE, HIGH | 9), (CUSTOMER, 10)]),
    (
        "two to one, with the outer one's priority",
        D0,
        &[(SERVICE, 0x4009), (CUSTOMER, 0xa00a)],
        V7,
        &[(CUSTOMER, 0x4007)],
    ),
    ("two taken away", D0, &[(SERVICE, 0x4009), (CUSTOMER, 0xa00a)], D0, &[]),
    ("priority alone stays", H0, &[(CUSTOMER, HIGH)], D0, &[(CUSTOMER, HIGH)]),
    ("a provider's priority alone stays", H0, &[(SERVICE, 0x2000)], D0, &[(SERVICE, 0x2000)]),
    ("priority alone becomes a VLAN's", H0, &[(CUSTOMER, HIGH)], V7, &[(CUSTOMER, HIGH | 7)]),
    ("priority alone becomes two tags'", H0, &[(CUSTOMER, HIGH)], Q9, &[(SERVICE, HIGH | 9), (CUSTOMER, 10)]),
    ("above the driver", G0, &[(CUSTOMER, 3)], D0, &[]),
    ("above the driver, added", G0, &[], G3, &[(CUSTOMER, 3)]),
];

/// Lines to a device behind each of the interfaces, in both families: at the port of the interface's index.
fn lines() -> Vec<Line> {
    let wires = [D0, V7, Q9, V5, G3].map(Wire::of);
    let lines = wires.into_iter().flat_map(|wire| {
        let vips: [std::net::IpAddr; 2] = ["10.9.0.1", "fd09::1"].map(|vip| vip.parse().unwrap());
        vips.into_iter().zip(wire.addresses(DEVICE)).map(|(vip, device)| Line {
            vip: (vip, u16::try_from(wire.index).unwrap()).into(),
            device: (device, 5005).into(),
            is_frozen: false,
            is_retired: false,
            allow: &[],
            mss: 0,
        })
    });
    lines.collect()
}

#[test]
fn tags_become_those_of_the_next_interface() {
    let lines = lines();
    let runner = Runner::new(&lines);
    for (what, ingress, before, egress, after) in ROWS {
        let wire = Wire::of(*egress);
        for line in lines.iter().filter(|line| u32::from(line.vip.port()) == *egress) {
            let host = if line.vip.is_ipv4() { "10.1.0.2:7" } else { "[fd01::2]:7" }.parse().unwrap();
            let mut frame = Frame::between(host, line.vip);
            frame.tags = before.to_vec();
            let mut sent = leaving(&Frame::between(host, line.device), *egress, DEVICE);
            sent.tags = after.to_vec();
            let then = if wire.device == *ingress { Then::SentBack } else { Then::Redirected };
            runner.expect(what, *ingress, &frame.bytes(), then(sent.bytes()));
        }
    }
}

#[test]
fn replies_are_tagged_as_well() {
    let lines = lines();
    let runner = Runner::new(&lines);
    for (ingress, tags, from) in [
        (D0, &[][..], D0),
        (D0, &[(CUSTOMER, HIGH | 7)][..], V7),
        (D0, &[(SERVICE, HIGH | 9), (CUSTOMER, 0x200a)][..], Q9),
        (H0, &[(CUSTOMER, HIGH | 5)][..], V5),
    ] {
        for to in [H0, V5] {
            let hosts = Wire::of(to).addresses(HOST);
            for line in lines.iter().filter(|line| u32::from(line.vip.port()) == from) {
                let host = (hosts[usize::from(line.vip.is_ipv6())], 7).into();
                let mut frame = Frame::between(line.device, host);
                frame.tags = tags.to_vec();
                let mut sent = leaving(&Frame::between(line.vip, host), to, HOST);
                if let (Some((_, outer)), false) = (sent.tags.first_mut(), tags.is_empty()) {
                    *outer |= HIGH;
                }
                let then = if ingress == H0 { Then::SentBack } else { Then::Redirected };
                runner.expect(&format!("from {from} to {to}"), ingress, &frame.bytes(), then(sent.bytes()));
            }
        }
    }
}

#[test]
fn unknown_vlans_pass() {
    let runner = Runner::new(&lines());
    let rows: &[(&str, u32, Tags, Reason)] = &[
        ("an unknown VLAN", H0, &[(CUSTOMER, 99)], Reason::UnknownVlan),
        ("a VLAN of another interface", D0, &[(CUSTOMER, 5)], Reason::UnknownVlan),
        ("a VLAN by the other EtherType", H0, &[(SERVICE, 5)], Reason::UnknownVlan),
        ("the outer tag of two alone", D0, &[(SERVICE, 9)], Reason::UnknownVlan),
        ("an unknown inner tag", D0, &[(SERVICE, 9), (CUSTOMER, 11)], Reason::UnknownVlan),
        ("tags in the other order", D0, &[(CUSTOMER, 10), (SERVICE, 9)], Reason::UnknownVlan),
        ("a known VLAN in a priority tag", H0, &[(CUSTOMER, HIGH), (CUSTOMER, 5)], Reason::UnknownVlan),
        ("three tags", D0, &[(SERVICE, 9), (CUSTOMER, 10), (CUSTOMER, 1)], Reason::NotIp),
        ("a VLAN whose interface does not forward", H0, &[(CUSTOMER, 4)], Reason::NotForwarding),
    ];
    for (what, ingress, tags, reason) in rows {
        for (host, vip) in [("10.1.0.2:7", "10.9.0.1:11"), ("[fd01::2]:7", "[fd09::1]:11")] {
            let mut frame = Frame::new(host, vip);
            frame.tags = tags.to_vec();
            runner.expect(what, *ingress, &frame.bytes(), Then::Stopped(*reason));
        }
    }
    let mut arp = Arp::request([2, 0, 0, 0, 1, 2], [10, 1, 0, 2], [10, 9, 0, 1]);
    arp.tags = vec![(CUSTOMER, 99)];
    runner.expect("ARP in an unknown VLAN", H0, &arp.bytes(), Then::Stopped(Reason::UnknownVlan));
}
