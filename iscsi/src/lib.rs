//! iSCSI (RFC 7143): PDUs, login, SCSI commands and sense, and an initiator session.

pub mod initiator;
pub mod login;
pub mod payload;
pub mod pdu;
pub mod scsi;
