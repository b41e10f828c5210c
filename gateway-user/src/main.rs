//! The lungate command: loads, fills and watches the gateway.

mod cli;
mod commands;
mod links;
mod network;
mod object;
mod pins;
mod surroundings;
mod table;
mod vlans;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
