//! The gateway's programs for XDP and tcx.

fn main() {}
