//! `cargo xtask`: set-up, build, lab, demonstration, tests and benchmarks.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use xtask::bpf::objects;
use xtask::step::run;
use xtask::workspace::{build, cargo, root};
use xtask::{bench, budget, demo, fuzz, lab, setup};

/// Builds lungate, shows it and tests it.
///
/// Exit status: 0 only where everything asked for was done.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what building, lab and tests need: Debian packages by name and bpf-linker by cargo.
    Setup {
        /// Only says what is missing, with the exact commands, and fails where something is.
        #[arg(long)]
        no_install: bool,
    },
    /// Builds the BPF programs and all commands, optimised, after the set-up, and says what the kernel makes of the
    /// programs.
    Build {
        /// Lets the BPF programs be as large as they are now.
        #[arg(long)]
        accept_budget: bool,
        /// Installs nothing: says what is missing.
        #[arg(long)]
        no_install: bool,
    },
    /// Builds what is needed and runs `lungate load` on these interfaces.
    Load {
        /// An interface; may be given several times.
        #[arg(long = "iface", value_name = "IF", required = true)]
        interfaces: Vec<String>,
        /// Installs nothing: says what is missing.
        #[arg(long)]
        no_install: bool,
    },
    /// Shows the whole of it in a lab: one volume over real targets, used by real clients, with an extent that
    /// moves. Takes a minute or two after the set-up.
    Demo {
        /// Leaves the lab standing and says how to enter it.
        #[arg(long)]
        keep: bool,
        /// Prints the summary as one JSON object on stdout.
        #[arg(long)]
        json: bool,
        /// Installs nothing: says what is missing.
        #[arg(long)]
        no_install: bool,
    },
    /// Runs every test, after the set-up.
    Test {
        /// Installs nothing: says what is missing.
        #[arg(long)]
        no_install: bool,
    },
    /// Measures what was built, after the set-up; every figure is held against a baseline of the same run. Takes some
    /// minutes.
    #[command(subcommand)]
    Bench(Bench),
    /// Feeds the parsers with what a fuzzer finds, after installing cargo-fuzz. A nightly compiler is needed.
    ///
    /// 'fuzz gateway --packets N' compares the programs in the kernel with their model instead, on random packets.
    Fuzz {
        /// The target, as 'fuzz/fuzz_targets' names it; all of them without it.
        target: Option<String>,
        /// How long each target runs.
        #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// How many random packets go through the programs in the kernel and through their model.
        #[arg(long, value_name = "N", requires = "target", conflicts_with = "seconds",
            value_parser = clap::value_parser!(u64).range(1..))]
        packets: Option<u64>,
        /// Which packets: the same number makes the same ones. Without it they are others each time.
        #[arg(long, value_name = "S", requires = "packets")]
        seed: Option<u64>,
    },
    /// Runs what a change has to pass: formatting, lints and every test.
    Prepush,
    /// Labs that were kept.
    #[command(subcommand)]
    Lab(LabTask),
}

/// What is measured.
#[derive(Subcommand)]
enum Bench {
    /// The gateway: cost for each packet, packets per second, changes of the table.
    Gateway {
        /// Writes the figures to this file, too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Measures everything, not only what has a target, and draws the plots in 'docs/bench'.
        #[arg(long)]
        full: bool,
        /// Measures this part only; may be given several times.
        #[arg(long, value_name = "PART")]
        only: Vec<bench::Part>,
        /// Installs nothing: says what is missing.
        #[arg(long)]
        no_install: bool,
    },
}

#[derive(Subcommand)]
enum LabTask {
    /// Names the labs on this machine.
    List,
    /// Takes a lab down.
    Down {
        /// Its name.
        name: String,
    },
}

fn main() -> ExitCode {
    match task(Args::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn task(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup { no_install } => setup::setup(!no_install)?,
        Task::Build { accept_budget, no_install } => {
            setup::setup(!no_install)?;
            let binaries = build()?;
            budget::check(&objects(&root()).gateway, accept_budget)?;
            for path in [binaries.gateway, binaries.target, binaries.host] {
                println!("{}", path.display());
            }
        }
        Task::Load { interfaces, no_install } => {
            setup::setup(!no_install)?;
            let mut load = Command::new(build()?.gateway);
            load.arg("load").args(interfaces.iter().flat_map(|name| ["--iface", name]));
            let status = load.status()?;
            if !status.success() {
                bail!("lungate load ended with {status}");
            }
        }
        Task::Demo { keep, json, no_install } => return demonstrate(keep, json, !no_install),
        Task::Test { no_install } => test(!no_install)?,
        Task::Fuzz { target, packets: Some(packets), seed, .. } => {
            if target.as_deref() != Some("gateway") {
                bail!("only the gateway takes packets: cargo xtask fuzz gateway --packets {packets}");
            }
            fuzz::compare(packets, seed)?;
        }
        Task::Fuzz { target, seconds, .. } => fuzz::run(target.as_deref(), seconds)?,
        Task::Prepush => {
            setup::setup(true)?;
            build()?;
            budget::check(&objects(&root()).gateway, false)?;
            run("check the formatting", cargo().args(["fmt", "--all", "--check"]))?;
            let lints = ["clippy", "--all-targets", "--", "-D", "warnings"];
            run("check the lints", cargo().args(lints))?;
            test(true)?;
        }
        Task::Lab(LabTask::List) => lab::labs().iter().for_each(|name| println!("{name}")),
        Task::Lab(LabTask::Down { name }) => {
            if !lab::labs().contains(&name) {
                bail!("no lab {name:?}; 'cargo xtask lab list' names those that are there");
            }
            lab::take_down(&name);
        }
        Task::Bench(Bench::Gateway { json, full, only, no_install }) => {
            setup::setup(!no_install)?;
            bench::gateway(&build()?, full, &only, json.as_deref())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn demonstrate(keep: bool, json: bool, install: bool) -> Result<ExitCode> {
    setup::setup(install)?;
    let binaries = build()?;
    let (summary, lab) = demo::run(&binaries, keep)?;
    summary.show();
    if json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    if keep {
        eprintln!("\n{}", lab.keep());
    }
    Ok(if summary.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every test, with the programs that the end-to-end tests use built beforehand. Their closing lines are summed
/// up in one that says what passed.
fn test(install: bool) -> Result<()> {
    setup::setup(install)?;
    build()?;
    xtask::tests::run()
}
