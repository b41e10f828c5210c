//! The layout of the gateway's maps. Addresses and ports are in network byte order; everything else is in the
//! machine's.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The version of this layout: part of the path under which the maps are pinned.
pub const LAYOUT: u32 = 2;

/// The names of the maps, as they are pinned.
pub mod map {
    /// Hash map: [`super::Portal`] of a VIP to [`super::Mapping`] with the device's.
    pub const FORWARD: &str = "FORWARD";
    /// Hash map: [`super::Portal`] of a device to [`super::Mapping`] with the VIP's.
    pub const REVERSE: &str = "REVERSE";
    /// Hash map: every [`super::Address`] that is a VIP, for what is answered at all of its ports.
    pub const VIPS: &str = "VIPS";
    /// LPM trie: mapping and host prefix that may use it.
    pub const ACCESS: &str = "ACCESS";
    /// Hash map: the gateway's own [`super::Address`]es.
    pub const LOCAL: &str = "LOCAL";
    /// Hash map: index of an interface to [`super::Interface`].
    pub const INTERFACES: &str = "INTERFACES";
    /// Hash map: [`super::Vlan`] to the index of the interface that stands for it.
    pub const VLANS: &str = "VLANS";
    /// Array of [`crate::index::Bucket`]s, by [`crate::index::place`].
    pub const INDEX: &str = "INDEX";
    /// Array with one [`crate::filter::Filter`].
    pub const FILTER: &str = "FILTER";
    /// Per-CPU array of [`super::Hop`]: answers of the kernel's forwarding table, by [`super::Way::slot`].
    pub const HOPS: &str = "HOPS";
    /// Array of `u64`: see [`super::control`].
    pub const CONTROL: &str = "CONTROL";
    /// Per-CPU array of [`super::Traffic`], by [`super::Mapping::counter`].
    pub const TRAFFIC: &str = "TRAFFIC";
    /// Per-CPU array of packet counts, by [`crate::verdict::Reason::index`].
    pub const REASONS: &str = "REASONS";
    /// Array with one [`super::Settings`].
    pub const SETTINGS: &str = "SETTINGS";
}

/// Places in `CONTROL`. Each is written by itself, so that no writer undoes another's.
pub mod control {
    /// Counts changes of neighbours, routes, links and addresses; a [`super::Hop`] of another generation is
    /// not used.
    pub const GENERATION: u32 = 0;
    /// The bit of `GENERATION` that says that no rule of the kernel's routing looks at where packets come from, and that
    /// whoever watches takes the bit away before that changes: hops are then shared by all sources.
    pub const SHARED: u64 = 1 << 63;
    /// Until when somebody promises to count such changes at once: in the kernel's ticks since it started
    /// (`jiffies_64`), which cost nothing to look at. Afterwards a hop is used for [`super::HOP_LIFE_NS`] only.
    pub const WATCHED_UNTIL: u32 = 1;
    /// Nonzero: every packet that is dropped goes to the log.
    pub const LOG_DROPS: u32 = 2;
    /// The number of places.
    pub const PLACES: u32 = 8;
}

/// How long an answer of the forwarding table is used while nobody watches for changes, in nanoseconds.
pub const HOP_LIFE_NS: u64 = 200_000_000;
/// How long packets pass by the kernel's neighbour table while nobody watches, before one goes through it, so that
/// it asks whether the neighbour is still there; in nanoseconds.
pub const HOP_CONFIRM_NS: u64 = 5_000_000_000;
/// The places in `HOPS`; a power of two.
pub const HOP_SLOTS: u32 = 4096;

/// Two bytes of a packet as they lie in memory, so a number in network byte order without its meaning: enough to
/// copy, to compare and, in one's complement, to add (RFC 1071, 2).
pub type Word = u16;

/// An IP address in 16 bytes, IPv4 as `::ffff:a.b.c.d`, so that one table serves both families. It is aligned so
/// that the BPF virtual machine, which takes bytes one by one otherwise, copies and compares whole words.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    bytes: [u8; 16],
}

/// An address and a TCP port: 20 bytes without holes, for hashing.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Portal {
    address: Address,
    port: [u8; 2],
    reserved: [u8; 2],
}

/// One line of the table, seen from one side.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    peer: Portal,
    flags: u32,
    counter: u32,
    mss: u16,
    reserved: u16,
}

