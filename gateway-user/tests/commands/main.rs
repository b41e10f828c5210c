//! The `lungate` command from outside: the built binary, the kernel's pinned maps and, as a second opinion, bpftool.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod bytes;
mod document;
mod foreign;
mod gateway;
mod hooks;
mod index;
mod layout_1;
mod lifecycle;
mod limits;
mod random;
mod refusals;
mod sequence;
mod serve;
mod serving;
mod traffic;
mod undo;
