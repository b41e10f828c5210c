//! Any packet through the gateway's parser and rewriter: a translation there and back leaves it as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lungate_gateway_common::packet::parse;
use lungate_gateway_common::rewrite::{count_hop, translate};
use lungate_gateway_common::table::{Address, Portal};
use lungate_gateway_common::verdict::Direction;

fuzz_target!(|input: ([u8; 16], u16, bool, &[u8])| {
    let (address, port, to_host, packet) = input;
    let Ok(flow) = parse(packet) else { return };
    let (Some(source), Some(destination)) = (flow.source(packet), flow.destination(packet)) else {
        panic!("the headers were read, but not the ends");
    };
    let address = if flow.is_v6 {
        Address::v6(address)
    } else {
        Address::v4([address[0], address[1], address[2], address[3]])
    };
    let peer = Portal::new(address, port);
    let (direction, old) =
        if to_host { (Direction::ToHost, source) } else { (Direction::ToDevice, destination) };
    let mut there = packet.to_vec();
    translate(&mut there[..], &flow, direction, &peer).expect("what was parsed can be rewritten");
    let after = parse(&there[..]).expect("a rewritten packet is still one");
    let now = (after.source(&there[..]), after.destination(&there[..]));
    assert_eq!(now, if to_host { (Some(peer), Some(destination)) } else { (Some(source), Some(peer)) });
    translate(&mut there[..], &after, direction, &old).expect("and back");
    // One's complement has two zeros, so a checksum may come back as the other one; all else is as it was.
    let differing = there.iter().zip(packet).filter(|(a, b)| a != b).count();
    assert!(differing <= 4, "{differing} bytes differ after the way there and back");
    if flow.hops > 1 {
        count_hop(&mut there[..], &flow).expect("there was a hop left");
    }
});
