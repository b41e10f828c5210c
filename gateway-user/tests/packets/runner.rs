//! Runs packets through the program in a network namespace of its own, with known neighbours.
//!
//! ```text
//!   hosts 10.1.0.0/24, fd01::/64 ── h0 ── gateway ── d0 ── devices 10.2.0.0/24, fd02::/64
//! ```

use std::net::SocketAddr;
use std::process::Command;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;
use lungate_gateway_common::table::{Access, Address, FROZEN, Mapping, Portal, RESTRICTED, Traffic, map};
use lungate_gateway_common::verdict::Reason;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Actions of an XDP program.
pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
pub(crate) const REDIRECT: u32 = 4;

/// Link addresses of the gateway's interfaces and of its neighbours.
pub(crate) const H0: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub(crate) const D0: [u8; 6] = [2, 0, 0, 0, 2, 1];
pub(crate) const HOST: [u8; 6] = [2, 0, 0, 0, 1, 2];
pub(crate) const DEVICE: [u8; 6] = [2, 0, 0, 0, 2, 0x11];

const NETWORK: &str = "
ip link set lo up
ip link add h0 address 02:00:00:00:01:01 type veth peer name h1
ip link add d0 address 02:00:00:00:02:01 type veth peer name d1
for i in h0 h1 d0 d1; do ip link set $i up; done
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip addr add 10.1.0.1/24 dev h0; ip addr add 10.2.0.1/24 dev d0
ip addr add fd01::1/64 dev h0 nodad; ip addr add fd02::1/64 dev d0 nodad
for a in 10.1.0.2 fd01::2; do ip neigh add $a lladdr 02:00:00:00:01:02 dev h0 nud permanent; done
for a in 10.2.0.11 fd02::11; do ip neigh add $a lladdr 02:00:00:00:02:11 dev d0 nud permanent; done
ip route add blackhole 10.2.9.0/24
";

/// One mapping of a table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) vip: &'static str,
    pub(crate) device: &'static str,
    pub(crate) is_frozen: bool,
    pub(crate) allow: &'static [&'static str],
}

/// A line that anybody may use.
pub(crate) const fn line(vip: &'static str, device: &'static str) -> Line {
    Line { vip, device, is_frozen: false, allow: &[] }
}

/// A program with a table of its own, in a namespace that ends with the thread.
pub(crate) struct Runner {
    ebpf: Ebpf,
}

impl Runner {
    pub(crate) fn new(lines: &[Line]) -> Self {
        // SAFETY: only the network namespace of this thread changes; no file descriptors are shared anew.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("tests of the gateway need root");
        let made = Command::new("sh").args(["-ec", NETWORK]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let object = std::fs::read(env!("LUNGATE_BPF_OBJECT")).unwrap();
        let mut loader = EbpfLoader::new();
        for name in [map::FORWARD, map::REVERSE, map::ACCESS, map::TRAFFIC] {
            loader.map_max_entries(name, 64);
        }
        let mut runner = Self { ebpf: loader.load(&object).unwrap() };
        let program: &mut Xdp = runner.ebpf.program_mut("lungate").unwrap().try_into().unwrap();
        program.load().unwrap();
        for (counter, line) in (0..).zip(lines) {
            runner.add(counter, line);
        }
        for own in ["10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1"] {
            let mut local: HashMap<&mut MapData, Address, u32> = runner.map(map::LOCAL).try_into().unwrap();
            local.insert(Address::from(own.parse::<std::net::IpAddr>().unwrap()), 1, 0).unwrap();
        }
        runner
    }

    fn add(&mut self, counter: u32, line: &Line) {
        let (vip, device): (SocketAddr, SocketAddr) =
            (line.vip.parse().unwrap(), line.device.parse().unwrap());
        let restricted = if line.allow.is_empty() { 0 } else { RESTRICTED };
        let flags = restricted | if line.is_frozen { FROZEN } else { 0 };
        for (name, key, peer) in [(map::FORWARD, vip, device), (map::REVERSE, device, vip)] {
            let mut table: HashMap<&mut MapData, Portal, Mapping> = self.map(name).try_into().unwrap();
            table.insert(Portal::from(key), Mapping::new(peer.into(), flags, counter), 0).unwrap();
        }
        for prefix in line.allow {
            let net: IpNet = prefix.parse().unwrap();
            let bits = Access::prefix_bits(net.prefix_len(), net.addr().is_ipv4());
            let mut access: LpmTrie<&mut MapData, Access, u32> = self.map(map::ACCESS).try_into().unwrap();
            access.insert(&Key::new(bits, Access::new(counter, net.network().into())), 1, 0).unwrap();
        }
    }

    /// What becomes of a frame, and what it is then.
    pub(crate) fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let program: &Xdp = self.ebpf.program("lungate").unwrap().try_into().unwrap();
        let mut out = vec![0; frame.len() + 64];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = program.test_run(options).unwrap();
        out.truncate(usize::try_from(result.data_size_out).unwrap());
        (result.return_value, out)
    }

    /// How often a reason was counted.
    pub(crate) fn reason(&self, reason: Reason) -> u64 {
        let reasons: PerCpuArray<&MapData, u64> = self.ebpf.map(map::REASONS).unwrap().try_into().unwrap();
        reasons.get(&reason.index(), 0).unwrap().iter().sum()
    }

    /// What a mapping has carried: packets to the device and to hosts.
    pub(crate) fn traffic(&self, counter: u32) -> (u64, u64) {
        let traffic: PerCpuArray<&MapData, Traffic> =
            self.ebpf.map(map::TRAFFIC).unwrap().try_into().unwrap();
        let values = traffic.get(&counter, 0).unwrap();
        values.iter().fold((0, 0), |(d, h), t| (d + t.to_device_packets, h + t.to_host_packets))
    }

    /// A frame that must not be translated: it comes out as it went in, and its reason is counted.
    pub(crate) fn expect_stopped(&self, what: &str, frame: &[u8], reason: Reason) {
        let before = self.reason(reason);
        let (action, out) = self.run(frame);
        let expected = if reason.is_drop() { DROP } else { PASS };
        assert_eq!(action, expected, "{what}: action");
        assert_eq!(out, frame, "{what}: the packet was changed");
        assert_eq!(self.reason(reason), before + 1, "{what}: {} was not counted", reason.name());
    }

    /// A frame that must be translated into another and sent on.
    pub(crate) fn expect_sent(&self, what: &str, frame: &[u8], expected: &[u8]) {
        let (action, out) = self.run(frame);
        let counted: Vec<_> =
            Reason::ALL.into_iter().filter(|reason| self.reason(*reason) > 0).map(Reason::name).collect();
        assert_eq!(action, REDIRECT, "{what}: action; counted so far: {counted:?}");
        assert_eq!(out, expected, "{what}: the packet");
    }

    fn map(&mut self, name: &str) -> &mut aya::maps::Map {
        self.ebpf.map_mut(name).unwrap()
    }
}
