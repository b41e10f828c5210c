//! A packet between the kernel's layers (tcx), behind the verifier. Its checksum may be still to be finished, and it
//! may be many segments in one, so the kernel's own helpers keep the checksums.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_pull_data};
use aya_ebpf::programs::TcContext;
use lungate_gateway_common::bytes::{Change, Packet, fold};
use lungate_gateway_common::gateway::Kernel;
use lungate_gateway_common::headers::{Ip, WITHIN_HEADERS};
use lungate_gateway_common::mss;
use lungate_gateway_common::table::Word;

use crate::maps::Maps;

/// The bytes that headers take at most: IPv6 with extension headers, ICMPv6, and as much again quoted.
const HEADERS: u32 = 256;
/// Says of a change of addresses that it is IPv6's, which has no checksum of its own header (Linux 6.16).
const IPV6: u64 = 0x80;

/// A packet between its start and its end in the kernel's memory.
pub(crate) struct Buffer {
    context: *mut __sk_buff,
}

impl Buffer {
    /// The packet at hand, with its headers where they can be reached.
    #[inline(always)]
    pub(crate) fn of(ctx: &TcContext) -> Self {
        let context = ctx.as_ptr().cast::<__sk_buff>();
        let buffer = Self { context };
        // SAFETY: the context is valid for as long as the program runs.
        let length = unsafe { (*context).len };
        let wanted = if length < HEADERS { length } else { HEADERS };
        let (start, end) = buffer.ends();
        if end - start < wanted as usize {
            // What cannot be pulled cannot be read, and is then malformed.
            // SAFETY: the context is valid; the ends are read anew afterwards.
            unsafe { bpf_skb_pull_data(context, wanted) };
        }
        buffer
    }

    /// The place of a `T`; see `Frame`.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let (start, end) = self.ends();
        let start = start + offset;
        if start + size_of::<T>() > end { None } else { Some(start as *mut T) }
    }

    /// Where what can be reached begins and ends. The verifier takes loads from the context only with their offset in
    /// the instruction, which the compiler would rather have in a register of its own.
    #[inline(always)]
    fn ends(&self) -> (usize, usize) {
        let (start, end): (usize, usize);
        // SAFETY: two loads from the context, which is valid for as long as the program runs.
        unsafe {
            asm!(
                "{start} = *(u32 *)({context} + {data})",
                "{end} = *(u32 *)({context} + {data_end})",
                context = in(reg) self.context,
                data = const offset_of!(__sk_buff, data),
                data_end = const offset_of!(__sk_buff, data_end),
                start = out(reg) start,
                end = lateout(reg) end,
                options(nostack),
            );
        }
        (start, end)
    }

    /// Lets the checksum of a segment follow a change.
    #[inline(always)]
    fn update(&mut self, offset: usize, change: Change, flags: u64) -> bool {
        let change = u64::from(fold(change));
        // SAFETY: the context is valid; the ends are read anew afterwards.
        unsafe { bpf_l4_csum_replace(self.context, offset as u32, 0, change, flags) == 0 }
    }
}

impl Packet for Buffer {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]> {
        let pointer = self.at::<[Word; N]>(offset)?;
        // SAFETY: `at` has checked the bounds; the kernel places headers at even addresses, and all offsets are even.
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
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.context).len as usize >= length }
    }

    #[inline(always)]
    fn segment_length(&self, length: u16, headers: usize) -> u16 {
        // SAFETY: the context is valid for as long as the program runs.
        match unsafe { (*self.context).gso_size } {
            0 => length,
            payload => (headers as u32 + payload) as u16,
        }
    }

    /// There is no link header to change.
    #[inline(always)]
    fn shift(&mut self, _: i32) -> Option<()> {
        None
    }

    #[inline(always)]
    fn cut(&mut self, length: usize) -> Option<()> {
        // SAFETY: the context is valid; the ends are read anew afterwards.
        (unsafe { bpf_skb_change_tail(self.context, length as u32, 0) } == 0).then_some(())
    }

    #[inline(always)]
    fn update_header(&mut self, offset: usize, change: Change) -> Option<()> {
        let change = u64::from(fold(change));
        // SAFETY: the context is valid; the ends are read anew afterwards.
        (unsafe { bpf_l3_csum_replace(self.context, offset as u32, 0, change, 0) } == 0).then_some(())
    }

    #[inline(always)]
    fn update_segment(&mut self, offset: usize, pseudo: Change, own: Change, is_v6: bool) -> Option<()> {
        let flags = u64::from(BPF_F_PSEUDO_HDR);
        let done = if is_v6 && self.update(offset, pseudo, flags | IPV6) {
            true
        } else {
            self.update(offset, pseudo, flags)
        };
        (done && self.update(offset, own, 0)).then_some(())
    }

    #[inline(always)]
    fn replace_segment(&mut self, offset: usize, pseudo: Change, whole: Word) -> Option<()> {
        if !self.update(offset, pseudo, u64::from(BPF_F_PSEUDO_HDR)) {
            return None;
        }
        // Where the kernel still has to finish the checksum, that was all and what follows changes nothing. Where it
        // is finished, what follows makes it `whole`: ~(~HC + HC + ~whole).
        let [now] = self.read(offset)?;
        self.update(offset, u64::from(now) + u64::from(!whole), 0).then_some(())
    }

    #[inline(always)]
    fn clamp_mss(&mut self, _: &impl Kernel, ip: &Ip, header: usize, most: u16) -> Option<()> {
        (clamp_packet(self.context, ip.l4() as u32, header as u32, most) == 0).then_some(())
    }
}

/// [`mss::clamp`] as a function that the verifier looks at by itself; 0 where it could be done.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn clamp_packet(context: *mut __sk_buff, l4: u32, header: u32, most: u16) -> u32 {
    let mut packet = Buffer { context };
    let maps = Maps::in_context(context.cast());
    let l4 = l4 as usize & WITHIN_HEADERS;
    u32::from(mss::clamp(&mut packet, &maps, l4, header as usize, most).is_none())
}