/// Packets from hosts are held off.
pub const FROZEN: u32 = 1;
/// Only hosts in `ACCESS` may use the mapping.
pub const RESTRICTED: u32 = 2;
/// The device portal serves nothing any more; its late replies are still translated.
pub const RETIRED: u32 = 4;

/// What decides where a packet goes next: its addresses as they will be, the interface it came in by, and its
/// class of service (TOS or traffic class).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    source: Address,
    destination: Address,
    ingress: u32,
    class: u32,
}

/// An answer of the kernel's forwarding table, as it is kept.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    way: Way,
    generation: u64,
    watched_until: u64,
    asked: u64,
    confirmed: u64,
    interface: u32,
    mtu: u16,
    tags: u16,
    tag: [Tag; MAX_TAGS],
    link: [Word; 6],
    reserved: u32,
}

/// VLAN tags that are looked through.
pub const MAX_TAGS: usize = 2;

/// A VLAN tag's EtherType (0x8100 or 0x88a8) and identifier (12 bits), both as they lie in a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The EtherType.
    pub protocol: Word,
    /// The identifier, without priority.
    pub id: Word,
}

/// The key of `VLANS`: an interface with Ethernet frames and the tags on them, from the outer one on; an inner tag
/// that is not there is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vlan {
    /// The interface that the frames come in by.
    pub parent: u32,
    /// The tags.
    pub tag: [Tag; MAX_TAGS],
}

/// How packets leave by an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The interface that frames leave by: itself, or that below a VLAN.
    pub device: u32,
    /// [`ETHERNET`], [`NATIVE`], [`GENERIC`], of `device`.
    pub flags: u16,
    /// How many tags frames get.
    pub tags: u16,
    /// The tags, from the outer one on.
    pub tag: [Tag; MAX_TAGS],
    /// Its own link address.
    pub link: [u8; 6],
    /// Zero.
    pub reserved: u16,
}

/// Packets have Ethernet headers.
pub const ETHERNET: u16 = 1;
/// The gateway's program runs in the driver, so frames can be redirected to it from every program.
pub const NATIVE: u16 = 2;
/// The gateway's program runs above the driver: frames are redirected to any interface.
pub const GENERIC: u16 = 4;

/// The key of `ACCESS` behind its prefix length: the mapping's counter, then the host's address. A prefix covers
/// the 32 bits of the counter whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    counter: u32,
    host: Address,
}

/// What one mapping has carried, on one CPU. Bytes are those of IP packets, headers included.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets from hosts.
    pub to_device_packets: u64,
    /// Their bytes.
    pub to_device_bytes: u64,
    /// Packets to hosts.
    pub to_host_packets: u64,
    /// Their bytes.
    pub to_host_bytes: u64,
}

/// The longest path of a catalog that is remembered, in bytes.
pub const MAX_PATH: usize = 4092;

/// What lives as long as the maps do.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The bytes of `catalog` in use; 0 before a catalog was applied.
    pub catalog_length: u32,
    /// The absolute path of the catalog that the table was made from.
    pub catalog: [u8; MAX_PATH],
}

const _: () = assert!(size_of::<Portal>() == 20);
const _: () = assert!(size_of::<Mapping>() == 32);
const _: () = assert!(size_of::<Way>() == 40);
const _: () = assert!(size_of::<Hop>() == 104);
const _: () = assert!(size_of::<Tag>() == 4);
const _: () = assert!(size_of::<Vlan>() == 12);
const _: () = assert!(size_of::<Interface>() == 24);
const _: () = assert!(size_of::<Access>() == 20);
const _: () = assert!(size_of::<Traffic>() == 32);
const _: () = assert!(size_of::<Settings>() == 4096);

