//! A host, a gateway and a device in namespaces, all links with the same offloads and MTU, and a stream of short
//! TCP segments through them.
//!
//! ```text
//!   host ── eth0 10.1.1.1 │ 10.1.0.1 h0 ── gateway ── d0 10.2.0.1 │ 10.2.1.1 eth0 ── device
//!   generator (live frames)                                          receiver (counts and drops)
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, xdp::XdpMode};
use aya::{Ebpf, Pod};
use lungate_catalog::model::{Catalog, Mapping};
use lungate_gateway_common::sample::frame::{ACK, segment};
use lungate_gateway_common::sample::{self, End, FIRST_HOST, FRAMES, Frame, Plan};
use lungate_gateway_common::table::{LAYOUT, control, map};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cpu;
use super::namespace::{Namespace, interface};
use super::pins::Pins;
use crate::step::output;

/// The table is never smaller than `lungate load` makes it.
const LEAST_ROOM: u32 = 16_384;
/// Frames that the kernel handles at once.
const BATCH: u32 = 64;
/// How long frames that are still on their way are waited for.
const SETTLE: Duration = Duration::from_millis(20);

/// Three machines in a row.
pub(super) struct Lane {
    host: Namespace,
    pub(super) gateway: Namespace,
    bench: Ebpf,
    source: u32,
    pins: Pins,
    folder: TempDir,
    // The receiver is attached in it.
    _device: Namespace,
}

/// What a stream has come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Packets that the device has got, for each second.
    pub(super) per_second: f64,
    /// The part of the packets that it has not got.
    pub(super) lost: f64,
}

impl Lane {
    /// Makes the machines, and attaches the receiver; frames are sent to `destination`.
    pub(super) fn new(object: &Path, destination: End) -> Result<Self> {
        let (host, gateway, device) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        network(&host, &gateway, &device)?;
        let mut bench = super::stage::load_bench(object)?;
        let source = host.within(|| attach(&mut bench, "pass", "eth0"))?;
        device.within(|| attach(&mut bench, "receiver", "eth0"))?;
        fill(&mut bench, destination)?;
        let pins = Pins::new()?;
        let folder = tempfile::tempdir()?;
        Ok(Self { host, gateway, bench, source, pins, folder, _device: device })
    }

    /// Lets the gateway redirect everything to the device, untouched.
    pub(super) fn redirect(&mut self) -> Result<()> {
        let bench = &mut self.bench;
        self.gateway.within(|| {
            let target = interface("d0")?;
            let map = bench.map_mut(sample::map::TARGET).context("the object lacks a map")?;
            Array::<&mut MapData, u32>::try_from(map)?.set(0, target, 0)?;
            attach(bench, "redirect", "h0")?;
            attach(bench, "pass", "d0").map(|_| ())
        })
    }

    /// `lungate` at the gateway.
    pub(super) fn lungate(&self, binary: &Path, arguments: &[&str]) -> Result<String> {
        output(self.gateway.command(binary).arg("--pin-root").arg(self.pins.path()).args(arguments))
    }

    /// Where `lungate` pins a map.
    pub(super) fn pin(&self, map: &str) -> PathBuf {
        self.pins.path().join(LAYOUT.to_string()).join(map)
    }

    /// Attaches `lungate` to both sides, with room for so many mappings.
    pub(super) fn attach_gateway(&self, binary: &Path, mappings: u32) -> Result<()> {
        let room = mappings.to_string();
        let interfaces = ["--iface", "h0", "--iface", "d0"];
        let arguments = [&["load", "--mode", "native", "--max-mappings", &room], &interfaces[..]].concat();
        self.lungate(binary, &arguments).map(|_| ())
    }

    /// Attaches `lungate`, fills its table, and lets it believe that `lungate serve` runs; gives what it says about
    /// the table.
    pub(super) fn load(&self, binary: &Path, plan: &Plan) -> Result<Value> {
        // A move needs room for the portal that it leaves.
        self.attach_gateway(binary, plan.mappings.max(LEAST_ROOM))?;
        let file = self.folder.path().join("catalog.json");
        std::fs::write(&file, catalog(plan)?.to_text()?)?;
        let said = self.lungate(binary, &["--json", "apply", &file.to_string_lossy()])?;
        let control = MapData::from_pin(self.pin(map::CONTROL))?;
        let mut control: Array<_, u64> = Map::Array(control).try_into()?;
        control.set(control::WATCHED_UNTIL, u64::MAX, 0)?;
        control.set(control::GENERATION, control::SHARED, 0)?;
        serde_json::from_str(&said).context("lungate has not answered in JSON")
    }

