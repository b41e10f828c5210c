//! The changes that commands make, each checked against what it touches and nothing else.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Catalog, Extent, Mapping, MappingState, Retired};

/// One change of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Adds a mapping that belongs to no volume.
    Add(Mapping),
    /// Removes a mapping that belongs to no volume.
    Remove {
        /// The mapping's VIP and port.
        vip: SocketAddr,
    },
    /// Lets another device portal serve a mapping; the one before is retired.
    Migrate {
        /// The mapping's VIP and port.
        vip: SocketAddr,
        /// The device portal that serves it from now on.
        to: SocketAddr,
    },
    /// Freezes a mapping or lets it go on.
    SetState {
        /// The mapping's VIP and port.
        vip: SocketAddr,
        /// What it becomes.
        state: MappingState,
    },
    /// Forgets a retired device portal: its replies are translated no more.
    Forget {
        /// The portal.
        device: SocketAddr,
    },
}

/// Why a change was refused. The catalog is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No line of the table has this VIP and port.
    #[error("no mapping {0}; 'lungate map list' shows those that are there")]
    NoMapping(SocketAddr),
    /// The VIP and port are in use.
    #[error("{vip} is already mapped to {device}; a port of a VIP means one device portal")]
    Mapped {
        /// The VIP and port.
        vip: SocketAddr,
        /// What it means now.
        device: SocketAddr,
    },
    /// The device portal is in use.
    #[error("device portal {device} already serves {vip}; a portal serves at most one mapping")]
    Serving {
        /// The device portal.
        device: SocketAddr,
        /// What it serves.
        vip: SocketAddr,
    },
    /// The device portal still answers for another mapping.
    #[error("device portal {device} is retired and its late replies still belong to {vip}; forget it first")]
    StillRetired {
        /// The device portal.
        device: SocketAddr,
        /// What its replies are given back to.
        vip: SocketAddr,
    },
    /// Not a retired portal.
    #[error("device portal {0} is not retired")]
    NotRetired(SocketAddr),
    /// The mapping is part of a volume.
    #[error(
        "{vip} is an extent of volume {volume}; a volume's extents stay covered, so it can migrate but not be removed"
    )]
    OfVolume {
        /// The VIP and port.
        vip: SocketAddr,
        /// The volume.
        volume: String,
    },
    /// The device portal does not hold the extent.
    #[error("device portal {device} cannot serve {volume}:{port}: {why}")]
    NotHeld {
        /// The device portal.
        device: SocketAddr,
        /// The volume.
        volume: String,
        /// The extent's port.
        port: u16,
        /// What is there instead.
        why: String,
    },
    /// The new line breaks a rule of the document.
    #[error("{vip} to {device}: {why}")]
    BadMapping {
        /// The VIP and port.
        vip: SocketAddr,
        /// The device portal.
        device: SocketAddr,
        /// The rule.
        why: &'static str,
    },
}

impl Catalog {
    /// Makes one change, or none: where it is refused nothing has changed.
    pub fn change(&mut self, change: &Change) -> Result<(), ChangeError> {
        match change {
            Change::Add(mapping) => self.add(mapping),
            Change::Remove { vip } => self.remove(*vip),
            Change::Migrate { vip, to } => self.migrate(*vip, *to),
            Change::SetState { vip, state } => self.set_state(*vip, *state),
            Change::Forget { device } => self.forget(*device),
        }
    }

    fn add(&mut self, mapping: &Mapping) -> Result<(), ChangeError> {
        if let Some((_, device)) = self.live().find(|(vip, _)| *vip == mapping.vip) {
            return Err(ChangeError::Mapped { vip: mapping.vip, device });
        }
        self.device_free(mapping.device, None)?;
        let bad = |why| Err(ChangeError::BadMapping { vip: mapping.vip, device: mapping.device, why });
        if self.devices.values().any(|device| device.address == mapping.vip.ip()) {
            return bad("the VIP is a device's address");
        }
        // The rules of a lone line are the document's own: check it in a document that holds nothing else.
        let alone = Self { mappings: vec![mapping.clone()], ..Self::empty() };
        if alone.validate().is_err() {
            return bad(
                "both sides need a unicast address of one family and a port of 1 to 65535, host prefixes of \
                 the same family, and a segment size that TCP can be clamped to",
            );
        }
        self.mappings.push(mapping.clone());
        Ok(())
    }