impl Address {
    /// An IPv4 address.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self { bytes: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] }
    }

    /// An IPv4 address as it lies in a packet, four bytes at once.
    #[inline(always)]
    pub(crate) const fn from_v4(long: u32) -> Self {
        Self::from_longs([0, 0, join(0, 0xffff), long])
    }

    /// An IPv6 address.
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self { bytes: octets }
    }

    /// Its sixteen bytes.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        self.bytes
    }

    /// An address as it lies in a packet, two bytes at a time.
    #[inline(always)]
    pub const fn from_words(words: [Word; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = words;
        Self::from_longs([join(a, b), join(c, d), join(e, f), join(g, h)])
    }

    /// An IPv6 address as it lies in a packet's IPv6 header, two bytes at a time. One that holds an IPv4 address has no
    /// business there (RFC 6890, table 20), and must not be taken for that.
    #[inline(always)]
    pub const fn from_v6_words(words: [Word; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = words;
        let is_v4 = a | b | c | d | e == 0 && f == 0xffff;
        Self::from_words([a, b, c, d, e, if is_v4 { 0 } else { f }, g, h])
    }

    /// An IPv4 address as it lies in a packet, two bytes at a time.
    #[inline(always)]
    pub const fn from_v4_words([high, low]: [Word; 2]) -> Self {
        Self::from_longs([0, 0, join(0, 0xffff), join(high, low)])
    }

    /// Its bytes, two at a time; the last two words are all of an IPv4 address.
    #[inline(always)]
    pub const fn words(self) -> [Word; 8] {
        // SAFETY: both are 16 bytes of plain data.
        unsafe { core::mem::transmute::<[u8; 16], [Word; 8]>(self.bytes) }
    }

    /// Its bytes, four at a time, as they lie in memory.
    #[inline(always)]
    pub const fn longs(self) -> [u32; 4] {
        // SAFETY: both are 16 bytes of plain data.
        unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(self.bytes) }
    }

    /// Built four bytes at a time: what is written in halves and read whole right away makes the processor wait.
    #[inline(always)]
    const fn from_longs(longs: [u32; 4]) -> Self {
        // SAFETY: both are 16 bytes of plain data.
        Self { bytes: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(longs) } }
    }

    /// Its bytes folded into four, for hashing; what differs most between neighbours is lowest.
    #[inline(always)]
    pub(crate) const fn mix(self) -> u32 {
        let [a, b, c, d] = self.longs();
        u32::from_be(a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d)
    }

    /// A hash in the upper bits, with an odd factor. Of IPv4 only what differs is looked at.
    #[inline(always)]
    const fn hash(self, is_v6: bool, factor: u32) -> u32 {
        let [.., last] = self.longs();
        let word = if is_v6 { self.mix() } else { u32::from_be(last) };
        word.wrapping_mul(factor)
    }

    /// Whether they are equal, of addresses of one family.
    #[inline(always)]
    const fn is_in(self, is_v6: bool, other: Self) -> bool {
        let ([.., last], [.., other_last]) = (self.longs(), other.longs());
        if is_v6 { self.is(other) } else { last == other_last }
    }

    /// Whether they are equal, four bytes at a time.
    #[inline(always)]
    pub(crate) const fn is(self, other: Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.longs(), other.longs());
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }
}

/// Four bytes from two and two, as they lie in memory.
#[inline(always)]
const fn join(first: Word, second: Word) -> u32 {
    if cfg!(target_endian = "little") {
        first as u32 | (second as u32) << 16
    } else {
        (first as u32) << 16 | second as u32
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let v6 = Ipv6Addr::from(address.bytes);
        v6.to_ipv4_mapped().map_or(Self::V6(v6), |v4: Ipv4Addr| Self::V4(v4))
    }
}

impl Portal {
    /// A portal; `port` as it lies in a packet.
    #[inline(always)]
    pub const fn new(address: Address, port: Word) -> Self {
        Self { address, port: port.to_ne_bytes(), reserved: [0; 2] }
    }

    /// Its address.
    #[inline(always)]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Its port, as it lies in a packet.
    #[inline(always)]
    pub const fn port(&self) -> Word {
        Word::from_ne_bytes(self.port)
    }
}

impl From<SocketAddr> for Portal {
    fn from(portal: SocketAddr) -> Self {
        Self::new(portal.ip().into(), portal.port().to_be())
    }
}

impl From<Portal> for SocketAddr {
    fn from(portal: Portal) -> Self {
        Self::new(portal.address.into(), u16::from_be_bytes(portal.port))
    }
}

impl Mapping {
    /// A line that leads to `peer`. `mss` is the largest TCP segment that either end is told of, in bytes; 0
    /// leaves what they say.
    pub fn new(peer: Portal, flags: u32, counter: u32, mss: u16) -> Self {
        Self { peer, flags, counter, mss, reserved: 0 }
    }

    /// What the packet's address and port become.
    #[inline(always)]
    pub const fn peer(&self) -> &Portal {
        &self.peer
    }

