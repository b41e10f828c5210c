//! The packet path in plain Rust over plain bytes, written from its rules alone: what becomes of a frame, and what is
//! counted. It shares no line with the program in the kernel but the types that the maps hold.

mod answer;
mod checksum;
mod error;
mod ip;
mod leave;
mod link;
mod tcp;
mod world;

use std::net::IpAddr;

use lungate_gateway_common::verdict::{Direction, Kind, Reason};

pub(crate) use world::{Entry, World};

use ip::Body;
use link::Link;

/// Actions of an XDP program.
pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
pub(crate) const TX: u32 = 3;
pub(crate) const REDIRECT: u32 = 4;

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) action: u32,
    pub(crate) frame: Vec<u8>,
    /// In the order of their counters.
    pub(crate) reasons: Vec<Reason>,
    /// What is added to `TRAFFIC`: the mapping's place, the direction and the bytes.
    pub(crate) traffic: Option<(u32, Direction, u64)>,
}

impl Outcome {
    /// A frame that stays as it is, for this reason.
    fn stopped(frame: &[u8], reason: Reason) -> Self {
        let action = if reason.kind() == Kind::Dropped { DROP } else { PASS };
        Self { action, frame: frame.to_vec(), reasons: vec![reason], traffic: None }
    }

    /// A frame that is sent back in answer to itself.
    fn answered(frame: Vec<u8>, reason: Reason) -> Self {
        Self { action: TX, frame, reasons: vec![reason], traffic: None }
    }
}

/// What becomes of a frame that comes in by an interface.
pub(crate) fn run(world: &World, ingress: u32, frame: &[u8]) -> Outcome {
    let mut outcome = outcome(world, ingress, frame).unwrap_or_else(|reason| Outcome::stopped(frame, reason));
    outcome.reasons.sort_by_key(|reason| reason.index());
    outcome
}

/// What becomes of a packet that comes in by an interface without link headers. `TX` says that it is sent back.
pub(crate) fn run_tunnel(world: &World, ingress: u32, packet: &[u8]) -> Outcome {
    // Behind a header that is nobody's, the way is the same.
    let protocol = match packet.first().map(|first| first >> 4) {
        Some(4) => link::IPV4,
        Some(6) => link::IPV6,
        _ => return Outcome::stopped(packet, Reason::NotIp),
    };
    let frame = [&[0; 12], protocol.to_be_bytes().as_slice(), packet].concat();
    let link = Link { tags: Vec::new(), protocol, end: 14 };
    let way_in = WayIn { ingress, logical: ingress, link, is_tunnel: true };
    let outcome = packet_outcome(world, &way_in, &frame);
    let mut outcome = outcome.unwrap_or_else(|reason| Outcome::stopped(&frame, reason));
    outcome.frame.drain(..14);
    outcome.reasons.sort_by_key(|reason| reason.index());
    outcome
}

fn outcome(world: &World, ingress: u32, frame: &[u8]) -> Result<Outcome, Reason> {
    let link = link::read(frame).ok_or(Reason::NotIp)?;
    let logical = link::logical(world, ingress, &link)?;
    match link.protocol {
        link::ARP => return answer::arp(world, logical, &link, frame).ok_or(Reason::NotIp),
        link::IPV4 | link::IPV6 => {}
        _ => return Err(Reason::NotIp),
    }
    packet_outcome(world, &WayIn { ingress, logical, link, is_tunnel: false }, frame)
}

fn packet_outcome(world: &World, way_in: &WayIn, frame: &[u8]) -> Result<Outcome, Reason> {
    let packet = ip::read(frame, way_in.link.end, way_in.link.protocol == link::IPV6)?;
    let is_to_vip = world.vips.contains(&packet.destination);
    match packet.body {
        Body::LaterFragment if is_to_vip => Err(Reason::Fragment),
        Body::LaterFragment => Err(Reason::NotTcp),
        Body::Tcp => tcp::outcome(world, way_in, &packet, frame),
        Body::Icmp if !packet.is_fragment => {
            let message = ip::icmp(frame, &packet)?;
            if let Some(outcome) = error::outcome(world, way_in, &packet, &message, frame)? {
                return Ok(outcome);
            }
            if let Some(frame) = answer::echo(world, &packet, &message, frame) {
                return Ok(Outcome::answered(frame, Reason::Echo));
            }
            if let Some(outcome) = answer::solicitation(world, way_in, &packet, &message, frame) {
                return outcome;
            }
            Err(none_of_a_vips(is_to_vip))
        }
        Body::Icmp | Body::Other => Err(none_of_a_vips(is_to_vip)),
    }
}

/// Neither TCP nor anything that is answered or translated.
fn none_of_a_vips(is_to_vip: bool) -> Reason {
    if is_to_vip { Reason::NotServed } else { Reason::NotTcp }
}

/// How a frame came in.
struct WayIn {
    ingress: u32,
    /// The interface that stands for its VLAN, or `ingress`.
    logical: u32,
    link: Link,
    /// It has no link header.
    is_tunnel: bool,
}

/// Two bytes of a frame.
fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

/// The IP address at a place.
fn address(frame: &[u8], at: usize, is_v6: bool) -> IpAddr {
    if is_v6 {
        IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap())
    } else {
        IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap())
    }
}

/// Exchanges the two pieces of `length` bytes at these places.
fn swap(frame: &mut [u8], one: usize, other: usize, length: usize) {
    for i in 0..length {
        frame.swap(one + i, other + i);
    }
}
