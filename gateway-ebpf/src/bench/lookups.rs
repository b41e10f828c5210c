//! The random look-ups of a hit and nothing else: what no translation can do without.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
use aya_ebpf::btf_maps::{HashMap, PerCpuArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::table::{Address, Mapping, Portal, Traffic};

use crate::frame::at;

/// The gateway's own maps, shared by their pins.
#[btf_map]
static FORWARD: HashMap<Portal, Mapping, 1> = HashMap::new();
#[btf_map]
static REVERSE: HashMap<Portal, Mapping, 1> = HashMap::new();
#[btf_map]
static TRAFFIC: PerCpuArray<Traffic, 1> = PerCpuArray::new();

/// Where addresses and ports are in a frame with plain IPv4 and TCP headers, in bytes.
const SOURCE: (usize, usize) = (26, 34);
const DESTINATION: (usize, usize) = (30, 36);

/// `FORWARD` alone.
#[xdp(frags)]
pub fn forward_entry(ctx: XdpContext) -> u32 {
    act(forward(&ctx).map(|_| ()))
}

/// `FORWARD` and the mapping's counters.
#[xdp(frags)]
pub fn forward_lookups(ctx: XdpContext) -> u32 {
    act(forward(&ctx).and_then(count))
}

/// `REVERSE` alone.
#[xdp(frags)]
pub fn reverse_entry(ctx: XdpContext) -> u32 {
    act(reverse(&ctx).map(|_| ()))
}

/// `REVERSE` and the mapping's counters.
#[xdp(frags)]
pub fn reverse_lookups(ctx: XdpContext) -> u32 {
    act(reverse(&ctx).and_then(count))
}

#[inline(always)]
fn act(found: Option<()>) -> u32 {
    if found.is_some() { XDP_TX } else { XDP_ABORTED }
}

#[inline(always)]
fn forward(ctx: &XdpContext) -> Option<&'static Mapping> {
    let portal = portal(ctx, DESTINATION)?;
    // SAFETY: values are replaced whole, never changed in place.
    unsafe { FORWARD.get(portal) }
}

#[inline(always)]
fn reverse(ctx: &XdpContext) -> Option<&'static Mapping> {
    let portal = portal(ctx, SOURCE)?;
    // SAFETY: as for `forward`.
    unsafe { REVERSE.get(portal) }
}

#[inline(always)]
fn portal(ctx: &XdpContext, (address, port): (usize, usize)) -> Option<Portal> {
    // SAFETY: `at` has checked the packet's bounds; drivers place frames at even addresses.
    let (address, port) = unsafe { (at::<[u16; 2]>(ctx, address)?.read(), at::<u16>(ctx, port)?.read()) };
    Some(Portal::new(Address::from_v4_words(address), port))
}

#[inline(always)]
fn count(mapping: &Mapping) -> Option<()> {
    let traffic = TRAFFIC.get_ptr_mut(mapping.counter())?;
    // SAFETY: the slot is this CPU's own, and nothing else writes it while the program runs.
    unsafe { (*traffic).to_device_packets += 1 };
    Some(())
}
