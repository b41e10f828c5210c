//! What a change of the table consists of: its writes, worked out before the first of them. What is new comes first
//! and the way back before the way there, what is gone comes last, so that no packet in between is lost or leaks an
//! address. The filter and the VIPs hold more than is needed meanwhile, never less.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::table::{Access, Address, Mapping, Portal};

use crate::content::{Content, Line, access_key};
use crate::object::{PORTALS_PER_MAPPING, PREFIXES_PER_MAPPING};

/// Writes in their order.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
}

/// Writes to one map.
pub(crate) enum Step {
    Filter {
        before: Box<Filter>,
        after: Box<Filter>,
    },
    Vips(Edit<Address, u32>),
    Access(Edit<Key<Access>, u32>),
    /// Traffic counters that start anew. They are nobody's before, so there is nothing to take back.
    Counters(Vec<u32>),
    Reverse(Edit<Portal, Mapping>),
    Forward(Edit<Portal, Mapping>),
}

/// Entries of one map that are written or removed, and what they were.
pub(crate) enum Edit<K, V> {
    Put { keys: Vec<K>, values: Vec<V>, before: Vec<Option<V>> },
    Remove { keys: Vec<K>, before: Vec<V> },
}

/// The table around the lines that change.
pub(crate) struct Around {
    /// The filter as it is.
    pub(crate) filter: Box<Filter>,
    /// The filter of all other lines; `None` where they are not known, so that no bit may be taken.
    pub(crate) others: Option<Box<Filter>>,
    /// Of the VIPs that change, or of all, those that stand in `VIPS`.
    pub(crate) vips: BTreeSet<IpAddr>,
    /// Of them, those that other lines have as well.
    pub(crate) shared: BTreeSet<IpAddr>,
}

/// What must have room at once: old and new stand side by side for a moment.
pub(crate) struct Room {
    pub(crate) mappings: usize,
    pub(crate) portals: usize,
    pub(crate) prefixes: usize,
}

impl Plan {
    /// The way from what is to what is wanted.
    pub(crate) fn between(now: &Content, wanted: &Content, around: Around) -> Self {
        let mut plan = Self::default();
        let Around { filter, others, vips, shared } = around;

        let mut wide = filter.clone();
        wanted.add_to(&mut wide);
        let exact = others.map(|mut others| {
            wanted.add_to(&mut others);
            others
        });
        let exact = exact.unwrap_or_else(|| wide.clone());
        let needed = wanted.vips();
        let (had, has) = (now.listed(), wanted.listed());
        // The lists of mappings that are gone already must not open a new one with their counter.
        let live: BTreeSet<u32> = now.forward.values().map(|line| line.counter).collect();
        let (leaving, left): (Vec<_>, Vec<_>) =
            had.difference(&has).copied().partition(|(counter, _)| live.contains(counter));
        let joining: Vec<_> = has.difference(&had).copied().collect();

        plan.filter(&filter, &wide);
        plan.push(Step::Vips(marks(needed.difference(&vips).map(|&vip| vip.into()))));
        plan.push(Step::Access(unlist(&left)));
        plan.push(Step::Access(list(&joining)));
        let new = wanted.forward.iter().filter(|(vip, _)| !now.forward.contains_key(*vip));
        plan.push(Step::Counters(new.map(|(_, line)| line.counter).collect()));
        plan.push(Step::Reverse(put(&now.reverse, &wanted.reverse)));
        plan.push(Step::Forward(put(&now.forward, &wanted.forward)));
        plan.push(Step::Forward(remove(&now.forward, &wanted.forward)));
        plan.push(Step::Reverse(remove(&now.reverse, &wanted.reverse)));
        let gone = vips.difference(&needed).filter(|vip| !shared.contains(vip));
        plan.push(Step::Vips(unmark(gone.map(|&vip| vip.into()))));
        plan.push(Step::Access(unlist(&leaving)));
        plan.filter(&wide, &exact);
        plan
    }

