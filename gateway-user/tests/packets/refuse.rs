//! What is dropped, each for its reason, and never changed on the way.

use lungate_gateway_common::verdict::Reason;

use crate::frame::{ACK, Frame, SYN};
use crate::runner::{DROP, Line, Runner, line};

const RESTRICTED: Line = Line {
    vip: "10.9.0.1:4002",
    device: "10.2.0.12:5005",
    is_frozen: false,
    allow: &["10.1.0.8/30", "10.7.0.0/16"],
};

#[test]
fn frozen_mappings_hold_off_hosts_and_let_replies_pass() {
    let frozen = Line { is_frozen: true, ..line("10.9.0.1:4001", "10.2.0.11:5005") };
    let runner = Runner::new(&[frozen]);
    let from_host = Frame::new("10.1.0.2:1", "10.9.0.1:4001").bytes();
    runner.expect_stopped("from a host", &from_host, Reason::Frozen);
    let (action, _) = runner.run(&Frame::new("10.2.0.11:5005", "10.1.0.2:1").bytes());
    assert_ne!(action, DROP, "a reply passes");
}

#[test]
fn only_hosts_on_the_list_may_use_a_mapping() {
    let runner = Runner::new(&[RESTRICTED]);
    for (host, may) in [
        ("10.1.0.8:1", true),
        ("10.1.0.11:1", true),
        ("10.1.0.12:1", false),
        ("10.1.0.7:1", false),
        ("10.7.200.1:1", true),
        ("10.8.0.1:1", false),
    ] {
        for frame in [Frame::new(host, "10.9.0.1:4002"), Frame::new("10.2.0.12:5005", host)] {
            if may {
                runner.run(&frame.bytes());
            } else {
                runner.expect_stopped(host, &frame.bytes(), Reason::Refused);
            }
        }
    }
    assert_eq!(runner.reason(Reason::Refused), 6, "those on the list are not refused");
}

#[test]
fn fragments_strays_and_dead_ends_are_dropped() {
    let lines = [
        line("10.9.0.1:4001", "10.2.0.11:5005"),
        line("[fd09::1]:1", "[fd02::11]:1"),
        line("10.9.0.1:9", "10.2.9.9:9"),
    ];
    let runner = Runner::new(&lines);
    let mut first = Frame::new("10.1.0.2:1", "10.9.0.1:4001");
    first.fragment = 0x2000;
    runner.expect_stopped("a first fragment", &first.bytes(), Reason::Fragment);
    let mut v6 = Frame::new("[fd01::2]:1", "[fd09::1]:1");
    v6.extensions = vec![(44, vec![0, 0, 0, 1, 0, 0, 0, 7])];
    runner.expect_stopped("a first IPv6 fragment", &v6.bytes(), Reason::Fragment);
    let mut syn = Frame::new("10.1.0.2:1", "10.2.0.11:5005");
    syn.flags = SYN;
    runner.expect_stopped("a connection past the VIP", &syn.bytes(), Reason::PastVip);
    syn.flags = ACK;
    runner.expect_stopped("a segment past the VIP", &syn.bytes(), Reason::NoMapping);
    let nowhere = Frame::new("10.1.0.2:1", "10.9.0.1:9").bytes();
    runner.expect_stopped("a device without a route", &nowhere, Reason::NoRoute);
}
