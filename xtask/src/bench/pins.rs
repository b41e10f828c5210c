//! A folder of the BPF file system for as long as a benchmark needs it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::lab::ledger::{Ledger, remove_pins};
use crate::lab::{PIN_ROOTS, mount_bpffs};

/// Names of folders begin so; what follows is the process that made them, and a number.
const PREFIX: &str = "lungate-bench-";

/// A folder that is not there yet; what is in it goes when this is dropped, and on Ctrl-C.
pub(super) struct Pins {
    path: PathBuf,
    ledger: Arc<Ledger>,
}

impl Pins {
    pub(super) fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        mount_bpffs()?;
        sweep();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(PIN_ROOTS).join(format!("{PREFIX}{}-{number}", std::process::id()));
        let ledger = Ledger::open();
        ledger.pins(&path);
        Ok(Self { path, ledger })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.ledger.undo();
    }
}

/// Removes what a process that was killed has left behind.
fn sweep() {
    let entries = std::fs::read_dir(PIN_ROOTS).into_iter().flatten();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_pins(&path);
        }
    }
}
