//! Maps read and written many entries at a time, by the batch commands of bpf(2), which aya does not have: hash
//! maps and arrays (Linux 5.6), LPM tries and per-CPU arrays (later; all are in Linux 6.6). Source of numbers and layouts: uapi
//! `linux/bpf.h`.

use std::cell::Cell;
use std::ffi::{c_long, c_void};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::Pod;
use aya::maps::MapData;

/// Entries of a system call at most: as many as keep its buffers, about a megabyte, in a CPU's cache.
const BATCH: usize = 16_384;
/// How often a walk through a map begins anew because entries vanish under it.
const RETRIES: u32 = 16;

/// `enum bpf_cmd`.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
    Lookup = 1,
    LookupBatch = 24,
    UpdateBatch = 26,
    DeleteBatch = 27,
}

/// A pinned hash map, array or LPM trie with keys `K` and values `V`.
pub(crate) struct Batched<K, V> {
    map: MapData,
    path: PathBuf,
    entries: PhantomData<fn() -> (K, V)>,
}

/// A pinned per-CPU array.
pub(crate) struct PerCpu {
    map: MapData,
    /// The bytes of one entry: its value for every CPU that there may be.
    row: usize,
}

/// Why a system call that writes or removes entries ended early.
#[derive(Debug)]
pub(crate) struct Partial {
    /// The entries that were written or removed, from the first one on.
    pub(crate) done: usize,
    /// What befell the next one.
    pub(crate) error: io::Error,
}

impl<K: Pod, V: Pod> Batched<K, V> {
    /// Opens a pinned map, whose keys and values must be of the sizes of `K` and `V`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let map = open(path)?;
        let info = map.info().with_context(|| format!("cannot look at {}", path.display()))?;
        let found = (info.key_size() as usize, info.value_size() as usize);
        let wanted = (size_of::<K>(), size_of::<V>());
        if found != wanted {
            bail!("{}: key and value have {found:?} bytes, {wanted:?} are needed", path.display());
        }
        Ok(Self { map, path: path.to_owned(), entries: PhantomData })
    }

    /// Where it is pinned.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of one key.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = zeroed::<V>();
        let mut attributes = Element {
            map: number(self.map.fd().as_fd()),
            key: address(key),
            value: address_mut(&mut value),
            ..Element::default()
        };
        // SAFETY: key and value are of the map's sizes, which `open` has compared, and live through the call.
        match unsafe { bpf(Command::Lookup, &mut attributes) } {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All entries, in no order. Where others write meanwhile, an entry of theirs may be missing or old; none stands
    /// twice in a hash map.
    pub(crate) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        self.entries_where(|_| true)
    }

    /// The same, of those with such a value only.
    pub(crate) fn entries_where(&self, keep: impl Fn(&V) -> bool) -> io::Result<Vec<(K, V)>> {
        self.entries_by(BATCH, keep)
    }

    fn entries_by(&self, mut size: usize, keep: impl Fn(&V) -> bool) -> io::Result<Vec<(K, V)>> {
        let mut retries = 0;
        loop {
            match self.walk(size, &keep) {
                // A bucket holds more entries than fit (hash maps).
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => size = size.saturating_mul(2),
                // The entry to go on from has vanished again and again (tries).
                Err(error) if error.raw_os_error() == Some(libc::EINTR) && retries < RETRIES => retries += 1,
                other => return other,
            }
        }
    }

    fn walk(&self, size: usize, keep: impl Fn(&V) -> bool) -> io::Result<Vec<(K, V)>> {
        let mut found = Vec::new();
        let (mut keys, mut values) = (vec![zeroed::<K>(); size], vec![zeroed::<V>(); size]);
        // Where the walk goes on: a bucket's number in hash maps (4 bytes), a key in tries.
        let mut cursor = vec![0_u8; size_of::<K>().max(4)];
        let mut next = cursor.clone();
        let mut is_first = true;
        loop {
            let mut attributes = Batch {
                from: if is_first { 0 } else { cursor.as_ptr() as u64 },
                next: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: u32::try_from(size).unwrap_or(u32::MAX),
                map: number(self.map.fd().as_fd()),
                ..Batch::default()
            };
            // SAFETY: keys and values are of the map's sizes, which `open` has compared, and there is room for
            // `count` of each; the cursors have room for a key or a bucket's number. All live through the call.
            let outcome = unsafe { bpf(Command::LookupBatch, &mut attributes) };
            let is_last = match outcome {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            let count = (attributes.count as usize).min(size);
            let entries = keys[..count].iter().copied().zip(values[..count].iter().copied());
            found.extend(entries.filter(|(_, value)| keep(value)));
            if is_last {
                return Ok(found);
            }
            std::mem::swap(&mut cursor, &mut next);
            is_first = false;
        }
    }

    /// Writes entries, in this order, whether they are there or not. Fails with E2BIG or ENOSPC where the map is
    /// full.
    pub(crate) fn put(&self, keys: &[K], values: &[V]) -> Result<(), Partial> {
        let mut done = 0;
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let keys = &keys[..values.len().min(keys.len())];
            // SAFETY: keys and values are of the map's sizes, which `open` has compared; there are as many of both.
            let outcome = unsafe {
                change(
                    Command::UpdateBatch,
                    &self.map,
                    keys.as_ptr().cast(),
                    values.as_ptr().cast(),
                    keys.len(),
                )
            };
            outcome.map_err(|partial| partial.after(done))?;
            done += keys.len();
        }
        Ok(())
    }

    /// Removes entries, in this order. What is not there is passed over.
    pub(crate) fn remove(&self, keys: &[K]) -> Result<(), Partial> {
        let mut done = 0;
        while done < keys.len() {
            let some = &keys[done..keys.len().min(done + BATCH)];
            // SAFETY: keys are of the map's size, which `open` has compared; values are not looked at.
            let outcome = unsafe {
                change(Command::DeleteBatch, &self.map, some.as_ptr().cast(), std::ptr::null(), some.len())
            };
            done += match outcome {
                Ok(()) => some.len(),
                Err(partial) if partial.error.raw_os_error() == Some(libc::ENOENT) => partial.done + 1,
                Err(partial) => return Err(partial.after(done)),
            };
        }
        Ok(())
    }
}