    /// Sends so many frames, as fast as they go.
    pub(super) fn stream(&self, frames: u32) -> Result<Stream> {
        let before = self.received()?;
        let seconds = self.host.within(|| {
            cpu::hold()?;
            self.generate(frames)
        })?;
        std::thread::sleep(SETTLE);
        let received = self.received()? - before;
        let (received, sent) = (received as f64, f64::from(frames));
        Ok(Stream { per_second: received / seconds, lost: 1.0 - received / sent })
    }

    fn generate(&self, frames: u32) -> Result<f64> {
        let generator: &Xdp =
            self.bench.program("generator").context("the object lacks a program")?.try_into()?;
        let frame = [0; size_of::<Frame>()];
        let context = super::stage::context(u32::try_from(frame.len())?, self.source);
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let begin = Instant::now();
        generator.test_run(options).context("the generator cannot send")?;
        Ok(begin.elapsed().as_secs_f64())
    }

    fn received(&self) -> Result<u64> {
        let map = self.bench.map(sample::map::RECEIVED).context("the object lacks a map")?;
        let received: PerCpuArray<&MapData, u64> = map.try_into()?;
        Ok(received.get(&0, 0)?.iter().sum())
    }
}

/// A portal as the tools write it.
pub(super) fn portal(end: End) -> SocketAddr {
    (Ipv4Addr::from_bits(end.address), end.port).into()
}

fn catalog(plan: &Plan) -> Result<Catalog> {
    // What else a mapping can say is left as it is where nothing is said.
    let first: Mapping =
        serde_json::from_value(json!({ "vip": portal(plan.vip(0)), "device": portal(plan.device(0)) }))?;
    let mapping = |i| Mapping { vip: portal(plan.vip(i)), device: portal(plan.device(i)), ..first.clone() };
    Ok(Catalog { mappings: (0..plan.mappings).map(mapping).collect(), ..Catalog::empty() })
}

/// Attaches a program to an interface of this thread's namespace, and gives the interface's number.
fn attach(bench: &mut Ebpf, program: &str, name: &str) -> Result<u32> {
    let program: &mut Xdp = bench.program_mut(program).context("the object lacks a program")?.try_into()?;
    let index = interface(name)?;
    program.attach_to_if_index(index, XdpMode::Driver)?;
    Ok(index)
}

/// Frames of as many connections, from ports of the host's own.
fn fill(bench: &mut Ebpf, destination: End) -> Result<()> {
    let map = bench.map_mut(sample::map::FRAMES).context("the object lacks a map")?;
    let mut frames: Array<&mut MapData, Words> = map.try_into()?;
    for number in 0..FRAMES {
        let source = End { address: FIRST_HOST, port: 40_000 + u16::try_from(number)? };
        let mut frame = [0; size_of::<Frame>() / 2];
        let segment = segment(source, destination, ACK, 40);
        frame[..segment.len()].copy_from_slice(&segment);
        frames.set(number, Words(frame), 0)?;
    }
    Ok(())
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Words(Frame);

// SAFETY: an array of `u16`: any bytes are a value, and there is no padding.
unsafe impl Pod for Words {}

fn network(host: &Namespace, gateway: &Namespace, device: &Namespace) -> Result<()> {
    let ipv6 = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1";
    let link = |gateway: &str, link: u8, peer: &Namespace, peer_link: &str| {
        format!(
            "ip link add {gateway} address 02:00:00:00:0{link}:01 type veth peer name eth0 address 02:00:00:00:0{link}:{peer_link} netns {}",
            peer.path().display()
        )
    };
    // What receives redirected frames needs NAPI, which gro turns on; checksums are whole everywhere.
    let up = |name: &str| format!("ip link set {name} up; ethtool -K {name} tx off gro on >/dev/null");
    gateway.shell(&format!(
        "{ipv6}; {}; {}; {}; {}
         ip addr add 10.1.0.1/16 dev h0; ip addr add 10.2.0.1/16 dev d0
         ip neigh replace 10.1.1.1 lladdr 02:00:00:00:01:02 dev h0 nud permanent
         ip neigh replace 10.2.1.1 lladdr 02:00:00:00:02:11 dev d0 nud permanent
         sysctl -qw net.ipv4.ip_forward=1
         for i in all h0 d0; do sysctl -qw net.ipv4.conf.$i.rp_filter=0; done",
        link("h0", 1, host, "02"),
        link("d0", 2, device, "11"),
        up("h0"),
        up("d0"),
    ))?;
    for (namespace, address) in [(host, "10.1.1.1"), (device, "10.2.1.1")] {
        namespace.shell(&format!("{ipv6}; {}; ip addr add {address}/16 dev eth0", up("eth0")))?;
    }
    Ok(())
}
