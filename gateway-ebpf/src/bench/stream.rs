//! Both ends of a stream of packets, and the least that can stand between them.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::sample::{FRAMES as FRAME_COUNT, Frame};

use crate::edge::put;

#[btf_map]
static FRAMES: Array<Frame, { FRAME_COUNT as usize }> = Array::new();
#[btf_map]
static SENT: PerCpuArray<u32, 1> = PerCpuArray::new();
#[btf_map]
static RECEIVED: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
static TARGET: Array<u32, 1> = Array::new();

/// Sends the frames one after another. Live frames are used again and again, so each is written whole.
#[xdp(frags)]
pub fn generator(ctx: XdpContext) -> u32 {
    if send(&ctx).is_some() { XDP_TX } else { XDP_ABORTED }
}

#[inline(always)]
fn send(ctx: &XdpContext) -> Option<()> {
    let sent = SENT.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's own, and nothing else writes it while the program runs.
    let number = unsafe {
        *sent = (*sent).wrapping_add(1);
        *sent
    };
    let frame = FRAMES.get(number & (FRAME_COUNT - 1))?;
    put(ctx, *frame)
}

/// Counts and drops.
#[xdp(frags)]
pub fn receiver(_ctx: XdpContext) -> u32 {
    if let Some(received) = RECEIVED.get_ptr_mut(0) {
        // SAFETY: as in `send`.
        unsafe { *received += 1 };
    }
    XDP_DROP
}

/// Redirects everything, untouched.
#[xdp(frags)]
pub fn redirect(_ctx: XdpContext) -> u32 {
    let Some(target) = TARGET.get(0) else { return XDP_ABORTED };
    // SAFETY: a plain helper call; an interface that does not exist makes the packet a counted drop.
    u32::try_from(unsafe { bpf_redirect(*target, 0) }).unwrap_or(XDP_ABORTED)
}

/// Lets everything pass. A virtual link has queues for frames only where a program is attached.
#[xdp(frags)]
pub fn pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}
