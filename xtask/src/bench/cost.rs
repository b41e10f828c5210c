//! What the gateway takes for each packet, in the kernel's test of programs (`BPF_PROG_TEST_RUN`).
//!
//! A program that has been run on a packet has changed it, so every run begins with a program that makes a new one
//! and calls the one under test. What making it takes is known from the same with the bare program:
//!
//! ```text
//! cost(program) = time(make, program) − time(make, bare) + time(bare alone)
//! ```

use anyhow::Result;
use lungate_gateway_common::sample::{Kind, Plan};

use super::cpu;
use super::namespace::Namespace;
use super::report::{Goal, Row, Run};
use super::stage::{BARE, GATEWAY, Stage};
use crate::bpf::Objects;

/// Rounds of each measurement; an odd number, so that one of them is the median.
const ROUNDS: usize = 21;
/// Packets of each run: short ones, so that what else the machine does meets a figure and its baseline alike.
pub(super) const PACKETS: u32 = 300_000;
/// Bytes of the IP packet of a segment without payload.
pub(super) const SEGMENT: u16 = 40;

/// Sizes of tables: small ones are held against the bare program, large ones against their look-ups.
const SMALL: [u32; 2] = [1, 10_000];
const LARGE: [u32; 2] = [100_000, 1_000_000];
/// Against the bare program: a hit from a host, one from a device, and traffic that passes by.
const TO_DEVICE: f64 = 3.0;
const TO_HOST: f64 = 4.0;
const PASSING: f64 = 3.0;
/// Against a program that does only the random look-ups.
const OVER_LOOKUPS: f64 = 1.4;

/// What is measured, and what it is held against.
struct Subject {
    what: &'static str,
    kind: Kind,
    is_watched: bool,
    baselines: Vec<(Baseline, Goal)>,
}

/// What the gateway's cost is held against.
#[derive(Clone, Copy)]
enum Baseline {
    /// The bare program.
    Bare,
    /// What a program of the benchmarks' object costs, and what it does.
    Program(&'static str, &'static str),
}

/// Measures the rows with targets, and all others where `full` is set.
pub(super) fn rows(objects: &Objects, full: bool, found: &mut Vec<Row>) -> Result<()> {
    for mappings in SMALL.into_iter().chain(LARGE) {
        let rows = on_stage(objects, plan(mappings), |stage| {
            let measured =
                subjects(mappings, full).into_iter().map(|subject| measure(stage, &subject, mappings));
            measured.collect::<Result<Vec<_>>>()
        })?;
        found.extend(rows.into_iter().flatten());
    }
    Ok(())
}

/// A table as large as it says: volumes of 64 ranges, up to a thousand volumes; up to 250 devices; one host.
pub(super) fn plan(mappings: u32) -> Plan {
    let volumes = mappings.div_ceil(64).min(1000);
    Plan { mappings, volumes, devices: mappings.min(250), hosts: 1 }
}

/// Runs a closure with a gateway, in a namespace of its own and on one processor.
pub(super) fn on_stage<T: Send>(
    objects: &Objects,
    plan: Plan,
    run: impl FnOnce(&mut Stage) -> Result<T> + Send,
) -> Result<T> {
    Namespace::new()?.within(|| {
        cpu::hold()?;
        run(&mut Stage::new(objects, plan)?)
    })
}

/// What the gateway costs for one kind of packet, and what the bare program does, in nanoseconds, of one round.
pub(super) fn cost(stage: &mut Stage, kind: Kind, length: u16) -> Result<Run> {
    let gateway = stage.fed(GATEWAY, kind, length, PACKETS)?;
    let making = stage.fed(BARE, kind, length, PACKETS)?;
    let bare = stage.alone(BARE, kind, length, PACKETS)?;
    Ok((gateway - making + bare, bare))
}

fn measure(stage: &mut Stage, subject: &Subject, mappings: u32) -> Result<Vec<Row>> {
    let Subject { what, kind, is_watched, baselines } = subject;
    stage.watch(*is_watched)?;
    let mut runs = vec![Vec::new(); baselines.len()];
    for _ in 0..ROUNDS {
        let gateway = stage.fed(GATEWAY, *kind, SEGMENT, PACKETS)?;
        let making = stage.fed(BARE, *kind, SEGMENT, PACKETS)?;
        let bare = stage.alone(BARE, *kind, SEGMENT, PACKETS)?;
        for ((baseline, _), runs) in baselines.iter().zip(&mut runs) {
            let time = match baseline {
                Baseline::Bare => bare,
                Baseline::Program(name, _) => stage.fed(name, *kind, SEGMENT, PACKETS)? - making + bare,
            };
            runs.push((gateway - making + bare, time));
        }
    }
    stage.watch(true)?;
    let plural = if mappings == 1 { "" } else { "s" };
    let rows = baselines.iter().zip(runs).filter_map(|((baseline, goal), runs)| {
        let against = match baseline {
            Baseline::Bare => "bare program",
            Baseline::Program(_, does) => does,
        };
        Row::new(format!("{what}, {mappings} mapping{plural} (over: {against})"), "ns", &runs, *goal)
    });
    let rows: Vec<Row> = rows.collect();
    rows.iter().for_each(super::say);
    Ok(rows)
}

fn subjects(mappings: u32, full: bool) -> Vec<Subject> {
    let subject = |what, kind, baselines| Subject { what, kind, is_watched: true, baselines };
    let bare = |most| (Baseline::Bare, Goal::RatioAtMost(most));
    let other = (Baseline::Bare, Goal::None);
    let look_ups = |name, does| (Baseline::Program(name, does), Goal::RatioAtMost(OVER_LOOKUPS));
    let entry = |name, does| (Baseline::Program(name, does), Goal::None);
    let mut subjects = if SMALL.contains(&mappings) {
        vec![
            subject("forward hit", Kind::Forward, vec![bare(TO_DEVICE)]),
            subject("reverse hit", Kind::Reverse, vec![bare(TO_HOST)]),
            subject("miss", Kind::Miss, vec![bare(PASSING)]),
        ]
    } else {
        vec![
            subject("forward hit", Kind::Forward, vec![look_ups("forward_lookups", "the same look-ups")]),
            subject("reverse hit", Kind::Reverse, vec![look_ups("reverse_lookups", "the same look-ups")]),
        ]
    };
    if full {
        if !SMALL.contains(&mappings) {
            subjects[0].baselines.extend([entry("forward_hashed", "look-ups in the hash map"), other]);
            subjects[1].baselines.extend([entry("reverse_hashed", "look-ups in the hash map"), other]);
            subjects.push(subject("miss", Kind::Miss, vec![other]));
        }
        subjects.push(subject("drop", Kind::Drop, vec![other]));
        subjects.push(subject("ICMP error", Kind::Icmp, vec![other]));
        subjects.push(Subject {
            is_watched: false,
            ..subject("forward hit without 'lungate serve'", Kind::Forward, vec![other])
        });
    }
    subjects
}
