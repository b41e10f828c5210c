//! The gateway with a table of a given size, and the programs it is compared with, in this thread's network
//! namespace.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, ProgramArray};
use aya::programs::{TestRun, TestRunOptions, Xdp, xdp::XdpMode};
use aya::{Ebpf, EbpfLoader};
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::index::{Bucket, Entry, buckets, place};
use lungate_gateway_common::sample::{self, End, FIRST_DEVICE, FIRST_HOST, Feed, Kind, Plan};
use lungate_gateway_common::table::{
    Address, ETHERNET, Interface, Mapping, NATIVE, Portal, Tag, control, map,
};
use lungate_gateway_common::verdict::{Direction, Reason};
use rustix::time::{ClockId, clock_gettime};

use super::batch;
use super::namespace::interface;
use super::pins::Pins;
use crate::bpf::Objects;
use crate::step::output;

/// The gateway's program, and those of the benchmarks' object that it is compared with.
pub(super) const GATEWAY: &str = "lungate";
pub(super) const BARE: &str = "bare";
/// Link addresses of the gateway's interfaces.
const LINKS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 2, 1]];
/// The table is never smaller than `lungate load` makes it.
const LEAST_CAPACITY: u32 = 16_384;
/// Maps that the programs to compare with read, too.
const SHARED: [&str; 13] = [
    map::FORWARD,
    map::REVERSE,
    map::VIPS,
    map::ACCESS,
    map::INDEX,
    map::LOCAL,
    map::INTERFACES,
    map::VLANS,
    map::FILTER,
    map::HOPS,
    map::CONTROL,
    map::TRAFFIC,
    map::REASONS,
];
/// A time that does not come.
const FOR_EVER: u64 = u64::MAX;

/// A gateway with a table.
pub(super) struct Stage {
    plan: Plan,
    gateway: Ebpf,
    bench: Ebpf,
    feed: Array<MapData, Feed>,
    next: ProgramArray<MapData>,
    /// The interfaces of the hosts' and of the devices' side.
    interfaces: [u32; 2],
}

impl Stage {
    /// Makes the network, loads both objects and fills the table.
    pub(super) fn new(objects: &Objects, plan: Plan) -> Result<Self> {
        network(&plan)?;
        let capacity = plan.mappings.max(LEAST_CAPACITY);
        // They are pinned for as long as it takes that both objects find the same maps.
        let pins = Pins::new()?;
        std::fs::create_dir(pins.path())
            .with_context(|| format!("cannot create {}", pins.path().display()))?;
        let mut gateway = load(&objects.gateway, pins.path(), capacity)?;
        let mut bench = load(&objects.bench, pins.path(), capacity)?;
        drop(pins);
        load_programs(&mut gateway)?;
        load_programs(&mut bench)?;
        let take = |bench: &mut Ebpf, name| bench.take_map(name).context("the object lacks a map");
        let mut stage = Self {
            feed: take(&mut bench, sample::map::FEED)?.try_into()?,
            next: take(&mut bench, sample::map::NEXT)?.try_into()?,
            interfaces: [interface("h0")?, interface("d0")?],
            plan,
            gateway,
            bench,
        };
        stage.attach()?;
        stage.fill()?;
        stage.watch(true)?;
        Ok(stage)
    }

    /// Lets the gateway believe that somebody counts changes of routes and neighbours, as `lungate serve` does, or
    /// that nobody does.
    pub(super) fn watch(&mut self, is_watched: bool) -> Result<()> {
        let mut control: Array<&mut MapData, u64> = table(&mut self.gateway, map::CONTROL)?.try_into()?;
        control.set(control::WATCHED_UNTIL, if is_watched { FOR_EVER } else { 0 }, 0)?;
        control.set(control::GENERATION, if is_watched { control::SHARED } else { 0 }, 0)?;
        Ok(())
    }

    /// Nanoseconds that making a packet and a program on it take together, on average.
    pub(super) fn fed(&mut self, program: &str, kind: Kind, length: u16, packets: u32) -> Result<f64> {
        let fd = self.program(program)?.fd()?.try_clone()?;
        self.next.set(0, &fd, 0).with_context(|| format!("{program} cannot be run after another"))?;
        // Random numbers go on where the last run has left them, or every run would visit the same mappings.
        let seed = self.feed.get(&0, 0)?.seed.max(1);
        let feed = Feed { plan: self.plan, kind: kind as u32, length: u32::from(length), seed };
        self.feed.set(0, feed, 0)?;
        let before = self.reasons()?;
        let (action, time) = self.run("feed", kind, length, packets)?;
        if program == GATEWAY {
            self.check(kind, packets, &before)?;
        }
        ensure!(action != 0, "{program} found no packet to work on");
        Ok(time)
    }

