//! The largest segment that the two ends of a connection tell each other when it opens (RFC 9293, 3.7.1).

use crate::bytes::{Packet, change};
use crate::gateway::Kernel;
use crate::rewrite::TCP_CHECKSUM;
use crate::table::Word;

/// Kinds of options (RFC 9293, 3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// The bytes of the option with the maximum segment size.
const LENGTH: u8 = 4;
/// The bytes of a TCP header without options.
const HEADER: u32 = 20;
/// Covers every offset in a TCP header and the one behind it: a jump that goes on further ends the search.
const WITHIN_HEADER: u32 = 0x1ff;
/// As many options as there can be.
const MAX_OPTIONS: usize = 40;

/// Lowers the maximum segment size in the TCP header of `header` bytes at `l4` to `most`. Options that contradict themselves
/// are left as they are.
#[inline(always)]
pub fn clamp(
    packet: &mut (impl Packet + ?Sized),
    kernel: &impl Kernel,
    l4: usize,
    header: usize,
    most: u16,
) -> Option<()> {
    let mut next = HEADER;
    for _ in 0..MAX_OPTIONS {
        let offset = kernel.forget_number(next)? & WITHIN_HEADER;
        let at = offset as usize;
        if at + usize::from(LENGTH) > header {
            return Some(());
        }
        let Some([kind, length]) = pair(packet, l4 + at) else { return Some(()) };
        match kind {
            END => return Some(()),
            NO_OPERATION => next = offset + 1,
            MAXIMUM_SEGMENT_SIZE if length == LENGTH => return lower(packet, l4, at + 2, most),
            _ if length < 2 => return Some(()),
            _ => next = offset + u32::from(length),
        }
    }
    Some(())
}

/// Lowers the two bytes at `at` in the TCP header, which may begin at an odd offset.
#[inline(always)]
fn lower(packet: &mut (impl Packet + ?Sized), l4: usize, at: usize, most: u16) -> Option<()> {
    let at = l4 + at;
    let Some([high, low]) = pair(packet, at) else { return Some(()) };
    if u16::from_be_bytes([high, low]) <= most {
        return Some(());
    }
    let [high, low] = most.to_be_bytes();
    let change = if at.is_multiple_of(2) {
        let old: [Word; 1] = packet.read(at)?;
        let new = [Word::from_ne_bytes([high, low])];
        packet.write(at, new)?;
        change(old, new)
    } else {
        let old: [Word; 2] = packet.read(at & !1)?;
        let ([before, _], [_, after]) = (old[0].to_ne_bytes(), old[1].to_ne_bytes());
        let new = [Word::from_ne_bytes([before, high]), Word::from_ne_bytes([low, after])];
        packet.write(at & !1, new)?;
        change(old, new)
    };
    // Addresses do not change, so their family is of no interest.
    packet.update_segment(l4 + TCP_CHECKSUM, 0, change, false)
}

/// Two bytes, which may begin at an odd offset.
#[inline(always)]
fn pair(packet: &(impl Packet + ?Sized), at: usize) -> Option<[u8; 2]> {
    if at.is_multiple_of(2) {
        let [word] = packet.read(at)?;
        return Some(word.to_ne_bytes());
    }
    let [first, second] = packet.read(at & !1)?;
    Some([first.to_ne_bytes()[1], second.to_ne_bytes()[0]])
}
