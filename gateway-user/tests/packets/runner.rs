//! Runs packets through the program in a network namespace of its own, and says all that became of each.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::index::{self, Bucket, buckets, place};
use lungate_gateway_common::table::{
    Access, Address, FROZEN, Interface, Mapping, Portal, RESTRICTED, RETIRED, Tag, Traffic, Vlan, control,
    map,
};
use lungate_gateway_common::verdict::{Direction, REASONS, Reason};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::model::{self, DROP, Entry, Outcome, PASS, REDIRECT, TX, World};
use crate::network::{self, WIRES, Wire};

/// One mapping of a table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) vip: SocketAddr,
    pub(crate) device: SocketAddr,
    pub(crate) is_frozen: bool,
    /// The device has been left: only its way back is known.
    pub(crate) is_retired: bool,
    pub(crate) allow: &'static [&'static str],
    pub(crate) mss: u16,
}

/// A line that anybody may use.
pub(crate) fn line(vip: &str, device: &str) -> Line {
    let (vip, device) = (vip.parse().unwrap(), device.parse().unwrap());
    Line { vip, device, is_frozen: false, is_retired: false, allow: &[], mss: 0 }
}

/// What is to become of a frame of a table.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    /// Redirected to another interface, or sent back by the same, as this.
    Redirected(Vec<u8>),
    SentBack(Vec<u8>),
    /// As these two, and counted for a reason.
    RedirectedFor(Reason, Vec<u8>),
    SentBackFor(Reason, Vec<u8>),
    /// Dropped or passed as it came.
    Stopped(Reason),
    /// Passed to the kernel as this.
    Handed(Reason, Vec<u8>),
    /// As that, an error message.
    HandedError([Reason; 2], Vec<u8>),
}

/// The mappings that a table of these tests has room for.
const MAPPINGS: u32 = 256;

/// A program with a table of its own, in a namespace that ends with the thread.
pub(crate) struct Runner {
    pub(crate) ebpf: Ebpf,
    pub(crate) world: World,
    out: RefCell<Vec<u8>>,
}

impl Runner {
    /// The network of the tests with this table. Changes of routes are promised to be counted.
    pub(crate) fn new(lines: &[Line]) -> Self {
        // SAFETY: only the network namespace of this thread changes; no file descriptors are shared anew.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("tests of the gateway need root");
        network::make();
        let object = std::fs::read(env!("LUNGATE_BPF_OBJECT")).unwrap();
        let mut loader = EbpfLoader::new();
        for name in [map::FORWARD, map::REVERSE, map::VIPS, map::ACCESS, map::TRAFFIC] {
            loader.map_max_entries(name, MAPPINGS);
        }
        let mask = buckets(MAPPINGS) - 1;
        loader.map_max_entries(map::INDEX, buckets(MAPPINGS)).override_global("INDEX_MASK", &mask, true);
        let ebpf = loader.load(&object).unwrap();
        let mut runner = Self { ebpf, world: World::new(), out: RefCell::new(vec![0; 1 << 16]) };
        let program: &mut Xdp = runner.ebpf.program_mut("lungate").unwrap().try_into().unwrap();
        program.load().unwrap();
        let mut filter = Filter::EMPTY;
        for (counter, line) in (0..).zip(lines) {
            runner.add(counter, line, &mut filter);
        }
        runner.filter(filter);
        runner.describe_network();
        runner.control(control::WATCHED_UNTIL, u64::MAX);
        runner
    }

