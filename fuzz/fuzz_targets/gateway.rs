//! Any packet through the gateway's whole translator, at both hooks: it never panics, what is passed or dropped stays
//! as it came, checksums that were right stay right, and the quick way does what the whole way does.

#![no_main]

use std::cell::{Cell, UnsafeCell};
use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use lungate_gateway_common::bytes::Packet;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::gateway::{Hook, Kernel, Outcome, aside, run};
use lungate_gateway_common::headers::{self, Fragment, Headers, Ip};
use lungate_gateway_common::hop::Answer;
use lungate_gateway_common::index::{Bucket, Entry};
use lungate_gateway_common::quick;
use lungate_gateway_common::table::{
    Access, Address, ETHERNET, Hop, Interface, MAX_TAGS, Mapping, NATIVE, Portal, Tag, Vlan, Way, Word,
    control,
};
use lungate_gateway_common::verdict::{Direction, Kind, Reason};

const HOST: u32 = 1;
const DEVICE: u32 = 2;
const VLAN: u32 = 3;
const TAG: Tag = Tag { protocol: 0x8100_u16.to_be(), id: 7_u16.to_be() };

/// Packets to begin with; the fuzzer's bytes change them.
const TEMPLATES: [&[u8]; 7] = [
    &[
        2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2, 8, 0, 0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 2,
        10, 9, 0, 1, 0x9c, 0x40, 0x0f, 0xa1, 0, 0, 0, 1, 0, 0, 0, 2, 0x60, 0x02, 0x20, 0, 0, 0, 0, 0, 2, 4,
        5, 0xb4,
    ],
    &[
        2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 2, 2, 8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 2, 0, 11,
        10, 1, 0, 2, 0x13, 0x8d, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0,
    ],
    &[
        2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 2, 2, 8, 0, 0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 10, 2, 0, 1, 10,
        1, 0, 2, 3, 4, 0, 0, 0, 0, 5, 0xdc, 0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 63, 6, 0, 0, 10, 1, 0, 2, 10, 2,
        0, 11, 0x9c, 0x40, 0x13, 0x8d, 0, 0, 0, 1,
    ],
    &[
        2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64, 0xfd, 1, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 2, 0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x9c, 0x40, 0x0f, 0xa1,
        0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0,
    ],
    &[
        2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255, 0xfd, 1, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 135, 0, 0, 0, 0, 0,
        0, 0, 0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 0, 0, 0, 1, 2,
    ],
    &[
        255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 1, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 1, 2, 10,
        1, 0, 2, 0, 0, 0, 0, 0, 0, 10, 9, 0, 1,
    ],
    &[
        2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2, 0x81, 0, 0, 7, 8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0,
        10, 1, 0, 2, 10, 9, 0, 1, 0x9c, 0x40, 0x0f, 0xa2, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0, 0,
        0, 0,
    ],
];

/// A packet that grows and shrinks.
struct Owned(Vec<u8>);

impl Packet for Owned {
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]> {
        self.0[..].read(offset)
    }

    fn write<const N: usize>(&mut self, offset: usize, words: [Word; N]) -> Option<()> {
        self.0[..].write(offset, words)
    }

    fn has(&self, length: usize) -> bool {
        self.0.len() >= length
    }

    fn shift(&mut self, by: i32) -> Option<()> {
        match usize::try_from(by) {
            Ok(by) => drop(self.0.drain(..by)),
            Err(_) => drop(self.0.splice(..0, vec![0; by.unsigned_abs() as usize])),
        }
        Some(())
    }

    fn cut(&mut self, length: usize) -> Option<()> {
        self.0.truncate(length);
        Some(())
    }
}

/// A table of two mappings for each family, and a forwarding table that says what the fuzzer wants.
struct World {
    lines: Vec<(Portal, Portal, Mapping, Mapping)>,
    filter: Filter,
    buckets: [Bucket; 2],
    has_index: bool,
    answer: Answer,
    interfaces: [Interface; 3],
    hop: UnsafeCell<Hop>,
    headers: UnsafeCell<Option<Headers>>,
    quoted: UnsafeCell<Option<Ip>>,
    is_listed: bool,
    counted: Cell<u32>,
}