    /// Nanoseconds that a program takes alone, on average.
    pub(super) fn alone(&mut self, program: &str, kind: Kind, length: u16, packets: u32) -> Result<f64> {
        self.run(program, kind, length, packets).map(|(_, time)| time)
    }

    /// The last action, and nanoseconds of this thread for each packet.
    fn run(&self, program: &str, kind: Kind, length: u16, packets: u32) -> Result<(u32, f64)> {
        let ingress = self.interfaces[usize::from(kind == Kind::Reverse)];
        let frame = vec![0; frame_length(kind, length)];
        let context = context(u32::try_from(frame.len())?, ingress);
        let program = self.program(program)?;
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::default()
        };
        let begin = thread_time();
        let result = program.test_run(options)?;
        Ok((result.return_value, (thread_time() - begin) / f64::from(packets)))
    }

    /// Makes sure that every packet went the way that was to be measured.
    fn check(&self, kind: Kind, packets: u32, before: &[u64]) -> Result<()> {
        let expected = match kind {
            Kind::Forward | Kind::Reverse => None,
            Kind::Miss => Some(Reason::NoMapping),
            Kind::Drop => Some(Reason::PastVip),
            Kind::Icmp => Some(Reason::ErrorToDevice),
        };
        for (reason, (before, after)) in Reason::ALL.into_iter().zip(before.iter().zip(self.reasons()?)) {
            let counted = after - before;
            let wanted = if expected == Some(reason) { u64::from(packets) } else { 0 };
            ensure!(
                // Without a watcher one packet now and then goes through the kernel.
                counted == wanted || reason == Reason::Confirm,
                "of {packets} packets ({kind:?}) the gateway has counted {counted} as {}, {wanted} were expected",
                reason.name()
            );
        }
        Ok(())
    }

    fn reasons(&self) -> Result<Vec<u64>> {
        let map = self.gateway.map(map::REASONS).context("the object lacks a map")?;
        let reasons: PerCpuArray<&MapData, u64> = map.try_into()?;
        Reason::ALL.into_iter().map(|reason| Ok(reasons.get(&reason.index(), 0)?.iter().sum())).collect()
    }

    fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self.gateway.program(name).or_else(|| self.bench.program(name));
        Ok(program.with_context(|| format!("no object has a program {name}"))?.try_into()?)
    }

    /// An interface takes frames of a test only where a program is attached to it.
    fn attach(&mut self) -> Result<()> {
        let program: &mut Xdp = self
            .gateway
            .program_mut(GATEWAY)
            .context("the gateway's object lacks its program")?
            .try_into()?;
        for index in self.interfaces {
            program.attach_to_if_index(index, XdpMode::Driver)?;
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        let plan = self.plan;
        let numbers = || 0..plan.mappings;
        let vips: Vec<Portal> = numbers().map(|i| plan.vip(i).into()).collect();
        let devices: Vec<Portal> = numbers().map(|i| plan.device(i).into()).collect();
        let lines = |peers: &[Portal]| -> Vec<Mapping> {
            numbers().zip(peers).map(|(counter, peer)| Mapping::new(*peer, 0, counter, 0)).collect()
        };
        batch::update(hash_map(table(&mut self.gateway, map::FORWARD)?)?, &vips, &lines(&devices))?;
        batch::update(hash_map(table(&mut self.gateway, map::REVERSE)?)?, &devices, &lines(&vips))?;

        let count = self.buckets();
        let mut index = vec![Bucket::default(); count as usize];
        for (portals, peers, direction) in
            [(&vips, &devices, Direction::ToDevice), (&devices, &vips, Direction::ToHost)]
        {
            for (portal, mapping) in portals.iter().zip(lines(peers)) {
                let entry = Entry::new(portal, &mapping).context("not for the index")?;
                index[place(portal, count - 1) as usize].put(entry.there(&mapping, direction));
            }
        }
        let places: Vec<u32> = (0..count).collect();
        batch::update(array(table(&mut self.gateway, map::INDEX)?)?, &places, &index)?;

        let mut filter = Filter::EMPTY;
        devices.iter().for_each(|device| filter.add_device(device.address()));
        vips.iter().for_each(|vip| filter.add_vip(vip.address()));
        let mut filters: Array<&mut MapData, Filter> = table(&mut self.gateway, map::FILTER)?.try_into()?;
        filters.set(0, filter, 0)?;

        let volumes: Vec<Address> =
            numbers().take(plan.volumes as usize).map(|i| address(plan.vip(i))).collect();
        let line = table(&mut self.bench, sample::map::LINE)?;
        Array::<&mut MapData, Mapping>::try_from(line)?.set(0, Mapping::new(devices[0], 0, 0, 0), 0)?;
        self.set(map::VIPS, volumes.into_iter().map(|vip| (vip, 1_u32)))?;
        let own = ["10.1.0.1", "10.2.0.1"].into_iter().filter_map(|own| own.parse::<IpAddr>().ok());
        self.set(map::LOCAL, own.map(|own| (Address::from(own), 1_u32)))?;
        let interfaces = self.interfaces.into_iter().zip(LINKS).map(|(device, link)| {
            let flags = ETHERNET | NATIVE;
            (device, Interface { device, flags, tags: 0, tag: [Tag::default(); 2], link, reserved: 0 })
        });
        self.set(map::INTERFACES, interfaces)
    }

    fn buckets(&self) -> u32 {
        buckets(self.plan.mappings.max(LEAST_CAPACITY))
    }

    fn set<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
        entries: impl Iterator<Item = (K, V)>,
    ) -> Result<()> {
        let mut map: HashMap<&mut MapData, K, V> = table(&mut self.gateway, name)?.try_into()?;
        for (key, value) in entries {
            map.insert(key, value, 0).with_context(|| format!("cannot fill {name}"))?;
        }
        Ok(())
    }
}

