//! Packets through the gateway's program in the kernel (`BPF_PROG_TEST_RUN`): tables of what goes in, what becomes
//! of it, and what comes out.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod frame;
mod malformed;
mod model;
mod pass;
mod refuse;
mod runner;
mod translate;
