//! Runs the fuzz targets of `fuzz/`.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::bpf;
use crate::step::{self, output};
use crate::workspace::{cargo, root};

const CARGO_FUZZ: &str = "0.13.2";

/// Installs cargo-fuzz where it is missing, and runs what was asked for.
pub fn run(target: Option<&str>, seconds: u32) -> Result<()> {
    let there = targets()?;
    let wanted = match target {
        None => there,
        Some(name) if there.iter().any(|other| other == name) => vec![name.to_owned()],
        Some(name) => bail!("no fuzz target {name:?}; there is {}", there.join(", ")),
    };
    let nightly = output(Command::new("rustup").args(["toolchain", "list"]))?;
    ensure!(nightly.contains("nightly"), "a nightly compiler is needed: rustup toolchain install nightly");
    if output(Command::new("cargo").args(["fuzz", "--version"])).is_err() {
        let mut install = Command::new("cargo");
        install.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ]);
        install.env_remove("CARGO_TARGET_DIR");
        step::run("build and install cargo-fuzz", &mut install)?;
    }
    run_targets(&wanted, seconds)
}

/// Sends random packets through the gateway's programs in the kernel and through their model, and fails where the two
/// differ. The packets are those of a seed, or others each time.
pub fn compare(packets: u64, seed: Option<u64>) -> Result<()> {
    bpf::build(&root())?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = seed.unwrap_or(since_epoch.as_secs());
    eprintln!("→ {packets} packets of seed {seed}");
    let mut test = cargo();
    test.args(["test", "--quiet", "--package", "lungate", "--test", "packets", "--"])
        .args(["kernel_and_model_agree", "--nocapture"])
        .env("LUNGATE_PACKETS", packets.to_string())
        .env("LUNGATE_SEED", seed.to_string());
    let status = test.status().context("cannot start cargo test")?;
    ensure!(status.success(), "kernel and model differ, see above ({status})");
    eprintln!("✓ {packets} packets of seed {seed}, nothing found");
    Ok(())
}

/// Runs targets, each for some seconds, from the seeds that are in the repository and from what earlier
/// runs have found. What the fuzzer says is shown; an input that breaks a target ends it with an error.
fn run_targets(targets: &[String], seconds: u32) -> Result<()> {
    for target in targets {
        eprintln!("→ {target}, {seconds} s");
        let folder = root().join("fuzz");
        let corpus = folder.join("corpus").join(target);
        std::fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
        let seeds = folder.join("seeds").join(target);
        let mut fuzz = Command::new("cargo");
        fuzz.current_dir(root()).args(["+nightly", "fuzz", "run", target]).arg(&corpus);
        if seeds.exists() {
            fuzz.arg(seeds);
        }
        fuzz.args([
            "--",
            &format!("-max_total_time={seconds}"),
            "-print_funcs=0",
            "-print_pcs=0",
            "-verbosity=0",
            "-print_final_stats=1",
        ]);
        fuzz.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
        let status = fuzz.status().context("cannot start cargo fuzz")?;
        ensure!(status.success(), "{target} was broken: see fuzz/artifacts/{target} ({status})");
    }
    eprintln!("✓ {} targets, {seconds} s each, nothing found", targets.len());
    Ok(())
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
