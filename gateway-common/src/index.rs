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
pub const WAYS: usize = 2;

/// What a look-up finds at its place.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The entries, in no order.
    pub entries: [Entry; WAYS],
}

/// One line of `FORWARD` or `REVERSE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    address: u32,
    port: Word,
    state: u16,
    peer_address: u32,
    peer_port: Word,
    reserved: u16,
    counter: u32,
    unused: [u32; 3],
}

const _: () = assert!(size_of::<Entry>() == 32);
const _: () = assert!(size_of::<Bucket>() == 64);

/// The bits of an entry's state: none while nothing is there.
const TO_DEVICE: u16 = 1;
const TO_HOST: u16 = 2;
const LISTED: u16 = 4;

impl Entry {
    /// The entry of a line; none where it is not one for the quick way. It is not there yet.
    pub fn new(portal: &Portal, mapping: &Mapping) -> Option<Self> {
        let (from, to) = (SocketAddr::from(*portal), SocketAddr::from(*mapping.peer()));
        if !from.is_ipv4() || !to.is_ipv4() || mapping.flags() & FROZEN != 0 {
            return None;
        }
        let ([.., address], [.., peer_address]) =
            (portal.address().longs(), mapping.peer().address().longs());
        Some(Self {
            address,
            port: portal.port(),
            state: 0,
            peer_address,
            peer_port: mapping.peer().port(),
            reserved: 0,
            counter: mapping.counter(),
            unused: [0; 3],
        })
    }

    /// Sets it: it is found from now on.
    #[must_use]
    pub fn there(mut self, mapping: &Mapping, direction: Direction) -> Self {
        let listed = if mapping.flags() & RESTRICTED != 0 { LISTED } else { 0 };
        self.state = listed
            | match direction {
                Direction::ToDevice => TO_DEVICE,
                Direction::ToHost => TO_HOST,
            };
        self
    }

    /// Empties it: it is not found any more, and all else stays for those that are reading it.
    #[must_use]
    pub fn emptied(mut self) -> Self {
        self.state = 0;
        self
    }

    /// Whether it is found.
    pub fn is_there(&self) -> bool {
        self.state != 0
    }

    /// The portal that it is for, whether or not it is there.
    pub fn portal(&self) -> Portal {
        Portal::new(Address::v4(self.address.to_ne_bytes()), self.port)
    }

    /// The direction of its packets.
    #[inline(always)]
    pub fn direction(&self) -> Direction {
        if self.state & TO_DEVICE != 0 { Direction::ToDevice } else { Direction::ToHost }
    }

    /// Whether only hosts on its list may use it.
    #[inline(always)]
    pub(crate) fn is_restricted(&self) -> bool {
        self.state & LISTED != 0
    }

    /// What the packet's address and port become.
    #[inline(always)]
    pub(crate) fn peer(&self) -> Portal {
        Portal::new(Address::from_v4(self.peer_address), self.peer_port)
    }

    /// The mapping's place in `TRAFFIC`.
    #[inline(always)]
    pub fn counter(&self) -> u32 {
        self.counter
    }

    #[inline(always)]
    fn is(&self, address: u32, port: Word, state: u16) -> bool {
        self.address == address && self.port == port && self.state & state != 0
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
        let [.., address] = portal.address().longs();
        let state = match direction {
            Direction::ToDevice => TO_DEVICE,
            Direction::ToHost => TO_HOST,
        };
        let [first, second] = &self.entries;
        if first.is(address, portal.port(), state) {
            Some(first)
        } else if second.is(address, portal.port(), state) {
            Some(second)
        } else {
            None
        }
    }
}

/// The buckets for a table of so many mappings: a power of two, and at least two for each mapping.
pub const fn buckets(max_mappings: u32) -> u32 {
    match max_mappings.checked_next_power_of_two() {
        Some(power) if power <= 1 << 29 => 2 * power,
        _ => 1 << 30,
    }
}

/// The bucket of an IPv4 portal among `mask` + 1.
#[inline(always)]
pub const fn place(portal: &Portal, mask: u32) -> u32 {
    let [.., address] = portal.address().longs();
    let key = (u32::from_be(address) as u64) << 16 | u16::from_be(portal.port()) as u64;
    // Multiplied, the upper bits depend on all of the lower ones.
    #[expect(clippy::cast_possible_truncation, reason = "24 bits are left")]
    let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
    hash & mask
}
