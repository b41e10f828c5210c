//! One virtual LUN over one iSCSI connection for each block range.
//!
//! | module | holds |
//! |---|---|
//! | [`driver`] | the volume's blocks: which extent, which connection, in which order |
//! | [`unit`] | the volume as a SCSI logical unit |
//! | [`portal`] | the front end that speaks iSCSI |

pub mod driver;
pub mod portal;
pub mod unit;