/// Loads an object with room for so many mappings.
fn load(object: &Path, pins: &Path, capacity: u32) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for name in [map::FORWARD, map::TRAFFIC, map::VIPS, map::ACCESS] {
        loader.map_max_entries(name, capacity);
    }
    loader.map_max_entries(map::REVERSE, capacity.saturating_mul(2));
    let buckets = buckets(capacity);
    let mask = buckets - 1;
    loader.map_max_entries(map::INDEX, buckets).override_global("INDEX_MASK", &mask, true);
    for name in SHARED {
        loader.map_pin_path(name, pins.join(name));
    }
    loader.load(&read(object)?).with_context(|| format!("cannot create the maps of {}", object.display()))
}

/// Loads what the gateway is measured with, without a gateway.
pub(super) fn load_bench(object: &Path) -> Result<Ebpf> {
    let mut bench = EbpfLoader::new().load(&read(object)?)?;
    load_programs(&mut bench)?;
    Ok(bench)
}

fn read(object: &Path) -> Result<Vec<u8>> {
    std::fs::read(object)
        .with_context(|| format!("cannot read {}: run 'cargo xtask build'", object.display()))
}

/// Loads every XDP program of an object.
fn load_programs(object: &mut Ebpf) -> Result<()> {
    for (name, program) in object.programs_mut() {
        if let Ok(program) = <&mut Xdp>::try_from(program) {
            program.load().with_context(|| format!("the kernel refused {name}"))?;
        }
    }
    Ok(())
}

fn table<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    object.map_mut(name).with_context(|| format!("the object has no map {name}"))
}

fn hash_map(map: &aya::maps::Map) -> Result<&MapData> {
    match map {
        aya::maps::Map::HashMap(data) => Ok(data),
        other => bail!("{other:?} is no hash map"),
    }
}

fn array(map: &aya::maps::Map) -> Result<&MapData> {
    match map {
        aya::maps::Map::Array(data) => Ok(data),
        other => bail!("{other:?} is no array"),
    }
}

/// What Linux `struct xdp_md` says of a frame: from 0 to its length, no metadata, an interface and its first queue.
pub(super) fn context(length: u32, ingress: u32) -> Vec<u8> {
    [0, length, 0, ingress, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Bytes of a frame: the shortest that Ethernet knows at least, and an ICMP error with a segment's headers.
fn frame_length(kind: Kind, length: u16) -> usize {
    match kind {
        Kind::Icmp => 82,
        _ => 14 + usize::from(length).max(46),
    }
}

fn address(end: End) -> Address {
    Address::v4(end.address.to_be_bytes())
}

/// Time that this thread has had on a processor, in nanoseconds.
fn thread_time() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// Two virtual links with all neighbours known: hosts behind one, devices behind the other. Without IPv6 the kernel
/// itself sends nothing that would be counted.
fn network(plan: &Plan) -> Result<()> {
    let neighbours = |first: u32, count: u32, interface: &str, link: &str| -> String {
        let each = (0..count).map(|i| {
            let address = Ipv4Addr::from_bits(first + i);
            format!("neigh replace {address} lladdr {link} dev {interface} nud permanent\n")
        });
        each.collect()
    };
    let script = format!(
        "ip link set lo up
         sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
         ip link add h0 address 02:00:00:00:01:01 type veth peer name h1
         ip link add d0 address 02:00:00:00:02:01 type veth peer name d1
         for i in h0 h1 d0 d1; do ip link set $i mtu 9000 up; done
         sysctl -qw net.ipv4.ip_forward=1
         ip addr add 10.1.0.1/16 dev h0; ip addr add 10.2.0.1/16 dev d0
         ip -batch - <<END\n{}{}END\n",
        neighbours(FIRST_HOST, plan.hosts, "h0", "02:00:00:00:01:02"),
        neighbours(FIRST_DEVICE, plan.devices, "d0", "02:00:00:00:02:11"),
    );
    output(Command::new("sh").args(["-ec", &script])).map(|_| ())
}
