//! Benchmarks of the gateway: every figure is held against a baseline that is measured in turns with it.
//!
//! | module | measures |
//! |---|---|
//! | [`cost`] | what a packet costs |
//! | [`steps`] | where the time of a packet goes |
//! | [`rate`] | packets per second |
//! | [`change`] | changes of the table |
//! | [`growth`] | how the cost grows, with plots |

mod batch;
mod change;
mod cost;
mod cpu;
mod growth;
mod lane;
mod namespace;
mod pins;
mod plot;
mod rate;
mod report;
mod stage;
mod steps;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::bpf::objects;
use crate::workspace::{Binaries, root};
pub use report::{Report, Row};

/// Where the plots are drawn.
const PLOTS: &str = "docs/bench";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What a packet costs.
    Cost,
    /// Where the time of a packet goes.
    Steps,
    /// Packets per second.
    Rate,
    /// Changes of the table.
    Change,
    /// How the cost grows, with plots.
    Growth,
}

impl Part {
    const TARGETS: [Self; 3] = [Self::Cost, Self::Rate, Self::Change];
    const ALL: [Self; 5] = [Self::Cost, Self::Steps, Self::Rate, Self::Change, Self::Growth];

    fn measure(self, binaries: &Binaries, full: bool, found: &mut Vec<Row>) -> Result<()> {
        let objects = objects(&root());
        match self {
            Self::Cost => cost::rows(&objects, full, found),
            Self::Steps => steps::rows(&objects, found),
            Self::Rate => rate::rows(&objects, binaries, full, found),
            Self::Change => change::rows(&objects, binaries, full, found),
            Self::Growth => growth::rows(&objects, &root().join(PLOTS), found),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Cost => "cost of a packet",
            Self::Steps => "where the time of a packet goes",
            Self::Rate => "packets per second",
            Self::Change => "changes of the table",
            Self::Growth => "growth of the cost",
        }
    }
}

/// Measures the gateway: the rows that have targets, or everything, or the parts that are named. What could not be
/// measured is an error in the end, after everything else.
pub fn gateway(binaries: &Binaries, full: bool, only: &[Part], json: Option<&Path>) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "loading programs and making namespaces needs root");
    let parts = match (only, full) {
        ([], false) => &Part::TARGETS[..],
        ([], true) => &Part::ALL,
        (only, _) => only,
    };
    let mut report = Report::new();
    let mut failed = Vec::new();
    for part in parts {
        eprintln!("→ {}", part.name());
        if let Err(error) = part.measure(binaries, full, &mut report.results) {
            eprintln!("  {error:#}");
            failed.push(part.name());
        }
    }
    eprintln!("\n{report}");
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(failed.is_empty(), "not everything could be measured: {}", failed.join(", "));
    Ok(())
}

/// Shows a figure as soon as it is there.
fn say(row: &Row) {
    let Row { name, unit, value, baseline, ratio, .. } = row;
    eprintln!("  {name}: {value:.1} {unit}, {baseline:.1} {unit}, {ratio:.2}");
}
