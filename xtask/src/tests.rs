//! Runs the tests and sums them up.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::workspace::cargo;

/// Runs every test of the workspace; what they print is shown as it comes. The last line sums it up.
pub fn run() -> Result<()> {
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--exclude", "lungate-gateway-ebpf", "--no-fail-fast"]);
    let mut child = tests.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let mut total = Total::default();
    for line in BufReader::new(child.stdout.take().context("cargo test has no output")?).lines() {
        let line = line?;
        println!("{line}");
        total.add(&line);
    }
    let status = child.wait()?;
    println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.ignored);
    if !status.success() {
        bail!("cargo test ended with {status}");
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Total {
    /// Adds what a test program's closing line says: "test result: ok. 2 passed; 0 failed; 0 ignored; …".
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let mut words = count.split(' ');
            let number: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }
}
