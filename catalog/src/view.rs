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
use crate::model::{Backend, Catalog, Mapping, Retired};
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

/// What every derived iSCSI name begins with.
const NAME_PREFIX: &str = "iqn.2026-11.io.lungate";

impl Catalog {
    /// What a host is told of a volume; `None` where no volume has that name.
    pub fn host_view(&self, volume: &str) -> Option<HostView> {
        let (name, volume) = self.volumes.get_key_value(volume)?;
        let extents = volume.extents.iter().map(|extent| HostExtent {
            port: extent.port,
            first_lba: extent.first_lba,
            blocks: extent.blocks,
            target_name: extent_target_name(name, extent.port),
            identity: Identity::of_extent(volume.uuid, extent.port),
        });
        Some(HostView {
            name: name.clone(),
            target_name: format!("{NAME_PREFIX}:{name}"),
            identity: Identity::of_volume(volume.uuid),
            vip: volume.vip,
            block_size: volume.block_size,
            blocks: volume.blocks,
            extents: extents.collect(),
        })
    }

    /// What a device's shim is told; `None` where no device has that name. Only LUNs that hold an
    /// extent have a port: the others have nothing to show.
    pub fn device_view(&self, device: &str) -> Option<DeviceView> {
        let (name, device) = self.devices.get_key_value(device)?;
        let ports = device.luns.iter().filter_map(|lun| {
            let held = lun.holds.as_ref()?;
            Some(DevicePort {
                port: lun.port,
                target_name: extent_target_name(&held.volume, held.port),
                identity: Identity::of_extent(self.volumes.get(&held.volume)?.uuid, held.port),
                backend: lun.backend.clone(),
                blocks: lun.blocks,
                block_size: lun.block_size,
            })
        });
        Some(DeviceView { name: name.clone(), address: device.address, ports: ports.collect() })
    }

    /// What a gateway is told.
    pub fn gateway_view(&self) -> GatewayView {
        let extents = self.volumes.values().flat_map(|volume| {
            volume.extents.iter().map(|extent| Mapping {
                vip: SocketAddr::new(volume.vip, extent.port),
                device: extent.device,
                state: extent.state,
                allow: volume.allow.clone(),
                mss_clamp: volume.mss_clamp,
            })
        });
        let mut mappings: Vec<_> = extents.chain(self.mappings.iter().cloned()).collect();
        mappings.sort_by_key(|mapping| mapping.vip);
        let mut retired = self.retired.clone();
        retired.sort_by_key(|retired| retired.device);
        GatewayView { mappings, retired }
    }
}

/// The iSCSI name of an extent, the same at every device that holds it.
fn extent_target_name(volume: &str, port: u16) -> String {
    format!("{NAME_PREFIX}:{volume}.{port}")
}
