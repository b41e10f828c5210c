//! Which way frames leave by each interface: through which device, with which tags; and the way back, which
//! interface a tagged frame comes in by.

use std::collections::{BTreeSet, HashMap};

use lungate_gateway_common::table::{self, ETHERNET, GENERIC, MAX_TAGS, NATIVE, Tag, Vlan};

use crate::network::Interface;

/// What `INTERFACES` and `VLANS` shall hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    pub(crate) interfaces: HashMap<u32, table::Interface>,
    pub(crate) vlans: HashMap<Vlan, u32>,
}

/// Finds the way of each interface. `attached` are the interfaces where a program of the gateway sees frames, and that
/// program.
pub(crate) fn ways(interfaces: &[Interface], attached: &BTreeSet<(u32, u32)>) -> Ways {
    let known: HashMap<u32, &Interface> = interfaces.iter().map(|there| (there.index, there)).collect();
    let mut ways = Ways::default();
    for interface in interfaces {
        let below = below(interface, &known);
        let (device, tags) = match &below {
            Some((device, tags)) => (*device, tags.as_slice()),
            None => (interface, &[][..]),
        };
        let mut tag = [Tag::default(); MAX_TAGS];
        tag.iter_mut().zip(tags).for_each(|(place, tag)| *place = *tag);
        if !tags.is_empty() {
            ways.vlans.insert(Vlan { parent: device.index, tag }, interface.index);
        }
        let way = table::Interface {
            device: device.index,
            // No frame leaves by a VLAN itself: where what is below it is not known, the kernel sends.
            flags: if below.is_some() { flags(device, attached) } else { flags(device, &BTreeSet::new()) },
            tags: u16::try_from(tags.len()).unwrap_or(0),
            tag,
            link: interface.link,
            reserved: 0,
        };
        ways.interfaces.insert(interface.index, way);
    }
    ways
}

/// The interface below all VLANs and the tags from the outer one on; itself and none where it is no VLAN. `None`
/// where the interface below is not in this network namespace, or has more tags above it than are looked through.
fn below<'a>(
    interface: &'a Interface,
    known: &HashMap<u32, &'a Interface>,
) -> Option<(&'a Interface, Vec<Tag>)> {
    let (mut device, mut tags) = (interface, Vec::new());
    while let Some(vlan) = device.vlan {
        if tags.len() == MAX_TAGS {
            return None;
        }
        tags.insert(0, Tag { protocol: vlan.protocol.to_be(), id: vlan.id.to_be() });
        device = known.get(&vlan.parent?)?;
    }
    Some((device, tags))
}

