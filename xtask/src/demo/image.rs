//! A random image, and the places where its parts turn up.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

const CHUNK: usize = 1 << 20;

/// Writes `bytes` bytes of noise, another one for each seed.
pub fn make(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut file = BufWriter::with_capacity(CHUNK, file);
    // xorshift64: no block of it stands twice, which is all that is asked of it.
    let mut state = seed | 1;
    for _ in 0..bytes / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush().with_context(|| format!("cannot write {}", path.display()))
}

/// Whether `length` bytes from `offset` of `image` are those at the start of `disk`.
pub fn is_at(image: &Path, offset: u64, length: u64, disk: &Path) -> Result<bool> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (mut image, mut disk) = (open(image)?, open(disk)?);
    image.seek(SeekFrom::Start(offset))?;
    let (mut left, mut a, mut b) = (length, vec![0; CHUNK], vec![0; CHUNK]);
    while left > 0 {
        let count = usize::try_from(left.min(CHUNK as u64))?;
        image.read_exact(&mut a[..count])?;
        disk.read_exact(&mut b[..count])?;
        if a[..count] != b[..count] {
            return Ok(false);
        }
        left -= count as u64;
    }
    Ok(true)
}
