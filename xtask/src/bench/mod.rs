//! Benchmarks of the gateway: every figure is held against a baseline that is measured in turns with it.
//!
//! | module | measures |
//! |---|---|
//! | [`cost`] | what a packet costs |
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
mod plot;
mod rate;
mod report;
mod segment;
mod stage;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::bpf::objects;
use crate::workspace::{Binaries, root};
pub use report::{Report, Row};

/// Where the plots are drawn.
const PLOTS: &str = "docs/bench";

/// Measures the gateway: the rows that have targets, or everything.
pub fn gateway(binaries: &Binaries, full: bool, json: Option<&Path>) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "loading programs and making namespaces needs root");
    let mut report = Report::new();
    let objects = objects(&root());
    eprintln!("→ packets per second");
    rate::rows(&objects, binaries, full, &mut report.results)?;
    eprintln!("→ changes of the table");
    if let Err(error) = change::rows(&objects, binaries, full, &mut report.results) {
        eprintln!("  {error:#}");
    }
    eprintln!("→ cost per packet");
    cost::rows(&objects, full, &mut report.results)?;
    if full {
        eprintln!("→ growth of the cost");
        growth::rows(&objects, &root().join(PLOTS), &mut report.results)?;
    }
    eprintln!("\n{report}");
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Shows a figure as soon as it is there.
fn say(row: &Row) {
    let Row { name, unit, value, baseline, ratio, .. } = row;
    eprintln!("  {name}: {value:.1} {unit}, {baseline:.1} {unit}, {ratio:.2}");
}
