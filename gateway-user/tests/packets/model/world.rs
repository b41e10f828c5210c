//! What the gateway knows: its table, its interfaces, and where packets go.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::network::{MTU, NEIGHBOURS, ODD_VLANS, ROUTES, WIRES, Way, Wire};

/// One line of the table, seen from one side.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) peer: SocketAddr,
    pub(crate) counter: u32,
    pub(crate) is_frozen: bool,
    /// The hosts that may use it; `None` for all.
    pub(crate) allow: Option<Vec<IpNet>>,
    pub(crate) mss: u16,
}

impl Entry {
    /// Whether a host may use the mapping.
    pub(crate) fn allows(&self, host: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&host)))
    }
}

/// Tags as `VLANS` has them: EtherType and identifier.
pub(crate) type Tags = Vec<(u16, u16)>;

pub(crate) struct World {
    pub(crate) forward: HashMap<SocketAddr, Entry>,
    pub(crate) reverse: HashMap<SocketAddr, Entry>,
    pub(crate) vips: HashSet<IpAddr>,
    pub(crate) local: HashSet<IpAddr>,
    pub(crate) vlans: HashMap<(u32, Tags), u32>,
    neighbours: HashMap<IpAddr, [u8; 6]>,
    routes: Vec<(IpNet, Way)>,
    subnets: Vec<(IpNet, u32)>,
}

/// What the forwarding table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    NotForwarding,
    NoRoute,
    TooBig,
    NoNeighbour,
    /// By this interface to this link address.
    Known(u32, [u8; 6]),
}

impl World {
    /// The network of the tests, without a table.
    pub(crate) fn new() -> Self {
        let mut neighbours = HashMap::new();
        let (mut local, mut subnets) = (HashSet::new(), Vec::new());
        let mut vlans: HashMap<_, _> =
            ODD_VLANS.iter().map(|(device, tags, index)| ((*device, tags.to_vec()), *index)).collect();
        for wire in &WIRES {
            local.extend(wire.addresses(1));
            for last in NEIGHBOURS {
                neighbours.extend(wire.addresses(last).map(|address| (address, wire.link(last))));
            }
            for (address, bits) in wire.addresses(0).into_iter().zip([24, 64]) {
                subnets.push((IpNet::new(address, bits).unwrap(), wire.index));
            }
            if !wire.tags.is_empty() {
                vlans.insert((wire.device, wire.tags.to_vec()), wire.index);
            }
        }
        let routes = ROUTES.iter().map(|route| (route.prefix.parse().unwrap(), route.way)).collect();
        let (forward, reverse, vips) = (HashMap::new(), HashMap::new(), HashSet::new());
        Self { forward, reverse, vips, local, vlans, neighbours, routes, subnets }
    }

    /// The wire of an index, where `INTERFACES` has it.
    pub(crate) fn interface(&self, index: u32) -> Option<&'static Wire> {
        let wire = WIRES.iter().find(|wire| wire.index == index)?;
        wire.flags.map(|_| Wire::of(index))
    }

    /// Where a packet of so many bytes goes that came in by an interface, with the addresses that it has now.
    pub(crate) fn next(&self, ingress: u32, (source, destination): (IpAddr, IpAddr), length: usize) -> Next {
        if stays_on_link(source) || stays_on_link(destination) {
            return Next::NoRoute;
        }
        if !Wire::of(ingress).forwards {
            return Next::NotForwarding;
        }
        let routed = self.routes.iter().find(|(net, _)| net.contains(&destination));
        let direct = self.subnets.iter().find(|(net, _)| net.contains(&destination));
        let (index, neighbour, mtu) = match (routed, direct) {
            (Some((_, Way::Nowhere(_))), _) => return Next::NoRoute,
            (Some((_, Way::Router(index, last))), _) => (*index, router(*index, *last, destination), MTU),
            (Some((_, Way::Narrow(index, last, mtu))), _) => {
                (*index, router(*index, *last, destination), usize::from(*mtu))
            }
            (None, Some((net, index))) => {
                // Those of the gateway itself: its own, the broadcast address, and what IPv6 routers all answer to.
                let is_everybodys = match net {
                    IpNet::V4(net) => destination == IpAddr::V4(net.broadcast()),
                    IpNet::V6(net) => destination == IpAddr::V6(net.network()) && Wire::of(*index).forwards,
                };
                if is_everybodys || self.local.contains(&destination) {
                    return Next::NoRoute;
                }
                (*index, destination, MTU)
            }
            (None, None) => return Next::NoRoute,
        };
        if length > mtu {
            return Next::TooBig;
        }
        match self.neighbours.get(&neighbour) {
            Some(link) => Next::Known(index, *link),
            None => Next::NoNeighbour,
        }
    }
}

/// Whether the kernel forwards nothing from or to an IPv6 address.
fn stays_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// A router's address of the family of what goes by it.
fn router(index: u32, last: u8, destination: IpAddr) -> IpAddr {
    let [v4, v6] = Wire::of(index).addresses(last);
    if destination.is_ipv4() { v4 } else { v6 }
}
