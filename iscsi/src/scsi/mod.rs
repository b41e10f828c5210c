//! SCSI as it travels in iSCSI: command blocks, sense data, and the data that describes a disk.
//!
//! | module | holds |
//! |---|---|
//! | [`cdb`] | command descriptor blocks (SPC-5, SBC-4) |
//! | [`sense`] | sense data and status (SPC-5, 4.4; SAM-5, 5.3) |
//! | [`disk`] | INQUIRY, VPD pages, capacities, mode pages |

pub mod cdb;
pub mod disk;
pub mod sense;

pub use cdb::{Cdb, Command};
pub use sense::{Sense, SenseKey, Status};
