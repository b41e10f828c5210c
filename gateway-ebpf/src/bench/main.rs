//! What the gateway is measured with: programs to compare it with, one that makes packets for it, and both ends of
//! a stream of packets.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the entry points that the macro makes are for the kernel alone"
)]

mod edge;
#[path = "../fib.rs"]
mod fib;
#[path = "../frame.rs"]
mod frame;
#[path = "../head.rs"]
mod head;
mod lookups;
#[path = "../maps.rs"]
#[expect(dead_code, reason = "nothing here logs what is dropped")]
mod maps;
mod steps;
mod stream;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::sample::frame::{ACK, SYN, icmp_error, segment};
use lungate_gateway_common::sample::{End, Feed, Kind};

#[btf_map]
static FEED: Array<Feed, 1> = Array::new();
#[btf_map]
static NEXT: ProgramArray<1> = ProgramArray::new();

/// The least that a program can do to send a frame back: it swaps the link addresses.
#[xdp(frags)]
pub fn bare(ctx: XdpContext) -> u32 {
    if edge::swap_link(&ctx).is_some() { XDP_TX } else { XDP_ABORTED }
}

/// Makes a new packet in place of the one that is there, and runs the first program of `NEXT` on it.
#[xdp(frags)]
pub fn feed(ctx: XdpContext) -> u32 {
    if make(&ctx).is_some() {
        // SAFETY: nothing here has a destructor that would be missed.
        unsafe { NEXT.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

#[inline(always)]
fn make(ctx: &XdpContext) -> Option<()> {
    let feed = FEED.get_ptr_mut(0)?;
    // SAFETY: one CPU at a time is measured, and nothing else writes the place while the program runs.
    let feed = unsafe { &mut *feed };
    let plan = feed.plan;
    let (first, second) = (feed.random(), feed.random());
    let (host, i) = (plan.host(second), plan.mapping(first));
    let kind = feed.kind;
    if kind == Kind::Icmp as u32 {
        return edge::put(ctx, icmp_error(host, plan.vip(i)));
    }
    let (source, destination, flags) = if kind == Kind::Forward as u32 {
        (host, plan.vip(i), ACK)
    } else if kind == Kind::Reverse as u32 {
        (plan.device(i), host, ACK)
    } else if kind == Kind::Drop as u32 {
        (host, plan.device(i), SYN)
    } else {
        (End::stranger(first), End::stranger(second), ACK)
    };
    edge::put(ctx, segment(source, destination, flags, feed.length as u16))
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// `bpf_redirect` is for programs under a licence that the GPL allows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
