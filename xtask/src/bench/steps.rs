//! Where the time of a packet goes: the gateway's way with steps left out, one more of them there each time.

use anyhow::Result;
use lungate_gateway_common::sample::Kind;

use super::cost::{PACKETS, SEGMENT, on_stage, plan};
use super::report::{Goal, Row, Run};
use super::stage::{BARE, GATEWAY};
use crate::bpf::Objects;

/// Rounds; an odd number, so that one of them is the median.
const ROUNDS: usize = 21;
/// Programs, each with one step more than the one before it, and that step.
const STEPS: [(&str, &str); 11] = [
    (BARE, "the bare program"),
    ("step_headers", "reading headers"),
    ("step_filter", "ports and the filter"),
    ("step_decide", "what the mapping and the next hop say"),
    ("step_table", "the look-up in FORWARD"),
    ("step_hops", "the look-up in HOPS"),
    ("step_clock", "clock and generation"),
    ("step_write", "rewriting and checksums"),
    ("step_count", "the mapping's counters"),
    ("step_send", "the redirect"),
    (GATEWAY, "what else the gateway has"),
];

/// Measures each step of a forward hit: its row's value is what the packet costs with it, the baseline what it costs
/// without it. A table by steps follows.
pub(super) fn rows(objects: &Objects, found: &mut Vec<Row>) -> Result<()> {
    let rounds = on_stage(objects, plan(1), |stage| {
        let round = |stage: &mut super::stage::Stage| -> Result<Vec<f64>> {
            let bare = stage.alone(BARE, Kind::Forward, SEGMENT, PACKETS)?;
            let times = STEPS.iter().map(|(program, _)| stage.fed(program, Kind::Forward, SEGMENT, PACKETS));
            let times = times.collect::<Result<Vec<_>>>()?;
            let making = times[0] - bare;
            Ok(times.into_iter().map(|time| time - making).collect())
        };
        (0..ROUNDS).map(|_| round(stage)).collect::<Result<Vec<_>>>()
    })?;
    eprintln!("  a forward hit, 1 mapping; medians of {ROUNDS} rounds:");
    for (with, (_, step)) in STEPS.iter().enumerate() {
        let costs = median(rounds.iter().map(|round| round[with]));
        let Some(without) = with.checked_sub(1) else {
            eprintln!("  {costs:>8.1} ns            {step}");
            continue;
        };
        let takes = median(rounds.iter().map(|round| round[with] - round[without]));
        eprintln!("  {costs:>8.1} ns  {takes:>+6.1} ns  {step}");
        let runs: Vec<Run> = rounds.iter().map(|round| (round[with], round[without])).collect();
        let name = format!("forward hit up to: {step} (over: the same without it)");
        found.extend(Row::new(name, "ns", &runs, Goal::None));
    }
    Ok(())
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