    fn remove(&mut self, vip: SocketAddr) -> Result<(), ChangeError> {
        if let Some(volume) = self.volume_at(vip) {
            return Err(ChangeError::OfVolume { vip, volume: volume.to_owned() });
        }
        let at = self.mappings.iter().position(|mapping| mapping.vip == vip);
        self.mappings.remove(at.ok_or(ChangeError::NoMapping(vip))?);
        Ok(())
    }

    fn migrate(&mut self, vip: SocketAddr, to: SocketAddr) -> Result<(), ChangeError> {
        let from = self.live().find(|(line, _)| *line == vip).ok_or(ChangeError::NoMapping(vip))?.1;
        self.device_free(to, Some(vip))?;
        if from.is_ipv4() != to.is_ipv4() || to.port() == 0 {
            let why = "the new device portal needs a port of 1 to 65535 and an address of the VIP's family";
            return Err(ChangeError::BadMapping { vip, device: to, why });
        }
        if let Some(volume) = self.volume_at(vip) {
            self.holds(volume, vip.port(), to)?;
        }
        *self.line_mut(vip).ok_or(ChangeError::NoMapping(vip))?.device = to;
        self.retired.retain(|retired| retired.device != to);
        self.retired.push(Retired { vip, device: from });
        Ok(())
    }

    fn set_state(&mut self, vip: SocketAddr, state: MappingState) -> Result<(), ChangeError> {
        *self.line_mut(vip).ok_or(ChangeError::NoMapping(vip))?.state = state;
        Ok(())
    }

    fn forget(&mut self, device: SocketAddr) -> Result<(), ChangeError> {
        let at = self.retired.iter().position(|retired| retired.device == device);
        self.retired.remove(at.ok_or(ChangeError::NotRetired(device))?);
        Ok(())
    }

    /// Whether a device portal serves nothing yet, nor answers late for anything but `vip`.
    fn device_free(&self, device: SocketAddr, vip: Option<SocketAddr>) -> Result<(), ChangeError> {
        if let Some((vip, _)) = self.live().find(|(_, line)| *line == device) {
            return Err(ChangeError::Serving { device, vip });
        }
        let retired = self.retired.iter().find(|retired| retired.device == device);
        match retired.filter(|retired| Some(retired.vip) != vip) {
            Some(retired) => Err(ChangeError::StillRetired { device, vip: retired.vip }),
            None => Ok(()),
        }
    }

    /// Whether the LUN at a device portal holds the extent, whole.
    fn holds(&self, volume: &str, port: u16, device: SocketAddr) -> Result<(), ChangeError> {
        let refuse = |why: String| Err(ChangeError::NotHeld { device, volume: volume.to_owned(), port, why });
        let Some(lun) = self.lun_at(device) else {
            return refuse("no device of the catalog has a LUN at that address and port".to_owned());
        };
        match &lun.holds {
            Some(held) if held.volume == volume && held.port == port => Ok(()),
            Some(held) => refuse(format!("the LUN there holds {}:{}", held.volume, held.port)),
            None => refuse("the LUN there holds no extent; say so in its \"holds\" once it does".to_owned()),
        }
    }

    fn live(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> + '_ {
        let extents = self.volumes.values().flat_map(|volume| {
            let line = |extent: &Extent| (SocketAddr::new(volume.vip, extent.port), extent.device);
            volume.extents.iter().map(line)
        });
        extents.chain(self.mappings.iter().map(|mapping| (mapping.vip, mapping.device)))
    }

    fn line_mut(&mut self, vip: SocketAddr) -> Option<Line<'_>> {
        let volumes = self.volumes.values_mut().filter(|volume| volume.vip == vip.ip());
        let extent = volumes.flat_map(|volume| &mut volume.extents).find(|extent| extent.port == vip.port());
        if let Some(extent) = extent {
            return Some(Line { device: &mut extent.device, state: &mut extent.state });
        }
        let mapping = self.mappings.iter_mut().find(|mapping| mapping.vip == vip)?;
        Some(Line { device: &mut mapping.device, state: &mut mapping.state })
    }
}

/// What a change may alter in a line of the table, be it an extent's or a lone mapping's.
struct Line<'a> {
    device: &'a mut SocketAddr,
    state: &'a mut MappingState,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(mapping) => write!(f, "add {} to {}", mapping.vip, mapping.device),
            Self::Remove { vip } => write!(f, "remove {vip}"),
            Self::Migrate { vip, to } => write!(f, "migrate {vip} to {to}"),
            Self::SetState { vip, state: MappingState::Live } => write!(f, "thaw {vip}"),
            Self::SetState { vip, state: MappingState::Frozen } => write!(f, "freeze {vip}"),
            Self::Forget { device } => write!(f, "forget {device}"),
        }
    }
}
