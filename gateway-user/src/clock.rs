//! The clock of the promise to watch: the kernel's ticks since it started (`jiffies_64`). Programs look at them
//! without a call; user space has them from a small program, run by hand (`BPF_PROG_TEST_RUN`), that is pinned beside
//! the maps.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use rustix::time::{ClockId, clock_getres};

use crate::object::{self, CLOCK_PROGRAM};
use crate::pins::Pins;

/// As few bytes as a frame can have, for a run by hand.
const FRAME: usize = 64;

/// The program that tells the time.
pub(crate) struct Clock {
    program: SchedClassifier,
}

impl Clock {
    /// Pins the program of a loaded object, in place of an older one.
    pub(crate) fn pin(ebpf: &mut Ebpf, pins: &Pins) -> Result<()> {
        let path = pins.clock();
        let program: &mut SchedClassifier = object::program(ebpf, CLOCK_PROGRAM)?;
        if path.exists() {
            return Ok(());
        }
        program.pin(&path).with_context(|| format!("cannot pin {}", path.display()))
    }

    /// Opens the pinned program.
    pub(crate) fn open(pins: &Pins) -> Result<Self> {
        let path = pins.clock();
        let program = SchedClassifier::from_pin(&path)
            .with_context(|| format!("cannot open {} (are you root?)", path.display()))?;
        Ok(Self { program })
    }

    /// The ticks since the kernel started.
    pub(crate) fn now(&self) -> Result<u64> {
        let (frame, mut out) = ([0; FRAME], [0; FRAME]);
        let options =
            TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let run = self.program.test_run(options).context("cannot ask for the kernel's ticks")?;
        let ticks = out.first_chunk().filter(|ticks: &&[u8; 8]| run.data_size_out as usize >= ticks.len());
        Ok(u64::from_ne_bytes(*ticks.context("the program that tells the time told none")?))
    }

    /// The tick that a time from now is over at.
    pub(crate) fn after(&self, time: Duration) -> Result<u64> {
        // The clock that is as coarse as the ticks says how long one is.
        let tick = clock_getres(ClockId::MonotonicCoarse);
        let tick = u128::try_from(tick.tv_nsec).unwrap_or(1).max(1);
        let ticks = u64::try_from(time.as_nanos().div_ceil(tick)).unwrap_or(u64::MAX);
        Ok(self.now()?.saturating_add(ticks))
    }
}
