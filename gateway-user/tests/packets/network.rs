//! The network that packets of the tests go through: a namespace with an interface for each way that the gateway
//! tells apart, and the same as a table.
//!
//! This kernel may have no VLAN devices, so plain ones stand for them: the program sees indices only.

use std::net::IpAddr;
use std::process::Command;

use lungate_gateway_common::table::{ETHERNET, GENERIC, NATIVE};

use crate::frame::{CUSTOMER, SERVICE};

/// Indices of the interfaces. H0 and D0 are those towards hosts and devices.
pub(crate) const H0: u32 = 10;
pub(crate) const D0: u32 = 11;
/// VLAN 5 on H0, VLAN 7 on D0, and on D0 VLAN 10 in a provider's 9.
pub(crate) const V5: u32 = 12;
pub(crate) const V7: u32 = 13;
pub(crate) const Q9: u32 = 14;
/// With the program above the driver, and VLAN 3 on it.
pub(crate) const G0: u32 = 15;
pub(crate) const G3: u32 = 16;
/// Does not forward.
pub(crate) const F0: u32 = 17;
/// Not in `INTERFACES`; there without the program; and without Ethernet headers.
pub(crate) const N0: u32 = 18;
pub(crate) const K0: u32 = 19;
pub(crate) const T0: u32 = 20;

/// The largest IP packet that each takes, in bytes.
pub(crate) const MTU: usize = 9000;

/// An interface of the gateway.
pub(crate) struct Wire {
    pub(crate) name: &'static str,
    pub(crate) index: u32,
    /// The interface below its tags, and those, from the outer one on.
    pub(crate) device: u32,
    pub(crate) tags: &'static [(u16, u16)],
    /// `None` where `INTERFACES` has no entry.
    pub(crate) flags: Option<u16>,
    /// The fifth byte of all link addresses on it.
    pub(crate) number: u8,
    /// The first bytes of its two subnets, 10.a.b.0/24 and fd0a:0:0:b::/64. It is ::1 itself.
    pub(crate) subnet: (u8, u8),
    pub(crate) forwards: bool,
}

const fn wire(name: &'static str, index: u32, flags: u16, number: u8, subnet: (u8, u8)) -> Wire {
    Wire { name, index, device: index, tags: &[], flags: Some(flags), number, subnet, forwards: true }
}

const fn vlan(wire: Wire, device: u32, tags: &'static [(u16, u16)]) -> Wire {
    Wire { device, tags, ..wire }
}

pub(crate) const WIRES: [Wire; 11] = [
    wire("h0", H0, ETHERNET | NATIVE, 1, (1, 0)),
    wire("d0", D0, ETHERNET | NATIVE, 2, (2, 0)),
    vlan(wire("v5", V5, ETHERNET | NATIVE, 5, (1, 5)), H0, &[(CUSTOMER, 5)]),
    vlan(wire("v7", V7, ETHERNET | NATIVE, 7, (2, 7)), D0, &[(CUSTOMER, 7)]),
    vlan(wire("q9", Q9, ETHERNET | NATIVE, 9, (2, 9)), D0, &[(SERVICE, 9), (CUSTOMER, 10)]),
    wire("g0", G0, ETHERNET | GENERIC, 6, (1, 6)),
    vlan(wire("g3", G3, ETHERNET | GENERIC, 3, (2, 3)), G0, &[(CUSTOMER, 3)]),
    Wire { forwards: false, ..wire("f0", F0, ETHERNET | NATIVE, 8, (1, 8)) },
    Wire { flags: None, ..wire("n0", N0, 0, 0x21, (2, 21)) },
    wire("k0", K0, ETHERNET, 0x22, (2, 22)),
    wire("t0", T0, 0, 0x23, (2, 23)),
];

