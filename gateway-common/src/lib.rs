//! The translation shared by the kernel program and the tools.
//!
//! | module | holds |
//! |---|---|
//! | [`table`] | the layout of the maps: keys, values, counters |
//! | [`verdict`] | what can become of a packet, and the counter of each reason |
//! | [`packet`] | how bytes are reached, and what a packet's headers say |
//! | [`rewrite`] | addresses, ports, hop limits and checksums |
//! | [`sample`] | traffic by formula, for benchmarks |
//!
//! All of it runs behind the verifier and on the host alike.

#![no_std]

pub mod filter;
pub mod packet;
pub mod rewrite;
pub mod sample;
pub mod table;
pub mod verdict;
