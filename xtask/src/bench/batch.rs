//! Many entries of a map in one system call, which aya has no call for.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::MapData;

/// Linux `BPF_MAP_UPDATE_BATCH`.
const UPDATE_BATCH: libc::c_int = 26;
/// Entries for each call: the kernel can be interrupted in between.
const CHUNK: usize = 1 << 16;

/// Linux `union bpf_attr`, `batch`.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Writes entries: `values[i]` at `keys[i]`.
pub(super) fn update<K: Pod, V: Pod>(map: &MapData, keys: &[K], values: &[V]) -> Result<()> {
    let map = u32::try_from(map.fd().as_fd().as_raw_fd())?;
    for (keys, values) in keys.chunks(CHUNK).zip(values.chunks(CHUNK)) {
        let mut batch = Batch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: u32::try_from(keys.len().min(values.len()))?,
            map,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: both arrays have `count` elements, and types that the kernel may copy; the map's sizes are those
        // of the types, which its creator has seen to.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, UPDATE_BATCH, &raw mut batch, size_of::<Batch>()) };
        if result != 0 {
            return Err(std::io::Error::last_os_error()).context("cannot write entries of a map");
        }
    }
    Ok(())
}
