//! A host, a gateway and a device in a row, both families on every link, and what a test may put in between.
//!
//! ```text
//!   host ── eth0 10.1.0.2 │ 10.1.0.1 h0 ── gateway ── d0 10.2.0.1 │ 10.2.0.11 eth0 ── device
//!                fd01::2  │ fd01::1                      fd02::1  │ fd02::11
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::lab::bare::Bare;

use crate::built;
use crate::pass::pass_all;

/// How long anything may take that is only a matter of this machine's load.
pub const BOUND: Duration = Duration::from_secs(20);

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// What `ip` calls it.
    pub option: &'static str,
    /// The host's.
    pub host: IpAddr,
    /// What the host knows.
    pub vip: IpAddr,
    /// A VIP in the network that the host itself is in.
    pub on_link: IpAddr,
    /// What the host never sees.
    pub device: IpAddr,
    /// To which the gateway has no route.
    pub nowhere: IpAddr,
}

/// IPv4.
pub const V4: Family = Family {
    option: "-4",
    host: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)),
    vip: IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)),
    on_link: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 100)),
    device: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 11)),
    nowhere: IpAddr::V4(Ipv4Addr::new(10, 66, 0, 1)),
};

/// IPv6.
pub const V6: Family = Family {
    option: "-6",
    host: IpAddr::V6(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2)),
    vip: IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1)),
    on_link: IpAddr::V6(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 0x100)),
    device: IpAddr::V6(Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 0x11)),
    nowhere: IpAddr::V6(Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1)),
};

/// Both.
pub const FAMILIES: [Family; 2] = [V4, V6];

/// Before any interface is made: no waiting for duplicates of addresses, no loss taken for what it is not.
const QUIET: &str = "
for i in all default; do
    sysctl -qw net.ipv6.conf.$i.accept_dad=0 net.ipv6.conf.$i.accept_ra=0 net.ipv4.conf.$i.rp_filter=0
done
sysctl -qw net.ipv4.tcp_congestion_control=reno
";

const FORWARD: &str = "
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
";

/// The machines.
#[derive(Debug)]
pub struct Net {
    /// To run things on them.
    pub lab: Bare,
    /// The host's end has a program, so that what is sent back to it arrives.
    _passing: Option<OwnedFd>,
}

impl Net {
    /// All in a row.
    pub fn new() -> Result<Self> {
        let mut net = Self::unjoined(&[])?;
        net.join(("gateway", "h0"), ("host", "eth0"))?;
        net.join(("gateway", "d0"), ("device", "eth0"))?;
        net.address("gateway", "h0", "10.1.0.1/24", "fd01::1/64")?;
        net.address("gateway", "d0", "10.2.0.1/24", "fd02::1/64")?;
        net.configure()?;
        Ok(net)
    }

    /// A router between gateway and device.
    pub fn with_router() -> Result<Self> {
        let mut net = Self::unjoined(&["router"])?;
        net.join(("gateway", "h0"), ("host", "eth0"))?;
        net.join(("gateway", "d0"), ("router", "g0"))?;
        net.join(("router", "v0"), ("device", "eth0"))?;
        net.address("gateway", "h0", "10.1.0.1/24", "fd01::1/64")?;
        net.address("router", "v0", "10.2.0.1/24", "fd02::1/64")?;
        net.route("d0", 1, 2)?;
        net.configure()?;
        Ok(net)
    }

    /// A router between host and gateway.
    pub fn with_router_at_host() -> Result<Self> {
        let mut net = Self::unjoined(&["router"])?;
        net.join(("router", "v0"), ("host", "eth0"))?;
        net.join(("gateway", "h0"), ("router", "g0"))?;
        net.join(("gateway", "d0"), ("device", "eth0"))?;
        net.address("router", "v0", "10.1.0.1/24", "fd01::1/64")?;
        net.address("gateway", "d0", "10.2.0.1/24", "fd02::1/64")?;
        net.route("h0", 2, 1)?;
        net.lab.shell(
            "router",
            "ip route add 10.9.0.0/24 via 10.4.0.1; ip -6 route add fd09::/64 via fd04::1",
        )?;
        net.configure()?;
        Ok(net)
    }

    /// A wire on each side of the gateway that a test itself has to be: frames come in at `a0` and `a1` from the
    /// host and the gateway, at `b0` and `b1` from the device and the gateway.
    pub fn with_wires() -> Result<Self> {
        let mut net = Self::unjoined(&["wire"])?;
        // Nothing of its own may speak there.
        net.lab.shell("wire", "sysctl -qw net.ipv6.conf.default.disable_ipv6=1")?;
        net.join(("wire", "a0"), ("host", "eth0"))?;
        net.join(("wire", "a1"), ("gateway", "h0"))?;
        net.join(("wire", "b0"), ("device", "eth0"))?;
        net.join(("wire", "b1"), ("gateway", "d0"))?;
        // Frames that came one by one go on one by one.
        for name in ["a0", "a1", "b0", "b1"] {
            net.lab.shell("wire", &format!("ip link set {name} gro_max_size 1"))?;
        }
        net.address("gateway", "h0", "10.1.0.1/24", "fd01::1/64")?;
        net.address("gateway", "d0", "10.2.0.1/24", "fd02::1/64")?;
        net.configure()?;
        Ok(net)
    }

