//! Packets through the gateway's program in the kernel (`BPF_PROG_TEST_RUN`): tables of what goes in, what becomes
//! of it, and what comes out; and random ones, compared with a model in plain Rust.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod agree;
mod answers;
mod buffers;
mod cache;
mod egress;
mod ends;
mod errors;
#[path = "../commands/foreign.rs"]
#[expect(dead_code, reason = "other tests pin it")]
mod foreign;
mod frame;
mod generate;
mod handed;
mod held;
mod live;
mod malformed;
mod model;
mod network;
mod offload;
mod regressions;
mod runner;
mod segments;
mod through;
mod translate;
mod tunnel;
mod vlans;
