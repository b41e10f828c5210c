//! Error messages about packets of mappings.

use std::net::SocketAddr;

use lungate_gateway_common::verdict::{Direction, Reason};

use super::ip::{Body, Message, Packet};
use super::leave::{Load, leave};
use super::tcp::write_address;
use super::world::{Entry, World};
use super::{Outcome, WayIn, checksum, ip, word};

/// Whether a message is an error (RFC 792; RFC 4443): unreachable, source quench, time exceeded, parameter problem;
/// in IPv6 packet too big as well.
fn is_error(packet: &Packet, message: &Message) -> bool {
    if packet.is_v6 { matches!(message.kind, 1..=4) } else { matches!(message.kind, 3 | 4 | 11 | 12) }
}

/// The packet that an error is about: what it quotes of it.
struct Quote {
    packet: Packet,
    source: SocketAddr,
    destination: SocketAddr,
    /// Where its TCP checksum is, if that is quoted.
    checksum: Option<usize>,
}

/// What becomes of an error message about a mapping's packet; `None` for all others.
pub(super) fn outcome(
    world: &World,
    way_in: &WayIn,
    packet: &Packet,
    message: &Message,
    frame: &[u8],
) -> Result<Option<Outcome>, Reason> {
    if !message.is_whole || !is_error(packet, message) {
        return Ok(None);
    }
    let Some(quote) = quote(frame, packet) else { return Ok(None) };
    let Some((entry, direction)) = mapping(world, packet, &quote) else { return Ok(None) };
    let (host, reason) = match direction {
        Direction::ToHost if world.local.contains(&packet.destination) => return Err(Reason::OwnTraffic),
        Direction::ToHost => (packet.destination, Reason::ErrorToHost),
        Direction::ToDevice => (quote.destination.ip(), Reason::ErrorToDevice),
    };
    if !entry.allows(host) {
        return Err(Reason::Refused);
    }
    let mut translated = frame.to_vec();
    let (source, destination) = packet.address_places();
    // What ICMPv6's checksum covers begins with the addresses; that of ICMP does not.
    let message_checksum = packet.carried + 2;
    let outer = [packet.checksum_place(), packet.is_v6.then_some(message_checksum)];
    let ends = match direction {
        Direction::ToHost => {
            write_address(&mut translated, source, entry.peer.ip(), outer);
            (entry.peer.ip(), packet.destination)
        }
        Direction::ToDevice => {
            write_address(&mut translated, destination, entry.peer.ip(), outer);
            (packet.source, entry.peer.ip())
        }
    };
    rewrite_quote(&mut translated, &quote, direction, entry.peer, message_checksum);
    Ok(Some(leave(world, way_in, packet, frame, translated, ends, Load::Error(reason))))
}

/// The mapping that a quoted packet went through, and where its error is to go.
fn mapping<'a>(world: &'a World, packet: &Packet, quote: &Quote) -> Option<(&'a Entry, Direction)> {
    if packet.destination != quote.source.ip() {
        return None;
    }
    match world.reverse.get(&quote.destination) {
        Some(entry) => Some((entry, Direction::ToHost)),
        None => world.forward.get(&quote.source).map(|entry| (entry, Direction::ToDevice)),
    }
}

/// Reads what an error quotes: a TCP segment of the same family, at least up to its ports.
fn quote(frame: &[u8], packet: &Packet) -> Option<Quote> {
    let frame = &frame[..packet.end()];
    let quoted = ip::read(frame, packet.carried + 8, packet.is_v6).ok()?;
    if quoted.body != Body::Tcp {
        return None;
    }
    let at = quoted.carried;
    let source = SocketAddr::new(quoted.source, word(frame, at)?);
    let destination = SocketAddr::new(quoted.destination, word(frame, at + 2)?);
    let checksum = word(frame, at + 16).map(|_| at + 16);
    Some(Quote { packet: quoted, source, destination, checksum })
}

/// Makes the quoted packet the one that its sender has sent. The message's checksum covers all that changes in the
/// quote, the checksums there as well.
fn rewrite_quote(frame: &mut [u8], quote: &Quote, direction: Direction, peer: SocketAddr, message: usize) {
    let before = frame.to_vec();
    let (source, destination) = quote.packet.address_places();
    let (address, port) = match direction {
        Direction::ToHost => (destination, quote.packet.carried + 2),
        Direction::ToDevice => (source, quote.packet.carried),
    };
    write_address(frame, address, peer.ip(), [quote.packet.checksum_place(), quote.checksum]);
    checksum::write(frame, port, &peer.port().to_be_bytes(), quote.checksum);
    let start = quote.packet.start;
    let end = (quote.packet.carried + 20).min(frame.len()) & !1;
    let (old, new) = (before[start..end].to_vec(), frame[start..end].to_vec());
    checksum::update(frame, message, &old, &new);
}
