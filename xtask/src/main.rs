//! Set-up, build, lab, demonstration and tests.

fn main() {}
