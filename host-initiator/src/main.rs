//! The lungate-host daemon and command: one virtual LUN over one connection for each block range.

fn main() {}
