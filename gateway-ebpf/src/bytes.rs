//! The bytes of the packet at hand, behind the verifier.

use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::packet::Packet;
use lungate_gateway_common::table::Word;

/// A packet between its start and its end in the kernel's memory.
pub(crate) struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.start + offset;
        if start + size_of::<T>() > self.end { None } else { Some(start as *mut T) }
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
