//! The gateway's programs: entry points, and one match each from outcome to action.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the entry points that the macros make are for the kernel alone"
)]

mod buffer;
mod fib;
mod frame;
mod head;
mod log;
mod maps;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, xdp_md};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use lungate_gateway_common::errors;
use lungate_gateway_common::gateway::{Hook, Kernel, Outcome, aside, run};
use lungate_gateway_common::quick;
use lungate_gateway_common::table::ETHERNET;
use lungate_gateway_common::verdict::Kind;

use buffer::Buffer;
use frame::Frame;
use head::Head;
use maps::Maps;

/// Frames from an interface with Ethernet headers.
#[xdp(frags)]
pub fn lungate(ctx: XdpContext) -> u32 {
    if let Some(action) = quick_v4(&ctx) {
        return action;
    }
    let action = quick_v6(ctx.ctx);
    if action != Ended::ASIDE {
        return action;
    }
    let mut ended = Ended(segment_frame(ctx.ctx));
    if ended.is_aside() {
        ended = Ended(aside_frame(ctx.ctx));
    }
    if ended.action() == XDP_DROP {
        log::dropped_frame(ctx.ctx, ended.reason());
    }
    ended.action()
}

/// Packets from an interface without link headers, before the kernel routes them.
#[classifier]
pub fn lungate_tunnel(ctx: TcContext) -> i32 {
    let mut ended = Ended(segment_packet(ctx.skb.skb));
    if ended.is_aside() {
        ended = Ended(aside_packet(ctx.skb.skb));
    }
    if ended.action() == TC_ACT_SHOT as u32 {
        log::dropped_packet(ctx.skb.skb, ended.reason());
    }
    ended.action() as i32
}

/// What the gateway's own kernel says about packets that are translated already: error messages to hosts, which are
/// to read of the VIP.
#[classifier]
pub fn lungate_egress(ctx: TcContext) -> i32 {
    let maps = Maps::of(&ctx);
    // SAFETY: the context is valid for as long as the program runs.
    let egress = unsafe { (*ctx.skb.skb).ifindex };
    let is_ethernet = maps.interface(egress).is_some_and(|interface| interface.flags & ETHERNET != 0);
    let hook = if is_ethernet { Hook::Frame(egress) } else { Hook::Packet(egress) };
    // What is not such a message leaves as it is, as does one that ends too early to be changed.
    let _ = errors::own(&mut Buffer::of(&ctx), &maps, hook);
    TC_ACT_OK
}

/// Tells user space the kernel's ticks: run by hand (`BPF_PROG_TEST_RUN`), it writes them into the first 8 bytes.
#[classifier]
pub fn lungate_clock(ctx: TcContext) -> i32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + size_of::<u64>() > end {
        return TC_ACT_SHOT;
    }
    // SAFETY: the bytes are there; packets begin at even addresses.
    unsafe { (start as *mut [u16; 4]).write(core::mem::transmute(Maps::of(&ctx).ticks())) };
    TC_ACT_OK
}

/// The quick way of nearly every frame, without a call into a function of its own, whose return would be a good part
/// of what it costs.
#[inline(always)]
fn quick_v4(ctx: &XdpContext) -> Option<u32> {
    let mut head = Head::<{ quick::V4_HEADERS }>::of(ctx)?;
    if !quick::is_v4(&head) {
        return None;
    }
    // SAFETY: the context is valid for as long as the program runs.
    let ingress = unsafe { (*ctx.ctx).ingress_ifindex };
    let outcome = quick::v4(&mut head, &Maps::of(ctx), ingress)?;
    Some(Ended::frame(ctx, outcome).action())
}

