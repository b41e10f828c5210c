//! A packet's way through the gateway: headers, table, next hop, and only then the rewriting, so that nothing
//! half-rewritten is ever handed on.

use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::packet::{Flow, parse};
use lungate_gateway_common::rewrite::{count_hop, set_link, translate};
use lungate_gateway_common::table::{Address, FROZEN, Mapping, RESTRICTED};
use lungate_gateway_common::verdict::{Direction, Reason};

use crate::bytes::Frame;
use crate::fib::{Hop, next_hop};
use crate::maps;

/// What becomes of a packet.
pub(crate) enum Outcome {
    /// Out of the interface it came in by.
    SendBack,
    /// Out of another one.
    Redirect(u32),
    /// Passed to the kernel or dropped.
    Stopped(Reason),
}

#[inline(always)]
pub(crate) fn run(ctx: &XdpContext) -> Outcome {
    match forward(ctx) {
        Ok(outcome) => outcome,
        Err(reason) => Outcome::Stopped(reason),
    }
}

#[inline(always)]
fn forward(ctx: &XdpContext) -> Result<Outcome, Reason> {
    let mut frame = Frame::of(ctx);
    let flow = parse(&frame)?;
    let (mapping, direction, host) = find(&frame, &flow)?;
    if flow.hops <= 1 {
        return Err(Reason::HopLimit);
    }
    let peer = mapping.peer();
    let (source, destination) = match direction {
        Direction::ToDevice => (host, peer.address()),
        Direction::ToHost => (peer.address(), host),
    };
    match next_hop(ctx, &flow, source, destination) {
        Hop::Known { interface, destination, source } => {
            translate(&mut frame, &flow, direction, peer).ok_or(Reason::Malformed)?;
            count_hop(&mut frame, &flow).ok_or(Reason::Malformed)?;
            set_link(&mut frame, destination, source).ok_or(Reason::Malformed)?;
            maps::count_traffic(mapping, direction, flow.length);
            // SAFETY: the context is valid for as long as the program runs.
            let ingress = unsafe { (*ctx.ctx).ingress_ifindex };
            Ok(if interface == ingress { Outcome::SendBack } else { Outcome::Redirect(interface) })
        }
        Hop::NoNeighbour => {
            // Whole but for the hop that the kernel counts itself: it resolves the neighbour and sends it on.
            translate(&mut frame, &flow, direction, peer).ok_or(Reason::Malformed)?;
            maps::count_traffic(mapping, direction, flow.length);
            Err(Reason::NoNeighbour)
        }
        Hop::NoRoute => Err(Reason::NoRoute),
        Hop::TooBig => Err(Reason::TooBig),
        Hop::NotForwarding => Err(Reason::NotForwarding),
    }
}

/// The mapping that a packet belongs to, its direction, and the host's address.
#[inline(always)]
fn find(frame: &Frame, flow: &Flow) -> Result<(&'static Mapping, Direction, Address), Reason> {
    let destination = flow.destination(frame).ok_or(Reason::Malformed)?;
    let source = flow.source(frame).ok_or(Reason::Malformed)?;
    let (mapping, direction, host) = if let Some(mapping) = maps::forward(&destination) {
        (mapping, Direction::ToDevice, source.address())
    } else if let Some(mapping) = maps::reverse(&source) {
        // A connection that the gateway itself made to a mapped portal never went through a VIP.
        if maps::is_local(&destination.address()) {
            return Err(Reason::OwnTraffic);
        }
        (mapping, Direction::ToHost, destination.address())
    } else if flow.is_opening && maps::reverse(&destination).is_some() {
        return Err(Reason::PastVip);
    } else {
        return Err(Reason::NoMapping);
    };
    if flow.is_fragment {
        return Err(Reason::Fragment);
    }
    if mapping.flags() & RESTRICTED != 0 && !maps::may_use(mapping, host) {
        return Err(Reason::Refused);
    }
    if mapping.flags() & FROZEN != 0 && matches!(direction, Direction::ToDevice) {
        return Err(Reason::Frozen);
    }
    Ok((mapping, direction, host))
}
