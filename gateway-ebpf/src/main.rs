//! The gateway's program for XDP: entry point, and one match from outcome to action.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the entry point that the macro makes is for the kernel alone"
)]

mod bytes;
mod fib;
mod maps;
mod path;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::packet::parse;
use lungate_gateway_common::verdict::Reason;

use path::Outcome;

/// Translates what a mapping knows and passes everything else untouched.
#[xdp(frags)]
pub fn lungate(ctx: XdpContext) -> u32 {
    match path::run(&ctx) {
        Outcome::SendBack => aya_ebpf::bindings::xdp_action::XDP_TX,
        // SAFETY: a plain helper call; an interface that does not exist makes the packet a counted drop.
        Outcome::Redirect(interface) => {
            u32::try_from(unsafe { bpf_redirect(interface, 0) }).unwrap_or(XDP_DROP)
        }
        Outcome::Stopped(reason) => {
            maps::count(reason);
            if reason.is_drop() {
                log_drop(&ctx, reason);
                XDP_DROP
            } else {
                XDP_PASS
            }
        }
    }
}

/// Says in the log what was dropped, while somebody watches: the reason, the interface, and where the headers can
/// be read the two ends.
#[inline(never)]
fn log_drop(ctx: &XdpContext, reason: Reason) {
    if !maps::logs_drops() {
        return;
    }
    // SAFETY: the context is valid for as long as the program runs.
    let interface = unsafe { (*ctx.ctx).ingress_ifindex };
    let frame = bytes::Frame::of(ctx);
    let ends = parse(&frame).ok().and_then(|flow| Some((flow.source(&frame)?, flow.destination(&frame)?)));
    match ends {
        Some((source, destination)) => aya_log_ebpf::info!(
            ctx,
            "{} {} {:i} {} {:i} {}",
            reason.index(),
            interface,
            source.address().octets(),
            u16::from_be(source.port()),
            destination.address().octets(),
            u16::from_be(destination.port())
        ),
        None => aya_log_ebpf::info!(ctx, "{} {}", reason.index(), interface),
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// `bpf_fib_lookup` and `bpf_redirect` are for programs under a licence that the GPL allows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