impl World {
    fn new(flags: u32, mss: u16, has_index: bool, is_listed: bool, answer: u8) -> Self {
        let portal = |text: &str| Portal::from(text.parse::<SocketAddr>().expect("a portal"));
        let mut world = Self {
            lines: Vec::new(),
            filter: Filter::EMPTY,
            buckets: [Bucket::default(); 2],
            has_index,
            answer: match answer % 8 {
                0 => Answer::NoNeighbour,
                1 => Answer::NoRoute,
                2 => Answer::TooBig,
                3 => Answer::NotForwarding,
                4 => Answer::By { interface: VLAN, link: [1; 6], mtu: 1500 },
                5 => Answer::By { interface: HOST, link: [1; 6], mtu: 1500 },
                _ => Answer::By { interface: DEVICE, link: [1; 6], mtu: 1500 },
            },
            interfaces: [HOST, DEVICE, VLAN].map(|index| Interface {
                device: if index == VLAN { DEVICE } else { index },
                flags: ETHERNET | NATIVE,
                tags: u16::from(index == VLAN),
                tag: [if index == VLAN { TAG } else { Tag::default() }, Tag::default()],
                link: [2, 0, 0, 0, 0, index as u8],
                reserved: 0,
            }),
            hop: UnsafeCell::new(Hop::BLANK),
            headers: UnsafeCell::new(None),
            quoted: UnsafeCell::new(None),
            is_listed,
            counted: Cell::new(0),
        };
        for (counter, (vip, device)) in
            [("10.9.0.1:4001", "10.2.0.11:5005"), ("[fd09::1]:4001", "[fd02::11]:5005")]
                .into_iter()
                .enumerate()
        {
            let (vip, device, counter) = (portal(vip), portal(device), counter as u32);
            let there = Mapping::new(device, flags, counter, mss);
            let back = Mapping::new(vip, flags, counter, mss);
            for (bucket, portal, mapping, direction) in
                [(0, vip, &there, Direction::ToDevice), (1, device, &back, Direction::ToHost)]
            {
                if let Some(entry) = Entry::new(&portal, mapping) {
                    world.buckets[bucket].put(entry.there(mapping, direction));
                }
            }
            world.filter.add_vip(vip.address());
            world.filter.add_device(device.address());
            world.lines.push((vip, device, there, back));
        }
        world
    }
}

impl Kernel for World {
    fn forward(&self, portal: &Portal) -> Option<&Mapping> {
        self.lines.iter().find(|(vip, ..)| vip == portal).map(|(_, _, there, _)| there)
    }

    fn reverse(&self, portal: &Portal) -> Option<&Mapping> {
        self.lines.iter().find(|(_, device, ..)| device == portal).map(|(_, _, _, back)| back)
    }

    fn bucket(&self, portal: &Portal) -> Option<&Bucket> {
        let bucket = &self.buckets[usize::from(self.reverse(portal).is_some())];
        self.has_index.then_some(bucket)
    }

    fn is_vip(&self, address: &Address) -> bool {
        self.lines.iter().any(|(vip, ..)| vip.address() == *address)
    }

    fn is_local(&self, address: &Address) -> bool {
        [Address::v4([10, 1, 0, 1]), Address::v4([10, 2, 0, 1])].contains(address)
    }

    fn is_listed(&self, _: Access) -> bool {
        self.is_listed
    }

    fn filter(&self) -> Option<&Filter> {
        Some(&self.filter)
    }

    fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.get(index.checked_sub(1)? as usize)
    }

    fn vlan(&self, vlan: &Vlan) -> Option<u32> {
        let tags: [Tag; MAX_TAGS] = [TAG, Tag::default()];
        (vlan.tag == tags).then_some(VLAN)
    }

    #[expect(clippy::mut_from_ref, reason = "one packet is looked at at a time")]
    fn hop(&self, _: u32) -> Option<&mut Hop> {
        // SAFETY: a packet's way ends before the next one's begins, and asks once.
        Some(unsafe { &mut *self.hop.get() })
    }

    fn now(&self) -> u64 {
        1
    }

    fn ticks(&self) -> u64 {
        1
    }

    fn control(&self, place: u32) -> u64 {
        if place == control::WATCHED_UNTIL { 2 } else { 0 }
    }

    fn ask(&self, _: &Way, _: u16) -> Answer {
        self.answer
    }

    fn forget(&self, headers: Headers) -> Option<&Headers> {
        // SAFETY: as for `hop`.
        Some(unsafe { (*self.headers.get()).insert(headers) })
    }

    fn forget_quoted(&self, quoted: Ip) -> Option<&Ip> {
        // SAFETY: as for `hop`.
        Some(unsafe { (*self.quoted.get()).insert(quoted) })
    }

    fn forget_number(&self, number: u32) -> Option<u32> {
        Some(number)
    }

    fn count_traffic(&self, _: u32, _: Direction, _: u16) {
        self.counted.set(self.counted.get() + 1);
    }

    fn count(&self, _: Reason) {}
}

