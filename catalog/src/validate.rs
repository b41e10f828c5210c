//! The rules of the catalog. A document is checked whole, and everything wrong with it is said at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::model::{Catalog, Extent, ExtentId, MSS_CLAMP, Mapping, PhysicalLun, VERSION, Volume};
use crate::units::{BlockCount, Lba};

/// The longest iSCSI name in bytes (RFC 7143, 4.2.7.1).
const MAX_ISCSI_NAME: usize = 223;
/// The largest LUN that flat addressing can name (SAM-5, 4.7.7.3).
const MAX_LUN: u16 = 16_383;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The place in the document, as in `volumes.vol0.extents[2].port`.
    pub path: String,
    /// What stands there.
    pub value: String,
    /// The rule it breaks.
    pub rule: String,
}

/// Every rule that a document breaks; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: {}", self.path, self.value, self.rule)
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{violation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

impl Catalog {
    /// Checks every rule of the document.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut check = Check { catalog: self, portals: self.portals(), broken: Vec::new() };
        check.version();
        check.devices();
        check.volumes();
        check.table();
        if check.broken.is_empty() { Ok(()) } else { Err(Violations(check.broken)) }
    }

    /// The physical LUNs by device portal; where a portal stands twice, the last one.
    fn portals(&self) -> BTreeMap<SocketAddr, &PhysicalLun> {
        self.devices
            .values()
            .flat_map(|device| {
                device.luns.iter().map(move |lun| (SocketAddr::new(device.address, lun.port), lun))
            })
            .collect()
    }
}

struct Check<'a> {
    catalog: &'a Catalog,
    portals: BTreeMap<SocketAddr, &'a PhysicalLun>,
    broken: Vec<Violation>,
}

impl<'a> Check<'a> {
    fn fail(&mut self, path: impl Into<String>, value: impl fmt::Display, rule: impl Into<String>) {
        self.broken.push(Violation { path: path.into(), value: value.to_string(), rule: rule.into() });
    }

    fn version(&mut self) {
        let version = self.catalog.version;
        if version != VERSION {
            self.fail("version", version, format!("this build reads version {VERSION}"));
        }
    }

    fn devices(&mut self) {
        let mut ports = BTreeMap::new();
        for (name, device) in &self.catalog.devices {
            let path = format!("devices.{name}");
            self.name(&path, name);
            self.address(&format!("{path}.address"), device.address);
            let mut backends = BTreeMap::new();
            for (i, lun) in device.luns.iter().enumerate() {
                let path = format!("{path}.luns[{i}]");
                let portal = SocketAddr::new(device.address, lun.port);
                self.physical_lun(&path, lun);
                if let Some(first) = ports.insert(portal, path.clone()) {
                    self.fail(
                        format!("{path}.port"),
                        portal,
                        format!("this device portal already stands at {first}"),
                    );
                }
                let backend = (lun.backend.portal, &lun.backend.target_name, lun.backend.lun);
                if let Some(first) = backends.insert(backend, path.clone()) {
                    let value = format!("{} LUN {} at {}", backend.1, backend.2, backend.0);
                    self.fail(
                        format!("{path}.backend"),
                        value,
                        format!("this LUN already has a port of its own at {first}"),
                    );
                }
            }
        }
    }

    fn physical_lun(&mut self, path: &str, lun: &PhysicalLun) {
        self.port(&format!("{path}.port"), lun.port);
        self.port(&format!("{path}.backend.portal"), lun.backend.portal.port());
        self.iscsi_name(&format!("{path}.backend.target_name"), &lun.backend.target_name);
        if lun.backend.lun > MAX_LUN {
            self.fail(format!("{path}.backend.lun"), lun.backend.lun, format!("a LUN is at most {MAX_LUN}"));
        }
        if lun.blocks.0 == 0 || lun.blocks.bytes(lun.block_size).is_none() {
            self.fail(
                format!("{path}.blocks"),
                lun.blocks,
                "a LUN has at least one block and less than 2^64 bytes",
            );
        }
        let Some(id) = &lun.holds else { return };
        let path = format!("{path}.holds");
        match self.extent(id) {
            None => self.fail(
                path,
                format!("{}:{}", id.volume, id.port),
                "no volume of that name has an extent with that port",
            ),
            Some((volume, extent)) => self.fits(&path, lun, volume, extent),
        }
    }