/// The same for IPv6. Like the ways below it is a function that the verifier looks at by itself, with a stack of its
/// own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn quick_v6(context: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(context);
    let Some(mut head) = Head::<{ quick::V6_HEADERS }>::of(&ctx) else { return Ended::ASIDE };
    if !quick::is_v6(&head) {
        return Ended::ASIDE;
    }
    // SAFETY: the context is valid for as long as the program runs.
    let ingress = unsafe { (*context).ingress_ifindex };
    let outcome = quick::v6(&mut head, &Maps::of(&ctx), ingress);
    outcome.map_or(Ended::ASIDE, |outcome| Ended::frame(&ctx, outcome).action())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn segment_frame(context: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(context);
    let outcome = run(&mut Frame::of(&ctx), &Maps::of(&ctx), frame_hook(&ctx));
    Ended::frame(&ctx, outcome).0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn aside_frame(context: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(context);
    let outcome = aside(&mut Frame::of(&ctx), &Maps::of(&ctx), frame_hook(&ctx));
    Ended::frame(&ctx, outcome).0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn segment_packet(context: *mut __sk_buff) -> u64 {
    let ctx = TcContext::new(context);
    let outcome = run(&mut Buffer::of(&ctx), &Maps::of(&ctx), packet_hook(&ctx));
    Ended::packet(&ctx, outcome).0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn aside_packet(context: *mut __sk_buff) -> u64 {
    let ctx = TcContext::new(context);
    let outcome = aside(&mut Buffer::of(&ctx), &Maps::of(&ctx), packet_hook(&ctx));
    Ended::packet(&ctx, outcome).0
}

#[inline(always)]
fn frame_hook(ctx: &XdpContext) -> Hook {
    // SAFETY: the context is valid for as long as the program runs.
    Hook::Frame(unsafe { (*ctx.ctx).ingress_ifindex })
}

#[inline(always)]
fn packet_hook(ctx: &TcContext) -> Hook {
    // SAFETY: the context is valid for as long as the program runs.
    Hook::Packet(unsafe { (*ctx.skb.skb).ingress_ifindex })
}

/// How a way through the gateway has ended: the hook's action, and below it the index of the reason.
struct Ended(u64);

impl Ended {
    /// No action of any hook.
    const ASIDE: u32 = 0xffff;

    #[inline(always)]
    fn new(action: u32, reason: u32) -> Self {
        Self(u64::from(action) << 32 | u64::from(reason))
    }

    #[inline(always)]
    fn action(&self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    fn reason(&self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    fn is_aside(&self) -> bool {
        self.action() == Self::ASIDE
    }

    #[inline(always)]
    fn frame(ctx: &XdpContext, outcome: Outcome) -> Self {
        let action = match outcome {
            Outcome::SendBack => XDP_TX,
            // SAFETY: a plain helper call; an interface that does not exist makes the packet a counted drop.
            Outcome::Redirect(interface) => unsafe { bpf_redirect(interface, 0) as u32 },
            Outcome::Onward => XDP_PASS,
            Outcome::Aside => Self::ASIDE,
            Outcome::Stopped(reason) => {
                Maps::of(ctx).count(reason);
                let action = match reason.kind() {
                    Kind::Passed | Kind::Handed | Kind::Errors => XDP_PASS,
                    Kind::Answered => XDP_TX,
                    Kind::Dropped => XDP_DROP,
                };
                return Self::new(action, reason.index());
            }
        };
        Self::new(action, 0)
    }

    #[inline(always)]
    fn packet(ctx: &TcContext, outcome: Outcome) -> Self {
        match outcome {
            Outcome::Aside => Self::new(Self::ASIDE, 0),
            Outcome::SendBack | Outcome::Redirect(_) | Outcome::Onward => Self::new(TC_ACT_OK as u32, 0),
            Outcome::Stopped(reason) => {
                Maps::of(ctx).count(reason);
                let action = match reason.kind() {
                    Kind::Passed | Kind::Handed | Kind::Errors => TC_ACT_OK,
                    // Out of the interface that it came in by, through the kernel's own way out.
                    // SAFETY: the context is valid for as long as the program runs.
                    Kind::Answered => unsafe { bpf_redirect((*ctx.skb.skb).ingress_ifindex, 0) as i32 },
                    Kind::Dropped => TC_ACT_SHOT,
                };
                Self::new(action as u32, reason.index())
            }
        }
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
