//! The kernel's table: pinned maps, read and changed in the order that loses no packet and leaks no address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use ipnet::IpNet;
use lungate_catalog::model::{self, MappingState};
use lungate_catalog::view::GatewayView;
use lungate_gateway_common::table::{
    Access, Address, FROZEN, MAX_PATH, Mapping, Portal, RESTRICTED, RETIRED, Settings, Traffic, control, map,
};
use lungate_gateway_common::verdict::Reason;

use crate::object::{PORTALS_PER_MAPPING, PREFIXES_PER_MAPPING};
use crate::pins::Pins;

/// The pinned maps.
pub(crate) struct Table {
    forward: HashMap<MapData, Portal, Mapping>,
    reverse: HashMap<MapData, Portal, Mapping>,
    access: LpmTrie<MapData, Access, u32>,
    local: HashMap<MapData, Address, u32>,
    traffic: PerCpuArray<MapData, Traffic>,
    reasons: PerCpuArray<MapData, u64>,
    settings: Array<MapData, Settings>,
    control: Array<MapData, u64>,
    capacity: u32,
}

/// What the table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) forward: BTreeMap<SocketAddr, Line>,
    pub(crate) reverse: BTreeMap<SocketAddr, Line>,
    pub(crate) access: BTreeMap<u32, BTreeSet<IpNet>>,
}

/// One entry, in user space's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) peer: SocketAddr,
    pub(crate) flags: u32,
    pub(crate) counter: u32,
}

impl Table {
    /// Opens the maps of a loaded gateway.
    pub(crate) fn open(pins: &Pins) -> Result<Self> {
        if !pins.exist() {
            bail!("no gateway is loaded at {}: run 'lungate load --iface IF' first", pins.folder().display());
        }
        let capacity = crate::object::pinned_capacity(pins)?;
        let open = |name: &str| {
            let path = pins.map(name);
            MapData::from_pin(&path)
                .with_context(|| format!("cannot open {} (are you root?)", path.display()))
        };
        Ok(Self {
            forward: Map::HashMap(open(map::FORWARD)?).try_into()?,
            reverse: Map::HashMap(open(map::REVERSE)?).try_into()?,
            access: Map::LpmTrie(open(map::ACCESS)?).try_into()?,
            local: Map::HashMap(open(map::LOCAL)?).try_into()?,
            traffic: Map::PerCpuArray(open(map::TRAFFIC)?).try_into()?,
            reasons: Map::PerCpuArray(open(map::REASONS)?).try_into()?,
            settings: Map::Array(open(map::SETTINGS)?).try_into()?,
            control: Map::Array(open(map::CONTROL)?).try_into()?,
            capacity,
        })
    }

    /// How many mappings it can hold.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All that is in it.
    pub(crate) fn content(&self) -> Result<Content> {
        let mut access: BTreeMap<u32, BTreeSet<IpNet>> = BTreeMap::new();
        for key in self.access.keys() {
            let key = key.context("cannot read the access lists")?;
            let (bits, data) = (key.prefix_len(), key.data());
            access.entry(data.counter()).or_default().extend(prefix(bits, data.host().into()));
        }
        Ok(Content { forward: lines(&self.forward)?, reverse: lines(&self.reverse)?, access })
    }

    /// What the table shall hold for a view, with counters kept where a mapping is there already.
    pub(crate) fn wanted(&self, view: &GatewayView, now: &Content) -> Result<Content> {
        let count = view.mappings.len();
        if u32::try_from(count).unwrap_or(u32::MAX) > self.capacity {
            bail!(
                "the catalog has {count} mappings, the table holds {} at most: unload, and load with a larger --max-mappings",
                self.capacity
            );
        }
        let kept: BTreeSet<u32> =
            view.mappings.iter().filter_map(|m| now.forward.get(&m.vip)).map(|line| line.counter).collect();
        // A counter that another mapping is about to leave is taken last: its access list is still that one's.
        let used: BTreeSet<u32> = now.forward.values().map(|line| line.counter).collect();
        let unused = (0..self.capacity).filter(|counter| !used.contains(counter));
        let mut free = unused.chain(used.iter().copied().filter(|counter| !kept.contains(counter)));
        let mut wanted = Content::default();
        for mapping in &view.mappings {
            let known = now.forward.get(&mapping.vip).map(|line| line.counter);
            let counter = known.or_else(|| free.next()).context("the table has no counter left")?;
            wanted.put(mapping, counter);
        }
        let taken: BTreeSet<u32> = wanted.forward.values().map(|line| line.counter).collect();
        for retired in &view.retired {
            // Late replies count where the mapping that they belong to counts; without one, where they did before.
            let own = wanted.forward.get(&retired.vip).map(|line| line.counter);
            let before = now.reverse.get(&retired.device).map(|line| line.counter);
            let kept = own.or_else(|| before.filter(|counter| !taken.contains(counter)));
            let Some(counter) = kept.or_else(|| free.next()) else { continue };
            wanted.reverse.insert(retired.device, Line { peer: retired.vip, flags: RETIRED, counter });
        }
        Ok(wanted)
    }

