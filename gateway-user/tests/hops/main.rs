//! Where a packet goes next, as far as the kernel's forwarding table decides it, and who may send it there in
//! IPv6: packets through the program in the kernel (`BPF_PROG_TEST_RUN`).

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

#[path = "../packets/frame.rs"]
#[expect(dead_code, reason = "the packet tables use what these tests do not")]
mod frame;
mod next_hop;
mod prefixes;
#[path = "../packets/runner.rs"]
#[expect(dead_code, reason = "the packet tables use what these tests do not")]
mod runner;