    /// [`FROZEN`], [`RESTRICTED`], [`RETIRED`].
    #[inline(always)]
    pub const fn flags(&self) -> u32 {
        self.flags
    }

    /// The mapping's place in `TRAFFIC`, the same in both directions and for its life.
    #[inline(always)]
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// The largest TCP segment that either end is told of, in bytes; 0 for what they say.
    #[inline(always)]
    pub const fn mss(&self) -> u16 {
        self.mss
    }
}

impl Way {
    /// The question for a packet: addresses as they will be, the interface it came in by, and its class of service.
    #[inline(always)]
    pub const fn new(source: Address, destination: Address, is_v6: bool, ingress: u32, class: u8) -> Self {
        Self { source, destination, ingress, class: class as u32 | if is_v6 { Self::V6 } else { 0 } }
    }

    /// Says in `class` that the addresses are IPv6's.
    const V6: u32 = 0x100;

    /// Whether the addresses are IPv6's.
    #[inline(always)]
    pub const fn is_v6(&self) -> bool {
        self.class & Self::V6 != 0
    }

    /// Its place in `HOPS`, in this generation.
    #[inline(always)]
    pub const fn slot(&self, generation: u64) -> u32 {
        let hash = self.destination.hash(self.is_v6(), 0x85eb_ca6b);
        let hash = if generation & control::SHARED != 0 {
            hash
        } else {
            hash ^ self.source.hash(self.is_v6(), 0x9e37_79b1)
        };
        (hash >> 20) & (HOP_SLOTS - 1)
    }

    /// Where the packet comes from, as it will be.
    #[inline(always)]
    pub const fn source(&self) -> Address {
        self.source
    }

    /// Where the packet goes, as it will be.
    #[inline(always)]
    pub const fn destination(&self) -> Address {
        self.destination
    }

    /// The interface that the packet came in by; that of its VLAN where it has tags.
    #[inline(always)]
    pub const fn ingress(&self) -> u32 {
        self.ingress
    }

    /// TOS or traffic class.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it was made from one byte")]
    pub const fn class(&self) -> u8 {
        self.class as u8
    }

    /// Whether packets go the same way, as far as where they come from does not matter.
    #[inline(always)]
    const fn leads_as(&self, other: &Self) -> bool {
        self.class == other.class
            && self.ingress == other.ingress
            && self.destination.is_in(self.is_v6(), other.destination)
    }

    /// Whether packets come from the same address.
    #[inline(always)]
    const fn is_from(&self, other: &Self) -> bool {
        self.source.is_in(self.is_v6(), other.source)
    }
}

impl Hop {
    /// Nothing that was asked.
    pub const BLANK: Self = Self {
        way: Way { source: Address::v6([0; 16]), destination: Address::v6([0; 16]), ingress: 0, class: 0 },
        generation: 0,
        watched_until: 0,
        asked: 0,
        confirmed: 0,
        interface: 0,
        mtu: 0,
        tags: 0,
        tag: [Tag { protocol: 0, id: 0 }; MAX_TAGS],
        link: [0; 6],
        reserved: 0,
    };

    /// Takes the answer to a question that was asked at `now`: the route's MTU. The kernel must send.
    #[inline(always)]
    pub fn learn(&mut self, way: &Way, generation: u64, now: u64, mtu: u16) {
        if !self.answers(way, generation) {
            self.confirmed = now;
        }
        (self.way, self.generation, self.watched_until) = (*way, generation, 0);
        (self.asked, self.interface, self.mtu) = (now, 0, mtu);
    }

    /// Sends by an interface, to and from these link addresses, destination first.
    #[inline(always)]
    pub fn send_by(&mut self, interface: &Interface, link: [Word; 6]) {
        (self.interface, self.tags, self.tag) = (interface.device, interface.tags, interface.tag);
        self.link = link;
    }

    /// Whether it answers the question, as far as somebody has counted what has changed since.
    #[inline(always)]
    pub const fn answers(&self, way: &Way, generation: u64) -> bool {
        self.generation == generation
            && self.way.leads_as(way)
            && (generation & control::SHARED != 0 || self.way.is_from(way))
    }

    /// Until when somebody promises to count what changes, as far as it is known here; in ticks.
    #[inline(always)]
    pub const fn watched_until(&self) -> u64 {
        self.watched_until
    }

