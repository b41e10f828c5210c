//! How a translated packet leaves: by which interface, or with which reason to the kernel.

use std::net::IpAddr;

use lungate_gateway_common::table::{ETHERNET, GENERIC, NATIVE};
use lungate_gateway_common::verdict::{Direction, Reason};

use super::ip::Packet;
use super::world::{Next, World};
use super::{Outcome, PASS, REDIRECT, TX, WayIn, checksum, link};
use crate::network::Wire;

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Load {
    /// A segment of the mapping with this counter.
    Segment(u32, Direction),
    /// An error message, for this reason.
    Error(Reason),
}

/// What becomes of a packet that came as `frame` and is now `translated`, all but its hop limit and link layer,
/// with these addresses.
pub(super) fn leave(
    world: &World,
    way_in: &WayIn,
    packet: &Packet,
    frame: &[u8],
    translated: Vec<u8>,
    ends: (IpAddr, IpAddr),
    load: Load,
) -> Outcome {
    let found = way_out(world, way_in, packet, ends);
    let carried = match load {
        Load::Segment(counter, direction) => Some((counter, direction, packet.length as u64)),
        Load::Error(_) => None,
    };
    let mut reasons = match load {
        Load::Segment(..) => Vec::new(),
        Load::Error(reason) => vec![reason],
    };
    match found {
        Err(Reason::NotForwarding) => Outcome::stopped(frame, Reason::NotForwarding),
        // The kernel routes it in any case, and counts the hop.
        Ok(_) | Err(Reason::NoNeighbour | Reason::KernelRoute) if way_in.is_tunnel => {
            Outcome { action: PASS, frame: translated, reasons, traffic: carried }
        }
        Err(reason) => {
            reasons.push(reason);
            let is_failing = matches!(reason, Reason::HopLimit | Reason::NoRoute | Reason::TooBig);
            let may_be_cut_up = reason == Reason::TooBig && !packet.is_whole;
            let is_to_host = matches!(load, Load::Segment(_, Direction::ToHost));
            let frame = if is_failing && is_to_host && !may_be_cut_up { frame.to_vec() } else { translated };
            Outcome { action: PASS, frame, reasons, traffic: carried.filter(|_| !is_failing) }
        }
        Ok((wire, neighbour)) => {
            let mut out = translated;
            let hops = packet.hops_place();
            let one_less = [out[hops] - 1, out[hops + 1]];
            match packet.checksum_place() {
                Some(checksum) => checksum::write(&mut out, hops, &one_less, Some(checksum)),
                None => out[hops] -= 1,
            }
            link::retag(&mut out, &way_in.link, wire.tags);
            out[0..6].copy_from_slice(&neighbour);
            out[6..12].copy_from_slice(&wire.link(1));
            let action = if wire.device == way_in.ingress { TX } else { REDIRECT };
            Outcome { action, frame: out, reasons, traffic: carried }
        }
    }
}

/// The interface that takes a packet, and the link address there.
fn way_out(
    world: &World,
    way_in: &WayIn,
    packet: &Packet,
    ends: (IpAddr, IpAddr),
) -> Result<(&'static Wire, [u8; 6]), Reason> {
    if packet.hops <= 1 {
        return Err(Reason::HopLimit);
    }
    let (index, neighbour) = match world.next(way_in.logical, ends, packet.length) {
        Next::NotForwarding => return Err(Reason::NotForwarding),
        Next::NoRoute => return Err(Reason::NoRoute),
        Next::TooBig => return Err(Reason::TooBig),
        Next::NoNeighbour => return Err(Reason::NoNeighbour),
        Next::Known(index, neighbour) => (index, neighbour),
    };
    let flags = |index| world.interface(index).and_then(|wire| wire.flags).unwrap_or(0);
    let out = flags(index);
    let is_back = world.interface(index).is_some_and(|wire| wire.device == way_in.ingress);
    let is_taken = is_back || out & NATIVE != 0 || out & GENERIC != 0 && flags(way_in.ingress) & GENERIC != 0;
    match world.interface(index) {
        Some(wire) if out & ETHERNET != 0 && is_taken => Ok((wire, neighbour)),
        _ => Err(Reason::KernelRoute),
    }
}
