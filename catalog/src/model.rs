//! What the catalog's document holds.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::document::unique_keys;
use crate::units::{BlockCount, BlockSize, Lba};

/// The version of the document that this build reads and writes.
pub const VERSION: u32 = 1;

/// What a segment can be clamped to, in bytes. At most what fits the largest IPv4 packet with the smallest headers
/// (65535 - 40; RFC 6691, 2). At least 88: senders take their TCP options, up to 40 bytes, off it (the same place),
/// and what is left must carry data, 48 bytes as Linux has it (`TCP_MIN_MSS`).
pub const MSS_CLAMP: RangeInclusive<u16> = 88..=65_495;

/// The whole system: every device, volume and mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// [`VERSION`].
    pub version: u32,
    /// Counts the changes that commands made; changes in the journal up to this one are in the document.
    #[serde(default, skip_serializing_if = "is_default")]
    pub generation: u64,
    /// Devices by name.
    #[serde(default, deserialize_with = "unique_keys")]
    pub devices: BTreeMap<String, Device>,
    /// Volumes by name.
    #[serde(default, deserialize_with = "unique_keys")]
    pub volumes: BTreeMap<String, Volume>,
    /// Mappings that belong to no volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<Mapping>,
    /// Device portals that serve nothing any more but whose replies are still translated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<Retired>,
}

impl Catalog {
    /// A catalog with nothing in it.
    pub fn empty() -> Self {
        Self {
            version: VERSION,
            generation: 0,
            devices: BTreeMap::new(),
            volumes: BTreeMap::new(),
            mappings: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// The physical LUN behind a device portal.
    pub fn lun_at(&self, portal: SocketAddr) -> Option<&PhysicalLun> {
        self.devices
            .values()
            .filter(|device| device.address == portal.ip())
            .flat_map(|device| &device.luns)
            .find(|lun| lun.port == portal.port())
    }

    /// The name of the volume one of whose extents is `vip`.
    pub fn volume_at(&self, vip: SocketAddr) -> Option<&str> {
        self.volumes
            .iter()
            .filter(|(_, volume)| volume.vip == vip.ip())
            .find(|(_, volume)| volume.extents.iter().any(|extent| extent.port == vip.port()))
            .map(|(name, _)| name.as_str())
    }
}

/// A machine with physical LUNs behind a target shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The address at which the shim listens.
    pub address: IpAddr,
    /// Its physical LUNs, each with a port of its own.
    pub luns: Vec<PhysicalLun>,
}

/// One physical LUN and the TCP port that means it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhysicalLun {
    /// The shim's TCP port for this LUN; 1 to 65535.
    pub port: u16,
    /// Where the real target serves it.
    pub backend: Backend,
    /// Its size.
    pub blocks: BlockCount,
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// The extent whose data it holds, live or as a copy prepared for a move. The shim shows this
    /// extent's target name and identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<ExtentId>,
}

/// A LUN at a real target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The real target's portal, as the shim reaches it.
    pub portal: SocketAddr,
    /// The real target's iSCSI name.
    pub target_name: String,
    /// The LUN there; 0 to 16383 (flat addressing, SAM-5 4.7.7.3).
    pub lun: u16,
}

/// Names an extent: its volume and its TCP port at the volume's VIP, which stays for its life.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtentId {
    /// The volume's name.
    pub volume: String,
    /// The extent's port at the volume's VIP.
    pub port: u16,
}

/// A virtual disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The volume's identity for its life; names and serial numbers derive from it.
    pub uuid: Uuid,
    /// The virtual IP address.
    pub vip: IpAddr,
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// Its size; the extents cover it whole.
    pub blocks: BlockCount,
    /// Host prefixes that may reach it; empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<IpNet>,
    /// The largest TCP segment in bytes, headers not counted, that either end is told of when a connection opens;
    /// without it what they say is left. See [`MSS_CLAMP`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss_clamp: Option<u16>,
    /// Its block ranges, in order of their first LBA.
    pub extents: Vec<Extent>,
}

/// A range of a volume's blocks. It begins at LBA 0 of its physical LUN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// The TCP port at the VIP that means this range; 1 to 65535.
    pub port: u16,
    /// The first block, in the volume.
    pub first_lba: Lba,
    /// The number of blocks.
    pub blocks: BlockCount,
    /// The device portal that serves it.
    pub device: SocketAddr,
    /// Whether packets from hosts are held off.
    #[serde(default, skip_serializing_if = "is_default")]
    pub state: MappingState,
}

/// One line of the substitution table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The address and port that hosts use.
    pub vip: SocketAddr,
    /// The device portal behind it.
    pub device: SocketAddr,
    /// Whether packets from hosts are held off.
    #[serde(default, skip_serializing_if = "is_default")]
    pub state: MappingState,
    /// Host prefixes that may reach it; empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<IpNet>,
    /// The largest TCP segment in bytes, headers not counted, that either end is told of when a connection opens;
    /// without it what they say is left. See [`MSS_CLAMP`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss_clamp: Option<u16>,
}

/// Whether a mapping passes packets from hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MappingState {
    /// Both ways.
    #[default]
    Live,
    /// Packets from hosts are dropped and counted; replies pass.
    Frozen,
}

/// A device portal whose late replies still belong to a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retired {
    /// The VIP and port that the replies are given back to.
    pub vip: SocketAddr,
    /// The device portal they come from.
    pub device: SocketAddr,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
