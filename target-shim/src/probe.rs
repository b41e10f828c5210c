//! Holds a real LUN against what the catalog says of it.

use std::time::Duration;

use lungate_catalog::view::DevicePort;
use lungate_iscsi::initiator::{Session, SessionConfig, SessionError, Task, Transfer};
use lungate_iscsi::login::initiator::Identity;
use lungate_iscsi::login::params::Offer;
use lungate_iscsi::pdu::LunField;
use lungate_iscsi::scsi::disk::Capacity;
use lungate_iscsi::scsi::{Command, SenseKey, Status};

/// A fresh session answers its first command with a unit attention, perhaps one for each event it missed.
const ATTEMPTS: usize = 5;
const READ_CAPACITY_16_BYTES: u32 = 32;

/// What was found.
#[derive(Debug)]
pub(crate) enum Probe {
    /// The LUN that the catalog describes.
    Matches,
    /// Another one, or none.
    Differs(String),
    /// Nothing: no session.
    Unreachable(SessionError),
}

/// Logs in to the real target and asks for the LUN's capacity.
pub(crate) async fn probe(port: &DevicePort) -> Probe {
    let backend = &port.backend;
    let config = SessionConfig {
        portal: backend.portal,
        identity: Identity {
            initiator_name: "iqn.2026-11.io.lungate:target-check".to_owned(),
            target_name: Some(backend.target_name.clone()),
            // Random-format ISID (RFC 7143, 11.12.5), one for each port: checks do not end each other.
            isid: [0x80, 0, 0, 0, port.port.to_be_bytes()[0], port.port.to_be_bytes()[1]],
        },
        offer: Offer::default(),
        connect_timeout: Duration::from_secs(3),
        keepalive: Duration::from_secs(3),
    };
    let Some(lun) = LunField::from_number(backend.lun) else {
        return Probe::Differs(format!("LUN {} cannot be addressed", backend.lun));
    };
    match capacity(&config, lun).await {
        Err(error @ SessionError::Login { .. }) => Probe::Differs(error.to_string()),
        Err(error) => Probe::Unreachable(error),
        Ok(Err(why)) => Probe::Differs(format!("{} LUN {}: {why}", backend.target_name, backend.lun)),
        Ok(Ok(found)) => compare(port, found),
    }
}

fn compare(port: &DevicePort, found: Capacity) -> Probe {
    let backend = &port.backend;
    let lun = format!("{} LUN {}", backend.target_name, backend.lun);
    if found.block_size != port.block_size.get() {
        return Probe::Differs(format!(
            "{lun} has blocks of {} bytes, the catalog says {}",
            found.block_size, port.block_size
        ));
    }
    if found.blocks != port.blocks.0 {
        return Probe::Differs(format!(
            "{lun} has {} blocks, the catalog says {}",
            found.blocks, port.blocks
        ));
    }
    Probe::Matches
}

async fn capacity(config: &SessionConfig, lun: LunField) -> Result<Result<Capacity, String>, SessionError> {
    let session = Session::connect(config).await?;
    let cdb = Command::ReadCapacity16 { allocation: READ_CAPACITY_16_BYTES }.to_cdb();
    let mut found = Err("no answer but unit attentions".to_owned());
    for _ in 0..ATTEMPTS {
        let answer =
            session.execute(Task { lun, cdb, transfer: Transfer::In(READ_CAPACITY_16_BYTES) }).await?;
        found = match (answer.status, answer.sense) {
            (Status::Good, _) => Capacity::parse(&answer.data.into_bytes())
                .ok_or_else(|| "its READ CAPACITY (16) data is too short".to_owned()),
            (_, Some(sense)) if sense.key == SenseKey::UnitAttention => continue,
            (_, Some(sense)) => Err(format!("READ CAPACITY (16) failed: {sense}")),
            (status, None) => Err(format!("READ CAPACITY (16) failed: {status:?}")),
        };
        break;
    }
    session.logout().await;
    Ok(found)
}
