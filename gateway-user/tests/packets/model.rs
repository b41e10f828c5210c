//! The program in the kernel against the same translation in plain Rust: same verdict, same bytes, on packets that
//! are valid, bent and cut.

use std::cell::Cell;
use std::net::SocketAddr;

use lungate_gateway_common::packet::parse;
use lungate_gateway_common::rewrite::{count_hop, set_link, translate};
use lungate_gateway_common::table::Portal;
use lungate_gateway_common::verdict::{Direction, Reason};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::frame::{Frame, SYN};
use crate::runner::{D0, DEVICE, DROP, H0, HOST, PASS, REDIRECT, Runner, line};

const PACKETS: u32 = 20_000;
const MAPPINGS: [(&str, &str); 2] =
    [("10.9.0.1:4001", "10.2.0.11:5005"), ("[fd09::1]:4001", "[fd02::11]:5005")];
const ENDS_V4: [&str; 6] =
    ["10.1.0.2:40000", "10.9.0.1:4001", "10.2.0.11:5005", "10.9.0.1:4002", "10.2.0.1:7", "10.1.0.2:4001"];
const ENDS_V6: [&str; 4] = ["[fd01::2]:40000", "[fd09::1]:4001", "[fd02::11]:5005", "[fd02::1]:7"];
const OWN: [&str; 4] = ["10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1"];

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let ends = |ends: &'static [&'static str]| (prop::sample::select(ends), prop::sample::select(ends));
    let ends = prop_oneof![ends(&ENDS_V4), ends(&ENDS_V6)];
    let bends = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let shape = (any::<bool>(), 1_u8..4, prop::collection::vec(any::<u8>(), 0..60), 0_usize..11);
    (ends, shape, bends, any::<prop::sample::Index>(), prop::bool::weighted(0.1)).prop_map(
        |((source, destination), (is_syn, hops, payload, options), bends, cut, is_cut)| {
            let mut frame = Frame::new(source, destination);
            frame.hops = hops;
            frame.payload = payload;
            if is_syn {
                frame.flags = SYN;
            }
            if frame.source.is_ipv4() {
                frame.ip_options = vec![1; 4 * options];
            } else {
                frame.extensions = (0..options % 6).map(|_| (60, vec![0, 0, 1, 4, 0, 0, 0, 0])).collect();
            }
            let mut bytes = frame.bytes();
            for (at, value) in bends {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if is_cut {
                bytes.truncate(14 + cut.index(bytes.len() - 14));
            }
            bytes
        },
    )
}

/// What the model says of a frame.
#[derive(Debug, PartialEq)]
enum Expected {
    Sent(Vec<u8>),
    Stopped(Reason),
    /// Translated, to where the model does not know the way.
    Elsewhere,
}

fn expected(frame: &[u8]) -> Expected {
    match model(frame) {
        Ok(expected) => expected,
        Err(reason) => Expected::Stopped(reason),
    }
}

fn model(frame: &[u8]) -> Result<Expected, Reason> {
    let flow = parse(frame)?;
    let source = SocketAddr::from(flow.source(frame).ok_or(Reason::Malformed)?);
    let destination = SocketAddr::from(flow.destination(frame).ok_or(Reason::Malformed)?);
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let forward = MAPPINGS.iter().find(|(vip, _)| at(vip) == destination);
    let reverse = MAPPINGS.iter().find(|(_, device)| at(device) == source);
    let (peer, direction) = if let Some((_, device)) = forward {
        (at(device), Direction::ToDevice)
    } else if let Some((vip, _)) = reverse {
        if OWN.iter().any(|own| destination.ip() == own.parse::<std::net::IpAddr>().unwrap()) {
            return Err(Reason::OwnTraffic);
        }
        (at(vip), Direction::ToHost)
    } else if flow.is_opening && MAPPINGS.iter().any(|(_, device)| at(device) == destination) {
        return Err(Reason::PastVip);
    } else {
        return Err(Reason::NoMapping);
    };
    if flow.is_fragment {
        return Err(Reason::Fragment);
    }
    if flow.hops <= 1 {
        return Err(Reason::HopLimit);
    }
    let host_is_known = [at("10.1.0.2:0").ip(), at("[fd01::2]:0").ip()].contains(&destination.ip());
    let link = match direction {
        Direction::ToDevice => (DEVICE, D0),
        Direction::ToHost if host_is_known => (HOST, H0),
        Direction::ToHost => return Ok(Expected::Elsewhere),
    };
    let words = |a: [u8; 6]| [0, 2, 4].map(|i| u16::from_ne_bytes([a[i], a[i + 1]]));
    let mut out = frame.to_vec();
    translate(&mut out[..], &flow, direction, &Portal::from(peer)).unwrap();
    count_hop(&mut out[..], &flow).unwrap();
    set_link(&mut out[..], words(link.0), words(link.1)).unwrap();
    Ok(Expected::Sent(out))
}

#[test]
fn kernel_and_model_agree() {
    let runner = Runner::new(&MAPPINGS.map(|(vip, device)| line(vip, device)));
    let config = Config { cases: PACKETS, failure_persistence: None, ..Config::default() };
    let seeded = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut tests = TestRunner::new_with_rng(config, seeded);
    let (sent, stopped) = (Cell::new(0), Cell::new(0));
    tests
        .run(&frames(), |frame| {
            let too_big = runner.reason(Reason::TooBig);
            let (action, out) = runner.run(&frame);
            match expected(&frame) {
                Expected::Sent(expected) => {
                    // A length field that says more than the link takes is the one thing the model has no eye for.
                    if runner.reason(Reason::TooBig) > too_big {
                        prop_assert_eq!((action, out), (DROP, frame));
                        return Ok(());
                    }
                    sent.set(sent.get() + 1);
                    prop_assert_eq!(action, REDIRECT);
                    prop_assert_eq!(out, expected);
                }
                Expected::Stopped(reason) => {
                    stopped.set(stopped.get() + 1);
                    prop_assert_eq!(action, if reason.is_drop() { DROP } else { PASS }, "{:?}", reason);
                    prop_assert_eq!(out, frame, "{:?}", reason);
                }
                Expected::Elsewhere => {}
            }
            Ok(())
        })
        .unwrap();
    let (sent, stopped) = (sent.get(), stopped.get());
    assert!(sent > PACKETS / 20 && stopped > PACKETS / 20, "{sent} sent, {stopped} stopped: too one-sided");
}
