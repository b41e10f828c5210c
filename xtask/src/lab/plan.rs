//! What is where in a lab.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use lungate_catalog::model::{
    Backend, Catalog, Device as CatalogDevice, Extent, ExtentId, MappingState, PhysicalLun, Volume,
};
use lungate_catalog::units::{BlockCount, BlockSize, Lba};
use uuid::Uuid;

/// The volume's name.
pub const VOLUME: &str = "vol0";
/// Where `lungate-host` presents it, on the host.
pub const PORTAL: &str = "127.0.0.1:3260";
/// Where a device's real target listens, on the device.
pub(super) const BACKEND: &str = "127.0.0.1:3260";
/// The blocks of an extent: 64 MiB in blocks of 512 bytes.
pub const EXTENT_BLOCKS: u64 = 131_072;
/// The volume's address.
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 100, 1));
/// The volume's identity; labs do not meet.
const UUID: Uuid = Uuid::from_u128(0x6b0a_1f4e_38a5_4bb1_92f2_2f7c_55f0_a001);

/// A device of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: &'static str,
    /// Its address.
    pub address: IpAddr,
    /// Its LUNs.
    pub luns: [Lun; 3],
}

/// A LUN of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lun {
    /// Its number at the real target, which has a target for each.
    pub lun: u16,
    /// The shim's port for it.
    pub port: u16,
    /// The port of the extent that it holds.
    pub holds: Option<u16>,
}

/// Neighbouring extents lie on different devices. Extent 4003 has a LUN that is kept for its copy on device b.
pub const DEVICES: [Device; 2] = [
    Device {
        name: "a",
        address: IpAddr::V4(Ipv4Addr::new(10, 77, 2, 11)),
        luns: [
            Lun { lun: 5, port: 5005, holds: Some(4001) },
            Lun { lun: 7, port: 5007, holds: Some(4003) },
            Lun { lun: 9, port: 5009, holds: None },
        ],
    },
    Device {
        name: "b",
        address: IpAddr::V4(Ipv4Addr::new(10, 77, 2, 12)),
        luns: [
            Lun { lun: 3, port: 5103, holds: Some(4002) },
            Lun { lun: 12, port: 5112, holds: Some(4004) },
            Lun { lun: 21, port: 5121, holds: Some(4003) },
        ],
    },
];

/// The extents in order, and where each begins its life.
const EXTENTS: [(u16, usize, usize); 4] = [(4001, 0, 0), (4002, 1, 0), (4003, 0, 1), (4004, 1, 1)];

impl Lun {
    /// The name of its target at the real target.
    pub fn target_name(&self, device: Device) -> String {
        format!("iqn.2026-11.lab.{}:disk{}", device.name, self.lun)
    }
}

/// The lab's catalog.
pub(super) fn catalog() -> Result<Catalog> {
    let mut catalog = Catalog::empty();
    for device in DEVICES {
        let luns = device.luns.iter().map(|lun| {
            let holds = lun.holds.map(|port| ExtentId { volume: VOLUME.to_owned(), port });
            Ok(PhysicalLun {
                port: lun.port,
                backend: Backend {
                    portal: BACKEND.parse()?,
                    target_name: lun.target_name(device),
                    lun: lun.lun,
                },
                blocks: BlockCount(EXTENT_BLOCKS),
                block_size: BlockSize::B512,
                holds,
            })
        });
        let entry = CatalogDevice { address: device.address, luns: luns.collect::<Result<_>>()? };
        catalog.devices.insert(device.name.to_owned(), entry);
    }
    let mut next = 0;
    let extents = EXTENTS.map(|(port, device, lun)| {
        let first_lba = Lba(next);
        next += EXTENT_BLOCKS;
        let device = SocketAddr::new(DEVICES[device].address, DEVICES[device].luns[lun].port);
        Extent { port, first_lba, blocks: BlockCount(EXTENT_BLOCKS), device, state: MappingState::Live }
    });
    let volume = Volume {
        uuid: UUID,
        vip: VIP,
        block_size: BlockSize::B512,
        blocks: BlockCount(next),
        allow: Vec::new(),
        mss_clamp: None,
        extents: extents.to_vec(),
    };
    catalog.volumes = BTreeMap::from([(VOLUME.to_owned(), volume)]);
    Ok(catalog)
}
