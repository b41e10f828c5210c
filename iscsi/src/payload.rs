//! Data in pieces: what a command carries, cut and joined without copying a byte.

use std::ops::Range;

use bytes::Bytes;

/// Bytes in order, in pieces as they came from a socket or from several extents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    pieces: Vec<Bytes>,
    length: usize,
}

impl Payload {
    /// No data.
    pub const fn new() -> Self {
        Self { pieces: Vec::new(), length: 0 }
    }

    /// The number of bytes.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The pieces in order; none is empty.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Adds another's pieces at the end.
    pub fn append(&mut self, other: Self) {
        self.length += other.length;
        self.pieces.extend(other.pieces);
    }

    /// The bytes of a range, cut to what is there.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let mut slice = Self::new();
        let mut start = 0;
        for piece in &self.pieces {
            let end = start + piece.len();
            if start >= range.end {
                break;
            }
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                slice.push(piece.slice(from - start..to - start));
            }
            start = end;
        }
        slice
    }

    /// Keeps the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        if length < self.length {
            *self = self.slice(0..length);
        }
    }

    /// All bytes in one piece; copies unless there is only one.
    pub fn into_bytes(mut self) -> Bytes {
        match self.pieces.len() {
            1 => self.pieces.remove(0),
            _ => self.pieces.concat().into(),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        let mut payload = Self::new();
        payload.push(bytes.into());
        payload
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slice_is_the_slice_of_the_joined_bytes(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9), a in 0_usize..80, b in 0_usize..80,
        ) {
            let joined = pieces.concat();
            let mut payload = Payload::new();
            pieces.into_iter().for_each(|piece| payload.push(piece.into()));
            prop_assert_eq!(payload.len(), joined.len());
            let (start, end) = (a.min(joined.len()), b.min(joined.len()));
            let expected = if start < end { &joined[start..end] } else { &[] };
            let slice = payload.slice(a..b);
            prop_assert_eq!(slice.len(), expected.len());
            prop_assert_eq!(slice.into_bytes(), expected);
        }
    }
}
