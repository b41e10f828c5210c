//! What was dropped, in the log, while somebody watches. The functions are ones that the verifier looks at by itself.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
use lungate_gateway_common::bytes::Packet;
use lungate_gateway_common::headers::{Link, ethernet, ip, no_link};
use lungate_gateway_common::verdict::Reason;

use crate::buffer::Buffer;
use crate::frame::Frame;
use crate::maps;

/// Says that a frame was dropped, for the reason of this index.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn dropped_frame(context: *mut xdp_md, reason: u32) -> u32 {
    let ctx = XdpContext::new(context);
    let frame = Frame::of(&ctx);
    // SAFETY: the context is valid for as long as the program runs.
    let interface = unsafe { (*context).ingress_ifindex };
    say(&ctx, &frame, ethernet(&frame), interface, reason);
    0
}

/// The same for a packet without a link header.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn dropped_packet(context: *mut __sk_buff, reason: u32) -> u32 {
    let ctx = TcContext::new(context);
    let buffer = Buffer::of(&ctx);
    // SAFETY: the context is valid for as long as the program runs.
    let interface = unsafe { (*context).ingress_ifindex };
    say(&ctx, &buffer, no_link(&buffer), interface, reason);
    0
}

/// Says the reason, the interface, and where the headers can be read the two ends.
#[inline(always)]
fn say(
    ctx: &impl EbpfContext,
    packet: &impl Packet,
    link: Result<Link, Reason>,
    interface: u32,
    reason: u32,
) {
    if !maps::logs_drops() {
        return;
    }
    let ip = link.and_then(|link| ip(packet, link.ethertype, link.l3())).ok();
    let ends = ip.and_then(|ip| Some((ip.source_portal(packet)?, ip.destination_portal(packet)?)));
    match ends {
        Some((source, destination)) => aya_log_ebpf::info!(
            ctx,
            "{} {} {:i} {} {:i} {}",
            reason,
            interface,
            source.address().octets(),
            u16::from_be(source.port()),
            destination.address().octets(),
            u16::from_be(destination.port())
        ),
        None => aya_log_ebpf::info!(ctx, "{} {}", reason, interface),
    }
}
