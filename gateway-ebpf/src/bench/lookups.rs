//! The random look-ups of a hit and nothing else: what no translation can do without.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::gateway::Kernel;
use lungate_gateway_common::table::{Address, Portal};
use lungate_gateway_common::verdict::Direction;

use crate::edge::at;
use crate::maps::Maps;

/// Where addresses and ports are in a frame with plain IPv4 and TCP headers, in bytes.
const SOURCE: (usize, usize) = (26, 34);
const DESTINATION: (usize, usize) = (30, 36);

/// `FORWARD` alone.
#[xdp(frags)]
pub fn forward_entry(ctx: XdpContext) -> u32 {
    act(forward(&ctx, false))
}

/// `FORWARD` and the mapping's counters.
#[xdp(frags)]
pub fn forward_lookups(ctx: XdpContext) -> u32 {
    act(forward(&ctx, true))
}

/// `REVERSE` alone.
#[xdp(frags)]
pub fn reverse_entry(ctx: XdpContext) -> u32 {
    act(reverse(&ctx, false))
}

/// `REVERSE` and the mapping's counters.
#[xdp(frags)]
pub fn reverse_lookups(ctx: XdpContext) -> u32 {
    act(reverse(&ctx, true))
}

#[inline(always)]
fn act(found: Option<()>) -> u32 {
    if found.is_some() { XDP_TX } else { XDP_ABORTED }
}

#[inline(always)]
fn forward(ctx: &XdpContext, counts: bool) -> Option<()> {
    let maps = Maps::of(ctx);
    let mapping = maps.forward(&portal(ctx, DESTINATION)?)?;
    if counts {
        maps.count_traffic(mapping, Direction::ToDevice, 0);
    }
    Some(())
}

#[inline(always)]
fn reverse(ctx: &XdpContext, counts: bool) -> Option<()> {
    let maps = Maps::of(ctx);
    let mapping = maps.reverse(&portal(ctx, SOURCE)?)?;
    if counts {
        maps.count_traffic(mapping, Direction::ToHost, 0);
    }
    Some(())
}

#[inline(always)]
fn portal(ctx: &XdpContext, (address, port): (usize, usize)) -> Option<Portal> {
    // SAFETY: `at` has checked the packet's bounds; drivers place frames at even addresses.
    let (address, port) = unsafe { (at::<[u16; 2]>(ctx, address)?.read(), at::<u16>(ctx, port)?.read()) };
    Some(Portal::new(Address::from_v4_words(address), port))
}
