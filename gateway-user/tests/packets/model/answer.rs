//! What is answered in a VIP's place: who it is, and whether it is there.

use std::net::IpAddr;

use lungate_gateway_common::table::ETHERNET;
use lungate_gateway_common::verdict::Reason;

use super::ip::{Message, Packet};
use super::link::Link;
use super::world::World;
use super::{Outcome, WayIn, address, checksum, swap};

/// ARP for IPv4 over Ethernet, asking.
const REQUEST: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 1];

/// The answer to an ARP request for a VIP; `None` for all other ARP.
pub(super) fn arp(world: &World, logical: u32, link: &Link, frame: &[u8]) -> Option<Outcome> {
    let at = link.end;
    let packet = frame.get(at..at + 28)?;
    let (asker, sender, target) = (&packet[8..14], &packet[14..18], &packet[24..28]);
    if packet[..8] != REQUEST || sender == target || !world.vips.contains(&address(packet, 24, false)) {
        return None;
    }
    let own = own_link(world, logical)?;
    let mut answer = frame.to_vec();
    answer[0..6].copy_from_slice(asker);
    answer[6..12].copy_from_slice(&own);
    answer[at + 7] = 2;
    answer[at + 8..at + 14].copy_from_slice(&own);
    answer[at + 14..at + 18].copy_from_slice(target);
    answer[at + 18..at + 24].copy_from_slice(asker);
    answer[at + 24..at + 28].copy_from_slice(sender);
    Some(Outcome::answered(answer, Reason::Arp))
}

/// The answer to a ping of a VIP; `None` for all other messages.
pub(super) fn echo(world: &World, packet: &Packet, message: &Message, frame: &[u8]) -> Option<Vec<u8>> {
    let (request, reply) = if packet.is_v6 { (128, 129) } else { (8, 0) };
    let is_behind_options = packet.is_v6 && packet.has_options;
    let is_request = message.kind == request && message.code == 0;
    if !is_request || !message.is_whole || is_behind_options || !world.vips.contains(&packet.destination) {
        return None;
    }
    let mut answer = frame.to_vec();
    swap(&mut answer, 0, 6, 6);
    let (source, destination) = packet.address_places();
    swap(&mut answer, source, destination, packet.address_length());
    let at = packet.carried;
    checksum::write(&mut answer, at, &[reply, 0], Some(at + 2));
    set_hops(&mut answer, packet, 64);
    Some(answer)
}

/// The answer to a neighbour solicitation for a VIP (RFC 4861, 7.2.3 and 7.2.4), or that it is none; `None` for all other
/// messages.
pub(super) fn solicitation(
    world: &World,
    way_in: &WayIn,
    packet: &Packet,
    message: &Message,
    frame: &[u8],
) -> Option<Result<Outcome, Reason>> {
    let is_one = (message.kind, message.code, packet.hops) == (135, 0, 255);
    if way_in.is_tunnel || !packet.is_v6 || packet.has_options || !is_one {
        return None;
    }
    Some(advertisement(world, way_in, packet, frame).ok_or(Reason::NotTcp))
}

fn advertisement(world: &World, way_in: &WayIn, packet: &Packet, frame: &[u8]) -> Option<Outcome> {
    let at = packet.carried;
    let IpAddr::V6(source) = packet.source else { return None };
    let body = frame.get(at..at + 32)?;
    let target = address(body, 8, true);
    let has_option = body[24..26] == [1, 1] && !source.is_unspecified();
    let is_whole = (at + 32..=frame.len()).contains(&packet.end());
    if !is_whole || !has_option || !world.vips.contains(&target) {
        return None;
    }
    let own = own_link(world, way_in.logical)?;
    let old = frame[packet.start + 8..at + 32].to_vec();
    let mut answer = frame.to_vec();
    answer.copy_within(6..12, 0);
    answer[6..12].copy_from_slice(&own);
    let (from, to) = packet.address_places();
    answer[from..from + 16].copy_from_slice(&body[8..24]);
    answer[to..to + 16].copy_from_slice(&source.octets());
    answer[at] = 136;
    answer[at + 4..at + 8].copy_from_slice(&[0x40, 0, 0, 0]);
    answer[at + 24] = 2;
    answer[at + 26..at + 32].copy_from_slice(&own);
    // The checksum covers both addresses and the message but for itself.
    let new = answer[packet.start + 8..at + 32].to_vec();
    checksum::update(&mut answer, at + 2, &old, &new);
    set_hops(&mut answer, packet, 255);
    Some(Outcome::answered(answer, Reason::Solicitation))
}

/// The link address of an interface that has one.
fn own_link(world: &World, index: u32) -> Option<[u8; 6]> {
    let wire = world.interface(index)?;
    wire.flags.filter(|flags| flags & ETHERNET != 0).map(|_| wire.link(1))
}

/// Sets the hop limit, and updates the checksum of IPv4's header.
pub(super) fn set_hops(frame: &mut [u8], packet: &Packet, hops: u8) {
    let at = packet.hops_place();
    match packet.checksum_place() {
        Some(checksum) => {
            let protocol = frame[at + 1];
            checksum::write(frame, at, &[hops, protocol], Some(checksum));
        }
        None => frame[at] = hops,
    }
}
