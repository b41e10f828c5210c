//! `FORWARD` and `REVERSE` once more, for the quick way: what a look-up needs lies in one line of the processor's
//! cache, and it is reached without a call. Only IPv4, and only lines that are not frozen; what is not found here is
//! looked for in the hash maps, so an entry may be missing at any time, but never differ from them.
//!
//! Whoever changes a line empties its entry first. A new entry is written with [`Entry::is_there`] unset and set
//! only when no program can be running any more that has read what was there before: one grace period of RCU after
//! an entry was emptied, and one more before it is set, so that no reader sees two halves.

use core::net::SocketAddr;

use crate::table::{Address, FROZEN, Mapping, Portal, RESTRICTED, Word};
use crate::verdict::Direction;

/// Entries in a bucket.
pub const WAYS: usize = 4;

/// What a look-up finds at its place.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The entries, in no order.
    pub entries: [Entry; WAYS],
}

/// One line of `FORWARD` or `REVERSE`: four of them fill a line of the cache, so numbers share words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Address, port and the peer's port as they lie in a packet, from the lowest bit on: 32, 16 and 16 bits.
    portal: u64,
    /// The peer's address, counter and state, from the lowest bit on: 32, 24 and 8 bits.
    line: u64,
}

const _: () = assert!(size_of::<Entry>() == 16);
const _: () = assert!(size_of::<Bucket>() == 64);

/// Places in the words.
const PORT: u32 = 32;
const PEER_PORT: u32 = 48;
const COUNTER: u32 = 32;
const STATE: u32 = 56;
/// Counters that fit; as many mappings as a table has at most, and more.
const COUNTERS: u32 = 1 << 24;
/// The bits of an entry's state: none while nothing is there.
const TO_DEVICE: u64 = 1;
const TO_HOST: u64 = 2;
const LISTED: u64 = 4;

impl Entry {
    /// The entry of a line; none where it is not one for the quick way. It is not there yet.
    pub fn new(portal: &Portal, mapping: &Mapping) -> Option<Self> {
        let (from, to) = (SocketAddr::from(*portal), SocketAddr::from(*mapping.peer()));
        let fits = mapping.counter() < COUNTERS && mapping.flags() & FROZEN == 0;
        if !from.is_ipv4() || !to.is_ipv4() || !fits {
            return None;
        }
        let [.., peer] = mapping.peer().address().longs();
        Some(Self {
            portal: key(portal) | u64::from(mapping.peer().port()) << PEER_PORT,
            line: u64::from(peer) | u64::from(mapping.counter()) << COUNTER,
        })
    }

    /// Sets it: it is found from now on.
    #[must_use]
    pub fn there(self, mapping: &Mapping, direction: Direction) -> Self {
        let listed = if mapping.flags() & RESTRICTED != 0 { LISTED } else { 0 };
        let state = listed | state(direction);
        Self { line: self.emptied().line | state << STATE, ..self }
    }

    /// Empties it: it is not found any more, and all else stays for those that are reading it.
    #[must_use]
    pub fn emptied(self) -> Self {
        Self { line: self.line & ((1 << STATE) - 1), ..self }
    }

    /// Whether it is found.
    pub fn is_there(&self) -> bool {
        self.line >> STATE != 0
    }

    /// The portal that it is for, whether or not it is there.
    pub fn portal(&self) -> Portal {
        let [a, b, c, d, e, f, ..] = self.portal.to_le_bytes();
        let address = u32::from_le_bytes([a, b, c, d]);
        Portal::new(Address::from_v4(address), Word::from_le_bytes([e, f]))
    }

    /// The direction of its packets.
    #[inline(always)]
    pub fn direction(&self) -> Direction {
        if (self.line >> STATE) & TO_DEVICE != 0 { Direction::ToDevice } else { Direction::ToHost }
    }

    /// Whether only hosts on its list may use it.
    #[inline(always)]
    pub(crate) fn is_restricted(&self) -> bool {
        (self.line >> STATE) & LISTED != 0
    }

    /// What the packet's address and port become.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the words are cut where the numbers end")]
    pub(crate) fn peer(&self) -> Portal {
        Portal::new(Address::from_v4(self.line as u32), (self.portal >> PEER_PORT) as Word)
    }

