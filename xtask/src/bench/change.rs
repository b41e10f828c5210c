//! Changes of the table: one mapping that moves, and a whole table that is loaded.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{HashMap, Map, MapData};
use lungate_gateway_common::sample::{End, Plan};
use lungate_gateway_common::table::{Mapping, Portal, map};
use serde_json::Value;

use super::cost::plan;
use super::lane::{Lane, portal};
use super::report::{Goal, Row, Run};
use crate::bpf::Objects;
use crate::workspace::Binaries;

/// Moves that are measured; an odd number, so that one of them is the median.
const MOVES: u16 = 21;
/// Loads that are measured.
const LOADS: usize = 7;
/// Sizes of the table in which a mapping moves, and of one that is loaded.
const MOVED_IN: [u32; 2] = [1, 10_000];
const LOADED: u32 = 1_000_000;
/// From the first to the last system call of a move, in microseconds.
const MOVE_US: f64 = 100.0;
/// What the kernel may take for the load, in milliseconds.
const LOAD_MS: f64 = 2000.0;
/// The port of the device that the mapping moves to and comes back from; none of the plan's.
const SPARE_PORT: u16 = 60_000;

/// Measures the rows with targets, and all others where `full` is set.
pub(super) fn rows(objects: &Objects, binaries: &Binaries, full: bool, found: &mut Vec<Row>) -> Result<()> {
    for mappings in MOVED_IN {
        let runs = moves(objects, binaries, mappings).context("cannot measure a move")?;
        let name = format!("move of one of {mappings} mappings (over: one write to each map)");
        add(found, Row::new(name, "µs", &runs, Goal::ValueAtMost(MOVE_US)));
    }
    let runs = loads(objects, binaries).context("cannot measure a load of the table")?;
    let name = format!("load of {LOADED} mappings, the kernel's part (over: one call for each entry)");
    add(found, Row::new(name, "ms", &runs, Goal::ValueAtMost(LOAD_MS)));
    if full {
        let per_second = |ms: f64| f64::from(LOADED) / ms * 1000.0;
        let runs: Vec<Run> =
            runs.iter().map(|(load, single)| (per_second(*load), per_second(*single))).collect();
        let name = format!("mappings per second of a load of {LOADED} (over: one call for each entry)");
        add(found, Row::new(name, "1/s", &runs, Goal::None));
    }
    Ok(())
}

fn add(found: &mut Vec<Row>, row: Option<Row>) {
    row.iter().for_each(super::say);
    found.extend(row);
}

/// Moves a mapping to another portal and back, again and again.
fn moves(objects: &Objects, binaries: &Binaries, mappings: u32) -> Result<Vec<Run>> {
    let plan = plan(mappings);
    let lane = Lane::new(&objects.bench, plan.vip(0))?;
    lane.load(&binaries.gateway, &plan)?;
    let vip = portal(plan.vip(0)).to_string();
    let home = plan.device(0);
    let mut runs = Vec::new();
    for number in 0..MOVES {
        let to = if number % 2 == 0 { End { port: SPARE_PORT, ..home } } else { home };
        let arguments = ["map", "migrate", &vip, "--to", &portal(to).to_string(), "--json"];
        let text = lane.lungate(&binaries.gateway, &arguments)?;
        let migrated: Value = serde_json::from_str(&text)?;
        let flip = migrated["flip_us"].as_f64().context("lungate has not said how long the change took")?;
        runs.push((flip, two_writes(&lane, &plan)? * 1e6));
    }
    Ok(runs)
}

/// Seconds for writing one entry of each map, as it is there already.
fn two_writes(lane: &Lane, plan: &Plan) -> Result<f64> {
    let (mut forward, mut reverse) = (open(lane, map::FORWARD)?, open(lane, map::REVERSE)?);
    let key = Portal::from(plan.vip(0));
    let entry = forward.get(&key, 0)?;
    let back = reverse.get(entry.peer(), 0)?;
    let begin = Instant::now();
    reverse.insert(entry.peer(), back, 0)?;
    forward.insert(key, entry, 0)?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Loads a table whole, and in turns the same entries one by one.
fn loads(objects: &Objects, binaries: &Binaries) -> Result<Vec<Run>> {
    let plan = plan(LOADED);
    let lane = Lane::new(&objects.bench, plan.vip(0))?;
    let mut runs = Vec::new();
    for _ in 0..LOADS {
        lane.attach_gateway(&binaries.gateway, LOADED)?;
        let single = one_by_one(&lane, &plan)? * 1e3;
        lane.lungate(&binaries.gateway, &["unload"])?;
        let applied = lane.load(&binaries.gateway, &plan)?;
        lane.lungate(&binaries.gateway, &["unload"])?;
        ensure!(
            applied["mappings"] == LOADED,
            "lungate has not loaded all mappings: {}",
            applied["mappings"]
        );
        let Some(load) = applied["kernel_ms"].as_f64() else {
            bail!("this lungate does not say what the kernel's part of 'apply' is (kernel_ms)");
        };
        runs.push((load, single));
    }
    Ok(runs)
}

/// Seconds for writing every entry by a call of its own.
fn one_by_one(lane: &Lane, plan: &Plan) -> Result<f64> {
    let (mut forward, mut reverse) = (open(lane, map::FORWARD)?, open(lane, map::REVERSE)?);
    let begin = Instant::now();
    for i in 0..plan.mappings {
        let (vip, device) = (Portal::from(plan.vip(i)), Portal::from(plan.device(i)));
        reverse.insert(device, Mapping::new(vip, 0, i, 0), 0)?;
        forward.insert(vip, Mapping::new(device, 0, i, 0), 0)?;
    }
    Ok(begin.elapsed().as_secs_f64())
}

fn open(lane: &Lane, name: &str) -> Result<HashMap<MapData, Portal, Mapping>> {
    let path: &Path = &lane.pin(name);
    let map = MapData::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Map::HashMap(map).try_into()?)
}