    /// Makes the table hold what is wanted: what is new first and the way back before the way there, what is gone
    /// last, so that no packet in between is lost or leaks an address.
    pub(crate) fn make(&mut self, now: &Content, wanted: &Content) -> Result<()> {
        let listed = |content: &Content| -> BTreeSet<(u32, IpNet)> {
            content.access.iter().flat_map(|(&c, nets)| nets.iter().map(move |&net| (c, net))).collect()
        };
        let (had, has) = (listed(now), listed(wanted));
        self.check_room(now, wanted, had.union(&has).count())?;
        for &(counter, net) in has.difference(&had) {
            self.access.insert(&access_key(counter, net), 1, 0).context("cannot add to an access list")?;
        }
        for (device, line) in
            wanted.reverse.iter().filter(|(device, line)| now.reverse.get(*device) != Some(*line))
        {
            put(&mut self.reverse, *device, line)?;
        }
        for (vip, line) in wanted.forward.iter().filter(|(vip, line)| now.forward.get(*vip) != Some(*line)) {
            if !now.forward.contains_key(vip) {
                // A counter that served another mapping before starts anew.
                self.reset(line.counter)?;
            }
            put(&mut self.forward, *vip, line)?;
        }
        for vip in now.forward.keys().filter(|vip| !wanted.forward.contains_key(vip)) {
            self.forward.remove(&Portal::from(*vip)).with_context(|| format!("cannot remove {vip}"))?;
        }
        for device in now.reverse.keys().filter(|device| !wanted.reverse.contains_key(device)) {
            self.reverse.remove(&Portal::from(*device)).with_context(|| format!("cannot remove {device}"))?;
        }
        for &(counter, net) in had.difference(&has) {
            self.access.remove(&access_key(counter, net)).context("cannot take from an access list")?;
        }
        Ok(())
    }

    /// Lets the gateway know its own addresses.
    pub(crate) fn set_local(&mut self, addresses: &[IpAddr]) -> Result<()> {
        let wanted: Vec<Address> = addresses.iter().map(|&address| address.into()).collect();
        for address in &wanted {
            self.local.insert(address, 1, 0).context("cannot note the gateway's own addresses")?;
        }
        let stale: Vec<Address> =
            self.local.keys().filter_map(Result::ok).filter(|address| !wanted.contains(address)).collect();
        for address in stale {
            self.local.remove(&address).context("cannot forget an old address of the gateway")?;
        }
        Ok(())
    }

    /// What one mapping has carried, over all CPUs.
    pub(crate) fn traffic(&self, counter: u32) -> Result<Traffic> {
        let values = self.traffic.get(&counter, 0).context("cannot read a mapping's counters")?;
        Ok(values.iter().fold(Traffic::default(), |sum, cpu| Traffic {
            to_device_packets: sum.to_device_packets + cpu.to_device_packets,
            to_device_bytes: sum.to_device_bytes + cpu.to_device_bytes,
            to_host_packets: sum.to_host_packets + cpu.to_host_packets,
            to_host_bytes: sum.to_host_bytes + cpu.to_host_bytes,
        }))
    }

    /// Packets of one reason, over all CPUs.
    pub(crate) fn reason(&self, reason: Reason) -> Result<u64> {
        let values = self.reasons.get(&reason.index(), 0).context("cannot read the reasons' counters")?;
        Ok(values.iter().sum())
    }

