//! TCP segments of mappings, and those that a VIP answers with a reset.

use std::net::{IpAddr, SocketAddr};

use lungate_gateway_common::verdict::{Direction, Reason};

use super::answer::set_hops;
use super::ip::{Packet, Segment};
use super::leave::{Load, leave};
use super::world::World;
use super::{Outcome, WayIn, checksum, ip, swap};
use crate::frame::{ACK, FIN, RST, SYN, address_bytes};

pub(super) fn outcome(
    world: &World,
    way_in: &WayIn,
    packet: &Packet,
    frame: &[u8],
) -> Result<Outcome, Reason> {
    let segment = ip::tcp(frame, packet)?;
    let (entry, direction, host) = if let Some(entry) = world.forward.get(&segment.destination) {
        (entry, Direction::ToDevice, packet.source)
    } else if world.vips.contains(&packet.destination) {
        return closed(packet, &segment, frame);
    } else if let Some(entry) = world.reverse.get(&segment.source) {
        if world.local.contains(&packet.destination) {
            return Err(Reason::OwnTraffic);
        }
        (entry, Direction::ToHost, packet.destination)
    } else if segment.flags & (SYN | ACK) == SYN && world.reverse.contains_key(&segment.destination) {
        return Err(Reason::PastVip);
    } else {
        return Err(Reason::NoMapping);
    };
    if packet.is_fragment {
        return Err(Reason::Fragment);
    }
    if !entry.allows(host) {
        return Err(Reason::Refused);
    }
    if entry.is_frozen && direction == Direction::ToDevice {
        return Err(Reason::Frozen);
    }
    let mut translated = frame.to_vec();
    let checksum = packet.carried + 16;
    translate(&mut translated, packet, direction, entry.peer, checksum);
    if segment.flags & SYN != 0 && entry.mss != 0 {
        clamp(&mut translated, &segment, entry.mss, checksum);
    }
    let ends = match direction {
        Direction::ToDevice => (packet.source, entry.peer.ip()),
        Direction::ToHost => (entry.peer.ip(), packet.destination),
    };
    let load = Load::Segment(entry.counter, direction);
    Ok(leave(world, way_in, packet, frame, translated, ends, load))
}

/// Writes an address and a port where a packet to a device has its destination, or one to a host its source.
fn translate(frame: &mut [u8], packet: &Packet, direction: Direction, peer: SocketAddr, checksum: usize) {
    let (source, destination) = packet.address_places();
    let (address, port) = match direction {
        Direction::ToDevice => (destination, packet.carried + 2),
        Direction::ToHost => (source, packet.carried),
    };
    write_address(frame, address, peer.ip(), [packet.checksum_place(), Some(checksum)]);
    checksum::write(frame, port, &peer.port().to_be_bytes(), Some(checksum));
}

/// Writes an address, and updates the checksums at these places.
pub(super) fn write_address(frame: &mut [u8], at: usize, address: IpAddr, checksums: [Option<usize>; 2]) {
    let new = address_bytes(address);
    let old = frame[at..at + new.len()].to_vec();
    frame[at..at + new.len()].copy_from_slice(&new);
    for checksum in checksums.into_iter().flatten() {
        checksum::update(frame, checksum, &old, &new);
    }
}

/// Lowers the largest segment size that a segment's options tell of (RFC 9293, 3.1 and 3.7.1).
fn clamp(frame: &mut [u8], segment: &Segment, mss: u16, checksum: usize) {
    let mut at = segment.options.start;
    let end = segment.options.end;
    while at < end {
        match frame[at] {
            0 => return,
            1 => at += 1,
            kind => {
                let Some(length) = frame[..end].get(at + 1).map(|length| usize::from(*length)) else {
                    return;
                };
                if length < 2 || at + length > end {
                    return;
                }
                if kind == 2 && length == 4 {
                    return lower(frame, at + 2, mss, checksum, segment);
                }
                at += length;
            }
        }
    }
}

fn lower(frame: &mut [u8], at: usize, mss: u16, checksum: usize, segment: &Segment) {
    if u16::from_be_bytes([frame[at], frame[at + 1]]) <= mss {
        return;
    }
    // The checksum goes over words that lie evenly from the header's start on, so at an odd place over two of them.
    let from = at - (at - segment.options.start) % 2;
    let length = if from == at { 2 } else { 4 };
    let mut words = frame[from..from + length].to_vec();
    words[at - from..at - from + 2].copy_from_slice(&mss.to_be_bytes());
    checksum::write(frame, from, &words, Some(checksum));
}

/// A segment for a port of a VIP that is not mapped: the reset that answers it (RFC 9293, 3.10.7.1).
fn closed(packet: &Packet, segment: &Segment, frame: &[u8]) -> Result<Outcome, Reason> {
    if packet.is_fragment {
        return Err(Reason::Fragment);
    }
    if segment.flags & RST != 0 || packet.has_options {
        return Err(Reason::NotServed);
    }
    let at = packet.carried;
    let payload = packet.end() - segment.options.end;
    let number = |from: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| frame[from + i]));
    let phantom = [SYN, FIN].iter().filter(|flag| segment.flags & **flag != 0).count();
    let length = u32::try_from(payload + phantom).map_err(|_| Reason::Malformed)?;
    let (sequence, acknowledged, flags) = if segment.flags & ACK != 0 {
        (number(at + 8), 0, RST)
    } else {
        (0, number(at + 4).wrapping_add(length), RST | ACK)
    };
    let mut reset = frame[..at + 20].to_vec();
    swap(&mut reset, 0, 6, 6);
    let (source, destination) = packet.address_places();
    swap(&mut reset, source, destination, packet.address_length());
    swap(&mut reset, at, at + 2, 2);
    reset[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
    reset[at + 8..at + 12].copy_from_slice(&acknowledged.to_be_bytes());
    reset[at + 12..at + 20].copy_from_slice(&[5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    let addresses = reset[source..source + 2 * packet.address_length()].to_vec();
    let whole = checksum::whole(&[&addresses, [0, 6, 0, 20].as_slice(), &reset[at..]].concat());
    reset[at + 16..at + 18].copy_from_slice(&whole);
    set_hops(&mut reset, packet, 64);
    let start = packet.start;
    if packet.is_v6 {
        reset[start + 4..start + 6].copy_from_slice(&[0, 20]);
    } else {
        checksum::write(&mut reset, start + 2, &[0, 40], packet.checksum_place());
    }
    Ok(Outcome::answered(reset, Reason::PortClosed))
}
