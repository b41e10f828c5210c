//! Traffic by formula, for benchmarks: mapping `i` of a table of any size, so that the kernel's side makes packets
//! for mappings that user space has filled in without a list of them.

pub mod frame;

use crate::table::{Address, Portal};

/// How large a table is, and what it is spread over.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Mappings.
    pub mappings: u32,
    /// VIPs that they are spread over; a VIP has ports for 60,000 of them.
    pub volumes: u32,
    /// Devices that they are spread over; the same limit.
    pub devices: u32,
    /// Hosts that packets come from and go to.
    pub hosts: u32,
}

/// Which packets are made.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From a host to a VIP.
    Forward = 0,
    /// From a device to a host.
    Reverse = 1,
    /// Between strangers.
    Miss = 2,
    /// A connection that a host opens past the VIP; dropped.
    Drop = 3,
    /// An ICMP error about a segment from a VIP to a host.
    Icmp = 4,
}

/// What the program that makes packets is told, and its state.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The table.
    pub plan: Plan,
    /// A [`Kind`].
    pub kind: u32,
    /// Bytes of a TCP segment's IP packet, header included.
    pub length: u32,
    /// The random numbers' state; never 0.
    pub seed: u32,
}

/// An IPv4 address and a port, both as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The address.
    pub address: u32,
    /// The port.
    pub port: u16,
}

/// The names of the maps of the benchmarks' object.
pub mod map {
    /// Array with one [`super::Feed`].
    pub const FEED: &str = "FEED";
    /// Array of programs; the first is the one that packets are made for.
    pub const NEXT: &str = "NEXT";
    /// Array of [`super::Frame`] that the generator sends one after another.
    pub const FRAMES: &str = "FRAMES";
    /// Per-CPU array: packets that the receiver has got.
    pub const RECEIVED: &str = "RECEIVED";
    /// Array with one mapping, for programs that look for none.
    pub const LINE: &str = "LINE";
    /// Array: the interface that everything is redirected to.
    pub const TARGET: &str = "TARGET";
}

/// A frame that is sent: the shortest one that Ethernet knows, without its check sequence.
pub type Frame = [u16; 30];
/// The frames that the generator knows; a power of two.
pub const FRAMES: u32 = 64;

/// The first address of each party, and the first ports.
pub const FIRST_VIP: u32 = u32::from_be_bytes([10, 128, 0, 1]);
/// See [`FIRST_VIP`].
pub const FIRST_DEVICE: u32 = u32::from_be_bytes([10, 2, 1, 1]);
/// See [`FIRST_VIP`].
pub const FIRST_HOST: u32 = u32::from_be_bytes([10, 1, 1, 1]);
const FIRST_PORT: u32 = 4000;
/// Where strangers are.
const STRANGERS: u32 = u32::from_be_bytes([172, 16, 0, 0]);
const STRANGERS_MASK: u32 = 0x000f_ffff;

const _: () = assert!(size_of::<Feed>() == 28);

impl Plan {
    /// Where hosts find mapping `i`.
    #[inline(always)]
    pub fn vip(&self, i: u32) -> End {
        spread(FIRST_VIP, self.volumes, i)
    }

    /// The device portal behind mapping `i`.
    #[inline(always)]
    pub fn device(&self, i: u32) -> End {
        spread(FIRST_DEVICE, self.devices, i)
    }

    /// A host, by a random number.
    #[inline(always)]
    pub fn host(&self, random: u32) -> End {
        End { address: FIRST_HOST + below(random, self.hosts), port: 40_000 }
    }

    /// A mapping's number, by a random number.
    #[inline(always)]
    pub fn mapping(&self, random: u32) -> u32 {
        below(random, self.mappings)
    }
}

impl Feed {
    /// The next random number (Marsaglia's xorshift with shifts of 13, 17 and 5).
    #[inline(always)]
    pub fn random(&mut self) -> u32 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        self.seed
    }
}

impl End {
    /// A stranger, by a random number.
    #[inline(always)]
    pub fn stranger(random: u32) -> Self {
        Self { address: STRANGERS | random & STRANGERS_MASK, port: 40_000 }
    }
}

impl From<End> for Portal {
    fn from(end: End) -> Self {
        Self::new(Address::v4(end.address.to_be_bytes()), end.port.to_be())
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the plan's limits keep ports below 2^16")]
fn spread(first: u32, over: u32, i: u32) -> End {
    // Without a division by zero there is no panic, which the BPF virtual machine has none of.
    let over = if over == 0 { 1 } else { over };
    End { address: first + i % over, port: (FIRST_PORT + i / over) as u16 }
}

/// A number below a limit, by a random number, without a division.
#[inline(always)]
fn below(random: u32, limit: u32) -> u32 {
    ((random as u64 * limit as u64) >> 32) as u32
}

// SAFETY: `repr(C)` of `u32`s: any bytes are a value, and there is no padding.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Feed {}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mapping_has_portals_of_its_own() {
        let plan = Plan { mappings: 100_000, volumes: 70, devices: 250, hosts: 1 };
        let distinct = |end: &dyn Fn(u32) -> End| {
            (0..plan.mappings).map(|i| (end(i).address, end(i).port)).collect::<BTreeSet<_>>().len()
        };
        assert_eq!(distinct(&|i| plan.vip(i)), 100_000);
        assert_eq!(distinct(&|i| plan.device(i)), 100_000);
    }

    #[test]
    fn random_mappings_are_all_in_the_table_and_reach_nearly_all_of_it() {
        let plan = Plan { mappings: 1000, volumes: 1, devices: 1, hosts: 1 };
        let mut feed = Feed { plan, kind: 0, length: 40, seed: 1 };
        let seen: BTreeSet<u32> = (0..10_000).map(|_| plan.mapping(feed.random())).collect();
        assert!(seen.iter().all(|i| *i < 1000) && seen.len() > 990, "{} of 1000", seen.len());
    }
}
