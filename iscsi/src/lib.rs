//! iSCSI PDUs, login, digests, SCSI commands and sense, and an initiator session.
