//! What netlink says of this network namespace.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached};
use serde::Serialize;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mtu: u32,
    /// It has link addresses of 6 bytes: frames begin with an Ethernet header.
    pub(crate) is_ethernet: bool,
    /// One end of a pair of virtual interfaces.
    pub(crate) is_veth: bool,
    pub(crate) xdp: Option<Attached>,
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
        let attributes = messages.into_iter().flat_map(|message| message.attributes);
        let mut addresses: Vec<_> = attributes
            .filter_map(|attribute| match attribute {
                AddressAttribute::Address(address) | AddressAttribute::Local(address) => Some(address),
                _ => None,
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    })
    .context("cannot ask the kernel for its addresses")
}

fn interface(link: &LinkMessage) -> Interface {
    let mut found = Interface {
        name: String::new(),
        index: link.header.index,
        mtu: 0,
        is_ethernet: false,
        is_veth: false,
        xdp: None,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Address(address) => found.is_ethernet = address.len() == 6,
            LinkAttribute::LinkInfo(info) => {
                found.is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            LinkAttribute::Xdp(xdp) => found.xdp = attached(xdp),
            _ => {}
        }
    }
    found
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