    /// The mapping's place in `TRAFFIC`.
    #[inline(always)]
    pub fn counter(&self) -> u32 {
        (self.line >> COUNTER) as u32 & (COUNTERS - 1)
    }
}

impl Bucket {
    /// Puts an entry where nothing is there; says whether there was room.
    pub fn put(&mut self, entry: Entry) -> bool {
        let free = self.entries.iter_mut().find(|entry| !entry.is_there());
        free.map(|place| *place = entry).is_some()
    }

    /// The entry of a portal in one direction.
    #[inline(always)]
    pub fn find(&self, portal: &Portal, direction: Direction) -> Option<&Entry> {
        let (key, state) = (key(portal), state(direction) << STATE);
        let is = |entry: &Entry| {
            entry.portal << (64 - PEER_PORT) == key << (64 - PEER_PORT) && entry.line & state != 0
        };
        let [a, b, c, d] = &self.entries;
        if is(a) {
            Some(a)
        } else if is(b) {
            Some(b)
        } else if is(c) {
            Some(c)
        } else if is(d) {
            Some(d)
        } else {
            None
        }
    }
}

/// Address and port of an IPv4 portal.
#[inline(always)]
const fn key(portal: &Portal) -> u64 {
    let [.., address] = portal.address().longs();
    address as u64 | (portal.port() as u64) << PORT
}

#[inline(always)]
const fn state(direction: Direction) -> u64 {
    match direction {
        Direction::ToDevice => TO_DEVICE,
        Direction::ToHost => TO_HOST,
    }
}

/// The buckets for a table of so many mappings: a power of two, with two entries for each side of each mapping.
pub const fn buckets(max_mappings: u32) -> u32 {
    match max_mappings.checked_next_power_of_two() {
        Some(power) => power,
        None => 1 << 31,
    }
}

/// The bucket of an IPv4 portal among `mask` + 1.
#[inline(always)]
pub const fn place(portal: &Portal, mask: u32) -> u32 {
    let [.., address] = portal.address().longs();
    let key = (u32::from_be(address) as u64) << 16 | u16::from_be(portal.port()) as u64;
    // Multiplied, the upper bits depend on all of the lower ones.
    let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
    hash & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_what_its_line_says() {
        let portal = |text: &str| Portal::from(text.parse::<SocketAddr>().unwrap());
        let (vip, device) = (portal("10.9.0.1:4001"), portal("10.2.0.255:65535"));
        let mapping = Mapping::new(device, RESTRICTED, COUNTERS - 1, 0);
        let entry = Entry::new(&vip, &mapping).unwrap();
        assert!(!entry.is_there());
        let mut bucket = Bucket::default();
        assert!(bucket.put(entry));
        assert!(bucket.find(&vip, Direction::ToDevice).is_none(), "it is not there yet");
        bucket.entries[0] = entry.there(&mapping, Direction::ToDevice);
        let found = bucket.find(&vip, Direction::ToDevice).unwrap();
        assert_eq!((found.portal(), found.peer(), found.counter()), (vip, device, COUNTERS - 1));
        assert!(found.is_restricted() && found.direction() == Direction::ToDevice);
        assert!(bucket.find(&vip, Direction::ToHost).is_none());
        assert!(bucket.find(&portal("10.9.0.1:4002"), Direction::ToDevice).is_none());
        assert_eq!(found.emptied(), entry);
    }

    #[test]
    fn what_is_not_for_the_quick_way_has_no_entry() {
        let portal = |text: &str| Portal::from(text.parse::<SocketAddr>().unwrap());
        let line = |peer: &str, flags, counter| Mapping::new(portal(peer), flags, counter, 0);
        for (from, mapping) in [
            ("[fd09::1]:1", line("[fd02::1]:1", 0, 0)),
            ("10.9.0.1:1", line("10.2.0.1:1", FROZEN, 0)),
            ("10.9.0.1:1", line("10.2.0.1:1", 0, COUNTERS)),
        ] {
            assert_eq!(Entry::new(&portal(from), &mapping), None, "{from}");
        }
    }
}
