//! A plan carried out, whole or not at all: nothing but map system calls, and where one fails, those that take back
//! what was done.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use aya::Pod;
use aya::maps::MapError;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::table::map;
use rustix::time::{ClockId, clock_gettime};

use crate::batch::{Batched, Partial};
use crate::plan::{Edit, Plan, Step};
use crate::table::Table;

/// When a plan was carried out.
pub(crate) struct Executed {
    /// From the first to the last system call that packets wait for.
    pub(crate) took: Duration,
    /// CLOCK_MONOTONIC after the last one, in nanoseconds.
    pub(crate) at_monotonic_ns: u64,
}

impl Table {
    /// Carries out a plan. Where a system call fails, the table is as it was before.
    pub(crate) fn execute(&mut self, plan: &Plan) -> Result<Executed> {
        let begin = Instant::now();
        for (at, step) in plan.steps.iter().enumerate() {
            if let Err(Partial { done, error }) = self.make(step) {
                let error = self.explain(step, error);
                let undone = self.unmake(step, done).and_then(|()| {
                    plan.steps[..at].iter().rev().try_for_each(|step| self.unmake(step, step.len()))
                });
                return Err(match undone {
                    Ok(()) => error,
                    Err(Partial { error: second, .. }) => error.context(format!(
                        "the table is half changed, for what was done could not be taken back ({second}); 'lungate apply' makes it whole"
                    )),
                });
            }
        }
        let executed = Executed { took: begin.elapsed(), at_monotonic_ns: monotonic_ns() };
        if let Err(error) = self.index.fill(&plan.fill) {
            // The change is made, and all of it works.
            eprintln!(
                "note: what changed is not in INDEX, so its packets are looked up more slowly ({error:#}); see 'lungate check'"
            );
        }
        Ok(executed)
    }

    fn make(&mut self, step: &Step) -> Result<(), Partial> {
        match step {
            Step::Filter { after, .. } => self.set_filter(after),
            Step::Vips(edit) => make(&self.vips, edit),
            Step::Access(edit) => make(&self.access, edit),
            Step::Counters(counters) => self.counters.zero(counters),
            Step::Index(edit) => make(self.index.map(), edit),
            Step::Reverse(edit) => make(&self.reverse, edit),
            Step::Forward(edit) => make(&self.forward, edit),
        }
    }

    /// Takes back the first entries of a step.
    fn unmake(&mut self, step: &Step, done: usize) -> Result<(), Partial> {
        match step {
            Step::Filter { before, .. } => self.set_filter(before),
            Step::Vips(edit) => unmake(&self.vips, edit, done),
            Step::Access(edit) => unmake(&self.access, edit, done),
            Step::Counters(_) => Ok(()),
            Step::Index(edit) => unmake(self.index.map(), edit, done),
            Step::Reverse(edit) => unmake(&self.reverse, edit, done),
            Step::Forward(edit) => unmake(&self.forward, edit, done),
        }
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<(), Partial> {
        self.filter.set(0, filter, 0).map_err(|error| {
            let error = match error {
                MapError::SyscallError(error) => error.io_error,
                other => io::Error::other(other),
            };
            Partial { done: 0, error }
        })
    }

    /// Names the map and what it refused.
    fn explain(&self, step: &Step, error: io::Error) -> anyhow::Error {
        let name = match step {
            Step::Filter { .. } => map::FILTER,
            Step::Vips(_) => map::VIPS,
            Step::Access(_) => map::ACCESS,
            Step::Counters(_) => map::TRAFFIC,
            Step::Index(_) => map::INDEX,
            Step::Reverse(_) => map::REVERSE,
            Step::Forward(_) => map::FORWARD,
        };
        let capacity = self.capacity();
        let why = match error.raw_os_error() {
            // What hash maps and tries answer.
            Some(libc::E2BIG | libc::ENOSPC) => format!(
                "the map {name} is full (made for {capacity} mappings): unload, and load with a larger --max-mappings"
            ),
            Some(libc::EPERM) => {
                format!("the map {name} may not be written: this needs root or CAP_BPF, and a map not frozen")
            }
            _ => format!("cannot write the map {name}"),
        };
        anyhow!(error).context(why)
    }
}

fn make<K: Pod, V: Pod>(map: &Batched<K, V>, edit: &Edit<K, V>) -> Result<(), Partial> {
    match edit {
        Edit::Put { keys, values, .. } => map.put(keys, values),
        Edit::Remove { keys, .. } => map.remove(keys),
    }
}

fn unmake<K: Pod, V: Pod>(map: &Batched<K, V>, edit: &Edit<K, V>, done: usize) -> Result<(), Partial> {
    match edit {
        Edit::Put { keys, before, .. } => {
            let (mut new, mut old, mut values) = (Vec::new(), Vec::new(), Vec::new());
            for (key, before) in keys.iter().zip(before).take(done) {
                match before {
                    Some(value) => {
                        old.push(*key);
                        values.push(*value);
                    }
                    None => new.push(*key),
                }
            }
            map.put(&old, &values).and_then(|()| map.remove(&new))
        }
        Edit::Remove { keys, before } => {
            let done = done.min(keys.len());
            map.put(&keys[..done], &before[..done])
        }
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
