//! The kernel's table: pinned maps, read as a whole or line by line, and changed by plans.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use lungate_catalog::view::GatewayView;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::table::{
    Access, Address, MAX_PATH, Mapping, Portal, Settings, Traffic, control, map,
};
use lungate_gateway_common::verdict::Reason;

use crate::batch::{Batched, PerCpu};
pub(crate) use crate::content::{Content, Line};
use crate::content::{lines, prefix};
use crate::index::Index;
use crate::pins::Pins;
use crate::plan::{Around, Plan, Room};

/// The pinned maps.
pub(crate) struct Table {
    pub(crate) forward: Batched<Portal, Mapping>,
    pub(crate) reverse: Batched<Portal, Mapping>,
    pub(crate) vips: Batched<Address, u32>,
    pub(crate) access: Batched<Key<Access>, u32>,
    pub(crate) index: Index,
    pub(crate) filter: Array<MapData, Filter>,
    pub(crate) counters: PerCpu,
    traffic: PerCpuArray<MapData, Traffic>,
    reasons: PerCpuArray<MapData, u64>,
    settings: Array<MapData, Settings>,
    control: Array<MapData, u64>,
    capacity: u32,
}

impl Table {
    /// Opens the maps of a loaded gateway.
    pub(crate) fn open(pins: &Pins) -> Result<Self> {
        if !pins.exist() {
            bail!("no gateway is loaded at {}: run 'lungate load --iface IF' first", pins.folder().display());
        }
        pins.check_upgraded()?;
        Self::open_maps(pins)
    }

    /// Opens the maps, whatever else is pinned beside them.
    pub(crate) fn open_maps(pins: &Pins) -> Result<Self> {
        let capacity = crate::object::pinned_capacity(pins)?;
        let open = |name: &str| {
            let path = pins.map(name);
            MapData::from_pin(&path)
                .with_context(|| format!("cannot open {} (are you root?)", path.display()))
        };
        Ok(Self {
            forward: Batched::open(&pins.map(map::FORWARD))?,
            reverse: Batched::open(&pins.map(map::REVERSE))?,
            vips: Batched::open(&pins.map(map::VIPS))?,
            access: Batched::open(&pins.map(map::ACCESS))?,
            index: Index::open(pins, capacity)?,
            filter: Map::Array(open(map::FILTER)?).try_into()?,
            counters: PerCpu::open(&pins.map(map::TRAFFIC), size_of::<Traffic>())?,
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
        let (forward, reverse) = (self.all_forward()?, self.all_reverse()?);
        let mut content = Content { forward: lines(forward), reverse: lines(reverse), ..Content::default() };
        for (key, _) in self.access.entries().context("cannot read the access lists")? {
            if let Some((counter, net)) = prefix(key) {
                content.access.entry(counter).or_default().insert(net);
            }
        }
        Ok(content)
    }

    /// Every entry of `FORWARD`.
    pub(crate) fn all_forward(&self) -> Result<Vec<(Portal, Mapping)>> {
        self.forward.entries().context("cannot read the table")
    }

    /// Every entry of `REVERSE`.
    pub(crate) fn all_reverse(&self) -> Result<Vec<(Portal, Mapping)>> {
        self.reverse.entries().context("cannot read the table")
    }

    /// The line of a VIP's port.
    pub(crate) fn at_vip(&self, vip: SocketAddr) -> Result<Option<Line>> {
        let found = self.forward.get(&vip.into()).with_context(|| format!("cannot look up {vip}"))?;
        Ok(found.map(Line::from))
    }

    /// The line of a device portal.
    pub(crate) fn at_device(&self, device: SocketAddr) -> Result<Option<Line>> {
        let found = self.reverse.get(&device.into()).with_context(|| format!("cannot look up {device}"))?;
        Ok(found.map(Line::from))
    }

    /// Whether an address stands in `VIPS`.
    pub(crate) fn is_vip(&self, address: IpAddr) -> Result<bool> {
        let found = self.vips.get(&address.into()).with_context(|| format!("cannot look up {address}"))?;
        Ok(found.is_some())
    }

    /// The filter as it is.
    pub(crate) fn filter(&self) -> Result<Box<Filter>> {
        Ok(Box::new(self.filter.get(&0, 0).context("cannot read the filter")?))
    }

    /// What the table shall hold for a view, with counters kept where a mapping is there already.
    pub(crate) fn wanted(&self, view: &GatewayView, now: &Content) -> Result<Content> {
        Content::wanted(view, now, self.capacity)
    }

    /// The way from all that is in it to what is wanted; refused where there is no room.
    pub(crate) fn plan(&self, now: &Content, wanted: &Content) -> Result<Plan> {
        Room::between(now, wanted).check(self.capacity)?;
        let vips = self.vips.entries().context("cannot read the VIPs")?;
        // Whatever has filled it has left a catalog or entries.
        let is_fresh = now.reverse.is_empty() && now.forward.is_empty() && self.catalog()?.is_none();
        let around = Around {
            filter: self.filter()?,
            others: Some(Box::new(Filter::EMPTY)),
            vips: vips.into_iter().map(|(vip, _)| vip.into()).collect(),
            shared: BTreeSet::new(),
            index: self.index.whole(is_fresh)?,
            is_fresh,
        };
        Ok(Plan::between(now, wanted, around))
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

    /// Sets what one mapping has carried, by CPU.
    pub(crate) fn set_traffic(&mut self, counter: u32, values: PerCpuValues<Traffic>) -> Result<()> {
        self.traffic.set(counter, values, 0).context("cannot write a mapping's counters")
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
        let mut settings = Settings { catalog_length: u32::try_from(bytes.len())?, catalog: [0; MAX_PATH] };
        settings.catalog[..bytes.len()].copy_from_slice(bytes);
        self.settings.set(0, settings, 0).context("cannot write the settings")
    }

    /// Lets the program log what it drops, or be silent.
    pub(crate) fn set_log_drops(&mut self, on: bool) -> Result<()> {
        self.control.set(control::LOG_DROPS, u64::from(on), 0).context("cannot switch the log of drops")
    }
}
