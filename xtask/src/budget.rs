//! How large the gateway's programs may be: what the verifier has to process, and what the kernel makes of them.
//! What was accepted last is in `gateway-ebpf/budget.json`; a program that has grown beyond it is an error, so that
//! it does not grow unseen towards the verifier's limit of a million instructions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::EbpfLoader;
use aya::programs::Program;
use serde::{Deserialize, Serialize};

use crate::workspace::root;

/// Compilers and kernels differ a little from version to version; in percent of what was accepted.
const TOLERANCE: u32 = 10;

/// What a program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Instructions that the verifier has processed, over all paths.
    pub verified_instructions: u32,
    /// Bytes of the program as the kernel keeps it; an instruction has 8.
    pub translated_bytes: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
}

/// Programs by name.
pub type Sizes = BTreeMap<String, Size>;

/// Shows what the programs of the gateway's object take, and fails where that is too much; with `accept` it becomes
/// the new budget.
pub fn check(object: &Path, accept: bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("budget of the BPF programs: skipped, since only root may load them");
        return Ok(());
    }
    let sizes = measure(object)?;
    if accept {
        std::fs::write(file(), serde_json::to_string_pretty(&sizes)? + "\n")
            .with_context(|| format!("cannot write {}", file().display()))?;
    }
    let text =
        std::fs::read_to_string(file()).with_context(|| format!("cannot read {}", file().display()))?;
    let budget: Sizes =
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file().display()))?;
    eprintln!(
        "{:<20} {:>26} {:>22} {:>22}",
        "BPF program", "verified instructions", "translated bytes", "jited bytes"
    );
    for (name, size) in &sizes {
        let before = budget.get(name);
        let [verified, translated, jited] =
            size.parts().map(|(what, now)| Against { now, accepted: before.map(|before| before.part(what)) });
        eprintln!("{name:<20} {verified:>26} {translated:>22} {jited:>22}");
    }
    let over = over(&sizes, &budget);
    if !over.is_empty() {
        bail!(
            "the BPF programs are not within {}:\n  {}\nwhere that is meant, 'cargo xtask build --accept-budget' writes it down",
            file().display(),
            over.join("\n  ")
        );
    }
    Ok(())
}

/// What is more than was accepted, or not in both.
fn over(sizes: &Sizes, budget: &Sizes) -> Vec<String> {
    let mut over = Vec::new();
    for (name, size) in sizes {
        let Some(accepted) = budget.get(name) else {
            over.push(format!("{name} is new"));
            continue;
        };
        for (what, now) in size.parts() {
            let accepted = accepted.part(what);
            if u64::from(now) * 100 > u64::from(accepted) * u64::from(100 + TOLERANCE) {
                over.push(format!(
                    "{name}: {now} {what}, {accepted} were accepted, {TOLERANCE} % more at most"
                ));
            }
        }
    }
    let gone = budget.keys().filter(|name| !sizes.contains_key(*name));
    over.extend(gone.map(|name| format!("{name} is gone")));
    over
}

/// Loads every program of an object, and asks the kernel.
fn measure(object: &Path) -> Result<Sizes> {
    let bytes = std::fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    let mut loaded = EbpfLoader::new().load(&bytes).context("cannot create the maps of the BPF programs")?;
    let mut sizes = Sizes::new();
    for (name, program) in loaded.programs_mut() {
        let info = match program {
            Program::Xdp(program) => program.load().and_then(|()| program.info()),
            Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
            _ => bail!("{name} is of a type that the budget does not know"),
        };
        let info = info.with_context(|| format!("the kernel refused {name}"))?;
        let size = Size {
            verified_instructions: info.verified_instruction_count().unwrap_or(0),
            translated_bytes: info.size_translated().unwrap_or(0),
            jited_bytes: info.size_jitted(),
        };
        sizes.insert(name.to_owned(), size);
    }
    Ok(sizes)
}

fn file() -> PathBuf {
    root().join("gateway-ebpf/budget.json")
}

/// The parts of a size, by what they are called.
const PARTS: [&str; 3] = ["verified instructions", "translated bytes", "jited bytes"];

impl Size {
    fn parts(self) -> [(&'static str, u32); 3] {
        let numbers = [self.verified_instructions, self.translated_bytes, self.jited_bytes];
        std::array::from_fn(|i| (PARTS[i], numbers[i]))
    }

    fn part(self, what: &str) -> u32 {
        self.parts().into_iter().find(|(name, _)| *name == what).map_or(0, |(_, number)| number)
    }
}

/// A number beside the one that was accepted.
struct Against {
    now: u32,
    accepted: Option<u32>,
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.accepted {
            Some(accepted) => format!("{} of {accepted}", self.now),
            None => format!("{} (new)", self.now),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(name: &str, verified_instructions: u32) -> Sizes {
        let size = Size { verified_instructions, translated_bytes: 1000, jited_bytes: 600 };
        Sizes::from([(name.to_owned(), size)])
    }

    #[test]
    fn what_has_hardly_grown_is_within_the_budget() {
        assert_eq!(over(&sizes("a", 5500), &sizes("a", 5000)), Vec::<String>::new());
        assert_eq!(over(&sizes("a", 10), &sizes("a", 5000)), Vec::<String>::new());
    }

    #[test]
    fn what_has_grown_beyond_it_is_named() {
        let over = over(&sizes("a", 5501), &sizes("a", 5000));
        assert_eq!(over, ["a: 5501 verified instructions, 5000 were accepted, 10 % more at most"]);
    }

    #[test]
    fn programs_come_and_go_only_with_the_budget() {
        assert_eq!(over(&sizes("a", 1), &sizes("b", 1)), ["a is new", "b is gone"]);
    }
}
