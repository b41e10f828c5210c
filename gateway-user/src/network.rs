//! What netlink says of this network namespace.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
    XdpAttached,
};
use serde::Serialize;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mtu: u32,
    /// Frames begin with an Ethernet header.
    pub(crate) is_ethernet: bool,
    /// Its own link address; zero where it has none.
    pub(crate) link: [u8; 6],
    /// What it is a VLAN of.
    pub(crate) vlan: Option<VlanOf>,
    /// It takes in all multicast frames.
    pub(crate) takes_multicast: bool,
    /// One end of a pair of virtual interfaces.
    pub(crate) is_veth: bool,
    pub(crate) xdp: Option<Attached>,
}

/// The tag that a VLAN stands for, and where its frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VlanOf {
    /// The interface below it; `None` where that is in another network namespace.
    pub(crate) parent: Option<u32>,
    /// 0x8100 or 0x88a8.
    pub(crate) protocol: u16,
    pub(crate) id: u16,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Attached {
    /// "native" or "generic".
    pub(crate) mode: &'static str,
    pub(crate) program: u32,
}

/// Every interface of this namespace.
pub(crate) fn interfaces() -> Result<Vec<Interface>> {
    ask(async |handle| {
        let links: Vec<_> = handle.link().get().execute().try_collect().await?;
        Ok(links.iter().map(interface).collect())
    })
    .context("cannot ask the kernel for the interfaces")
}

/// The interface of that name, or an error that says which there are.
pub(crate) fn interface_named(name: &str) -> Result<Interface> {
    let mut interfaces = interfaces()?;
    match interfaces.iter().position(|interface| interface.name == name) {
        Some(at) => Ok(interfaces.swap_remove(at)),
        None => {
            let names: Vec<_> = interfaces.into_iter().map(|interface| interface.name).collect();
            bail!("no interface {name:?} here; there is {}", names.join(", "))
        }
    }
}

/// Every address of this namespace.
pub(crate) fn own_addresses() -> Result<Vec<IpAddr>> {
    ask(async |handle| {
        let messages: Vec<_> = handle.address().get().execute().try_collect().await?;
        let mut addresses: Vec<_> = messages.iter().filter_map(|message| own(&message.attributes)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    })
    .context("cannot ask the kernel for its addresses")
}

/// Whether a rule of routing looks at where packets come from.
pub(crate) fn routes_by_source() -> Result<bool> {
    ask(async |handle| {
        let mut found = false;
        for version in [IpVersion::V4, IpVersion::V6] {
            let rules: Vec<_> = handle.rule().get(version).execute().try_collect().await?;
            found |= rules.iter().any(|rule| rule.header.src_len > 0);
        }
        Ok(found)
    })
    .context("cannot ask the kernel for its rules of routing")
}

/// The gateway's own end: on a point-to-point link the plain address is the other end's.
fn own(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(address)
}

/// What a message of netlink says of an interface.
pub(crate) fn interface(link: &LinkMessage) -> Interface {
    let mut found = Interface {
        name: String::new(),
        index: link.header.index,
        mtu: 0,
        is_ethernet: matches!(link.header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback),
        link: [0; 6],
        vlan: None,
        takes_multicast: link.header.flags.intersects(LinkFlags::Allmulti | LinkFlags::Promisc),
        is_veth: false,
        xdp: None,
    };
    let (mut parent, mut is_elsewhere) = (None, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Address(address) => {
                found.link = address.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::LinkInfo(info) => {
                found.is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
                found.vlan = info.iter().find_map(|part| match part {
                    LinkInfo::Data(InfoData::Vlan(vlan)) => vlan_of(vlan),
                    _ => None,
                });
            }
            LinkAttribute::Xdp(xdp) => found.xdp = attached(xdp),
            _ => {}
        }
    }
    if let Some(vlan) = &mut found.vlan {
        vlan.parent = parent.filter(|_| !is_elsewhere);
    }
    found
}

fn vlan_of(attributes: &[InfoVlan]) -> Option<VlanOf> {
    let id = attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })?;
    let protocol = attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Protocol(protocol) => Some(u16::from(*protocol)),
        _ => None,
    });
    Some(VlanOf { parent: None, protocol: protocol.unwrap_or(0x8100), id })
}

fn attached(xdp: &[LinkXdp]) -> Option<Attached> {
    let mode = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
        LinkXdp::Attached(XdpAttached::Hardware) => Some("hardware"),
        LinkXdp::Attached(XdpAttached::Multiple) => Some("multiple"),
        _ => None,
    })?;
    let program = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(program) => Some(*program),
        _ => None,
    })?;
    Some(Attached { mode, program })
}

fn ask<T>(question: impl AsyncFnOnce(rtnetlink::Handle) -> Result<T, rtnetlink::Error>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(question(handle).await?)
    })
}
