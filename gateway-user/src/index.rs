//! `INDEX` kept in step with `FORWARD` and `REVERSE`: which of its buckets a change writes, worked out before the
//! first write, and the waiting in between.
//!
//! What is there always equals the lines; what is not there is only slower to find. So entries of lines that change
//! are emptied before the lines are, as a step of the plan, and new ones come after the last step, in two rounds: first
//! all but the state, then the state. Before each round every program that may have seen what was there has ended. Who
//! is killed anywhere in between leaves entries that are missing, until `apply` fills them.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use lungate_gateway_common::index::{Bucket, Entry, buckets, place};
use lungate_gateway_common::table::{Mapping, Portal, RETIRED, map};
use lungate_gateway_common::verdict::Direction;

use crate::batch::{Batched, Partial};
use crate::content::{Content, Line};
use crate::kernel;
use crate::pins::Pins;
use crate::plan::Edit;

/// The pinned map.
pub(crate) struct Index {
    map: Batched<u32, Bucket>,
    mask: u32,
}

/// What a change finds in it.
#[derive(Default)]
pub(crate) struct Present {
    /// Buckets by their places, in order. One that is not here has no entry.
    buckets: Vec<(u32, Bucket)>,
    /// It is all that is there, and the change is of all lines.
    is_whole: bool,
    mask: u32,
}

/// Buckets with new entries, in both rounds.
#[derive(Default)]
pub(crate) struct Fill {
    places: Vec<u32>,
    payload: Vec<Bucket>,
    publish: Vec<Bucket>,
}

/// What a change wants of one portal in one direction.
struct Claim {
    place: u32,
    portal: Portal,
    direction: Direction,
    /// It is there; `None` where the line goes, or is not one for the quick way.
    entry: Option<Entry>,
    /// It is for late replies only, and leaves its place to others.
    is_late: bool,
}

impl Index {
    /// Opens the map of a table of that capacity.
    pub(crate) fn open(pins: &Pins, capacity: u32) -> Result<Self> {
        Ok(Self { map: Batched::open(&pins.map(map::INDEX))?, mask: buckets(capacity) - 1 })
    }

    /// All of it, for a change of all lines. In a table that was never filled there is nothing to read.
    pub(crate) fn whole(&self, is_fresh: bool) -> Result<Present> {
        let has_entry = |bucket: &Bucket| bucket.entries.iter().any(Entry::is_there);
        let mut buckets = if is_fresh {
            Vec::new()
        } else {
            self.map.entries_where(has_entry).context("cannot read the index")?
        };
        buckets.sort_unstable_by_key(|(place, _)| *place);
        Ok(Present { buckets, is_whole: true, mask: self.mask })
    }

    /// What a change from some lines to others finds.
    pub(crate) fn around(&self, now: &Content, wanted: &Content) -> Result<Present> {
        let mut present = Present { mask: self.mask, ..Present::default() };
        let mut places: Vec<u32> = present.claims(now, wanted).iter().map(|claim| claim.place).collect();
        places.sort_unstable();
        places.dedup();
        for place in places {
            let bucket = self.map.get(&place).context("cannot read the index")?;
            present.buckets.extend(bucket.map(|bucket| (place, bucket)));
        }
        Ok(present)
    }

    /// The map, for the steps of a plan.
    pub(crate) fn map(&self) -> &Batched<u32, Bucket> {
        &self.map
    }

    /// Makes new entries, after the lines are written.
    pub(crate) fn fill(&self, fill: &Fill) -> Result<()> {
        let Fill { places, payload, publish } = fill;
        if places.is_empty() {
            return Ok(());
        }
        for buckets in [payload, publish] {
            kernel::wait_for_programs().context("cannot wait until no program runs that was there before")?;
            let written = self.map.put(places, buckets);
            written.map_err(|Partial { error, .. }| anyhow!(error).context("cannot write the map INDEX"))?;
        }
        Ok(())
    }
}

impl Present {
    /// The entries that a change empties before lines are written, and those that it makes afterwards.
    pub(crate) fn change(&self, now: &Content, wanted: &Content) -> (Edit<u32, Bucket>, Fill) {
        let mut claims = self.claims(now, wanted);
        claims.sort_by_key(|claim| (claim.place, claim.is_late));
        let (mut keys, mut values, mut before) = (Vec::new(), Vec::new(), Vec::new());
        let mut fill = Fill::default();
        let (mut buckets, mut claims) = (self.buckets.as_slice(), claims.as_slice());
        loop {
            let places = [buckets.first().map(|(place, _)| *place), claims.first().map(|claim| claim.place)];
            let Some(place) = places.into_iter().flatten().min() else { break };
            let here = buckets.iter().take_while(|(at, _)| *at == place).count();
            let claimed = claims.iter().take_while(|claim| claim.place == place).count();
            let (bucket, wanted) = (&buckets[..here], &claims[..claimed]);
            (buckets, claims) = (&buckets[here..], &claims[claimed..]);

            let bucket = bucket.first().map_or_else(Bucket::default, |(_, bucket)| *bucket);
            let emptied = self.emptied(bucket, wanted);
            if emptied != bucket {
                keys.push(place);
                values.push(emptied);
                before.push(Some(bucket));
            }
            let publish = filled(emptied, wanted);
            if publish != emptied {
                fill.places.push(place);
                fill.payload.push(payload(emptied, publish));
                fill.publish.push(publish);
            }
        }
        (Edit::Put { keys, values, before }, fill)
    }

