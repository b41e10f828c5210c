//! Steps that take a while: what runs is shown, with the time it takes, and its output only where it fails.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How many of the last lines of a failed command are shown.
const SHOWN_LINES: usize = 40;

/// Runs a command to its end; what it prints is shown while it runs on a terminal, and where it fails.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    if bar.is_hidden() {
        eprintln!("… {what}");
    }
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {:?} to {what}", command.get_program()))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let lines = std::thread::scope(|scope| {
        let other = scope.spawn(|| stdout.map(|stdout| follow(stdout, &bar)).unwrap_or_default());
        let mut lines = stderr.map(|stderr| follow(stderr, &bar)).unwrap_or_default();
        lines.extend(other.join().unwrap_or_default());
        lines
    });
    let status = child.wait().with_context(|| format!("cannot wait for the command to {what}"))?;
    bar.finish_and_clear();
    if !status.success() {
        let from = lines.len().saturating_sub(SHOWN_LINES);
        lines[from..].iter().for_each(|line| eprintln!("  {line}"));
        bail!("cannot {what}: {command:?} ended with {status}");
    }
    eprintln!("✓ {what} ({:.1} s)", start.elapsed().as_secs_f32());
    Ok(())
}

fn follow(stream: impl Read, bar: &ProgressBar) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        bar.set_message(line.clone());
        lines.push(line);
    }
    lines
}

/// Runs a command and gives what it prints on stdout; where it fails, the error has what it says on stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("{command:?} ended with {}: {}", out.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
