//! The command line, and the daemon's life.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::port::Port;
use crate::probe::{Probe, probe};

/// Gives every physical LUN of a real iSCSI target a TCP port of its own.
///
/// On each port the LUN is LUN 0, under the target name and identity that the catalog gives its extent. The
/// real target is reached as it is and needs no change. The daemon prints one line, "ready …", when all ports
/// listen; SIGTERM and SIGINT end it.
///
/// Exit status: 0 after a signal, 1 where something was wrong from the start (the message says what), 2 where
/// the command line was.
#[derive(Parser)]
#[command(name = "lungate-target", version, args_conflicts_with_subcommands = true)]
struct Args {
    /// The configuration file (JSON): {"device": "FILE", …}, where FILE is what
    /// `lungate catalog view device NAME` prints.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// How log lines are written to stderr; RUST_LOG chooses which (default: info).
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    hidden: Option<Hidden>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Hidden {
    /// Prints a completion script.
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Prints the manual page.
    #[command(hide = true)]
    Man,
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lungate-target: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    match (&args.hidden, &args.config) {
        (Some(Hidden::Completions { shell }), _) => {
            clap_complete::generate(*shell, &mut Args::command(), "lungate-target", &mut std::io::stdout());
            Ok(())
        }
        (Some(Hidden::Man), _) => Ok(clap_mangen::Man::new(Args::command()).render(&mut std::io::stdout())?),
        (None, Some(path)) => {
            let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
            let log = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal());
            match args.log_format {
                LogFormat::Text => log.init(),
                LogFormat::Json => log.json().init(),
            }
            let (config, view) = Config::read(path)?;
            let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
            runtime.block_on(serve(config, view))
        }
        (None, None) => bail!("--config FILE is needed"),
    }
}

async fn serve(config: Config, view: lungate_catalog::view::DeviceView) -> Result<()> {
    if view.ports.is_empty() {
        bail!("device {} has no LUN that holds an extent: there is nothing to serve", view.name);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    check_luns(&view).await?;

    let mut ports = JoinSet::new();
    for port in view.ports {
        let port = Arc::new(Port::new(port, &config));
        let listener = port.listen(view.address).await?;
        ports.spawn(port.serve(listener));
    }
    println!("ready: device {}, {} ports at {}", view.name, ports.len(), view.address);
    std::io::stdout().flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending on a signal; open sessions are closed");
    Ok(())
}

/// Holds every real LUN against the catalog. A target that is down is looked at again when a host logs in; one
/// that has another LUN there than the catalog says must not be served.
async fn check_luns(view: &lungate_catalog::view::DeviceView) -> Result<()> {
    let mut wrong = Vec::new();
    for port in &view.ports {
        match probe(port).await {
            Probe::Matches => {}
            Probe::Differs(how) => wrong.push(format!("port {}: {how}", port.port)),
            Probe::Unreachable(error) => {
                tracing::warn!(port = port.port, %error, "the real target cannot be reached yet");
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("real LUNs differ from the catalog:\n{}", wrong.join("\n")) }
}