/// An interface, the tags on it, and the interface that they lead to.
type OddVlan = (u32, &'static [(u16, u16)], u32);

/// Tags that lead to an interface which is no VLAN device: what `VLANS` says counts.
pub(crate) const ODD_VLANS: [OddVlan; 2] = [(H0, &[(CUSTOMER, 4)], F0), (H0, &[(CUSTOMER, 6)], N0)];

/// Neighbours in each subnet, by the last byte of address and link address.
pub(crate) const NEIGHBOURS: [u8; 3] = [0x02, 0x11, 0x12];

/// A prefix that leads nowhere, or another way than to its own wire.
pub(crate) struct Route {
    pub(crate) prefix: &'static str,
    pub(crate) way: Way,
}

/// Where a route leads.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// `blackhole`, `unreachable`, `prohibit`.
    Nowhere(&'static str),
    /// By a router in this wire's subnet, with the last byte of its address.
    Router(u32, u8),
    /// By a router, for packets of so many bytes at most.
    Narrow(u32, u8, u16),
}

/// Longer prefixes first.
pub(crate) const ROUTES: [Route; 13] = [
    Route { prefix: "10.2.30.0/24", way: Way::Nowhere("blackhole") },
    Route { prefix: "10.2.31.0/24", way: Way::Nowhere("unreachable") },
    Route { prefix: "10.2.32.0/24", way: Way::Nowhere("prohibit") },
    Route { prefix: "fd02:0:0:30::/64", way: Way::Nowhere("blackhole") },
    Route { prefix: "fd02:0:0:31::/64", way: Way::Nowhere("unreachable") },
    Route { prefix: "10.2.40.0/24", way: Way::Router(D0, 0x11) },
    Route { prefix: "fd02:0:0:40::/64", way: Way::Router(D0, 0x11) },
    Route { prefix: "10.1.41.0/24", way: Way::Router(H0, 0x02) },
    Route { prefix: "10.2.50.0/24", way: Way::Narrow(D0, 0x11, 600) },
    Route { prefix: "fd02:0:0:50::/64", way: Way::Narrow(D0, 0x11, 1280) },
    Route { prefix: "10.1.51.0/24", way: Way::Narrow(H0, 0x02, 600) },
    Route { prefix: "fd01:0:0:51::/64", way: Way::Narrow(H0, 0x02, 1280) },
    Route { prefix: "10.1.52.0/24", way: Way::Router(V5, 0x02) },
];

impl Wire {
    /// The wire of an index.
    pub(crate) fn of(index: u32) -> &'static Self {
        static ALL: [Wire; 11] = WIRES;
        ALL.iter().find(|wire| wire.index == index).unwrap()
    }

    /// The link address with this last byte; 1 is the gateway's own.
    pub(crate) fn link(&self, last: u8) -> [u8; 6] {
        [2, 0, 0, 0, self.number, last]
    }

    /// The IPv4 address with this last byte.
    pub(crate) fn v4(&self, last: u8) -> IpAddr {
        let (a, b) = self.subnet;
        IpAddr::from([10, a, b, last])
    }

    /// The IPv6 address that ends in this hexadecimal number; its last byte is that of the neighbour's link address.
    pub(crate) fn v6(&self, last: u8) -> IpAddr {
        let (a, b) = self.subnet;
        let hexadecimal = |byte: u8| u16::from_str_radix(&byte.to_string(), 16).unwrap();
        IpAddr::from([0xfd00 + hexadecimal(a), 0, 0, hexadecimal(b), 0, 0, 0, u16::from(last)])
    }

    /// Its addresses of both families with this last byte. That of IPv4 is written in decimal as the other one's
    /// hexadecimal: 0x11 is 10.….11 and fd….::11.
    pub(crate) fn addresses(&self, last: u8) -> [IpAddr; 2] {
        [self.v4(last / 16 * 10 + last % 16), self.v6(last)]
    }
}

/// Makes the network in the namespace of this thread.
pub(crate) fn make() {
    let mut links = String::from("link set lo up\n");
    let mut rest = String::new();
    for wire in &WIRES {
        let Wire { name, index, .. } = wire;
        let link = |last| wire.link(last).map(|byte| format!("{byte:02x}")).join(":");
        let own = link(1);
        let (name_of_peer, index_of_peer) = (format!("{name}p"), index + 100);
        links += &format!("link add name {name} index {index} address {own} type veth ");
        links += &format!("peer name {name_of_peer} index {index_of_peer}\n");
        for end in [&name_of_peer, *name] {
            links += &format!("link set {end} addrgenmode none\nlink set {end} mtu {MTU} up\n");
        }
        let [v4, v6] = wire.addresses(1);
        rest += &format!("addr add {v4}/24 dev {name}\naddr add {v6}/64 dev {name} nodad\n");
        for last in NEIGHBOURS {
            for address in wire.addresses(last) {
                rest += &format!("neigh add {address} lladdr {} dev {name} nud permanent\n", link(last));
            }
        }
    }
    for Route { prefix, way } in &ROUTES {
        let via = |index, last| {
            let [v4, v6] = Wire::of(index).addresses(last);
            format!("via {}", if prefix.contains(':') { v6 } else { v4 })
        };
        rest += &match *way {
            Way::Nowhere(kind) => format!("route add {kind} {prefix}\n"),
            Way::Router(index, last) => format!("route add {prefix} {}\n", via(index, last)),
            Way::Narrow(index, last, mtu) => {
                format!("route add {prefix} {} mtu lock {mtu}\n", via(index, last))
            }
        };
    }
    let script = format!(
        "printf '{links}' | ip -batch -\n\
         sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n\
         sysctl -qw net.ipv4.conf.f0.forwarding=0 net.ipv6.conf.f0.forwarding=0\n\
         printf '{rest}' | ip -batch -"
    );
    shell(&script);
}

/// Runs commands in the namespace of this thread.
pub(crate) fn shell(commands: &str) {
    let done = Command::new("sh").args(["-ec", commands]).output().unwrap();
    assert!(done.status.success(), "{commands}: {}", String::from_utf8_lossy(&done.stderr));
}