    /// The catalog that was applied last.
    pub(crate) fn catalog(&self) -> Result<Option<PathBuf>> {
        let settings = self.settings.get(&0, 0).context("cannot read the settings")?;
        let path = settings.catalog.get(..settings.catalog_length as usize).unwrap_or_default();
        Ok((!path.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(path))))
    }

    /// Remembers the catalog for as long as the table lives.
    pub(crate) fn set_catalog(&mut self, path: &Path) -> Result<()> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() > MAX_PATH {
            bail!("{} is longer than {MAX_PATH} bytes", path.display());
        }
        let mut settings = self.settings.get(&0, 0).context("cannot read the settings")?;
        settings.catalog = [0; MAX_PATH];
        settings.catalog[..bytes.len()].copy_from_slice(bytes);
        settings.catalog_length = u32::try_from(bytes.len())?;
        self.settings.set(0, settings, 0).context("cannot write the settings")
    }

    /// Lets the program log what it drops, or be silent.
    pub(crate) fn set_log_drops(&mut self, on: bool) -> Result<()> {
        self.control.set(control::LOG_DROPS, u64::from(on), 0).context("cannot switch the log of drops")
    }

    /// Old and new stand side by side for a moment: what has no room for both is refused before the first write.
    fn check_room(&self, now: &Content, wanted: &Content, prefixes: usize) -> Result<()> {
        let together = |now: &BTreeMap<SocketAddr, Line>, wanted: &BTreeMap<SocketAddr, Line>| {
            now.len() + wanted.keys().filter(|portal| !now.contains_key(*portal)).count()
        };
        for (what, needed, factor) in [
            ("mappings", together(&now.forward, &wanted.forward), 1),
            (
                "device portals, retired ones included,",
                together(&now.reverse, &wanted.reverse),
                PORTALS_PER_MAPPING,
            ),
            ("prefixes in access lists", prefixes, PREFIXES_PER_MAPPING),
        ] {
            let most = self.capacity.saturating_mul(factor);
            if u32::try_from(needed).unwrap_or(u32::MAX) > most {
                bail!(
                    "the change needs room for {needed} {what} at once, the table holds {most} at most: unload, and load with a larger --max-mappings"
                );
            }
        }
        Ok(())
    }

    fn reset(&mut self, counter: u32) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zeros = aya::maps::PerCpuValues::try_from(vec![Traffic::default(); cpus])?;
        self.traffic.set(counter, zeros, 0).context("cannot reset a mapping's counters")
    }
}

impl Content {
    fn put(&mut self, mapping: &model::Mapping, counter: u32) {
        let frozen = if mapping.state == MappingState::Frozen { FROZEN } else { 0 };
        let restricted = if mapping.allow.is_empty() { 0 } else { RESTRICTED };
        let flags = frozen | restricted;
        self.forward.insert(mapping.vip, Line { peer: mapping.device, flags, counter });
        self.reverse.insert(mapping.device, Line { peer: mapping.vip, flags, counter });
        if restricted != 0 {
            self.access.insert(counter, mapping.allow.iter().map(IpNet::trunc).collect());
        }
    }
}

fn lines(map: &HashMap<MapData, Portal, Mapping>) -> Result<BTreeMap<SocketAddr, Line>> {
    map.iter()
        .map(|entry| {
            let (portal, mapping) = entry.context("cannot read the table")?;
            let (peer, flags, counter) = ((*mapping.peer()).into(), mapping.flags(), mapping.counter());
            Ok((portal.into(), Line { peer, flags, counter }))
        })
        .collect()
}

fn put(map: &mut HashMap<MapData, Portal, Mapping>, portal: SocketAddr, line: &Line) -> Result<()> {
    let mapping = Mapping::new(line.peer.into(), line.flags, line.counter, 0);
    map.insert(Portal::from(portal), mapping, 0)
        .with_context(|| format!("cannot write the entry of {portal}"))
}

fn access_key(counter: u32, net: IpNet) -> Key<Access> {
    let bits = Access::prefix_bits(net.prefix_len(), net.network().is_ipv4());
    Key::new(bits, Access::new(counter, net.network().into()))
}

/// The prefix that a key of `bits` bits means.
fn prefix(bits: u32, host: IpAddr) -> Option<IpNet> {
    let before = Access::prefix_bits(0, host.is_ipv4());
    IpNet::new(host, u8::try_from(bits.checked_sub(before)?).ok()?).ok()
}
