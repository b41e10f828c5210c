//! Checksums, updated and in full.

use super::word;

/// Writes bytes at an even distance from what a checksum covers, and updates the checksum at `at` by RFC 1624, eqn. 3:
/// HC' = ~(~HC + ~m + m').
pub(super) fn write(frame: &mut [u8], at: usize, bytes: &[u8], checksum: Option<usize>) {
    let old = frame[at..at + bytes.len()].to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    if let Some(checksum) = checksum {
        update(frame, checksum, &old, bytes);
    }
}

/// Updates the checksum at `at` for bytes that have changed.
pub(super) fn update(frame: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let mut sum = u32::from(!word(frame, at).unwrap());
    for (old, new) in old.chunks(2).zip(new.chunks(2)) {
        sum += u32::from(!u16::from_be_bytes([old[0], old[1]]));
        sum += u32::from(u16::from_be_bytes([new[0], new[1]]));
    }
    let sum = !fold(sum);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The checksum over some bytes, whose own place in them is zero.
pub(super) fn whole(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    (!fold(sum)).to_be_bytes()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
