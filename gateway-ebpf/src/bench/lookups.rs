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

/// The mapping's entry in `INDEX`, and its counters: what the gateway itself looks up.
#[xdp(frags)]
pub fn forward_lookups(ctx: XdpContext) -> u32 {
    act(index(&ctx, DESTINATION, Direction::ToDevice))
}

/// The same on the way back.
#[xdp(frags)]
pub fn reverse_lookups(ctx: XdpContext) -> u32 {
    act(index(&ctx, SOURCE, Direction::ToHost))
}

/// The mapping in `FORWARD`, and its counters.
#[xdp(frags)]
pub fn forward_hashed(ctx: XdpContext) -> u32 {
    act(hashed(&ctx, DESTINATION, Direction::ToDevice))
}

/// The mapping in `REVERSE`, and its counters.
#[xdp(frags)]
pub fn reverse_hashed(ctx: XdpContext) -> u32 {
    act(hashed(&ctx, SOURCE, Direction::ToHost))
}

#[inline(always)]
fn act(found: Option<()>) -> u32 {
    if found.is_some() { XDP_TX } else { XDP_ABORTED }
}

#[inline(always)]
fn index(ctx: &XdpContext, at: (usize, usize), direction: Direction) -> Option<()> {
    let maps = Maps::of(ctx);
    let portal = portal(ctx, at)?;
    let counter = match maps.bucket(&portal)?.find(&portal, direction) {
        Some(entry) => entry.counter(),
        // Its bucket was full.
        None => look_up(&maps, &portal, direction)?,
    };
    maps.count_traffic(counter, direction, 0);
    Some(())
}

#[inline(always)]
fn hashed(ctx: &XdpContext, at: (usize, usize), direction: Direction) -> Option<()> {
    let maps = Maps::of(ctx);
    maps.count_traffic(look_up(&maps, &portal(ctx, at)?, direction)?, direction, 0);
    Some(())
}

#[inline(always)]
fn look_up(maps: &Maps, portal: &Portal, direction: Direction) -> Option<u32> {
    let mapping = match direction {
        Direction::ToDevice => maps.forward(portal),
        Direction::ToHost => maps.reverse(portal),
    };
    mapping.map(|mapping| mapping.counter())
}

#[inline(always)]
fn portal(ctx: &XdpContext, (address, port): (usize, usize)) -> Option<Portal> {
    // SAFETY: `at` has checked the packet's bounds; drivers place frames at even addresses.
    let (address, port) = unsafe { (at::<[u16; 2]>(ctx, address)?.read(), at::<u16>(ctx, port)?.read()) };
    Some(Portal::new(Address::from_v4_words(address), port))
}
