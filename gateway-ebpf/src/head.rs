//! The first bytes of a frame, behind the verifier: their number is checked once, and the places of all accesses are
//! known when the program is built.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::bytes::Packet;
use lungate_gateway_common::table::Word;

/// The first `LENGTH` bytes of a frame.
pub(crate) struct Head<const LENGTH: usize> {
    context: *mut xdp_md,
    start: usize,
    end: usize,
}

impl<const LENGTH: usize> Head<LENGTH> {
    /// Nothing where the frame is shorter, or its first buffer.
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Option<Self> {
        let context: *mut xdp_md = ctx.ctx;
        // SAFETY: the context is valid for as long as the program runs.
        let (start, end) = unsafe { ((*context).data as usize, (*context).data_end as usize) };
        (start + LENGTH <= end).then_some(Self { context, start, end })
    }
}

impl<const LENGTH: usize> Packet for Head<LENGTH> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]> {
        if offset + 2 * N > LENGTH {
            return None;
        }
        // SAFETY: `of` has checked that the bytes are there.
        Some(unsafe { ((self.start + offset) as *const [Word; N]).read() })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, words: [Word; N]) -> Option<()> {
        if offset + 2 * N > LENGTH {
            return None;
        }
        // SAFETY: as in `read`.
        unsafe { ((self.start + offset) as *mut [Word; N]).write(words) };
        Some(())
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        // Only a large frame lies in more than one buffer, and the kernel must be asked.
        // SAFETY: the context is valid for as long as the program runs.
        self.end - self.start >= length || unsafe { bpf_xdp_get_buff_len(self.context) as usize >= length }
    }

    #[inline(always)]
    fn shift(&mut self, _: i32) -> Option<()> {
        None
    }

    #[inline(always)]
    fn cut(&mut self, _: usize) -> Option<()> {
        None
    }
}
