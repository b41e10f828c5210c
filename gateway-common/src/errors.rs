//! Error messages of ICMP and ICMPv6 about a mapping's packets: translated outside and inside, so that each party
//! reads of the addresses and ports that it knows.

use crate::bytes::{Change, Packet, change, updated};
use crate::gateway::{Hook, Kernel};
use crate::headers::{self, Fragment, ICMP, ICMPV6, IPV4, IPV6, Ip, TCP};
use crate::rewrite::{TCP_CHECKSUM, V4_CHECKSUM, replace_address};
use crate::table::{Mapping, Portal, Word};
use crate::verdict::{Direction, Reason};

/// Where the quoted packet begins in a message, and the message's own checksum (RFC 792; RFC 4443, 2.1).
const QUOTE: usize = 8;
const CHECKSUM: usize = 2;

/// Whether a message says that a packet could not be delivered: destination unreachable, source quench, time
/// exceeded and parameter problem (RFC 792), or one of the four of RFC 4443.
#[inline(always)]
pub(crate) const fn is_error(ip: &Ip, kind: u8) -> bool {
    if ip.is_v6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 4 | 11 | 12) }
}

/// The mapping that an error message belongs to, the message's direction, and what it quotes.
#[inline(always)]
pub(crate) fn find<'k>(
    packet: &(impl Packet + ?Sized),
    kernel: &'k impl Kernel,
    ip: &Ip,
) -> Result<Option<(&'k Mapping, Direction, &'k Ip)>, Reason> {
    let Some(quote) = quoted(packet, ip).and_then(|quote| kernel.forget_quoted(quote)) else {
        return Ok(None);
    };
    let Some(filter) = kernel.filter() else { return Ok(None) };
    // The message must go to where the packet that it quotes came from.
    if !is_answer(packet, ip, quote).ok_or(Reason::Malformed)? {
        return Ok(None);
    }
    let Some(destination) = quote.destination_portal(packet) else { return Ok(None) };
    let Some(source) = quote.source_portal(packet) else { return Ok(None) };
    if filter.may_be_device(destination.address())
        && let Some(mapping) = kernel.reverse(&destination)
    {
        if kernel.is_local(&source.address()) {
            return Err(Reason::OwnTraffic);
        }
        return Ok(Some((mapping, Direction::ToHost, quote)));
    }
    if filter.may_be_vip(source.address())
        && let Some(mapping) = kernel.forward(&source)
    {
        return Ok(Some((mapping, Direction::ToDevice, quote)));
    }
    Ok(None)
}

/// Whether a packet goes to where another one came from, which it quotes.
#[inline(always)]
fn is_answer(packet: &(impl Packet + ?Sized), ip: &Ip, quoted: &Ip) -> Option<bool> {
    let (to, from) = (ip.destination_at(), quoted.source_at());
    Some(if ip.is_v6 {
        packet.read::<8>(to)? == packet.read::<8>(from)?
    } else {
        packet.read::<2>(to)? == packet.read::<2>(from)?
    })
}

/// Translates back what a message quotes that the gateway's own kernel has made: it quotes a packet to a device as
/// it was after its translation. `None` where it is nothing of that kind, and is left as it is.
#[inline(always)]
pub fn own(packet: &mut (impl Packet + ?Sized), kernel: &impl Kernel, hook: Hook) -> Option<()> {
    let link = match hook {
        Hook::Frame(_) => headers::ethernet(packet),
        Hook::Packet(_) => headers::no_link(packet),
    };
    let link = link.ok()?;
    let ip = headers::ip(packet, link.ethertype, link.l3()).ok()?;
    let [kind] = packet.read(ip.l4())?;
    let is_message = ip.protocol == if ip.is_v6 { ICMPV6 } else { ICMP };
    if !is_message || ip.fragment != Fragment::No || !is_error(&ip, kind.to_ne_bytes()[0]) {
        return None;
    }
    let quote = quoted(packet, &ip)?;
    let destination = quote.destination_portal(packet)?;
    let is_known = kernel.filter()?.may_be_device(destination.address());
    if !is_known || !kernel.is_local(&ip.source(packet)?) {
        return None;
    }
    let mapping = kernel.reverse(&destination)?;
    translate(packet, &ip, &quote, Direction::ToHost, mapping.peer(), false)?;
    kernel.count(Reason::ErrorToHost);
    Some(())
}

/// The quoted packet, where it is TCP with its ports.
#[inline(always)]
pub(crate) fn quoted(packet: &(impl Packet + ?Sized), ip: &Ip) -> Option<Ip> {
    let ethertype = if ip.is_v6 { IPV6 } else { IPV4 };
    let quote = headers::ip(packet, ethertype, ip.l4() + QUOTE).ok()?;
    let is_whole = quote.protocol == TCP && quote.fragment != Fragment::Later;
    // Ports lie within the message, not in what a short frame is filled up with.
    (is_whole && quote.l4() + 4 <= ip.end()).then_some(quote)
}

/// Translates a message: what it quotes, and, where `changes_outside`, its own source on the way to a host or its
/// destination on the way to a device.
#[inline(always)]
pub fn translate(
    packet: &mut (impl Packet + ?Sized),
    ip: &Ip,
    quote: &Ip,
    direction: Direction,
    peer: &Portal,
    changes_outside: bool,
) -> Option<()> {
    // What was sent to a device is quoted to its host, and what was sent to a host to its device.
    let (inner, port, outer) = match direction {
        Direction::ToHost => (quote.destination_at(), quote.l4() + 2, ip.source_at()),
        Direction::ToDevice => (quote.source_at(), quote.l4(), ip.destination_at()),
    };
    let addresses = replace_address(packet, ip.is_v6, inner, peer.address())?;
    let mut own = addresses;
    if !ip.is_v6 {
        own += update_quoted(packet, quote.l3() + V4_CHECKSUM, addresses)?;
    }
    let old: [Word; 1] = packet.read(port)?;
    packet.write(port, [peer.port()])?;
    let ports = change(old, [peer.port()]);
    own += ports;
    // Often only the first eight bytes of the segment are quoted.
    let checksum = quote.l4() + TCP_CHECKSUM;
    if checksum + 2 <= ip.end() && packet.read::<1>(checksum).is_some() {
        own += update_quoted(packet, checksum, addresses + ports)?;
    }
    let mut pseudo = 0;
    if changes_outside {
        let addresses = replace_address(packet, ip.is_v6, outer, peer.address())?;
        if ip.is_v6 {
            pseudo = addresses;
        } else {
            packet.update_header(ip.l3() + V4_CHECKSUM, addresses)?;
        }
    }
    packet.update_segment(ip.l4() + CHECKSUM, pseudo, own, ip.is_v6)
}

/// Lets a quoted checksum follow a change; gives what that means for the message's own.
#[inline(always)]
fn update_quoted(packet: &mut (impl Packet + ?Sized), at: usize, by: Change) -> Option<Change> {
    let old: [Word; 1] = packet.read(at)?;
    let new = [updated(old[0], by)];
    packet.write(at, new)?;
    Some(change(old, new))
}