    /// What a change wants of every line that it touches.
    fn claims(&self, now: &Content, wanted: &Content) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (direction, now, wanted) in [
            (Direction::ToDevice, &now.forward, &wanted.forward),
            (Direction::ToHost, &now.reverse, &wanted.reverse),
        ] {
            claims.extend(wanted.iter().filter_map(|(at, line)| self.claim(at, direction, Some(line))));
            // Where all lines are wanted, an entry of none of them goes anyway.
            let gone = now.keys().filter(|at| !self.is_whole && !wanted.contains_key(*at));
            claims.extend(gone.filter_map(|at| self.claim(at, direction, None)));
        }
        claims
    }

    fn claim(&self, at: &SocketAddr, direction: Direction, line: Option<&Line>) -> Option<Claim> {
        if !at.is_ipv4() {
            return None;
        }
        let portal = Portal::from(*at);
        let entry = line.and_then(|line| {
            let mapping = Mapping::from(line);
            Some(Entry::new(&portal, &mapping)?.there(&mapping, direction))
        });
        let is_late = line.is_some_and(|line| line.flags & RETIRED != 0);
        Some(Claim { place: place(&portal, self.mask), portal, direction, entry, is_late })
    }

    /// A bucket without the entries that are not right any more.
    fn emptied(&self, mut bucket: Bucket, wanted: &[Claim]) -> Bucket {
        for entry in bucket.entries.iter_mut().filter(|entry| entry.is_there()) {
            let is_touched = self.is_whole || wanted.iter().any(|claim| claim.is_for(entry));
            if is_touched && !wanted.iter().any(|claim| claim.entry.as_ref() == Some(&*entry)) {
                *entry = entry.emptied();
            }
        }
        bucket
    }
}

impl Claim {
    fn is_for(&self, entry: &Entry) -> bool {
        self.portal == entry.portal() && self.direction == entry.direction()
    }
}

/// A bucket with the entries that are missing, as far as there is room.
fn filled(mut bucket: Bucket, wanted: &[Claim]) -> Bucket {
    let there = bucket.entries;
    let mut missing = wanted.iter().filter_map(|claim| claim.entry).filter(|entry| !there.contains(entry));
    let free = bucket.entries.iter_mut().filter(|entry| !entry.is_there());
    free.zip(&mut missing).for_each(|(way, entry)| *way = entry);
    bucket
}

/// What the first round writes: new entries that are not there yet.
fn payload(emptied: Bucket, mut bucket: Bucket) -> Bucket {
    for (entry, before) in bucket.entries.iter_mut().zip(&emptied.entries) {
        if entry != before {
            *entry = entry.emptied();
        }
    }
    bucket
}

#[cfg(test)]
mod tests {
    use lungate_gateway_common::index::WAYS;
    use lungate_gateway_common::table::{FROZEN, RESTRICTED};
    use proptest::prelude::*;

    use super::*;

    /// Few enough that buckets become full.
    const BUCKETS: u32 = 2;

    /// A line of `FORWARD`: VIP port, device port, flags.
    type Line = (u16, u16, u32);

    fn content(lines: &[Line]) -> Content {
        let mut content = Content::default();
        for &(port, device, flags) in lines {
            let (vip, device) = (([10, 9, 0, 1], port).into(), ([10, 2, 0, 1], device).into());
            let counter = u32::from(port);
            content.forward.insert(vip, super::Line { peer: device, flags, counter, mss: 0 });
        }
        content
    }

    /// The index as an array, and what the steps do to it.
    #[derive(Clone, Debug)]
    struct Array(Vec<Bucket>);

    impl Array {
        fn empty() -> Self {
            Self(vec![Bucket::default(); BUCKETS as usize])
        }

        fn present(&self, is_whole: bool) -> Present {
            Present { buckets: (0..).zip(self.0.iter().copied()).collect(), is_whole, mask: BUCKETS - 1 }
        }