    fn filter(&mut self, before: &Filter, after: &Filter) {
        if before != after {
            self.steps.push(Step::Filter { before: Box::new(*before), after: Box::new(*after) });
        }
    }

    fn push(&mut self, step: Step) {
        if step.len() > 0 {
            self.steps.push(step);
        }
    }
}

impl Step {
    /// How many entries it writes or removes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Filter { .. } => 1,
            Self::Vips(edit) => edit.len(),
            Self::Access(edit) => edit.len(),
            Self::Counters(counters) => counters.len(),
            Self::Reverse(edit) | Self::Forward(edit) => edit.len(),
        }
    }
}

impl<K, V> Edit<K, V> {
    fn len(&self) -> usize {
        match self {
            Self::Put { keys, .. } | Self::Remove { keys, .. } => keys.len(),
        }
    }
}

impl Room {
    /// What a change of the whole table needs.
    pub(crate) fn between(now: &Content, wanted: &Content) -> Self {
        Self {
            mappings: together(&now.forward, &wanted.forward),
            portals: together(&now.reverse, &wanted.reverse),
            prefixes: now.listed().union(&wanted.listed()).count(),
        }
    }

    /// Refuses what has no room before anything is written.
    pub(crate) fn check(&self, capacity: u32) -> Result<()> {
        for (what, needed, factor) in [
            ("mappings", self.mappings, 1),
            ("device portals, retired ones included,", self.portals, PORTALS_PER_MAPPING),
            ("prefixes in access lists", self.prefixes, PREFIXES_PER_MAPPING),
        ] {
            let most = capacity.saturating_mul(factor);
            if u32::try_from(needed).unwrap_or(u32::MAX) > most {
                bail!(
                    "the change needs room for {needed} {what} at once, the table holds {most} at most: unload, and load with a larger --max-mappings"
                );
            }
        }
        Ok(())
    }
}

/// How many portals are in one of both or in both.
pub(crate) fn together(now: &BTreeMap<SocketAddr, Line>, wanted: &BTreeMap<SocketAddr, Line>) -> usize {
    now.len() + wanted.keys().filter(|portal| !now.contains_key(*portal)).count()
}

fn put(now: &BTreeMap<SocketAddr, Line>, wanted: &BTreeMap<SocketAddr, Line>) -> Edit<Portal, Mapping> {
    let (mut keys, mut values, mut before) = (Vec::new(), Vec::new(), Vec::new());
    for (portal, line) in wanted {
        let old = now.get(portal);
        if old != Some(line) {
            keys.push((*portal).into());
            values.push(line.into());
            before.push(old.map(Mapping::from));
        }
    }
    Edit::Put { keys, values, before }
}

fn remove(now: &BTreeMap<SocketAddr, Line>, wanted: &BTreeMap<SocketAddr, Line>) -> Edit<Portal, Mapping> {
    let gone = now.iter().filter(|(portal, _)| !wanted.contains_key(*portal));
    let (keys, before) = gone.map(|(portal, line)| (Portal::from(*portal), Mapping::from(line))).unzip();
    Edit::Remove { keys, before }
}

fn list(prefixes: &[(u32, IpNet)]) -> Edit<Key<Access>, u32> {
    marks(prefixes.iter().map(|&(counter, net)| access_key(counter, net)))
}

fn unlist(prefixes: &[(u32, IpNet)]) -> Edit<Key<Access>, u32> {
    unmark(prefixes.iter().map(|&(counter, net)| access_key(counter, net)))
}

/// Keys that stand in a map for nothing but being there.
fn marks<K>(keys: impl Iterator<Item = K>) -> Edit<K, u32> {
    let keys: Vec<K> = keys.collect();
    let (values, before) = (vec![1; keys.len()], vec![None; keys.len()]);
    Edit::Put { keys, values, before }
}

fn unmark<K>(keys: impl Iterator<Item = K>) -> Edit<K, u32> {
    let keys: Vec<K> = keys.collect();
    let before = vec![1; keys.len()];
    Edit::Remove { keys, before }
}
