//! The maps in which the programs find what surrounds them: the gateway's own addresses, its interfaces, the
//! answers that they remember, and until when somebody watches that these stay right.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::hash::Hash;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray};
use lungate_gateway_common::table::{self, Address, HOP_SLOTS, Hop, Vlan, control, map};
use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::Clock;
use crate::links::{Hook, links};
use crate::network::{Interface, interfaces, own_addresses, routes_by_source};
use crate::pins::Pins;
use crate::vlans::ways;

/// The pinned maps.
pub(crate) struct Surroundings {
    pins: Pins,
    local: aya::maps::HashMap<MapData, Address, u32>,
    interfaces: aya::maps::HashMap<MapData, u32, table::Interface>,
    vlans: aya::maps::HashMap<MapData, Vlan, u32>,
    hops: PerCpuArray<MapData, Hop>,
    control: Array<MapData, u64>,
    clock: Clock,
    /// The identifier of `control` in the kernel.
    id: u32,
    /// Whether hops are shared by all sources; known to who watches the kernel's rules.
    shares: Option<bool>,
}

/// A next hop that packets have been sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Used {
    /// The interface that frames leave by.
    pub(crate) device: u32,
    pub(crate) link: [u8; 6],
}

/// Writes down what netlink says of addresses and interfaces, and lets remembered next hops be asked for anew.
pub(crate) fn refresh(pins: &Pins) -> Result<()> {
    Surroundings::open(pins)?.refresh().map(drop)
}

impl Surroundings {
    /// Opens the maps of a loaded gateway.
    pub(crate) fn open(pins: &Pins) -> Result<Self> {
        let open = |name: &str| {
            let path = pins.map(name);
            MapData::from_pin(&path)
                .with_context(|| format!("cannot open {} (are you root?)", path.display()))
        };
        let control = open(map::CONTROL)?;
        let id = control.info()?.id();
        Ok(Self {
            pins: pins.clone(),
            local: Map::HashMap(open(map::LOCAL)?).try_into()?,
            interfaces: Map::HashMap(open(map::INTERFACES)?).try_into()?,
            vlans: Map::HashMap(open(map::VLANS)?).try_into()?,
            hops: Map::PerCpuArray(open(map::HOPS)?).try_into()?,
            control: Map::Array(control).try_into()?,
            clock: Clock::open(pins)?,
            id,
            shares: None,
        })
    }

    /// Whether these are still the maps that are pinned: the gateway may have been unloaded.
    pub(crate) fn are_pinned(&self) -> bool {
        MapInfo::from_pin(self.pins.map(map::CONTROL)).is_ok_and(|info| info.id() == self.id)
    }

    /// The same for one that watches what changes, the kernel's rules of routing included.
    pub(crate) fn refresh_watched(&mut self) -> Result<Vec<Interface>> {
        // Where the kernel does not say, sources matter.
        self.shares = Some(!routes_by_source().unwrap_or(true));
        self.refresh()
    }

    /// Writes down what netlink says of addresses and interfaces. The interfaces that there are.
    pub(crate) fn refresh(&mut self) -> Result<Vec<Interface>> {
        // One writer at a time, or a slower one would bring back what it saw earlier.
        let lock = self.lock()?;
        let mut attached = self.attached()?;
        let here = interfaces()?;
        // A program may just have been replaced by a newer one.
        attached.extend(self.attached()?);
        let addresses = own_addresses()?.into_iter().map(|address| (Address::from(address), 1)).collect();
        let ways = ways(&here, &attached);
        make(&mut self.local, &addresses).context("cannot note the gateway's own addresses")?;
        make(&mut self.interfaces, &ways.interfaces).context("cannot note the interfaces")?;
        make(&mut self.vlans, &ways.vlans).context("cannot note the VLANs")?;
        self.count_change(&lock)?;
        Ok(here)
    }

    /// Where programs of the gateway see frames, and which.
    fn attached(&self) -> Result<BTreeSet<(u32, u32)>> {
        let frames = links(&self.pins)?.into_iter().filter(|link| link.hook == Hook::Xdp);
        Ok(frames.map(|link| (link.interface, link.program)).collect())
    }

    /// Lets every remembered next hop be asked for anew.
    pub(crate) fn forget_hops(&mut self) -> Result<()> {
        let lock = self.lock()?;
        self.count_change(&lock)
    }

    fn count_change(&mut self, _lock: &File) -> Result<()> {
        let counted = self.control.get(&control::GENERATION, 0).context("cannot read the generation")?;
        // Who watches knows whether sources matter; who does not leaves it to them, if there is somebody.
        let shared = match self.shares {
            Some(shares) => shares,
            None => counted & control::SHARED != 0 && self.are_watched()?,
        };
        let next = ((counted + 1) & !control::SHARED) | if shared { control::SHARED } else { 0 };
        self.control.set(control::GENERATION, next, 0).context("cannot count a change")
    }

    /// Held while the surroundings are written: a count that two writers read at once would lose a change.
    fn lock(&self) -> Result<File> {
        let folder = self.pins.folder();
        let lock = File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
        flock(&lock, FlockOperation::LockExclusive)
            .with_context(|| format!("cannot lock {}", folder.display()))?;
        Ok(lock)
    }

    /// Promises that changes are followed at once for so long.
    pub(crate) fn promise(&mut self, ahead: Duration) -> Result<()> {
        let until = self.clock.after(ahead)?;
        self.control.set(control::WATCHED_UNTIL, until, 0).context("cannot renew the promise to watch")
    }

    /// Takes the promise back.
    pub(crate) fn end_promise(&mut self) -> Result<()> {
        self.control.set(control::WATCHED_UNTIL, 0, 0).context("cannot take back the promise to watch")?;
        self.shares = Some(false);
        // Remembered hops know of the promise.
        self.forget_hops()
    }

    /// Whether somebody promises to follow changes at once.
    pub(crate) fn are_watched(&self) -> Result<bool> {
        let until = self.control.get(&control::WATCHED_UNTIL, 0).context("cannot read who watches")?;
        Ok(until > self.clock.now()?)
    }

    /// The next hops that were asked for since a time, in nanoseconds of [`now`].
    pub(crate) fn hops_since(&self, time: u64) -> Result<BTreeSet<Used>> {
        let mut used = BTreeSet::new();
        for slot in 0..HOP_SLOTS {
            let hops = self.hops.get(&slot, 0).context("cannot read the remembered next hops")?;
            let asked = hops.iter().filter(|hop| hop.interface() != 0 && hop.asked() >= time);
            used.extend(asked.map(|hop| Used { device: hop.interface(), link: hop.neighbour() }));
        }
        Ok(used)
    }

    /// The interface that frames to be sent by an interface leave by.
    pub(crate) fn device(&self, interface: u32) -> u32 {
        self.interfaces.get(&interface, 0).map_or(interface, |way| way.device)
    }
}

/// The clock that says how old an answer is, in nanoseconds: CLOCK_MONOTONIC_COARSE.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Makes a map hold what is wanted, with a write for each difference; what is gone last.
fn make<K, V>(map: &mut aya::maps::HashMap<MapData, K, V>, wanted: &HashMap<K, V>) -> Result<()>
where
    K: Pod + Eq + Hash,
    V: Pod + PartialEq,
{
    let held = map.iter().collect::<Result<HashMap<K, V>, _>>()?;
    for (key, value) in wanted.iter().filter(|(key, value)| held.get(*key) != Some(*value)) {
        map.insert(key, value, 0)?;
    }
    for key in held.keys().filter(|key| !wanted.contains_key(*key)) {
        map.remove(key)?;
    }
    Ok(())
}