        fn write(&mut self, places: &[u32], buckets: &[Bucket]) {
            for (place, bucket) in places.iter().zip(buckets) {
                self.0[*place as usize] = *bucket;
            }
        }

        fn entries(&self) -> Vec<Entry> {
            self.0.iter().flat_map(|bucket| bucket.entries).filter(Entry::is_there).collect()
        }

        /// Carries a change out up to a number of writes, of which there are three; after each, what is there must
        /// be right.
        fn change(&mut self, now: &Content, wanted: &Content, is_whole: bool, writes: usize) {
            let (Edit::Put { keys, values, before }, fill) = self.present(is_whole).change(now, wanted)
            else {
                panic!("buckets are never removed");
            };
            let rounds =
                [(&keys, &values), (&fill.places, &fill.payload), (&fill.places, &fill.publish)].into_iter();
            for (round, (places, buckets)) in rounds.enumerate().take(writes) {
                let old = self.clone();
                self.write(places, buckets);
                for (was, is) in
                    old.0.iter().zip(&self.0).flat_map(|(was, is)| was.entries.iter().zip(&is.entries))
                {
                    // What may be in use keeps all but its state, and is not set anew without a round in between.
                    assert!(!was.is_there() || *is == *was || round == 0 && *is == was.emptied());
                    assert!(was.is_there() || !is.is_there() || round == 2 && is.emptied() == *was);
                }
                expect_right(self, if round == 0 { now } else { wanted });
                if round == 0 {
                    expect_right(self, wanted);
                    let mut undone = self.clone();
                    undone.write(places, &before.iter().flatten().copied().collect::<Vec<_>>());
                    assert_eq!(undone.0, old.0);
                }
            }
        }
    }

    fn entries(content: &Content) -> Vec<Entry> {
        let present = Present { mask: BUCKETS - 1, ..Present::default() };
        present.claims(content, content).into_iter().filter_map(|claim| claim.entry).collect()
    }

    fn expect_right(index: &Array, content: &Content) {
        let lines = entries(content);
        assert!(index.entries().iter().all(|entry| lines.contains(entry)), "{index:?}: {lines:?}");
    }

    #[test]
    fn a_line_that_stays_is_not_written_and_one_that_is_frozen_is_emptied() {
        let mut index = Array::empty();
        let now = content(&[(1, 1, 0), (2, 2, RESTRICTED)]);
        index.change(&Content::default(), &now, false, 3);
        assert_eq!(index.entries().len(), 2);
        let (Edit::Put { keys, .. } | Edit::Remove { keys, .. }, fill) =
            index.present(false).change(&now, &now);
        assert!(keys.is_empty() && fill.places.is_empty());
        let frozen = content(&[(1, 1, FROZEN), (2, 2, RESTRICTED)]);
        index.change(&now, &frozen, false, 3);
        assert_eq!(index.entries(), entries(&frozen));
    }

    #[test]
    fn late_replies_leave_a_place_to_others() {
        let mut wanted = Content::default();
        let last = u16::try_from(WAYS).unwrap() + 1;
        for port in 1..=last {
            let flags = if port == last { 0 } else { RETIRED };
            let line = super::Line { peer: ([10, 9, 0, 1], port).into(), flags, counter: 0, mss: 0 };
            wanted.reverse.insert(([10, 2, 0, 1], port).into(), line);
        }
        let (_, fill) = Present::default().change(&Content::default(), &wanted);
        let [first, ..] = fill.publish[0].entries;
        assert_eq!((fill.places, first.portal().port()), (vec![0], last.to_be()));
        assert!(fill.publish[0].entries.iter().all(Entry::is_there));
    }

    proptest! {
        #[test]
        fn what_is_there_is_right_at_every_moment(
            changes in prop::collection::vec(
                (
                    prop::collection::btree_map(0..12_u16, (0..4_u16, 0..3_u32), 0..12),
                    any::<bool>(),
                    0..4_usize,
                ),
                1..12,
            )
        ) {
            let (mut index, mut now) = (Array::empty(), Content::default());
            for (lines, is_whole, writes) in changes {
                let lines: Vec<Line> = lines.into_iter().map(|(port, (to, flags))| (port, to, flags)).collect();
                let wanted = content(&lines);
                index.change(&now, &wanted, is_whole, writes);
                if writes == 0 {
                    // Nor were the lines.
                    continue;
                }
                now = wanted;
                if writes == 3 && is_whole {
                    let missing = entries(&now).into_iter().filter(|entry| !index.entries().contains(entry));
                    for entry in missing {
                        let bucket = index.0[place(&entry.portal(), BUCKETS - 1) as usize];
                        prop_assert!(bucket.entries.iter().all(Entry::is_there));
                    }
                }
            }
        }
    }
}
