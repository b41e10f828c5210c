//! The bytes of the frame at hand, of which only the beginning is of interest.

use aya_ebpf::programs::XdpContext;

/// Writes a frame's beginning.
#[inline(always)]
pub(crate) fn put<const N: usize>(ctx: &XdpContext, words: [u16; N]) -> Option<()> {
    let place = at::<[u16; N]>(ctx, 0)?;
    // SAFETY: `at` has checked the packet's bounds; drivers place frames at even addresses.
    unsafe { place.write(words) };
    Some(())
}

/// Swaps the link addresses.
#[inline(always)]
pub(crate) fn swap_link(ctx: &XdpContext) -> Option<()> {
    let place = at::<[[u16; 3]; 2]>(ctx, 0)?;
    // SAFETY: as in `put`.
    unsafe {
        let [destination, source] = place.read();
        place.write([source, destination]);
    }
    Some(())
}

/// The place of a `T` in the packet, `offset` bytes behind its start.
#[inline(always)]
pub(crate) fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() { None } else { Some(start as *mut T) }
}
