//! Set-up, build, lab, demonstration and tests: everything that is run by `cargo xtask`, and the lab that the
//! end-to-end tests stand on.

pub mod bench;
pub mod bpf;
pub mod budget;
pub mod demo;
pub mod fuzz;
pub mod lab;
pub mod setup;
pub mod step;
pub mod tests;
pub mod workspace;
