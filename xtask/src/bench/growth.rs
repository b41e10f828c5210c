//! How the cost of a packet grows with mappings, volumes, hosts and packet size: rows, and a plot of each.

use std::path::Path;

use anyhow::Result;
use lungate_gateway_common::sample::{Kind, Plan};

use super::cost::{SEGMENT, cost, on_stage, plan};
use super::plot::{Plot, Series};
use super::report::{Goal, Row, Run};
use super::stage::Stage;
use crate::bpf::Objects;

/// Rounds of each point; an odd number, so that one of them is the median.
const ROUNDS: usize = 11;
/// Sizes of tables.
const MAPPINGS: [u32; 7] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000];
/// VIPs that a table of [`SPREAD`] mappings is spread over.
const VOLUMES: [u32; 5] = [10, 100, 1000, 10_000, 100_000];
const SPREAD: u32 = 100_000;
/// Hosts of a table of [`SIZED`] mappings, each of which has a way of its own to each of 250 devices.
const HOSTS: [u32; 5] = [1, 4, 16, 64, 256];
/// Bytes of IP packets, in a table of [`SIZED`] mappings.
const LENGTHS: [u16; 6] = [40, 256, 576, 1500, 4096, 9000];
const SIZED: u32 = 10_000;
/// What is measured at each point.
const KINDS: [(&str, Kind); 3] =
    [("forward hit", Kind::Forward), ("reverse hit", Kind::Reverse), ("miss", Kind::Miss)];

/// Measures everything, and draws the plots in a folder.
pub(super) fn rows(objects: &Objects, folder: &Path, found: &mut Vec<Row>) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut growth = Growth { objects, found };
    growth.draw(
        &folder.join("mappings.svg"),
        "Cost of a packet by mappings in the table",
        "mappings",
        &MAPPINGS.map(|mappings| (mappings, plan(mappings), SEGMENT)),
    )?;
    growth.draw(
        &folder.join("volumes.svg"),
        &format!("Cost of a packet by VIPs that {SPREAD} mappings are spread over"),
        "VIPs",
        &VOLUMES.map(|volumes| (volumes, Plan { volumes, ..plan(SPREAD) }, SEGMENT)),
    )?;
    growth.draw(
        &folder.join("hosts.svg"),
        &format!("Cost of a packet by hosts, {SIZED} mappings on 250 devices"),
        "hosts",
        &HOSTS.map(|hosts| (hosts, Plan { hosts, ..plan(SIZED) }, SEGMENT)),
    )?;
    growth.draw(
        &folder.join("packet-size.svg"),
        &format!("Cost of a packet by its size, {SIZED} mappings"),
        "bytes of the IP packet",
        &LENGTHS.map(|length| (u32::from(length), plan(SIZED), length)),
    )
}

struct Growth<'a> {
    objects: &'a Objects,
    found: &'a mut Vec<Row>,
}

impl Growth<'_> {
    /// Measures some points (what they stand at, the table, the packets' size) and draws them.
    fn draw(&mut self, file: &Path, title: &str, axis: &str, points: &[(u32, Plan, u16)]) -> Result<()> {
        let mut series: Vec<Series> = KINDS.iter().map(|(name, _)| Series::new(*name)).collect();
        let mut bare = Series::new("bare program");
        for &(at, plan, length) in points {
            let runs = on_stage(self.objects, plan, |stage| point(stage, length))?;
            for (((name, _), series), runs) in KINDS.iter().zip(&mut series).zip(runs) {
                let name = format!("growth: {name}, {at} {axis} (over: bare program)");
                let Some(row) = Row::new(name, "ns", &runs, Goal::None) else { continue };
                super::say(&row);
                let (least, most) =
                    runs.iter().fold((f64::MAX, f64::MIN), |(l, m), (cost, _)| (l.min(*cost), m.max(*cost)));
                series.add(f64::from(at), row.value, [least, most]);
                if series.is_named(KINDS[0].0) {
                    bare.add(f64::from(at), row.baseline, [row.baseline; 2]);
                }
                self.found.push(row);
            }
        }
        series.push(bare);
        Plot { title, axis, unit: "ns for each packet", series: &series }.draw(file)?;
        eprintln!("  drew {}", file.display());
        Ok(())
    }
}

/// The runs of each kind at one point.
fn point(stage: &mut Stage, length: u16) -> Result<Vec<Vec<Run>>> {
    let mut runs = vec![Vec::new(); KINDS.len()];
    for _ in 0..ROUNDS {
        for ((_, kind), runs) in KINDS.iter().zip(&mut runs) {
            runs.push(cost(stage, *kind, length)?);
        }
    }
    Ok(runs)
}
