//! The command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use serde::Serialize;

use crate::commands;
use crate::kernel;
use crate::links::Mode;
use crate::pins::Pins;

/// Loads, fills and watches a lungate gateway: an XDP program that rewrites addresses and ports between the VIPs
/// of volumes and the portals of devices, both ways, without terminating a connection.
///
/// The program and its table outlive this command: they are pinned, and traffic flows on after it exits.
///
/// Exit status: 0 where everything asked for was done, 1 where something failed and nothing was changed (the
/// message says what), 2 where the command line was wrong. `check` exits with 1 where something would keep the
/// gateway from working, `status` where it is not loaded.
#[derive(Parser)]
#[command(name = "lungate", version)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command knows.
#[derive(clap::Args)]
pub(crate) struct Global {
    /// The catalog's file; by default the one applied last, or else /etc/lungate/catalog.json.
    #[arg(long, global = true, value_name = "FILE", env = "LUNGATE_CATALOG")]
    pub(crate) catalog: Option<PathBuf>,
    /// The folder on a BPF file system under which program links and maps are pinned.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "LUNGATE_PIN_ROOT",
        default_value = "/sys/fs/bpf/lungate"
    )]
    pin_root: PathBuf,
    /// Prints JSON on stdout; texts for people then go to stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Attaches the programs to interfaces, or replaces them where they are attached already, without losing a packet.
    Load {
        /// An interface; may be given several times.
        #[arg(long = "iface", value_name = "IF", required = true)]
        interfaces: Vec<String>,
        /// In the driver, above it, or whatever of the two works. An interface without Ethernet headers is served
        /// at tcx in any case.
        #[arg(long, default_value = "auto")]
        mode: Mode,
        /// How many mappings the table can hold: 16384 unless given. Stays as it is where the table is there already;
        /// one of an older layout keeps its size or becomes larger.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
        max_mappings: Option<u32>,
    },
    /// Detaches the program and forgets the table. The catalog is not touched.
    Unload,
    /// Shows where the program is attached, and where the kernel's table and the catalog differ.
    Status,
    /// Makes the kernel's table equal to the catalog and prints what changed; changes nothing where it is already.
    Apply {
        /// The catalog's file; commands without --catalog use it from now on.
        file: Option<PathBuf>,
    },
    /// Shows and changes the table: the catalog first, then the kernel.
    #[command(subcommand)]
    Map(Map),
    /// Shows packets and bytes of each mapping and direction, and what was dropped, passed or answered, by reason.
    Stats,
    /// Shows each packet that is dropped, as it happens, until Ctrl-C: when, why, where it came in, from whom to whom.
    Watch,
    /// Follows changes of links, addresses, neighbours and routes at once, and applies the catalog when its file changes.
    ///
    /// Runs until it is told to end by SIGINT or SIGTERM. Packets flow without it: changes are then followed
    /// within 200 ms, and the catalog when it is applied. Prints `ready` when it follows changes, and what it
    /// does on stderr; with --json one object a line on stdout.
    Serve,
    /// Says what would keep XDP from working on this machine or interface, and the command that mends it.
    Check {
        /// An interface; without it only the machine is looked at.
        interface: Option<String>,
    },
    /// Checks a catalog and shows each party's view of it.
    #[command(subcommand)]
    Catalog(Catalog),
    /// Prints a completion script.
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Prints the manual page.
    #[command(hide = true)]
    Man,
}

/// Commands for the table.
#[derive(Subcommand)]
pub(crate) enum Map {
    /// Adds a mapping that belongs to no volume.
    Add {
        /// The address and port that hosts use.
        vip: SocketAddr,
        /// The device's address and port behind it.
        device: SocketAddr,
    },
    /// Removes a mapping that belongs to no volume.
    Remove {
        /// The address and port that hosts use.
        vip: SocketAddr,
    },
    /// Lets another device serve a mapping from now on. Replies of the device before are still translated.
    Migrate {
        /// The address and port that hosts use.
        vip: SocketAddr,
        /// The new device's address and port.
        #[arg(long, value_name = "DEVICE:PORT")]
        to: SocketAddr,
    },
    /// Shows the kernel's table.
    List,
}

/// Commands for the catalog.
#[derive(Subcommand)]
pub(crate) enum Catalog {
    /// Checks a catalog against every rule.
    Check {
        /// The catalog's file.
        file: PathBuf,
    },
    /// Prints what one party is told.
    #[command(subcommand)]
    View(View),
}

/// The three parties.
#[derive(Subcommand)]
pub(crate) enum View {
    /// What a host is told of a volume: for the `volumes` of `lungate-host`.
    Host {
        /// The volume's name.
        volume: String,
    },
    /// What a device's shim is told: for the `device` of `lungate-target`.
    Device {
        /// The device's name.
        device: String,
    },
    /// What a gateway is told.
    Gateway,
}

impl Global {
    /// Where things are pinned.
    pub(crate) fn pins(&self) -> Pins {
        Pins::new(&self.pin_root)
    }

    /// Prints a result, as text or as JSON.
    pub(crate) fn print(&self, result: &(impl Serialize + fmt::Display)) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(result)?);
        } else {
            print!("{result}");
        }
        Ok(())
    }
}

pub(crate) fn main() -> ExitCode {
    let Args { global, command } = Args::parse();
    match run(&global, command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lungate: {error:#}{}", kernel::hint(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(global: &Global, command: Command) -> Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Load { interfaces, mode, max_mappings } => {
            commands::load::load(global, &interfaces, mode, max_mappings).map(done)
        }
        Command::Unload => commands::load::unload(global).map(done),
        Command::Status => commands::status::status(global),
        Command::Apply { file } => commands::apply::apply(global, file).map(done),
        Command::Map(map) => commands::map::map(global, map).map(done),
        Command::Stats => commands::stats::stats(global).map(done),
        Command::Serve => commands::serve::serve(global).map(done),
        Command::Watch => commands::watch::watch(global).map(done),
        Command::Check { interface } => commands::check::check(global, interface.as_deref()),
        Command::Catalog(catalog) => commands::catalog::catalog(global, &catalog).map(done),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "lungate", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            clap_mangen::Man::new(Args::command()).render(&mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
