//! A frame in or above a driver (XDP), behind the verifier.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::bytes::Packet;
use lungate_gateway_common::gateway::Kernel;
use lungate_gateway_common::headers::{Ip, WITHIN_HEADERS};
use lungate_gateway_common::mss;
use lungate_gateway_common::table::Word;

use crate::maps::Maps;

/// A frame between its start and its end in the kernel's memory.
pub(crate) struct Frame {
    context: *mut xdp_md,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Self {
        Self { context: ctx.ctx }
    }

    /// The place of a `T`. Both ends are read anew each time: a check that the compiler found to follow from
    /// another one, and left out, is one that the verifier misses.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let (start, end) = self.ends();
        let start = start + offset;
        if start + size_of::<T>() > end { None } else { Some(start as *mut T) }
    }

    /// Where what can be reached begins and ends.
    #[inline(always)]
    fn ends(&self) -> (usize, usize) {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe {
            (
                (&raw const (*self.context).data).read_volatile() as usize,
                (&raw const (*self.context).data_end).read_volatile() as usize,
            )
        }
    }

    /// All of its bytes, those in further buffers included.
    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { bpf_xdp_get_buff_len(self.context) as usize }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]> {
        let pointer = self.at::<[Word; N]>(offset)?;
        // SAFETY: `at` has checked the frame's bounds; drivers place frames at even addresses, and all
        // offsets are even.
        Some(unsafe { pointer.read() })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, words: [Word; N]) -> Option<()> {
        let pointer = self.at::<[Word; N]>(offset)?;
        // SAFETY: as in `read`.
        unsafe { pointer.write(words) };
        Some(())
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        let (start, end) = self.ends();
        // Most frames lie in one buffer, and the kernel need not be asked.
        end - start >= length || self.length() >= length
    }

    #[inline(always)]
    fn shift(&mut self, by: i32) -> Option<()> {
        // SAFETY: the context is valid for as long as the program runs; the ends are read anew afterwards.
        (unsafe { bpf_xdp_adjust_head(self.context, by) } == 0).then_some(())
    }

    #[inline(always)]
    fn cut(&mut self, length: usize) -> Option<()> {
        let by = length as i32 - self.length() as i32;
        // SAFETY: as in `shift`.
        (unsafe { bpf_xdp_adjust_tail(self.context, by) } == 0).then_some(())
    }

    #[inline(always)]
    fn clamp_mss(&mut self, _: &impl Kernel, ip: &Ip, header: usize, most: u16) -> Option<()> {
        (clamp_frame(self.context, ip.l4() as u32, header as u32, most) == 0).then_some(())
    }
}

/// [`mss::clamp`] as a function that the verifier looks at by itself; 0 where it could be done.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn clamp_frame(context: *mut xdp_md, l4: u32, header: u32, most: u16) -> u32 {
    let mut packet = Frame { context };
    let maps = Maps::in_context(context.cast());
    let l4 = l4 as usize & WITHIN_HEADERS;
    u32::from(mss::clamp(&mut packet, &maps, l4, header as usize, most).is_none())
}