impl PerCpu {
    /// Opens a pinned per-CPU array whose values have `value` bytes.
    pub(crate) fn open(path: &Path, value: usize) -> Result<Self> {
        let map = open(path)?;
        let info = map.info().with_context(|| format!("cannot look at {}", path.display()))?;
        if info.value_size() as usize != value {
            bail!("{}: values have {} bytes, {value} are needed", path.display(), info.value_size());
        }
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| error_at(path, error))?;
        Ok(Self { map, row: value.next_multiple_of(8) * cpus })
    }

    /// Makes entries zero on every CPU.
    pub(crate) fn zero(&self, places: &[u32]) -> Result<(), Partial> {
        // The kernel reads as many values as keys, so the size of a batch is bounded by that of the zeros.
        let size = ((1 << 20) / self.row).clamp(1, BATCH).min(places.len());
        let zeros = vec![0_u8; size * self.row];
        for (at, places) in places.chunks(size.max(1)).enumerate() {
            // SAFETY: keys have 4 bytes in every array, and there is a row of zeros for each.
            let outcome = unsafe {
                change(
                    Command::UpdateBatch,
                    &self.map,
                    places.as_ptr().cast(),
                    zeros.as_ptr().cast(),
                    places.len(),
                )
            };
            outcome.map_err(|partial| partial.after(at * size))?;
        }
        Ok(())
    }
}

impl Partial {
    fn after(self, done: usize) -> Self {
        Self { done: self.done + done, error: self.error }
    }
}

thread_local! {
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The time that this thread has spent in the system calls of this module, and in others that it counts with them.
pub(crate) fn spent() -> Duration {
    SPENT.get()
}

/// Counts the time of a system call.
pub(crate) fn timed<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let begin = Instant::now();
    let outcome = call();
    SPENT.set(SPENT.get() + begin.elapsed());
    outcome
}

/// `union bpf_attr` for one element.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for batches.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    /// In: entries, or room for them. Out: entries that were found, written or removed.
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Element>() == 32);
const _: () = assert!(size_of::<Batch>() == 56);

