//! The three views: each party is told its own part and nothing else.
//!
//! | party | view | knows | never learns |
//! |---|---|---|---|
//! | host | [`HostView`] | the VIP, and which port is which block range | device addresses, real LUNs |
//! | gateway | [`GatewayView`] | VIP:port ↔ device:port | block ranges, LUNs |
//! | device | [`DeviceView`] | which of its ports is which LUN of which real target | other devices |

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::model::{Backend, Mapping, Retired};
use crate::units::{BlockCount, BlockSize, Lba};

/// What a host knows of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostView {
    /// The volume's name.
    pub name: String,
    /// The iSCSI name of the volume.
    pub target_name: String,
    /// What the volume calls itself in VPD pages.
    pub identity: Identity,
    /// The virtual IP address.
    pub vip: IpAddr,
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// Its size.
    pub blocks: BlockCount,
    /// Its block ranges, in order, without gap or overlap.
    pub extents: Vec<HostExtent>,
}

/// What a host knows of one extent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostExtent {
    /// The TCP port at the VIP.
    pub port: u16,
    /// The first block, in the volume.
    pub first_lba: Lba,
    /// The number of blocks.
    pub blocks: BlockCount,
    /// The iSCSI name to log in to.
    pub target_name: String,
    /// What the LUN behind the port must call itself (VPD 80 and 83); LUN 0 there.
    pub identity: Identity,
}

/// What a device's shim knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceView {
    /// The device's name.
    pub name: String,
    /// The address to listen at.
    pub address: IpAddr,
    /// One entry for each physical LUN that holds an extent.
    pub ports: Vec<DevicePort>,
}

/// One port of a shim: one LUN of one real target, shown to hosts as LUN 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicePort {
    /// The TCP port to listen at.
    pub port: u16,
    /// The iSCSI name shown to hosts.
    pub target_name: String,
    /// The identity shown to hosts in VPD 80 and 83.
    pub identity: Identity,
    /// The real LUN.
    pub backend: Backend,
    /// The real LUN's size.
    pub blocks: BlockCount,
    /// The size of the real LUN's blocks.
    pub block_size: BlockSize,
}

/// What a gateway knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayView {
    /// The substitution table, volumes' extents and lone mappings alike, in order of VIP and port.
    pub mappings: Vec<Mapping>,
    /// Portals whose late replies are still given back to a VIP.
    pub retired: Vec<Retired>,
}
