//! One change of the catalog, worked out for the table by the lines that it touches. Moving a mapping is decided by
//! looking up these; only where a line comes or goes is the rest of the table read, for a counter that nobody has
//! and for what other lines keep.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use lungate_catalog::model::{Mapping, Retired};
use lungate_catalog::view::GatewayView;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::table::RESTRICTED;

use crate::content::{Content, Line, check_count, prefix};
use crate::plan::{Around, Plan, Room};
use crate::table::Table;

impl Table {
    /// The plan for what differs between two views. Lines that are equal in both are left alone, whatever the
    /// kernel has for them.
    pub(crate) fn plan_change(&self, before: &GatewayView, after: &GatewayView) -> Result<Plan> {
        check_count(after, self.capacity())?;
        let touched = Touched::between(before, after);
        let mut now = self.touched(&touched, before)?;
        let comes = touched.vips.iter().any(|vip| !now.forward.contains_key(vip));
        let goes = touched.is_removed(after);
        let rest = if comes || goes { Some(self.rest(&touched)?) } else { None };
        let wanted = touched.wanted(after, &now, rest.as_ref())?;
        self.add_stale_lists(&mut now, &wanted)?;
        // The catalog counts what is not looked up.
        Room {
            mappings: before.mappings.len() + new(&now.forward, &wanted.forward),
            portals: before.mappings.len() + before.retired.len() + new(&now.reverse, &wanted.reverse),
            prefixes: before.mappings.iter().map(|mapping| mapping.allow.len()).sum::<usize>()
                + wanted.listed().difference(&now.listed()).count(),
        }
        .check(self.capacity())?;
        let mut vips = now.vips();
        vips.extend(wanted.vips());
        let mut standing = BTreeSet::new();
        for vip in vips {
            if self.is_vip(vip)? {
                standing.insert(vip);
            }
        }
        let (others, shared) = rest.map(|rest| (rest.filter, rest.shared)).unzip();
        let shared = shared.unwrap_or_default();
        let (filter, vips) = (self.filter()?, standing);
        let index = self.index.around(&now, &wanted)?;
        Ok(Plan::between(&now, &wanted, Around { filter, others, vips, shared, index, is_fresh: false }))
    }

    /// The lines that a change touches, as the kernel has them, with the access lists that the catalog knows.
    fn touched(&self, touched: &Touched, before: &GatewayView) -> Result<Content> {
        let mut now = Content::default();
        for &vip in &touched.vips {
            now.forward.extend(self.at_vip(vip)?.map(|line| (vip, line)));
        }
        for &device in &touched.devices {
            now.reverse.extend(self.at_device(device)?.map(|line| (device, line)));
        }
        for mapping in &before.mappings {
            let line = now.forward.get(&mapping.vip).filter(|line| line.flags & RESTRICTED != 0);
            if let Some(line) = line {
                now.access.insert(line.counter, mapping.allow.iter().map(ipnet::IpNet::trunc).collect());
            }
        }
        Ok(now)
    }

    /// Adds what is left of lists whose counters are about to serve other mappings that have lists.
    fn add_stale_lists(&self, now: &mut Content, wanted: &Content) -> Result<()> {
        let known: BTreeSet<u32> = now.forward.values().map(|line| line.counter).collect();
        if wanted.access.keys().all(|counter| known.contains(counter)) {
            return Ok(());
        }
        for (key, _) in self.access.entries().context("cannot read the access lists")? {
            let stale = prefix(key)
                .filter(|(counter, _)| !known.contains(counter) && wanted.access.contains_key(counter));
            if let Some((counter, net)) = stale {
                now.access.entry(counter).or_default().insert(net);
            }
        }
        Ok(())
    }

    /// Reads all lines but those touched.
    fn rest(&self, touched: &Touched) -> Result<Rest> {
        let mut rest = Rest {
            live: vec![false; self.capacity() as usize],
            late: vec![false; self.capacity() as usize],
            filter: Box::new(Filter::EMPTY),
            shared: BTreeSet::new(),
        };
        let vips: BTreeSet<IpAddr> = touched.vips.iter().map(SocketAddr::ip).collect();
        for (portal, mapping) in self.all_forward()? {
            mark(&mut rest.live, mapping.counter());
            let vip = SocketAddr::from(portal);
            if !touched.vips.contains(&vip) {
                rest.filter.add_vip(portal.address());
                if vips.contains(&vip.ip()) {
                    rest.shared.insert(vip.ip());
                }
            }
        }
        for (portal, mapping) in self.all_reverse()? {
            mark(&mut rest.late, mapping.counter());
            if !touched.devices.contains(&portal.into()) {
                rest.filter.add_device(portal.address());
            }
        }
        Ok(rest)
    }
}

/// The portals whose lines differ.
struct Touched {
    vips: BTreeSet<SocketAddr>,
    devices: BTreeSet<SocketAddr>,
}

