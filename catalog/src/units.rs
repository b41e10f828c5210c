//! Units as types: an address and a count can never be mixed up, nor blocks with bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A logical block address: the number of a block, counted from 0 at the start of the unit it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lba(pub u64);

/// A number of logical blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockCount(pub u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

/// The size of one logical block in bytes: 512 or 4096, the two sizes in use on disks (SBC-3, 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum BlockSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes.
    B4096,
}

impl Lba {
    /// The address `count` blocks further on; `None` past the end of the 64-bit address space.
    pub fn checked_add(self, count: BlockCount) -> Option<Self> {
        self.0.checked_add(count.0).map(Self)
    }

    /// How many blocks lie from `start` up to this address; `None` where `start` is behind it.
    pub fn checked_since(self, start: Self) -> Option<BlockCount> {
        self.0.checked_sub(start.0).map(BlockCount)
    }
}

impl BlockCount {
    /// The same length in bytes; `None` where it does not fit 64 bits.
    pub fn bytes(self, size: BlockSize) -> Option<ByteCount> {
        self.0.checked_mul(u64::from(size.get())).map(ByteCount)
    }
}

impl BlockSize {
    /// The size in bytes.
    pub const fn get(self) -> u32 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

/// A block size that is neither 512 nor 4096.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("block size {0} is not supported: use 512 or 4096")]
pub struct UnknownBlockSize(pub u32);

impl TryFrom<u32> for BlockSize {
    type Error = UnknownBlockSize;

    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        match bytes {
            512 => Ok(Self::B512),
            4096 => Ok(Self::B4096),
            other => Err(UnknownBlockSize(other)),
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> Self {
        size.get()
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BlockCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
