//! The lungate-host daemon and command: one virtual LUN over one connection for each block range.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