fuzz_target!(|input: (u8, u8, u8, u8, u16, &[u8])| {
    let (template, flags, answer, hook, mss, bytes) = input;
    let mut packet = TEMPLATES[usize::from(template) % TEMPLATES.len()].to_vec();
    if bytes.len() > packet.len() {
        packet.resize(bytes.len().min(9000), 0);
    }
    packet.iter_mut().zip(bytes).for_each(|(place, byte)| *place ^= byte);
    if hook & 0x40 != 0 {
        packet.truncate(usize::from(hook & 0x3f) + 14);
    }
    let hook = match hook & 0x80 {
        0 => Hook::Frame(if hook & 1 == 0 { HOST } else { DEVICE }),
        _ => {
            packet.drain(..14.min(packet.len()));
            Hook::Packet(HOST)
        }
    };
    let world = World::new(u32::from(flags & 7), mss, flags & 8 != 0, flags & 16 != 0, answer);
    let decide = |packet: &mut Owned| match run(packet, &world, hook) {
        Outcome::Aside => aside(packet, &world, hook),
        outcome => outcome,
    };
    let mut first = Owned(packet.clone());
    let outcome = decide(&mut first);
    assert_ne!(outcome, Outcome::Aside);
    if let Outcome::Stopped(reason) = outcome {
        let is_whole = !matches!(reason.kind(), Kind::Passed | Kind::Dropped) || first.0 == packet;
        assert!(is_whole, "{} and changed", reason.name());
    } else if were_right(&packet, hook) {
        assert!(were_right(&first.0, hook), "a checksum that was right is wrong: {outcome:?}");
    }
    if let Hook::Frame(ingress) = hook {
        // The next hop is known by now, where there is one.
        let (mut quick, mut whole) = (Owned(packet.clone()), Owned(packet.clone()));
        let taken = if quick.0.len() >= quick::V4_HEADERS && quick::is_v4(&quick) {
            quick::v4(&mut quick, &world, ingress)
        } else if quick.0.len() >= quick::V6_HEADERS && quick::is_v6(&quick) {
            quick::v6(&mut quick, &world, ingress)
        } else {
            None
        };
        match taken {
            Some(outcome) => {
                assert_eq!(outcome, decide(&mut whole));
                assert_eq!(quick.0, whole.0, "the quick way makes another packet of it");
            }
            None => assert_eq!(quick.0, packet, "left to the whole way, and changed"),
        }
    }
});

/// Whether a packet is a TCP segment whose checksums are right.
fn were_right(packet: &[u8], hook: Hook) -> bool {
    let link = match hook {
        Hook::Frame(_) => headers::ethernet(packet),
        Hook::Packet(_) => headers::no_link(packet),
    };
    let Ok(ip) = link.and_then(|link| headers::ip(packet, link.ethertype, link.l3())) else { return false };
    let is_segment = ip.protocol == 6 && ip.fragment == Fragment::No && headers::tcp(packet, &ip).is_ok();
    if !is_segment {
        return false;
    }
    let addresses = &packet[ip.source_at()..ip.source_at() + if ip.is_v6 { 32 } else { 8 }];
    let tcp = &packet[ip.l4()..ip.end()];
    let length = (tcp.len() as u32).to_be_bytes();
    let segment = [addresses, &length, &[0, 0, 0, 6], tcp].concat();
    (ip.is_v6 || sum(&packet[ip.l3()..ip.l4()]) == 0xffff) && sum(&segment) == 0xffff
}

/// The one's complement sum of 16-bit words.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