/// What a change must know of the lines that it does not touch.
struct Rest {
    /// By counter, whether it is in use by any line of `FORWARD`, and of `REVERSE`.
    live: Vec<bool>,
    late: Vec<bool>,
    filter: Box<Filter>,
    /// Of the VIPs touched, those that other lines have as well.
    shared: BTreeSet<IpAddr>,
}

impl Rest {
    /// Counters of nobody, then those of which only late replies are left.
    fn free(&self) -> impl Iterator<Item = u32> {
        let places = || (0_u32..).zip(self.live.iter().zip(&self.late));
        let of = |wanted| {
            move |(counter, state): (u32, (&bool, &bool))| ((*state.0, *state.1) == wanted).then_some(counter)
        };
        places().filter_map(of((false, false))).chain(places().filter_map(of((false, true))))
    }
}

impl Touched {
    fn between(before: &GatewayView, after: &GatewayView) -> Self {
        let mut touched = Self { vips: BTreeSet::new(), devices: BTreeSet::new() };
        for mapping in differing(&before.mappings, &after.mappings, |mapping| mapping.vip) {
            touched.vips.insert(mapping.vip);
            touched.devices.insert(mapping.device);
        }
        for retired in differing(&before.retired, &after.retired, |retired| retired.device) {
            touched.devices.insert(retired.device);
        }
        // Late replies count with the mapping that they belong to.
        let late = after.retired.iter().filter(|retired| touched.vips.contains(&retired.vip));
        touched.devices.extend(late.map(|retired| retired.device));
        touched
    }

    /// Whether a line goes.
    fn is_removed(&self, after: &GatewayView) -> bool {
        let (mappings, retired) = self.lines(after);
        mappings.len() < self.vips.len() || mappings.len() + retired.len() < self.devices.len()
    }

    /// The lines of a view that are touched.
    fn lines<'a>(&self, view: &'a GatewayView) -> (Vec<&'a Mapping>, Vec<&'a Retired>) {
        let mappings = view.mappings.iter().filter(|mapping| self.vips.contains(&mapping.vip));
        let retired = view.retired.iter().filter(|retired| self.devices.contains(&retired.device));
        (mappings.collect(), retired.collect())
    }

    fn wanted(&self, after: &GatewayView, now: &Content, rest: Option<&Rest>) -> Result<Content> {
        let mut free = rest.into_iter().flat_map(Rest::free);
        let (mappings, retired) = self.lines(after);
        let mut lines = Vec::new();
        for mapping in mappings {
            let known = now.forward.get(&mapping.vip).map(|line| line.counter);
            lines.push((mapping, known.or_else(|| free.next()).context("the table has no counter left")?));
        }
        let mut wanted = Content::of(lines);
        for retired in retired {
            let own = wanted.forward.get(&retired.vip).map(|line| line.counter);
            let before = now.reverse.get(&retired.device).map(|line| line.counter);
            let Some(counter) = own.or(before).or_else(|| free.next()) else { continue };
            wanted.reverse.insert(retired.device, Line::retired(retired.vip, counter));
        }
        Ok(wanted)
    }
}

/// What stands in only one of two lists, or differs; both are in the order of their keys.
fn differing<'a, T: PartialEq, K: Ord>(before: &'a [T], after: &'a [T], key: impl Fn(&T) -> K) -> Vec<&'a T> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some(old), Some(new)) => key(old).cmp(&key(new)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return found,
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        if old != new {
            found.extend(old);
            found.extend(new);
        }
    }
}

/// How many portals are wanted that are not there.
fn new(now: &BTreeMap<SocketAddr, Line>, wanted: &BTreeMap<SocketAddr, Line>) -> usize {
    wanted.keys().filter(|portal| !now.contains_key(*portal)).count()
}

fn mark(counters: &mut [bool], counter: u32) {
    if let Some(place) = counters.get_mut(counter as usize) {
        *place = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found_at_either_end_and_between() {
        let differing = |before: &[(u8, u8)], after: &[(u8, u8)]| -> Vec<(u8, u8)> {
            super::differing(before, after, |line| line.0).into_iter().copied().collect()
        };
        assert_eq!(differing(&[], &[]), []);
        assert_eq!(differing(&[(1, 1), (2, 2)], &[(1, 1), (2, 2)]), []);
        assert_eq!(differing(&[(1, 1), (2, 2)], &[(1, 1), (2, 3)]), [(2, 2), (2, 3)]);
        assert_eq!(differing(&[(1, 1), (3, 3)], &[(2, 2), (3, 3), (4, 4)]), [(1, 1), (2, 2), (4, 4)]);
        assert_eq!(differing(&[(5, 5)], &[]), [(5, 5)]);
    }

    #[test]
    fn counters_of_nobody_come_before_those_of_late_replies() {
        let rest = Rest {
            live: vec![true, false, false, false],
            late: vec![true, true, false, false],
            filter: Box::new(Filter::EMPTY),
            shared: BTreeSet::new(),
        };
        assert_eq!(rest.free().collect::<Vec<_>>(), [2, 3, 1]);
    }
}
