//! What a change of the table consists of: its writes, worked out before the first of them. What is new comes first
//! and the way back before the way there, what is gone comes last, so that no packet in between is lost or leaks an
//! address. The filter and the VIPs hold more than is needed meanwhile, never less.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::index::Bucket;
use lungate_gateway_common::table::{Access, Address, Mapping, Portal};

use crate::content::{Content, Line, access_key};
use crate::index::{Fill, Present};
use crate::object::{PORTALS_PER_MAPPING, PREFIXES_PER_MAPPING};

/// Writes in their order.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// What packets do not wait for, after all steps.
    pub(crate) fill: Fill,
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
    /// Entries of lines that are about to change are emptied.
    Index(Edit<u32, Bucket>),
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
    /// The index: where lines change, or as a whole.
    pub(crate) index: Present,
    /// No packet was ever counted, so every counter is zero.
    pub(crate) is_fresh: bool,
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
        let Around { filter, others, vips, shared, index, is_fresh } = around;

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
        let new = wanted.forward.iter().filter(|(vip, _)| !is_fresh && !now.forward.contains_key(*vip));
        plan.push(Step::Counters(new.map(|(_, line)| line.counter).collect()));
        let (emptied, fill) = index.change(now, wanted);
        plan.fill = fill;
        plan.push(Step::Index(emptied));
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
            Self::Index(edit) => edit.len(),
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

#[cfg(test)]
mod tests {
    use lungate_gateway_common::table::{RESTRICTED, RETIRED};

    use super::*;

    /// A part of a table: VIP, device, flags and counter of each mapping, and retired portals.
    fn content(mappings: &[(&str, &str, u32, u32)], retired: &[(&str, &str, u32)]) -> Content {
        let mut content = Content::default();
        for &(vip, device, flags, counter) in mappings {
            let (vip, device) = (vip.parse().unwrap(), device.parse().unwrap());
            content.forward.insert(vip, Line { peer: device, flags, counter, mss: 0 });
            content.reverse.insert(device, Line { peer: vip, flags, counter, mss: 0 });
            if flags & RESTRICTED != 0 {
                content.access.insert(counter, BTreeSet::from(["10.1.0.0/24".parse().unwrap()]));
            }
        }
        for &(vip, device, counter) in retired {
            content.reverse.insert(device.parse().unwrap(), Line::retired(vip.parse().unwrap(), counter));
        }
        content
    }

    /// The table around a change that is all of the table.
    fn around(now: &Content) -> Around {
        let mut filter = Box::new(Filter::EMPTY);
        now.add_to(&mut filter);
        let others = Some(Box::new(Filter::EMPTY));
        let (vips, index) = (now.vips(), Present::default());
        Around { filter, others, vips, shared: BTreeSet::new(), index, is_fresh: false }
    }

    /// The steps as words: the map, "+" for what is written and "-" for what is removed, and how many.
    fn words(plan: &Plan) -> Vec<String> {
        fn edit<K, V>(edit: &Edit<K, V>) -> char {
            if matches!(edit, Edit::Put { .. }) { '+' } else { '-' }
        }
        let word = |step: &Step| match step {
            Step::Filter { .. } => "filter".to_owned(),
            Step::Vips(vips) => format!("vips{}{}", edit(vips), vips.len()),
            Step::Access(access) => format!("access{}{}", edit(access), access.len()),
            Step::Counters(counters) => format!("counters {counters:?}"),
            Step::Index(buckets) => format!("index{}{}", edit(buckets), buckets.len()),
            Step::Reverse(lines) => format!("reverse{}{}", edit(lines), lines.len()),
            Step::Forward(lines) => format!("forward{}{}", edit(lines), lines.len()),
        };
        plan.steps.iter().map(word).collect()
    }

