//! The translation shared by the kernel programs and the tools.
//!
//! | module | holds |
//! |---|---|
//! | [`table`] | the layout of the maps: keys, values, counters |
//! | [`filter`] | the quick first look at a packet's addresses |
//! | [`index`] | the table once more, for the quick way |
//! | [`verdict`] | what can become of a packet, and the counter of each reason |
//! | [`bytes`] | how bytes are reached, and how checksums follow what changes |
//! | [`headers`] | what a packet's headers say |
//! | [`gateway`] | a packet's way through the gateway |
//! | [`quick`] | the quick way of nearly every packet |
//! | [`hop`] | where it goes next |
//! | [`rewrite`] | addresses, ports, hop limits, tags and link addresses |
//! | [`mss`] | the largest segment that two ends agree on |
//! | [`errors`] | ICMP errors, outside and inside |
//! | [`answer`] | what a VIP answers itself |
//!
//! All of it runs behind the verifier and on the host alike.

#![no_std]

pub mod answer;
pub mod bytes;
pub mod errors;
pub mod filter;
pub mod gateway;

pub mod headers;
pub mod hop;
pub mod index;
pub mod mss;
pub mod quick;
pub mod rewrite;
pub mod sample;
pub mod table;
pub mod verdict;