    fn add(&mut self, counter: u32, line: &Line, filter: &mut Filter) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(!line.allow.is_empty(), RESTRICTED)
            | flag(line.is_frozen, FROZEN)
            | flag(line.is_retired, RETIRED);
        let nets: Vec<IpNet> = line.allow.iter().map(|net| net.parse().unwrap()).collect();
        let entry = |peer| Entry {
            peer,
            counter,
            is_frozen: line.is_frozen,
            allow: (!nets.is_empty()).then(|| nets.clone()),
            mss: line.mss,
        };
        let mapping = |peer: SocketAddr| Mapping::new(peer.into(), flags, counter, line.mss);
        let (vip, device) = (line.vip, line.device);
        self.table(map::REVERSE).insert(Portal::from(device), mapping(vip), 0).unwrap();
        // Every other one is in the index, so that the quick way goes by it and by the hash maps.
        if counter.is_multiple_of(2) {
            self.index(device, &mapping(vip), Direction::ToHost);
            if !line.is_retired {
                self.index(vip, &mapping(device), Direction::ToDevice);
            }
        }
        self.world.reverse.insert(device, entry(vip));
        filter.add_device(device.ip().into());
        filter.add_vip(vip.ip().into());
        if !line.is_retired {
            self.table(map::FORWARD).insert(Portal::from(vip), mapping(device), 0).unwrap();
            self.world.forward.insert(vip, entry(device));
            self.addresses(map::VIPS).insert(Address::from(vip.ip()), 1, 0).unwrap();
            self.world.vips.insert(vip.ip());
        }
        for net in nets {
            let bits = Access::prefix_bits(net.prefix_len(), net.addr().is_ipv4());
            let mut access: LpmTrie<&mut MapData, Access, u32> = self.map(map::ACCESS).try_into().unwrap();
            access.insert(&Key::new(bits, Access::new(counter, net.network().into())), 1, 0).unwrap();
        }
    }

    fn index(&mut self, portal: SocketAddr, mapping: &Mapping, direction: Direction) {
        let portal = Portal::from(portal);
        let Some(entry) = index::Entry::new(&portal, mapping) else { return };
        let mut buckets: Array<&mut MapData, Bucket> = self.map(map::INDEX).try_into().unwrap();
        let place = place(&portal, buckets.len() - 1);
        let mut bucket = buckets.get(&place, 0).unwrap();
        assert!(bucket.put(entry.there(mapping, direction)), "the bucket of {portal:?} is full");
        buckets.set(place, bucket, 0).unwrap();
    }

    fn describe_network(&mut self) {
        for own in WIRES.iter().flat_map(|wire| wire.addresses(1)) {
            self.addresses(map::LOCAL).insert(Address::from(own), 1, 0).unwrap();
        }
        for wire in &WIRES {
            self.describe(wire);
        }
        let vlans: Vec<_> =
            self.world.vlans.iter().map(|((parent, tags), to)| (*parent, tag(tags), *to)).collect();
        for (parent, (_, tag), to) in vlans {
            let mut known: HashMap<&mut MapData, Vlan, u32> = self.map(map::VLANS).try_into().unwrap();
            known.insert(Vlan { parent, tag }, to, 0).unwrap();
        }
    }

    fn describe(&mut self, wire: &Wire) {
        let Some(flags) = wire.flags else { return };
        let (tags, tag) = tag(wire.tags);
        let entry = Interface { device: wire.device, flags, tags, tag, link: wire.link(1), reserved: 0 };
        let mut known: HashMap<&mut MapData, u32, Interface> = self.map(map::INTERFACES).try_into().unwrap();
        known.insert(wire.index, entry, 0).unwrap();
    }

    /// Sets the first look; it must let all through that the table has.
    pub(crate) fn filter(&mut self, filter: Filter) {
        let mut array: Array<&mut MapData, Filter> = self.map(map::FILTER).try_into().unwrap();
        array.set(0, filter, 0).unwrap();
    }

    /// Sets a place of `CONTROL`.
    pub(crate) fn control(&mut self, place: u32, value: u64) {
        let mut array: Array<&mut MapData, u64> = self.map(map::CONTROL).try_into().unwrap();
        array.set(place, value, 0).unwrap();
    }

    /// What becomes of a frame that comes in by an interface, without what is counted.
    pub(crate) fn run(&self, ingress: u32, frame: &[u8]) -> (u32, Vec<u8>) {
        self.run_split(ingress, frame, frame.len())
    }

    /// As [`Runner::run`], with the first bytes of the frame in the buffer that the program sees, and the others in
    /// further ones.
    pub(crate) fn run_split(&self, ingress: u32, frame: &[u8], first: usize) -> (u32, Vec<u8>) {
        let program: &Xdp = self.ebpf.program("lungate").unwrap().try_into().unwrap();
        let first = u32::try_from(first).unwrap();
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, first, 0, ingress, 0, 0].map(u32::to_ne_bytes).concat();
        let mut out = self.out.borrow_mut();
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(out.as_mut_slice()),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        });
        let result = result.unwrap();
        (result.return_value, out[..usize::try_from(result.data_size_out).unwrap()].to_vec())
    }

    /// All that becomes of a frame.
    pub(crate) fn outcome(&self, ingress: u32, frame: &[u8]) -> Outcome {
        self.counted(|| self.run(ingress, frame))
    }

    /// What a run gives, with what is counted meanwhile.
    pub(crate) fn counted(&self, run: impl FnOnce() -> (u32, Vec<u8>)) -> Outcome {
        let before = (self.reasons(), self.traffic());
        let (action, frame) = run();
        let after = (self.reasons(), self.traffic());
        let reasons = Reason::ALL.into_iter().flat_map(|reason| {
            let place = usize::try_from(reason.index()).unwrap();
            std::iter::repeat_n(reason, usize::try_from(after.0[place] - before.0[place]).unwrap())
        });
        Outcome { action, frame, reasons: reasons.collect(), traffic: carried(&before.1, &after.1) }
    }

    /// How often each reason was counted.
    pub(crate) fn reasons(&self) -> Vec<u64> {
        let reasons: PerCpuArray<&MapData, u64> = self.ebpf.map(map::REASONS).unwrap().try_into().unwrap();
        (0..REASONS).map(|reason| reasons.get(&reason, 0).unwrap().iter().sum()).collect()
    }

    /// What each mapping has carried: packets and bytes to the device, packets and bytes to hosts.
    pub(crate) fn traffic(&self) -> Vec<[u64; 4]> {
        let traffic: PerCpuArray<&MapData, Traffic> =
            self.ebpf.map(map::TRAFFIC).unwrap().try_into().unwrap();
        let count = u32::try_from(self.world.reverse.len()).unwrap();
        let sum = |counter| {
            let values = traffic.get(&counter, 0).unwrap();
            values.iter().fold([0; 4], |[a, b, c, d], t| {
                [a + t.to_device_packets, b + t.to_device_bytes, c + t.to_host_packets, d + t.to_host_bytes]
            })
        };
        (0..count).map(sum).collect()
    }

    /// A frame of a table: what becomes of it is as the table and as the model say.
    pub(crate) fn expect(&self, what: &str, ingress: u32, frame: &[u8], then: Then) {
        let outcome = self.outcome(ingress, frame);
        let (action, expected, mut reasons) = match then {
            Then::Redirected(out) => (REDIRECT, out, vec![]),
            Then::SentBack(out) => (TX, out, vec![]),
            Then::RedirectedFor(reason, out) => (REDIRECT, out, vec![reason]),
            Then::SentBackFor(reason, out) => (TX, out, vec![reason]),
            Then::Stopped(reason) => {
                (if reason.is_drop() { DROP } else { PASS }, frame.to_vec(), vec![reason])
            }
            Then::Handed(reason, out) => (PASS, out, vec![reason]),
            Then::HandedError(reasons, out) => (PASS, out, reasons.to_vec()),
        };
        reasons.sort_by_key(|reason| reason.index());
        assert_eq!(
            (outcome.action, &outcome.reasons),
            (action, &reasons),
            "{what}: action and reasons; {}",
            hex(frame)
        );
        assert_eq!(
            hex(&outcome.frame),
            hex(&expected),
            "{what}: the packet that came out, of {}",
            hex(frame)
        );
        let model = model::run(&self.world, ingress, frame);
        assert_eq!(outcome, model, "{what}: what the model says, of {}", hex(frame));
    }

    fn table(&mut self, name: &str) -> HashMap<&mut MapData, Portal, Mapping> {
        self.map(name).try_into().unwrap()
    }

    fn addresses(&mut self, name: &str) -> HashMap<&mut MapData, Address, u32> {
        self.map(name).try_into().unwrap()
    }

    /// A map, to be changed.
    pub(crate) fn map(&mut self, name: &str) -> &mut Map {
        self.ebpf.map_mut(name).unwrap()
    }
}

/// The one difference between two states of `TRAFFIC`.
fn carried(before: &[[u64; 4]], after: &[[u64; 4]]) -> Option<(u32, Direction, u64)> {
    let at = before.iter().zip(after).position(|(before, after)| before != after)?;
    let grown = [0, 1, 2, 3].map(|i| after[at][i] - before[at][i]);
    let counter = u32::try_from(at).unwrap();
    match grown {
        [1, bytes, 0, 0] => Some((counter, Direction::ToDevice, bytes)),
        [0, 0, 1, bytes] => Some((counter, Direction::ToHost, bytes)),
        _ => panic!("one packet made traffic of {grown:?}"),
    }
}

/// Tags as the maps have them.
fn tag(tags: &[(u16, u16)]) -> (u16, [Tag; 2]) {
    let mut all = [Tag::default(); 2];
    for (place, (protocol, id)) in all.iter_mut().zip(tags) {
        *place = Tag { protocol: protocol.to_be(), id: id.to_be() };
    }
    (u16::try_from(tags.len()).unwrap(), all)
}

/// Bytes for a message.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The address of a portal's text.
pub(crate) fn ip(portal: &str) -> IpAddr {
    portal.parse::<SocketAddr>().unwrap().ip()
}