    fn volumes(&mut self) {
        let mut uuids = BTreeMap::new();
        for (name, volume) in &self.catalog.volumes {
            let path = format!("volumes.{name}");
            self.name(&path, name);
            self.address(&format!("{path}.vip"), volume.vip);
            self.prefixes(&format!("{path}.allow"), volume.vip, &volume.allow);
            self.mss_clamp(&path, volume.mss_clamp);
            if let Some(first) = uuids.insert(volume.uuid, path.clone()) {
                self.fail(
                    format!("{path}.uuid"),
                    volume.uuid,
                    format!("{first} already has this UUID; each volume needs its own"),
                );
            }
            if volume.blocks.bytes(volume.block_size).is_none() {
                self.fail(format!("{path}.blocks"), volume.blocks, "a volume has less than 2^64 bytes");
            }
            self.coverage(&path, volume);
            for (i, extent) in volume.extents.iter().enumerate() {
                let path = format!("{path}.extents[{i}]");
                self.port(&format!("{path}.port"), extent.port);
                self.extent_home(&path, name, volume, extent);
            }
        }
    }

    /// Extents cover [0, blocks) in order, with no gap and no overlap.
    fn coverage(&mut self, path: &str, volume: &Volume) {
        let mut next = Lba(0);
        for (i, extent) in volume.extents.iter().enumerate() {
            let place = format!("{path}.extents[{i}].first_lba");
            if extent.first_lba > next {
                self.fail(
                    place,
                    extent.first_lba,
                    format!("blocks {next} to {} belong to no extent (a gap)", extent.first_lba.0 - 1),
                );
            } else if extent.first_lba < next {
                self.fail(
                    place,
                    extent.first_lba,
                    format!("blocks up to {} belong to the extent before (an overlap)", next.0 - 1),
                );
            }
            if extent.blocks == BlockCount(0) {
                self.fail(format!("{path}.extents[{i}].blocks"), 0, "an extent has at least one block");
            }
            match extent.first_lba.checked_add(extent.blocks) {
                Some(end) => next = next.max(end),
                None => self.fail(
                    format!("{path}.extents[{i}].blocks"),
                    extent.blocks,
                    "the extent ends past LBA 2^64 - 1",
                ),
            }
        }
        if next.0 != volume.blocks.0 || volume.blocks.0 == 0 {
            self.fail(format!("{path}.blocks"), volume.blocks, format!("the extents cover {next} blocks; a volume has at least one block and its extents cover it whole"));
        }
    }

    fn extent_home(&mut self, path: &str, name: &str, volume: &Volume, extent: &Extent) {
        let path = format!("{path}.device");
        self.same_family(&path, volume.vip, extent.device.ip());
        let Some(lun) = self.portals.get(&extent.device).copied() else {
            return self.fail(path, extent.device, "no device has a LUN at that address and port");
        };
        // Sizes are compared where the LUN says what it holds (`physical_lun`).
        let held = lun.holds.as_ref();
        if held.is_none_or(|id| id.volume != name || id.port != extent.port) {
            let holds = held.map_or("no extent".to_owned(), |id| format!("{}:{}", id.volume, id.port));
            self.fail(
                path,
                extent.device,
                format!("the LUN there must hold {name}:{}; it holds {holds}", extent.port),
            );
        }
    }

    fn fits(&mut self, path: &str, lun: &PhysicalLun, volume: &Volume, extent: &Extent) {
        if lun.block_size != volume.block_size {
            self.fail(
                path,
                format!("{} bytes a block", lun.block_size),
                format!("the volume has {} bytes a block", volume.block_size),
            );
        }
        if lun.blocks < extent.blocks {
            self.fail(
                path,
                format!("{} blocks", lun.blocks),
                format!("the extent has {} blocks and must fit its LUN", extent.blocks),
            );
        }
    }

    /// Ports are unique per VIP; a device portal is live in at most one mapping, or retired.
    fn table(&mut self) {
        for (i, mapping) in self.catalog.mappings.iter().enumerate() {
            self.lone_mapping(&format!("mappings[{i}]"), mapping);
        }
        let mut vips: BTreeMap<SocketAddr, String> = BTreeMap::new();
        let mut devices: BTreeMap<SocketAddr, String> = BTreeMap::new();
        for (path, vip, device) in self.catalog.lines() {
            if let Some(first) = vips.insert(vip, path.clone()) {
                self.fail(
                    format!("{path}.{}", if path.starts_with('v') { "port" } else { "vip" }),
                    vip,
                    format!("this port of the VIP is already used by {first}"),
                );
            }
            if let Some(first) = devices.insert(device, path.clone()) {
                self.fail(
                    format!("{path}.device"),
                    device,
                    format!("this device portal is already used by {first}; a portal serves one extent"),
                );
            }
        }
        let vip_addresses: Vec<IpAddr> = vips.keys().map(SocketAddr::ip).collect();
        for (name, device) in &self.catalog.devices {
            if vip_addresses.contains(&device.address) {
                self.fail(
                    format!("devices.{name}.address"),
                    device.address,
                    "a device's address cannot be a VIP",
                );
            }
        }
        for (i, retired) in self.catalog.retired.iter().enumerate() {
            let path = format!("retired[{i}].device");
            self.same_family(&path, retired.vip.ip(), retired.device.ip());
            if let Some(first) = devices.insert(retired.device, format!("retired[{i}]")) {
                self.fail(
                    path,
                    retired.device,
                    format!(
                        "this device portal is already used by {first}; a portal is live or retired, once"
                    ),
                );
            }
        }
    }

