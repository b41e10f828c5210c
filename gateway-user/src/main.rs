//! The lungate command: loads, fills and watches the gateway.

mod batch;
mod change;
mod cli;
mod clock;
mod commands;
mod content;
mod execute;
mod index;
mod kernel;
mod links;
mod network;
mod object;
mod pins;
mod plan;
mod progress;
mod surroundings;
mod table;
mod upgrade;
mod vlans;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