    /// Notes until when somebody promises to count what changes.
    #[inline(always)]
    pub const fn watch(&mut self, until: u64) {
        self.watched_until = until;
    }

    /// Whether an answer to the question is good in a time in which nobody counts: it is new enough, and for packets
    /// from the same address, since nobody says that this does not matter.
    #[inline(always)]
    pub const fn is_good_unwatched(&self, way: &Way, now: u64) -> bool {
        now.wrapping_sub(self.asked) < HOP_LIFE_NS && self.way.is_from(way)
    }

    /// Whether the kernel has not looked after the neighbour for long.
    #[inline(always)]
    pub const fn wants_confirmation(&self, now: u64) -> bool {
        now.wrapping_sub(self.confirmed) >= HOP_CONFIRM_NS
    }

    /// The kernel is about to look after the neighbour.
    #[inline(always)]
    pub const fn confirm(&mut self, now: u64) {
        self.confirmed = now;
    }

    /// The question.
    #[inline(always)]
    pub const fn way(&self) -> &Way {
        &self.way
    }

    /// The generation in which it was asked.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The interface to send by; 0 where the kernel must send.
    #[inline(always)]
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// The largest IP packet that the route takes, in bytes.
    #[inline(always)]
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The tags that frames get, from the outer one on, and how many of them.
    #[inline(always)]
    pub const fn tags(&self) -> ([Tag; MAX_TAGS], usize) {
        (self.tag, self.tags as usize)
    }

    /// The link addresses of destination and source, as they lie in a frame.
    #[inline(always)]
    pub const fn link(&self) -> [Word; 6] {
        self.link
    }
}

impl Access {
    /// The key for a host's address; with 128 + 32 bits of prefix it means that host alone.
    #[inline(always)]
    pub const fn new(counter: u32, host: Address) -> Self {
        Self { counter, host }
    }

    /// The mapping's place in `TRAFFIC`.
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// The host's address, or the prefix's.
    pub const fn host(&self) -> Address {
        self.host
    }

    /// The bits of a prefix of `length` bits of an address of that family.
    pub const fn prefix_bits(length: u8, is_v4: bool) -> u32 {
        32 + length as u32 + if is_v4 { 96 } else { 0 }
    }

    /// The bits that a look-up compares at most.
    pub const ALL_BITS: u32 = 160;
}

/// What user space reads of an answer.
#[cfg(feature = "user")]
impl Hop {
    /// The link address that packets are sent to.
    pub const fn neighbour(&self) -> [u8; 6] {
        let [a, b, c, ..] = self.link;
        let ([a, b], [c, d], [e, f]) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// When it was asked, in nanoseconds of CLOCK_MONOTONIC_COARSE.
    pub const fn asked(&self) -> u64 {
        self.asked
    }
}

/// What user space copies in and out of the maps.
#[cfg(feature = "user")]
mod pod {
    use super::{Access, Address, Hop, Interface, Mapping, Portal, Settings, Traffic, Vlan};
    use crate::filter::Filter;
    use crate::index::Bucket;

    // SAFETY: `repr(C)` of bytes: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Address {}
    // SAFETY: `repr(C)` of byte arrays: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Portal {}
    // SAFETY: `repr(C)` of integers and byte arrays that fill it (asserted above); any bytes are a value.
    unsafe impl aya::Pod for Mapping {}
    // SAFETY: `repr(C)` of an integer and bytes that fill it (asserted above); any bytes are a value.
    unsafe impl aya::Pod for Access {}
    // SAFETY: `repr(C)` of integers and byte arrays that fill it (asserted above); any bytes are a value.
    unsafe impl aya::Pod for Interface {}
    // SAFETY: `repr(C)` of integers that fill it (asserted above); any bytes are a value.
    unsafe impl aya::Pod for Vlan {}
    // SAFETY: `repr(C)` of integers and byte arrays that fill it (asserted above); any bytes are a value.
    unsafe impl aya::Pod for Hop {}
    // SAFETY: `repr(C)` of `u64`s: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Filter {}
    // SAFETY: `repr(C)` of integers that fill it (asserted beside it); any bytes are a value.
    unsafe impl aya::Pod for Bucket {}
    // SAFETY: `repr(C)` of four `u64`s: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Traffic {}
    // SAFETY: `repr(C)` of integers and bytes that fill it (asserted above); any bytes are a value.
    unsafe impl aya::Pod for Settings {}
}