    fn lone_mapping(&mut self, path: &str, mapping: &Mapping) {
        self.address(&format!("{path}.vip"), mapping.vip.ip());
        self.address(&format!("{path}.device"), mapping.device.ip());
        self.port(&format!("{path}.vip"), mapping.vip.port());
        self.port(&format!("{path}.device"), mapping.device.port());
        self.same_family(&format!("{path}.device"), mapping.vip.ip(), mapping.device.ip());
        self.prefixes(&format!("{path}.allow"), mapping.vip.ip(), &mapping.allow);
        self.mss_clamp(path, mapping.mss_clamp);
    }

    fn extent(&self, id: &ExtentId) -> Option<(&'a Volume, &'a Extent)> {
        let volume = self.catalog.volumes.get(&id.volume)?;
        Some((volume, volume.extents.iter().find(|extent| extent.port == id.port)?))
    }

    fn name(&mut self, path: &str, name: &str) {
        let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if name.is_empty() || name.len() > 63 || !letters || name.starts_with('-') {
            self.fail(path, format!("{name:?}"), "a name is 1 to 63 of a-z, 0-9 and '-', not starting with '-' (it becomes part of an iSCSI name)");
        }
    }

    fn iscsi_name(&mut self, path: &str, name: &str) {
        let known = ["iqn.", "eui.", "naa."].iter().any(|prefix| name.starts_with(prefix));
        let letters = name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase());
        if !known || !letters || name.len() > MAX_ISCSI_NAME {
            let rule = format!(
                "an iSCSI name starts with iqn., eui. or naa., has no space or capital letter and at most {MAX_ISCSI_NAME} bytes (RFC 7143, 4.2.7)"
            );
            self.fail(path, format!("{name:?}"), rule);
        }
    }

    fn port(&mut self, path: &str, port: u16) {
        if port == 0 {
            self.fail(path, port, "a TCP port is 1 to 65535");
        }
    }

    fn address(&mut self, path: &str, address: IpAddr) {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast || mapped
        {
            self.fail(path, address, "a unicast address that packets can be routed to is needed");
        }
    }

    fn prefixes(&mut self, path: &str, vip: IpAddr, prefixes: &[IpNet]) {
        for (i, prefix) in prefixes.iter().enumerate() {
            self.same_family(&format!("{path}[{i}]"), vip, prefix.addr());
        }
    }

    fn mss_clamp(&mut self, path: &str, mss: Option<u16>) {
        if let Some(mss) = mss.filter(|mss| !MSS_CLAMP.contains(mss)) {
            let (least, most) = (MSS_CLAMP.start(), MSS_CLAMP.end());
            let rule = format!("a TCP segment is clamped to {least} to {most} bytes (RFC 6691)");
            self.fail(format!("{path}.mss_clamp"), mss, rule);
        }
    }

    fn same_family(&mut self, path: &str, vip: IpAddr, other: IpAddr) {
        if vip.is_ipv4() != other.is_ipv4() {
            self.fail(path, other, format!("it must be of the same address family as the VIP {vip}"));
        }
    }
}

impl Catalog {
    /// Every live line of the table: its path in the document, the VIP, the device portal.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (String, SocketAddr, SocketAddr)> + '_ {
        let extents = self.volumes.iter().flat_map(|(name, volume)| {
            volume.extents.iter().enumerate().map(move |(i, extent)| {
                let path = format!("volumes.{name}.extents[{i}]");
                (path, SocketAddr::new(volume.vip, extent.port), extent.device)
            })
        });
        let lone = self.mappings.iter().enumerate();
        extents.chain(lone.map(|(i, mapping)| (format!("mappings[{i}]"), mapping.vip, mapping.device)))
    }
}
