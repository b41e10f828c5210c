//! What the table holds, in user space's terms, and what it shall hold for a catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use lungate_catalog::model::{self, MappingState};
use lungate_catalog::view::GatewayView;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::table::{Access, FROZEN, Mapping, Portal, RESTRICTED, RETIRED};

/// What the table holds, or a part of it.
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
    pub(crate) mss: u16,
}

impl Content {
    /// What a table of that capacity shall hold for a view, with counters kept where a mapping is there already.
    pub(crate) fn wanted(view: &GatewayView, now: &Self, capacity: u32) -> Result<Self> {
        check_count(view, capacity)?;
        let here = view.mappings.iter().filter_map(|mapping| now.forward.get(&mapping.vip));
        let kept: BTreeSet<u32> = here.map(|line| line.counter).collect();
        let live: BTreeSet<u32> = now.forward.values().map(|line| line.counter).collect();
        let late: BTreeSet<u32> = now.reverse.values().map(|line| line.counter).collect();
        // Counters of nobody first, then those of which only late replies are left. One that another mapping is
        // about to leave is taken last: its access list is still that one's.
        let unused = (0..capacity).filter(|counter| !live.contains(counter) && !late.contains(counter));
        let left = late.iter().copied().filter(|counter| !live.contains(counter));
        let leaving = live.iter().copied().filter(|counter| !kept.contains(counter));
        let mut free = unused.chain(left).chain(leaving);
        let mut lines = Vec::with_capacity(view.mappings.len());
        for mapping in &view.mappings {
            let known = now.forward.get(&mapping.vip).map(|line| line.counter);
            let counter = known.or_else(|| free.next()).context("the table has no counter left")?;
            lines.push((mapping, counter));
        }
        let mut wanted = Self::of(lines);
        let taken: BTreeSet<u32> = wanted.forward.values().map(|line| line.counter).collect();
        for retired in &view.retired {
            // Late replies count where the mapping that they belong to counts; without one, where they did before.
            let own = wanted.forward.get(&retired.vip).map(|line| line.counter);
            let before = now.reverse.get(&retired.device).map(|line| line.counter);
            let kept = own.or_else(|| before.filter(|counter| !taken.contains(counter)));
            let Some(counter) = kept.or_else(|| free.next()) else { continue };
            wanted.reverse.insert(retired.device, Line::retired(retired.vip, counter));
        }
        Ok(wanted)
    }

    /// Both lines of each mapping, and its access list under its counter.
    pub(crate) fn of<'a>(mappings: impl IntoIterator<Item = (&'a model::Mapping, u32)>) -> Self {
        let (mut forward, mut reverse, mut access) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (mapping, counter) in mappings {
            let frozen = if mapping.state == MappingState::Frozen { FROZEN } else { 0 };
            let restricted = if mapping.allow.is_empty() { 0 } else { RESTRICTED };
            let (flags, mss) = (frozen | restricted, mapping.mss_clamp.unwrap_or(0));
            forward.push((mapping.vip, Line { peer: mapping.device, flags, counter, mss }));
            reverse.push((mapping.device, Line { peer: mapping.vip, flags, counter, mss }));
            if restricted != 0 {
                access.insert(counter, mapping.allow.iter().map(IpNet::trunc).collect());
            }
        }
        Self { forward: forward.into_iter().collect(), reverse: reverse.into_iter().collect(), access }
    }

    /// Every VIP.
    pub(crate) fn vips(&self) -> BTreeSet<IpAddr> {
        self.forward.keys().map(SocketAddr::ip).collect()
    }

    /// Adds every address to a filter.
    pub(crate) fn add_to(&self, filter: &mut Filter) {
        self.forward.keys().for_each(|vip| filter.add_vip(vip.ip().into()));
        self.reverse.keys().for_each(|device| filter.add_device(device.ip().into()));
    }

    /// Every prefix of every list.
    pub(crate) fn listed(&self) -> BTreeSet<(u32, IpNet)> {
        self.access.iter().flat_map(|(&counter, nets)| nets.iter().map(move |&net| (counter, net))).collect()
    }
}

impl Line {
    /// The line of a portal that serves nothing any more. No connection opens there, so no segment is clamped.
    pub(crate) fn retired(vip: SocketAddr, counter: u32) -> Self {
        Self { peer: vip, flags: RETIRED, counter, mss: 0 }
    }
}

impl From<&Line> for Mapping {
    fn from(line: &Line) -> Self {
        Self::new(line.peer.into(), line.flags, line.counter, line.mss)
    }
}

impl From<Mapping> for Line {
    fn from(mapping: Mapping) -> Self {
        let (peer, flags) = ((*mapping.peer()).into(), mapping.flags());
        Self { peer, flags, counter: mapping.counter(), mss: mapping.mss() }
    }
}

/// Refuses a view with more mappings than the table holds.
pub(crate) fn check_count(view: &GatewayView, capacity: u32) -> Result<()> {
    let count = view.mappings.len();
    if u32::try_from(count).unwrap_or(u32::MAX) > capacity {
        bail!(
            "the catalog has {count} mappings, the table holds {capacity} at most: unload, and load with a larger --max-mappings"
        );
    }
    Ok(())
}

/// The lines of a map.
pub(crate) fn lines(entries: Vec<(Portal, Mapping)>) -> BTreeMap<SocketAddr, Line> {
    entries.into_iter().map(|(portal, mapping)| (portal.into(), mapping.into())).collect()
}

/// The key of a prefix in a mapping's list.
pub(crate) fn access_key(counter: u32, net: IpNet) -> Key<Access> {
    let bits = Access::prefix_bits(net.prefix_len(), net.network().is_ipv4());
    Key::new(bits, Access::new(counter, net.network().into()))
}

/// The mapping's counter and the prefix that a key means; `None` where it means none.
pub(crate) fn prefix(key: Key<Access>) -> Option<(u32, IpNet)> {
    let (bits, access) = (key.prefix_len(), key.data());
    let host: IpAddr = access.host().into();
    let before = Access::prefix_bits(0, host.is_ipv4());
    let net = IpNet::new(host, u8::try_from(bits.checked_sub(before)?).ok()?).ok()?;
    Some((access.counter(), net))
}
