//! The processor that is measured on.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread on one processor: the last one that it may use, since interrupts tend to come in at the first.
pub(super) fn hold() -> Result<()> {
    let may_use = sched_getaffinity(None).context("cannot read which processors may be used")?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| may_use.is_set(*cpu)).unwrap_or(0);
    let mut one = CpuSet::new();
    one.set(last);
    sched_setaffinity(None, &one).context("cannot keep a thread on one processor")
}