    #[test]
    fn a_move_writes_the_way_back_before_the_way_there() {
        let now = content(&[("10.9.0.1:1", "10.2.0.1:1", 0, 0)], &[]);
        let wanted = content(&[("10.9.0.1:1", "10.2.0.2:1", 0, 0)], &[("10.9.0.1:1", "10.2.0.1:1", 0)]);
        let plan = Plan::between(&now, &wanted, Around { others: None, ..around(&now) });
        assert_eq!(words(&plan), ["filter", "reverse+2", "forward+1"]);
        let [_, Step::Reverse(Edit::Put { values, before, .. }), _] = plan.steps.as_slice() else {
            panic!("{:?}", words(&plan));
        };
        assert!(before[0].is_some_and(|old| old.flags() == 0) && before[1].is_none());
        assert_eq!((values[0].flags(), values[1].flags()), (RETIRED, 0));
    }

    #[test]
    fn what_is_new_comes_first_and_what_is_gone_last() {
        let now = content(&[("10.9.0.1:1", "10.2.0.1:1", RESTRICTED, 0)], &[]);
        let wanted = content(&[("10.9.0.2:1", "10.2.0.2:1", RESTRICTED, 1)], &[]);
        let expected = [
            "filter",
            "vips+1",
            "access+1",
            "counters [1]",
            "reverse+1",
            "forward+1",
            "forward-1",
            "reverse-1",
            "vips-1",
            "access-1",
            "filter",
        ];
        let plan = Plan::between(&now, &wanted, around(&now));
        assert_eq!(words(&plan), expected);
        let (Some(Step::Filter { after: wide, .. }), Some(Step::Filter { before, after: exact })) =
            (plan.steps.first(), plan.steps.last())
        else {
            panic!("{:?}", words(&plan));
        };
        let [old, new] = ["10.2.0.1", "10.2.0.2"].map(|device| device.parse::<IpAddr>().unwrap().into());
        assert!(wide.may_be_device(old) && wide.may_be_device(new) && wide == before);
        assert!(!exact.may_be_device(old) && exact.may_be_device(new));
    }

    #[test]
    fn a_list_of_nobody_is_emptied_before_its_counter_serves_again() {
        let mut now = Content::default();
        now.access.insert(0, BTreeSet::from(["10.7.0.0/16".parse().unwrap()]));
        let wanted = content(&[("10.9.0.1:1", "10.2.0.1:1", RESTRICTED, 0)], &[]);
        let words = words(&Plan::between(&now, &wanted, around(&now)));
        assert_eq!(words[2..4], ["access-1", "access+1"]);
    }

    #[test]
    fn equal_tables_need_nothing() {
        let now = content(&[("10.9.0.1:1", "10.2.0.1:1", RESTRICTED, 0)], &[("10.9.0.1:1", "10.2.0.9:1", 0)]);
        assert_eq!(words(&Plan::between(&now, &now, around(&now))), [""; 0]);
    }

    #[test]
    fn a_vip_and_bits_of_other_lines_stay() {
        let now = content(&[("10.9.0.1:1", "10.2.0.1:1", 0, 0)], &[]);
        let others = content(&[("10.9.0.1:2", "10.2.0.1:2", 0, 1)], &[]);
        let mut filter = Box::new(Filter::EMPTY);
        others.add_to(&mut filter);
        let around = Around { others: Some(filter), shared: others.vips(), ..around(&now) };
        assert_eq!(words(&Plan::between(&now, &Content::default(), around)), ["forward-1", "reverse-1"]);
    }

    #[test]
    fn room_is_needed_for_old_and_new() {
        let now = content(&[("10.9.0.1:1", "10.2.0.1:1", RESTRICTED, 0)], &[]);
        let wanted = content(&[("10.9.0.2:1", "10.2.0.2:1", 0, 1)], &[]);
        let room = Room::between(&now, &wanted);
        assert_eq!((room.mappings, room.portals, room.prefixes), (2, 2, 1));
        assert!(room.check(2).is_ok());
        let refused = room.check(1).unwrap_err().to_string();
        assert!(refused.contains("room for 2 mappings") && refused.contains("holds 1 at most"), "{refused}");
    }
}
