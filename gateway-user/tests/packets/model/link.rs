//! The Ethernet header and VLAN tags.

use lungate_gateway_common::verdict::Reason;

use super::word;
use super::world::{Tags, World};
use crate::frame::{CUSTOMER, SERVICE};

/// EtherTypes.
pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const ARP: u16 = 0x0806;

/// What a frame's link layer says.
pub(super) struct Link {
    /// The tags with their priority bits, from the outer one on.
    pub(super) tags: Tags,
    pub(super) protocol: u16,
    /// Where what follows begins.
    pub(super) end: usize,
}

/// Reads the link layer of a frame. Behind two tags a third one is the protocol.
pub(super) fn read(frame: &[u8]) -> Option<Link> {
    let mut tags = Vec::new();
    let mut at = 12;
    loop {
        let protocol = word(frame, at)?;
        if tags.len() == 2 || protocol != CUSTOMER && protocol != SERVICE {
            return Some(Link { tags, protocol, end: at + 2 });
        }
        tags.push((protocol, word(frame, at + 2)?));
        at += 4;
    }
}

/// The interface that stands for a frame's VLAN.
pub(super) fn logical(world: &World, ingress: u32, link: &Link) -> Result<u32, Reason> {
    let tags: Tags = link.tags.iter().map(|(protocol, control)| (*protocol, control & 0x0fff)).collect();
    match tags.as_slice() {
        [] | [(_, 0)] => Ok(ingress),
        _ => world.vlans.get(&(ingress, tags)).copied().ok_or(Reason::UnknownVlan),
    }
}

/// Gives a frame other tags. Priority stays with the outer one, and a priority tag stays where there is no other.
pub(super) fn retag(frame: &mut Vec<u8>, link: &Link, tags: &[(u16, u16)]) {
    let is_priority_only = matches!(link.tags.as_slice(), [(_, control)] if control & 0x0fff == 0);
    if tags.is_empty() && is_priority_only {
        return;
    }
    let priority = link.tags.first().map_or(0, |(_, control)| control & 0xf000);
    let mut bytes = Vec::new();
    for (i, (protocol, id)) in tags.iter().enumerate() {
        bytes.extend(protocol.to_be_bytes());
        bytes.extend((id | if i == 0 { priority } else { 0 }).to_be_bytes());
    }
    frame.splice(12..link.end - 2, bytes);
}
