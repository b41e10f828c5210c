//! The bytes of the packet at hand, behind the verifier.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::packet::Packet;
use lungate_gateway_common::table::Word;

/// A packet between its start and its end in the kernel's memory.
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
        // SAFETY: the context is valid for as long as the program runs.
        let (start, end) = unsafe {
            (
                (&raw const (*self.context).data).read_volatile(),
                (&raw const (*self.context).data_end).read_volatile(),
            )
        };
        let start = start as usize + offset;
        if start + size_of::<T>() > end as usize { None } else { Some(start as *mut T) }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]> {
        let pointer = self.at::<[Word; N]>(offset)?;
        // SAFETY: `at` has checked the packet's bounds; drivers place frames at even addresses, and all
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
}