fn flags(device: &Interface, attached: &BTreeSet<(u32, u32)>) -> u16 {
    let ethernet = if device.is_ethernet { ETHERNET } else { 0 };
    let xdp = device.xdp.filter(|xdp| attached.contains(&(device.index, xdp.program)));
    let program = match xdp.map(|xdp| xdp.mode) {
        Some("native") => NATIVE,
        Some("generic") => GENERIC,
        _ => 0,
    };
    ethernet | program
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
        VlanProtocol, XdpAttached,
    };

    use super::*;
    use crate::network::interface;

    const OURS: u32 = 77;

    fn link(index: u32, kind: LinkLayerType, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.link_layer_type = kind;
        message.attributes = attributes;
        message
    }

    fn ethernet(index: u32, mode: XdpAttached, program: u32) -> LinkMessage {
        let xdp = LinkAttribute::Xdp(vec![LinkXdp::Attached(mode), LinkXdp::ProgId(program)]);
        link(index, LinkLayerType::Ether, vec![mac(index), xdp])
    }

    fn vlan(index: u32, parent: u32, protocol: VlanProtocol, id: u16) -> LinkMessage {
        let info = vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id), InfoVlan::Protocol(protocol)])),
        ];
        let attributes = vec![mac(index), LinkAttribute::Link(parent), LinkAttribute::LinkInfo(info)];
        link(index, LinkLayerType::Ether, attributes)
    }

    fn mac(index: u32) -> LinkAttribute {
        LinkAttribute::Address(own(index).to_vec())
    }

    fn own(index: u32) -> [u8; 6] {
        [2, 0, 0, 0, 0, u8::try_from(index).unwrap()]
    }

    fn tag(protocol: u16, id: u16) -> Tag {
        Tag { protocol: protocol.to_be(), id: id.to_be() }
    }

    fn found(links: &[LinkMessage]) -> Ways {
        let interfaces: Vec<_> = links.iter().map(interface).collect();
        ways(&interfaces, &BTreeSet::from([(1, OURS), (2, OURS), (3, OURS)]))
    }

    fn way(index: u32, device: u32, flags: u16, tags: &[Tag]) -> table::Interface {
        let mut tag = [Tag::default(); MAX_TAGS];
        tag[..tags.len()].copy_from_slice(tags);
        table::Interface {
            device,
            flags,
            tags: u16::try_from(tags.len()).unwrap(),
            tag,
            link: own(index),
            reserved: 0,
        }
    }

    #[test]
    fn an_interface_is_its_own_device() {
        let ways = found(&[
            ethernet(1, XdpAttached::Driver, OURS),
            ethernet(2, XdpAttached::SocketBuffer, OURS),
            ethernet(3, XdpAttached::Driver, OURS + 1),
            link(4, LinkLayerType::None, Vec::new()),
            ethernet(5, XdpAttached::Driver, OURS),
        ]);
        assert_eq!(ways.interfaces[&1], way(1, 1, ETHERNET | NATIVE, &[]));
        assert_eq!(ways.interfaces[&2], way(2, 2, ETHERNET | GENERIC, &[]));
        assert_eq!(ways.interfaces[&3], way(3, 3, ETHERNET, &[]), "the program there is not the gateway's");
        assert_eq!(ways.interfaces[&4], table::Interface { link: [0; 6], ..way(4, 4, 0, &[]) });
        assert_eq!(ways.interfaces[&5], way(5, 5, ETHERNET, &[]), "its link is not the gateway's any more");
        assert_eq!(ways.vlans, HashMap::new());
    }

    #[test]
    fn a_vlan_leaves_by_the_interface_below_it() {
        let ways = found(&[
            vlan(5, 1, VlanProtocol::Ieee8021Q, 100),
            ethernet(1, XdpAttached::Driver, OURS),
            vlan(6, 1, VlanProtocol::Ieee8021Ad, 100),
        ]);
        assert_eq!(ways.interfaces[&5], way(5, 1, ETHERNET | NATIVE, &[tag(0x8100, 100)]));
        assert_eq!(ways.interfaces[&6], way(6, 1, ETHERNET | NATIVE, &[tag(0x88a8, 100)]));
        let key = |tag| Vlan { parent: 1, tag: [tag, Tag::default()] };
        assert_eq!(ways.vlans, HashMap::from([(key(tag(0x8100, 100)), 5), (key(tag(0x88a8, 100)), 6)]));
    }

    #[test]
    fn stacked_vlans_have_the_outer_tag_first() {
        let ways = found(&[
            ethernet(1, XdpAttached::SocketBuffer, OURS),
            vlan(5, 1, VlanProtocol::Ieee8021Ad, 200),
            vlan(6, 5, VlanProtocol::Ieee8021Q, 30),
        ]);
        let tags = [tag(0x88a8, 200), tag(0x8100, 30)];
        assert_eq!(ways.interfaces[&6], way(6, 1, ETHERNET | GENERIC, &tags));
        assert_eq!(ways.vlans[&Vlan { parent: 1, tag: tags }], 6);
        assert_eq!(ways.vlans.len(), 2);
    }

    #[test]
    fn what_cannot_be_followed_is_the_kernels_to_send() {
        let mut elsewhere = vlan(5, 1, VlanProtocol::Ieee8021Q, 100);
        elsewhere.attributes.push(LinkAttribute::LinkNetNsId(0));
        let ways = found(&[
            ethernet(1, XdpAttached::Driver, OURS),
            elsewhere,
            vlan(6, 99, VlanProtocol::Ieee8021Q, 7),
            vlan(7, 1, VlanProtocol::Ieee8021Ad, 1),
            vlan(8, 7, VlanProtocol::Ieee8021Q, 2),
            vlan(9, 8, VlanProtocol::Ieee8021Q, 3),
        ]);
        for index in [5, 6, 9] {
            assert_eq!(ways.interfaces[&index], way(index, index, ETHERNET, &[]), "{index}");
        }
        let named: BTreeSet<_> = ways.vlans.values().copied().collect();
        assert_eq!(named, BTreeSet::from([7, 8]));
    }
}