    /// Attaches the program to both sides, in their drivers, and fills the table.
    pub fn load(&self, mappings: &[(SocketAddr, SocketAddr)]) -> Result<()> {
        self.load_in(["native", "native"], mappings)
    }

    /// Attaches the program in these modes to the host's and to the device's side, and fills the table.
    pub fn load_in(&self, modes: [&str; 2], mappings: &[(SocketAddr, SocketAddr)]) -> Result<()> {
        for (name, mode) in ["h0", "d0"].into_iter().zip(modes) {
            self.lab.lungate(&["load", "--mode", mode, "--iface", name])?;
        }
        let mappings: Vec<Value> =
            mappings.iter().map(|(vip, device)| json!({ "vip": vip, "device": device })).collect();
        let file = self.lab.folder().join("catalog.json");
        std::fs::write(&file, json!({ "version": 1, "mappings": mappings }).to_string())?;
        self.lab.lungate(&["apply", &file.to_string_lossy()]).map(|_| ())
    }

    /// The link address of an interface.
    pub fn link_address(&self, machine: &str, interface: &str) -> Result<String> {
        let shown = self.lab.shell(machine, &format!("ip -o link show dev {interface}"))?;
        let mut words = shown.split_whitespace();
        words.find(|word| *word == "link/ether");
        words.next().map(str::to_owned).with_context(|| format!("{interface} has no link address: {shown}"))
    }

    fn unjoined(more: &[&str]) -> Result<Self> {
        let machines = [&["host", "gateway", "device"], more].concat();
        let lab = Bare::new(&built()?, &machines)?;
        for machine in machines {
            lab.shell(machine, QUIET)?;
        }
        Ok(Self { lab, _passing: None })
    }

    /// A link between two machines. An end that is to receive a redirected frame needs NAPI, which gro turns on, and
    /// the other end hears of it only if it is turned on while the link is up; the checksums of what is sent must be
    /// whole, as those of real network cards are.
    fn join(&self, one: (&str, &str), other: (&str, &str)) -> Result<()> {
        let there = self.lab.namespace(other.0);
        let add = format!("ip link add {} type veth peer name {} netns {there}", one.1, other.1);
        self.lab.shell(one.0, &add)?;
        for (machine, name) in [one, other] {
            let up = format!("ip link set {name} up; ethtool -K {name} tx off gro on >/dev/null");
            self.lab.shell(machine, &up)?;
        }
        Ok(())
    }

    fn address(&self, machine: &str, name: &str, v4: &str, v6: &str) -> Result<()> {
        let add = format!("ip addr add {v4} dev {name}; ip addr add {v6} dev {name} nodad");
        self.lab.shell(machine, &add).map(|_| ())
    }

    /// The network between gateway and router; behind the gateway lies one network, behind the router the other.
    fn route(&self, interface: &str, gateway: u8, router: u8) -> Result<()> {
        self.address("gateway", interface, "10.4.0.1/24", "fd04::1/64")?;
        self.address("router", "g0", "10.4.0.2/24", "fd04::2/64")?;
        self.lab.shell("router", FORWARD)?;
        for (machine, to, by) in [("router", gateway, 1), ("gateway", router, 2)] {
            let add = format!(
                "ip route add 10.{to}.0.0/24 via 10.4.0.{by}; ip -6 route add fd0{to}::/64 via fd04::{by}"
            );
            self.lab.shell(machine, &add)?;
        }
        Ok(())
    }

    /// What is the same whatever lies in between.
    fn configure(&mut self) -> Result<()> {
        self.lab.shell("gateway", FORWARD)?;
        self._passing = Some(self.lab.within("host", || pass_all("eth0"))?);
        self.address("host", "eth0", "10.1.0.2/24", "fd01::2/64")?;
        self.address("device", "eth0", "10.2.0.11/24", "fd02::11/64")?;
        for (machine, number) in [("host", 1), ("device", 2)] {
            let default = format!(
                "ip route add default via 10.{number}.0.1; ip -6 route add default via fd0{number}::1"
            );
            self.lab.shell(machine, &default)?;
        }
        Ok(())
    }
}

/// Waits for a condition, with a bound.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !holds()? {
        ensure!(begin.elapsed() < BOUND, "{what}: not within {BOUND:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Ok(())
}
