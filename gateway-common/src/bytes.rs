//! How bytes of a packet are reached, and how its checksums follow what changes.

use crate::gateway::Kernel;
use crate::headers::Ip;
use crate::mss;
use crate::table::Word;

/// A packet's bytes, two at a time. Every access is checked against the packet's end; all offsets are even, as every
/// header's fields are that are looked at.
///
/// The checksums are part of it since packets differ in how theirs are kept: a frame in a driver has finished ones,
/// a packet between the kernel's layers may have one that is still to be finished.
pub trait Packet {
    /// `N` words from `offset` (in bytes) on; `None` where what can be reached of the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]>;

    /// Replaces `N` words from `offset` (in bytes) on; `None` where what can be reached ends before.
    fn write<const N: usize>(&mut self, offset: usize, words: [Word; N]) -> Option<()>;

    /// Whether the whole packet has that many bytes, those that cannot be reached included.
    fn has(&self, length: usize) -> bool;

    /// The length of the longest IP packet that this one is sent as, of `length` bytes and with so many of `headers`: it
    /// may be many segments in one.
    #[inline(always)]
    fn segment_length(&self, length: u16, headers: usize) -> u16 {
        let _ = headers;
        length
    }

    /// Takes bytes away at the front, or adds some where `by` is negative.
    fn shift(&mut self, by: i32) -> Option<()>;

    /// Cuts the packet after `length` bytes.
    fn cut(&mut self, length: usize) -> Option<()>;

    /// See [`mss::clamp`].
    #[inline(always)]
    fn clamp_mss(&mut self, kernel: &impl Kernel, ip: &Ip, header: usize, most: u16) -> Option<()> {
        mss::clamp(self, kernel, ip.l4(), header, most)
    }

    /// Lets the IPv4 header's checksum at `offset` follow a change.
    #[inline(always)]
    fn update_header(&mut self, offset: usize, change: Change) -> Option<()> {
        update(self, offset, change)
    }

    /// Lets a checksum of TCP or ICMPv6 at `offset` follow changes: of what only its pseudo-header has (addresses,
    /// length), and of what the packet itself has behind its IP header.
    #[inline(always)]
    fn update_segment(&mut self, offset: usize, pseudo: Change, own: Change, is_v6: bool) -> Option<()> {
        let _ = is_v6;
        update(self, offset, pseudo + own)
    }

    /// Gives TCP's checksum at `offset` a new value: `whole`, as it would be computed from nothing, where the change
    /// of its pseudo-header was `pseudo`.
    #[inline(always)]
    fn replace_segment(&mut self, offset: usize, pseudo: Change, whole: Word) -> Option<()> {
        let _ = pseudo;
        self.write(offset, [whole])
    }
}

/// A sum of words in one's complement, before folding: ~m + m' for each word that changes (RFC 1624, eqn. 3). The
/// byte order of the words does not matter as long as it is one (RFC 1071, 2).
pub type Change = u64;

/// What it means for a checksum that words are replaced.
#[inline(always)]
pub fn change<const N: usize>(old: [Word; N], new: [Word; N]) -> Change {
    let mut sum = 0;
    let mut i = 0;
    while i < N {
        sum += u64::from(!old[i]) + u64::from(new[i]);
        i += 1;
    }
    sum
}

/// The sum in 16 bits. It must be below 2^32, as that of less than 65,536 words is.
#[inline(always)]
pub fn fold(sum: Change) -> Word {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
    let folded = sum as u16;
    folded
}

/// A checksum after a change: HC' = ~(~HC + ~m + m').
#[inline(always)]
pub fn updated(checksum: Word, change: Change) -> Word {
    !fold(u64::from(!checksum) + change)
}

/// Lets the checksum at `offset` follow a change.
#[inline(always)]
pub fn update(packet: &mut (impl Packet + ?Sized), offset: usize, by: Change) -> Option<()> {
    let [old] = packet.read(offset)?;
    packet.write(offset, [updated(old, by)])
}

/// A packet in memory, as long as it is: headers are changed in place, and nothing is added or cut.
impl Packet for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]> {
        let bytes = self.get(offset..offset.checked_add(2 * N)?)?;
        Some(core::array::from_fn(|i| Word::from_ne_bytes([bytes[2 * i], bytes[2 * i + 1]])))
    }

    fn write<const N: usize>(&mut self, offset: usize, words: [Word; N]) -> Option<()> {
        let bytes = self.get_mut(offset..offset.checked_add(2 * N)?)?;
        for (place, word) in bytes.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }

    fn has(&self, length: usize) -> bool {
        self.len() >= length
    }

    fn shift(&mut self, _: i32) -> Option<()> {
        None
    }

    fn cut(&mut self, _: usize) -> Option<()> {
        None
    }
}
