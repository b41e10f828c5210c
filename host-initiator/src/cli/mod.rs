//! The command line.

mod config;
mod daemon;
mod direct;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use config::Config;

/// Makes one virtual disk of the block ranges behind a volume's ports.
///
/// Without a command it runs as a daemon: it attaches the volumes and presents each as a target at an iSCSI
/// portal, on loopback unless told otherwise. It prints one line, "ready …", when the portal listens; SIGTERM and
/// SIGINT end it.
///
/// Exit status: 0 where everything asked for was done, 1 where something failed (the message says what), 2 where
/// the command line was wrong.
#[derive(Parser)]
#[command(name = "lungate-host", version)]
struct Args {
    /// The configuration file (JSON): {"volumes": ["FILE", …], …}, where FILE is what
    /// `lungate catalog view host VOLUME` prints.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/lungate/host.json")]
    config: PathBuf,
    /// How log lines are written to stderr; RUST_LOG chooses which (default: info for the daemon, else warn).
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Attaches each volume for a moment and shows its extents and whether they are what they should be.
    Info {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reads blocks of a volume, without a front end.
    Read {
        #[command(flatten)]
        place: direct::Place,
        /// How many blocks.
        #[arg(long)]
        blocks: u64,
        /// Where they go; standard output without it.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Writes whole blocks to a volume and flushes them, without a front end.
    Write {
        #[command(flatten)]
        place: direct::Place,
        /// Where they come from, as many as there are; standard input without it.
        #[arg(long, value_name = "FILE")]
        input: Option<PathBuf>,
        /// Prints what was written as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows the state of the running daemon: each extent's connection, reconnects, sessions.
    Status {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints a completion script.
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Prints the manual page.
    #[command(hide = true)]
    Man,
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lungate-host: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let level = if args.command.is_none() { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    match args.command {
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Args::command(), "lungate-host", &mut std::io::stdout());
            return Ok(());
        }
        Some(Command::Man) => {
            return Ok(clap_mangen::Man::new(Args::command()).render(&mut std::io::stdout())?);
        }
        _ => {}
    }
    let (config, views) = Config::read(&args.config)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        match args.command {
            Some(Command::Info { json }) => direct::info(&config, views, json).await,
            Some(Command::Read { place, blocks, output }) => {
                direct::read(&config, views, &place, blocks, output.as_deref()).await
            }
            Some(Command::Write { place, input, json }) => {
                direct::write(&config, views, &place, input.as_deref(), json).await
            }
            Some(Command::Status { json }) => daemon::status(&config, json).await,
            _ => daemon::serve(&config, views).await,
        }
    })
}
