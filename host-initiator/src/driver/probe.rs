//! Holds what is behind an extent's port against what the catalog says must be there, before any command of the
//! volume goes to it.

use lungate_catalog::units::BlockSize;
use lungate_catalog::view::HostExtent;
use lungate_iscsi::initiator::{Completion, Session, SessionError, Task, Transfer};
use lungate_iscsi::pdu::LunField;
use lungate_iscsi::scsi::disk::{BlockLimits, Capacity, naa_designators, page, vpd_body};
use lungate_iscsi::scsi::{Command, SenseKey, Status};

/// A fresh session answers its first command with a unit attention, perhaps one for each event it missed.
const ATTEMPTS: usize = 8;
const VPD_BYTES: u32 = 255;
const READ_CAPACITY_16_BYTES: u32 = 32;

/// What was found at an extent's port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) capacity: Capacity,
    pub(super) limits: BlockLimits,
}

/// Why an extent's port cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error(transparent)]
    Session(#[from] SessionError),
    /// It leads to another LUN than the catalog says.
    #[error("{0}")]
    Wrong(String),
}

/// Asks the LUN who it is and how large.
pub(super) async fn probe(
    session: &Session,
    extent: &HostExtent,
    block_size: BlockSize,
) -> Result<Found, ProbeError> {
    let wrong = |what: &str, found: String, expected: String| {
        let text =
            format!("the LUN there has {what} {found}, the catalog says {expected}: it is another LUN");
        Err(ProbeError::Wrong(text))
    };
    let serial = inquire(session, page::SERIAL).await?;
    let serial = vpd_body(&serial, page::SERIAL).map(|s| String::from_utf8_lossy(s).trim().to_owned());
    if serial.as_ref() != Some(&extent.identity.serial) {
        return wrong("serial number", serial.unwrap_or_default(), extent.identity.serial.clone());
    }
    let names = naa_designators(&inquire(session, page::IDENTIFICATION).await?);
    if !names.contains(&extent.identity.naa.bytes()) {
        let found = names.iter().map(|naa| format!("{:016x}", u64::from_be_bytes(*naa))).collect::<Vec<_>>();
        return wrong("NAA", format!("[{}]", found.join(", ")), extent.identity.naa.to_string());
    }
    let command = Command::ReadCapacity16 { allocation: READ_CAPACITY_16_BYTES };
    let data = ask(session, command, READ_CAPACITY_16_BYTES).await?;
    let Some(capacity) = Capacity::parse(&data) else {
        return wrong("a capacity of", format!("{} bytes of data", data.len()), "32".to_owned());
    };
    if capacity.block_size != block_size.get() {
        return wrong("a block size of", capacity.block_size.to_string(), block_size.to_string());
    }
    if capacity.blocks < extent.blocks.0 {
        return wrong(
            "a size in blocks of",
            capacity.blocks.to_string(),
            format!("at least {}", extent.blocks),
        );
    }
    // A device without that page limits nothing.
    let limits = match inquire(session, page::BLOCK_LIMITS).await {
        Ok(data) => BlockLimits::parse(&data).unwrap_or_default(),
        Err(ProbeError::Wrong(_)) => BlockLimits::default(),
        Err(error) => return Err(error),
    };
    Ok(Found { capacity, limits })
}

async fn inquire(session: &Session, code: u8) -> Result<bytes::Bytes, ProbeError> {
    ask(session, Command::Inquiry { page: Some(code), allocation: VPD_BYTES }, VPD_BYTES).await
}

async fn ask(session: &Session, command: Command, expected: u32) -> Result<bytes::Bytes, ProbeError> {
    for _ in 0..ATTEMPTS {
        let transfer = Transfer::In(expected);
        let task = Task { lun: LunField::ZERO, cdb: command.to_cdb(), transfer };
        let Completion { status, sense, data } = session.execute(task).await?;
        match (status, sense) {
            (Status::Good, _) => return Ok(data.into_bytes()),
            (_, Some(sense)) if sense.key == SenseKey::UnitAttention => {}
            (_, Some(sense)) => return Err(ProbeError::Wrong(format!("{command:?} failed: {sense}"))),
            (status, None) => return Err(ProbeError::Wrong(format!("{command:?} failed: {status:?}"))),
        }
    }
    Err(ProbeError::Wrong(format!("{command:?} was answered with unit attentions only")))
}
