//! The lungate-target daemon: one TCP port for each physical LUN of a real iSCSI target.

mod cli;
mod config;
mod hold;
mod port;
mod probe;
mod pump;
mod relay;
mod rewrite;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