/// Writes or removes entries by one system call.
///
/// # Safety
///
/// `keys` and, where entries are written, `values` point to `count` elements of the map's sizes.
unsafe fn change(
    command: Command,
    map: &MapData,
    keys: *const c_void,
    values: *const c_void,
    count: usize,
) -> Result<(), Partial> {
    let asked = u32::try_from(count).unwrap_or(u32::MAX);
    let mut attributes = Batch {
        keys: keys as u64,
        values: values as u64,
        count: asked,
        map: number(map.fd().as_fd()),
        ..Batch::default()
    };
    // SAFETY: the caller's.
    unsafe { bpf(command, &mut attributes) }.map_err(|error| {
        // An error with all done does not exist: the kernel refused before it counted.
        let done = if attributes.count >= asked { 0 } else { attributes.count as usize };
        Partial { done, error }
    })
}

/// bpf(2).
///
/// # Safety
///
/// What the attributes point to is what the command needs.
unsafe fn bpf<A>(command: Command, attributes: &mut A) -> io::Result<()> {
    timed(|| {
        // SAFETY: the attributes live through the call; the caller vouches for what they point to.
        let outcome = unsafe {
            libc::syscall(libc::SYS_bpf, command as c_long, std::ptr::from_mut(attributes), size_of::<A>())
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    })
}

fn open(path: &Path) -> Result<MapData> {
    MapData::from_pin(path).with_context(|| format!("cannot open {} (are you root?)", path.display()))
}

fn zeroed<T: Pod>() -> T {
    // SAFETY: any bytes are a value of a `Pod`.
    unsafe { std::mem::zeroed() }
}

fn address<T>(of: &T) -> u64 {
    std::ptr::from_ref(of) as u64
}

fn address_mut<T>(of: &mut T) -> u64 {
    std::ptr::from_mut(of) as u64
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A file descriptor is never negative.
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

fn error_at(path: &str, error: io::Error) -> anyhow::Error {
    anyhow::Error::from(error).context(format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A map with room for so many entries, for as long as this lives.
    struct Pinned(PathBuf);

    impl Pinned {
        fn hash(name: &str, entries: u32) -> Self {
            let path = PathBuf::from(format!("/sys/fs/bpf/lungate-test-batch-{}-{name}", std::process::id()));
            let mut create = Command::new("bpftool");
            create.args(["map", "create"]).arg(&path).args(["type", "hash", "key", "4", "value", "8"]);
            create.args(["entries", &entries.to_string(), "name", "test"]);
            assert!(create.status().unwrap().success(), "a BPF file system and root are needed");
            Self(path)
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_map_is_read_whole_though_its_buckets_hold_more_than_a_batch() {
        let pinned = Pinned::hash("buckets", 64);
        let map = Batched::<u32, u64>::open(&pinned.0).unwrap();
        assert_eq!(map.entries().unwrap(), []);
        let keys: Vec<u32> = (0..64).collect();
        let values: Vec<u64> = keys.iter().map(|key| u64::from(*key) << 40).collect();
        map.put(&keys, &values).unwrap();
        for size in [1, 2, 3, 64, BATCH] {
            let mut found = map.entries_by(size, |_| true).unwrap();
            found.sort_unstable();
            assert!(found.iter().copied().eq(keys.iter().copied().zip(values.iter().copied())), "{size}");
        }
        assert_eq!((map.get(&7).unwrap(), map.get(&64).unwrap()), (Some(7 << 40), None));
    }

    #[test]
    fn what_was_done_before_an_error_is_counted() {
        let pinned = Pinned::hash("full", 3);
        let map = Batched::<u32, u64>::open(&pinned.0).unwrap();
        let Partial { done, error } = map.put(&[1, 2, 3, 4, 5], &[0; 5]).unwrap_err();
        assert_eq!((done, error.raw_os_error()), (3, Some(libc::E2BIG)));
        // What is there can be written in a full map.
        map.put(&[3, 2], &[30, 20]).unwrap();
        map.remove(&[9, 1, 8, 3]).unwrap();
        assert_eq!(map.entries().unwrap(), [(2, 20)]);
        map.put(&[], &[]).unwrap();
        map.remove(&[]).unwrap();
    }

    #[test]
    fn a_map_of_another_form_is_not_opened() {
        let pinned = Pinned::hash("form", 3);
        let said = Batched::<u64, u64>::open(&pinned.0).map(drop).unwrap_err().to_string();
        assert!(said.contains("(4, 8)") && said.contains("(8, 8)"), "{said}");
    }
}
