//! One `lungate serve` at a time for each gateway.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

use crate::pins::Pins;

/// The lock, held until it is dropped. It is on the folder of the pins' links, which holds nothing up: nobody else
/// locks it.
pub(super) fn take(pins: &Pins) -> Result<File> {
    let folder = pins.folder().join("links");
    let lock = File::open(&folder).with_context(|| format!("cannot open {}", folder.display()))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => {
            let holder = holder(&lock)?.map_or_else(String::new, |pid| format!(" (process {pid})"));
            bail!("a lungate serve{holder} watches the gateway at {} already", pins.folder().display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", folder.display())),
    }
}

/// The process that holds a lock on a file. A line of /proc/locks is
/// "1: FLOCK  ADVISORY  WRITE 4711 00:27:33701 0 EOF"; device numbers are hexadecimal.
fn holder(file: &File) -> Result<Option<u32>> {
    let meta = file.metadata()?;
    let file = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let held = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut held = held.filter(|words| words.get(5) == Some(&file.as_str()));
    Ok(held.find_map(|words| words.get(4)?.parse().ok()))
}
