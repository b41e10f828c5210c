//! End-to-end tests: whole labs in network namespaces, with real targets and real clients. They use the programs
//! as `cargo xtask build` leaves them; `cargo xtask test` builds them first.

pub mod counted;
pub mod icmp;
pub mod layout_1;
pub mod net;
pub mod packet;
mod pass;
pub mod random;
pub mod rough;
pub mod transfer;
pub mod worker;

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use xtask::lab::Lab;
use xtask::workspace::{Binaries, binaries};

/// A lab of its own for a test, with targets and shims running.
pub fn lab() -> Result<Lab> {
    Lab::new(&built()?, false)
}

/// The programs, which must be built.
pub(crate) fn built() -> Result<Binaries> {
    let binaries = binaries();
    ensure!(
        binaries.gateway.exists() && binaries.target.exists() && binaries.host.exists(),
        "the programs are not built: run 'cargo xtask build' first"
    );
    Ok(binaries)
}

/// Runs a command that must fail, and gives what it says on stderr.
pub fn refused(command: &mut Command) -> Result<String> {
    let out = run(command)?;
    ensure!(!out.status.success(), "{command:?} succeeded:\n{}", String::from_utf8_lossy(&out.stdout));
    Ok(String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot start {command:?}"))
}
