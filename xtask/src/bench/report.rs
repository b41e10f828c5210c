//! What a benchmark has found: one row for each figure, for people and for machines.

use std::fmt;

use serde::Serialize;

/// All that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Processor and kernel.
    pub machine: String,
    /// The figures.
    pub results: Vec<Row>,
}

/// One figure, held against a baseline that was measured in turns with it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured, and in brackets what it is held against.
    pub name: String,
    /// The unit of `value` and `baseline`.
    pub unit: &'static str,
    /// The figure of the median run.
    pub value: f64,
    /// The baseline of that run.
    pub baseline: f64,
    /// `value / baseline`.
    pub ratio: f64,
    /// The least and the greatest over all runs of what the target is about: the ratio, or the value.
    pub spread: [f64; 2],
    /// How many runs there were.
    pub runs: usize,
    /// The figure that is to be reached, where there is one.
    pub target: Option<f64>,
    /// Whether the median reaches it.
    pub met: Option<bool>,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// Nothing.
    None,
    /// The ratio may be so large.
    RatioAtMost(f64),
    /// The ratio must be so large.
    RatioAtLeast(f64),
    /// The value may be so large.
    ValueAtMost(f64),
}

/// One run: a value, and its baseline.
pub(super) type Run = (f64, f64);

impl Row {
    /// Sums up runs, of which there must be one at least: the run whose figure is the median stands for all.
    pub(super) fn new(name: impl Into<String>, unit: &'static str, runs: &[Run], goal: Goal) -> Option<Self> {
        let figure = |&(value, baseline): &Run| match goal {
            Goal::ValueAtMost(_) => value,
            _ => value / baseline,
        };
        let mut sorted = runs.to_vec();
        sorted.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
        let (least, most) = (sorted.first().map(figure)?, sorted.last().map(figure)?);
        let (value, baseline) = *sorted.get(sorted.len() / 2)?;
        let ratio = value / baseline;
        let (target, met) = match goal {
            Goal::None => (None, None),
            Goal::RatioAtMost(most) => (Some(most), Some(ratio <= most)),
            Goal::RatioAtLeast(least) => (Some(least), Some(ratio >= least)),
            Goal::ValueAtMost(most) => (Some(most), Some(value <= most)),
        };
        let spread = [least, most];
        Some(Self { name: name.into(), unit, value, baseline, ratio, spread, runs: runs.len(), target, met })
    }
}

impl Report {
    /// A report about this machine, without figures so far.
    pub fn new() -> Self {
        Self { machine: machine(), results: Vec::new() }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let width = self.results.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        writeln!(
            f,
            "{:<width$} {:>12} {:>12} {:<8} {:>7} {:>17} {:>4} {:>7}",
            "", "value", "baseline", "unit", "ratio", "spread", "runs", "target"
        )?;
        for Row { name, unit, value, baseline, ratio, spread, runs, target, met } in &self.results {
            let spread = format!("{} – {}", short(spread[0]), short(spread[1]));
            write!(
                f,
                "{name:<width$} {:>12} {:>12} {unit:<8} {ratio:>7.2} {spread:>17} {runs:>4}",
                short(*value),
                short(*baseline)
            )?;
            match (target, met) {
                (Some(target), Some(met)) => {
                    writeln!(f, " {:>7} {}", short(*target), if *met { "met" } else { "MISSED" })?;
                }
                _ => writeln!(f)?,
            }
        }
        let met = self.results.iter().filter(|row| row.met == Some(true)).count();
        let targets = self.results.iter().filter(|row| row.target.is_some()).count();
        writeln!(f, "{met} of {targets} targets met")
    }
}

/// Three or so significant digits.
fn short(number: f64) -> String {
    let decimals = match number.abs() {
        1000.0.. => 0,
        100.0.. => 1,
        _ => 2,
    };
    format!("{number:.decimals$}")
}

/// What the figures depend on.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let system = rustix::system::uname();
    format!(
        "{}, {processors} CPUs, {} {}",
        model.map_or("unknown processor", |(_, model)| model),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: [Run; 5] = [(10.0, 4.0), (9.0, 3.0), (20.0, 10.0), (12.0, 4.0), (50.0, 10.0)];

    #[test]
    fn the_median_run_stands_for_all() {
        let row = Row::new("x", "ns", &RUNS, Goal::RatioAtMost(3.0)).unwrap();
        assert_eq!((row.ratio, row.spread, row.runs, row.met), (3.0, [2.0, 5.0], 5, Some(true)));
        assert_eq!(row.ratio, row.value / row.baseline);
    }

    #[test]
    fn a_goal_is_met_on_its_side_only() {
        let met = |goal| Row::new("x", "ns", &RUNS, goal).unwrap().met;
        assert_eq!(met(Goal::None), None);
        assert_eq!(met(Goal::RatioAtMost(2.9)), Some(false));
        assert_eq!(met(Goal::RatioAtLeast(2.9)), Some(true));
        assert_eq!(met(Goal::RatioAtLeast(3.1)), Some(false));
        assert_eq!((met(Goal::ValueAtMost(12.0)), met(Goal::ValueAtMost(11.0))), (Some(true), Some(false)));
    }

    #[test]
    fn nothing_measured_is_no_row() {
        assert!(Row::new("x", "ns", &[], Goal::None).is_none());
    }
}
