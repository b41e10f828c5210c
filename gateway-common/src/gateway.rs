//! A packet's way through the gateway: headers, table, next hop, and only then the rewriting, so that nothing
//! half-rewritten is ever handed on.

use crate::answer;
use crate::bytes::Packet;
use crate::errors;
use crate::filter::Filter;
use crate::headers::{
    self, ARP, Fragment, Headers, ICMP, ICMPV6, Ip, Link, SYN, TCP, Tcp, ethernet, no_link,
};
use crate::hop::{self, Answer};
use crate::index::Bucket;
use crate::rewrite::{count_hop, set_link, translate};
use crate::table::{Access, Address, FROZEN, Hop, Interface, Mapping, Portal, RESTRICTED, Vlan, Way};
use crate::verdict::{Direction, Reason};

/// What the gateway knows and asks: its maps and the kernel's forwarding table.
pub trait Kernel {
    /// The line of a VIP's portal.
    fn forward(&self, portal: &Portal) -> Option<&Mapping>;
    /// The line of a device's portal.
    fn reverse(&self, portal: &Portal) -> Option<&Mapping>;
    /// Where a portal's line is in `INDEX`, if it is there.
    fn bucket(&self, portal: &Portal) -> Option<&Bucket>;
    /// Whether an address is a VIP.
    fn is_vip(&self, address: &Address) -> bool;
    /// Whether an address is the gateway's own.
    fn is_local(&self, address: &Address) -> bool;
    /// Whether a host is on a mapping's list.
    fn is_listed(&self, access: Access) -> bool;
    /// The quick first look.
    fn filter(&self) -> Option<&Filter>;
    /// How packets leave by an interface.
    fn interface(&self, index: u32) -> Option<&Interface>;
    /// The interface that stands for a VLAN.
    fn vlan(&self, vlan: &Vlan) -> Option<u32>;
    /// A place in `HOPS`.
    #[expect(
        clippy::mut_from_ref,
        reason = "the place is the CPU's own, and one packet is looked at at a time"
    )]
    fn hop(&self, slot: u32) -> Option<&mut Hop>;
    /// Nanoseconds of CLOCK_MONOTONIC_COARSE.
    fn now(&self) -> u64;
    /// The kernel's ticks since it started.
    fn ticks(&self) -> u64;
    /// A place in `CONTROL`.
    fn control(&self, place: u32) -> u64;
    /// Asks the kernel's forwarding table for the way of a packet of `length` bytes.
    fn ask(&self, way: &Way, length: u16) -> Answer;
    /// Gives headers back as they are, but so that the verifier knows nothing more of them than their bounds. It would
    /// follow every way through them to the packet's end, and there are too many.
    fn forget(&self, headers: Headers) -> Option<&Headers>;
    /// The same for the header of a packet that a message quotes.
    fn forget_quoted(&self, quoted: Ip) -> Option<&Ip>;
    /// The same for a number, in a loop.
    fn forget_number(&self, number: u32) -> Option<u32>;
    /// Counts a packet and its bytes at a place in `TRAFFIC`.
    fn count_traffic(&self, counter: u32, direction: Direction, bytes: u16);
    /// Counts a reason.
    fn count(&self, reason: Reason);
}

/// Where a packet came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In or above a driver: an Ethernet frame, which can be sent on at once. The interface's index.
    Frame(u32),
    /// Between the kernel's layers, from an interface without link headers: the kernel sends it on. The interface's
    /// index.
    Packet(u32),
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Out of the interface it came in by.
    SendBack,
    /// Out of another one.
    Redirect(u32),
    /// Translated; the kernel sends it on.
    Onward,
    /// No segment of a mapping: see [`aside`].
    Aside,
    /// What the reason's kind says.
    Stopped(Reason),
}

/// Decides about a packet and changes it accordingly. Counts everything but the reason of [`Outcome::Stopped`].
///
/// This is the way of segments; what needs more is left to [`aside`], so that the verifier looks at each by itself.
#[inline(always)]
pub fn run<P: Packet + ?Sized>(packet: &mut P, kernel: &impl Kernel, hook: Hook) -> Outcome {
    decide(packet, kernel, hook).unwrap_or_else(Outcome::Stopped)
}

/// The same for what is no segment of a mapping: questions to VIPs, and messages of ICMP.
#[inline(always)]
pub fn aside<P: Packet + ?Sized>(packet: &mut P, kernel: &impl Kernel, hook: Hook) -> Outcome {
    decide_aside(packet, kernel, hook).unwrap_or_else(Outcome::Stopped)
}

#[inline(always)]
fn decide<P: Packet + ?Sized>(packet: &mut P, kernel: &impl Kernel, hook: Hook) -> Result<Outcome, Reason> {
    let (link, arrival) = arrive(packet, kernel, hook)?;
    if link.ethertype == ARP {
        return Ok(Outcome::Aside);
    }
    let ip = headers::ip(packet, link.ethertype, link.l3())?;
    let Headers { link, ip } = kernel.forget(Headers { link, ip }).ok_or(Reason::Malformed)?;
    match (ip.fragment, ip.protocol, ip.is_v6) {
        (Fragment::Later, _, _) => Err(for_vip(packet, kernel, ip, Reason::Fragment)),
        (_, TCP, _) => segment(packet, kernel, hook, arrival, link, ip),
        (Fragment::No, ICMP, false) | (Fragment::No, ICMPV6, true) => Ok(Outcome::Aside),
        _ => Err(for_vip(packet, kernel, ip, Reason::NotServed)),
    }
}

#[inline(always)]
fn decide_aside<P: Packet + ?Sized>(
    packet: &mut P,
    kernel: &impl Kernel,
    hook: Hook,
) -> Result<Outcome, Reason> {
    let (link, arrival) = arrive(packet, kernel, hook)?;
    if link.ethertype == ARP {
        return answer::arp(packet, kernel, &link, arrival);
    }
    let ip = headers::ip(packet, link.ethertype, link.l3())?;
    let Headers { link, ip } = kernel.forget(Headers { link, ip }).ok_or(Reason::Malformed)?;
    if ip.protocol == TCP {
        return answer::reset(packet, link, ip);
    }
    message(packet, kernel, hook, arrival, link, ip)
}

/// A packet's link header, and the interface that it came in by.
#[inline(always)]
fn arrive(packet: &(impl Packet + ?Sized), kernel: &impl Kernel, hook: Hook) -> Result<(Link, u32), Reason> {
    match hook {
        Hook::Frame(index) => {
            let link = ethernet(packet)?;
            Ok((link, logical(kernel, index, &link)?))
        }
        Hook::Packet(index) => Ok((no_link(packet)?, index)),
    }
}

/// The interface that a frame's tags make of the one it came in by.
#[inline(always)]
fn logical(kernel: &impl Kernel, index: u32, link: &Link) -> Result<u32, Reason> {
    if !link.is_in_vlan() {
        return Ok(index);
    }
    kernel.vlan(&Vlan { parent: index, tag: link.tag }).ok_or(Reason::UnknownVlan)
}

/// The reason for a packet that is not translated: `refusal` where it is for a VIP, and otherwise that it is none of
/// the gateway's business.
#[inline(always)]
fn for_vip(packet: &(impl Packet + ?Sized), kernel: &impl Kernel, ip: &Ip, refusal: Reason) -> Reason {
    match ip.destination(packet) {
        Some(destination) if is_vip(kernel, destination) => refusal,
        Some(_) => Reason::NotTcp,
        None => Reason::Malformed,
    }
}

/// Whether an address is a VIP, by the filter first.
#[inline(always)]
pub(crate) fn is_vip(kernel: &impl Kernel, address: Address) -> bool {
    kernel.filter().is_some_and(|filter| filter.may_be_vip(address)) && kernel.is_vip(&address)
}

/// A TCP segment.
#[inline(always)]
fn segment<P: Packet + ?Sized>(
    packet: &mut P,
    kernel: &impl Kernel,
    hook: Hook,
    arrival: u32,
    link: &Link,
    ip: &Ip,
) -> Result<Outcome, Reason> {
    let tcp = headers::tcp(packet, ip)?;
    let Some((mapping, direction)) = find(packet, kernel, ip, &tcp)? else {
        return Ok(Outcome::Aside);
    };
    let host = match direction {
        Direction::ToDevice => ip.source(packet),
        Direction::ToHost => ip.destination(packet),
    };
    let host = host.ok_or(Reason::Malformed)?;
    if ip.fragment != Fragment::No {
        return Err(Reason::Fragment);
    }
    may_use(kernel, mapping, host)?;
    if mapping.flags() & FROZEN != 0 && matches!(direction, Direction::ToDevice) {
        return Err(Reason::Frozen);
    }
    Parcel { mapping, direction, quote: None, flags: tcp.flags, header: tcp.header }
        .send(packet, kernel, hook, arrival, link, ip)
}

/// The mapping that a segment belongs to, and its direction; nothing where it is for a port of a VIP that is not
/// mapped.
#[inline(always)]
fn find<'k>(
    packet: &(impl Packet + ?Sized),
    kernel: &'k impl Kernel,
    ip: &Ip,
    tcp: &Tcp,
) -> Result<Option<(&'k Mapping, Direction)>, Reason> {
    let filter = kernel.filter().ok_or(Reason::NoMapping)?;
    let destination = ip.destination_portal(packet).ok_or(Reason::Malformed)?;
    if filter.may_be_vip(destination.address()) {
        if let Some(mapping) = kernel.forward(&destination) {
            return Ok(Some((mapping, Direction::ToDevice)));
        }
        if kernel.is_vip(&destination.address()) {
            return Ok(None);
        }
    }
    let source = ip.source_portal(packet).ok_or(Reason::Malformed)?;
    if filter.may_be_device(source.address())
        && let Some(mapping) = kernel.reverse(&source)
    {
        // A connection that the gateway itself made to a mapped portal never went through a VIP.
        if kernel.is_local(&destination.address()) {
            return Err(Reason::OwnTraffic);
        }
        return Ok(Some((mapping, Direction::ToHost)));
    }
    if tcp.is_opening()
        && filter.may_be_device(destination.address())
        && kernel.reverse(&destination).is_some()
    {
        return Err(Reason::PastVip);
    }
    Err(Reason::NoMapping)
}

#[inline(always)]
pub(crate) fn may_use(kernel: &impl Kernel, mapping: &Mapping, host: Address) -> Result<(), Reason> {
    if mapping.flags() & RESTRICTED != 0 && !kernel.is_listed(Access::new(mapping.counter(), host)) {
        return Err(Reason::Refused);
    }
    Ok(())
}

/// The bytes of the header of a message (RFC 792; RFC 4443, 2.1).
const MESSAGE: usize = 8;

/// A message of ICMP or ICMPv6: an error about a mapping's packet, or a question to a VIP.
#[inline(always)]
fn message<P: Packet + ?Sized>(
    packet: &mut P,
    kernel: &impl Kernel,
    hook: Hook,
    arrival: u32,
    link: &Link,
    ip: &Ip,
) -> Result<Outcome, Reason> {
    let [kind] = packet.read(ip.l4()).ok_or(Reason::Malformed)?;
    let [kind, code] = kind.to_ne_bytes();
    let is_whole = usize::from(ip.length) >= ip.header() + MESSAGE && packet.has(ip.end());
    if is_whole
        && errors::is_error(ip, kind)
        && let Some((mapping, direction, quote)) = errors::find(packet, kernel, ip)?
    {
        let host = match direction {
            Direction::ToHost => ip.destination(packet),
            Direction::ToDevice => quote.destination(packet),
        };
        let host = host.ok_or(Reason::Malformed)?;
        may_use(kernel, mapping, host)?;
        return Parcel { mapping, direction, quote: Some(quote), flags: 0, header: 0 }
            .send(packet, kernel, hook, arrival, link, ip);
    }
    match answer::question(ip, kind, code) {
        Some(answer::Question::Echo)
            if is_whole && is_vip(kernel, ip.destination(packet).ok_or(Reason::Malformed)?) =>
        {
            answer::echo(packet, link, ip)
        }
        Some(answer::Question::Neighbour) if link.is_ethernet => {
            answer::solicitation(packet, kernel, ip, arrival)
        }
        _ => Err(for_vip(packet, kernel, ip, Reason::NotServed)),
    }
}

/// A packet of a mapping, on its way.
struct Parcel<'k> {
    mapping: &'k Mapping,
    direction: Direction,
    /// What an error message is about; without one it is a segment.
    quote: Option<&'k Ip>,
    flags: u8,
    header: usize,
}

impl Parcel<'_> {
    /// Finds the next hop, and sends the packet there or hands it to the kernel.
    #[inline(always)]
    fn send<P: Packet + ?Sized>(
        &self,
        packet: &mut P,
        kernel: &impl Kernel,
        hook: Hook,
        arrival: u32,
        link: &Link,
        ip: &Ip,
    ) -> Result<Outcome, Reason> {
        let way = self.way(packet, arrival, ip).ok_or(Reason::Malformed)?;
        let length = packet.segment_length(ip.length, ip.header() + self.header);
        let next = self.next(kernel, hook, &way, ip, length);
        if next.is_err_and(|reason| self.stays_untouched(ip, reason)) {
            return next.map(|_| Outcome::Onward);
        }
        self.translate(packet, kernel, ip)?;
        if !next.is_err_and(is_failure) {
            self.count(kernel, ip);
        }
        let Some(hop) = next? else { return Ok(Outcome::Onward) };
        count_hop(packet, ip).ok_or(Reason::Malformed)?;
        set_link(packet, link, hop).ok_or(Reason::Malformed)?;
        Ok(if hook == Hook::Frame(hop.interface()) {
            Outcome::SendBack
        } else {
            Outcome::Redirect(hop.interface())
        })
    }

    /// The next hop; none where the kernel sends on whatever comes from this hook.
    #[inline(always)]
    fn next<'k>(
        &self,
        kernel: &'k impl Kernel,
        hook: Hook,
        way: &Way,
        ip: &Ip,
        length: u16,
    ) -> Result<Option<&'k Hop>, Reason> {
        if ip.hops <= 1 {
            return Err(Reason::HopLimit);
        }
        match hook {
            Hook::Frame(index) => hop::next(kernel, way, length, index).map(Some),
            Hook::Packet(_) => hop::fits(kernel, way, length).map(|()| None),
        }
    }

    /// What the kernel is asked for: the addresses as they will be.
    #[inline(always)]
    fn way(&self, packet: &(impl Packet + ?Sized), arrival: u32, ip: &Ip) -> Option<Way> {
        let peer = self.mapping.peer().address();
        let (source, destination) = match self.direction {
            Direction::ToDevice => (ip.source(packet)?, peer),
            Direction::ToHost => (peer, ip.destination(packet)?),
        };
        Some(Way::new(source, destination, ip.is_v6, arrival, ip.class))
    }

    /// Whether the kernel gets the packet as it came.
    ///
    /// What goes to a device is translated even where it fails: what the kernel then has to say to the host quotes
    /// the packet, and is translated back as it leaves. What goes to a host and fails is left as it came, so that the
    /// kernel says so to the device, which is the source that it sees. Where the kernel may cut a packet up, its
    /// length is no failure.
    #[inline(always)]
    fn stays_untouched(&self, ip: &Ip, reason: Reason) -> bool {
        let fails = is_failure(reason) && !(reason == Reason::TooBig && ip.may_be_cut);
        let is_reply = matches!(self.direction, Direction::ToHost) && self.quote.is_none();
        reason == Reason::NotForwarding || (fails && is_reply)
    }

    /// Rewrites the packet, but for what belongs to its next hop.
    #[inline(always)]
    fn translate<P: Packet + ?Sized>(
        &self,
        packet: &mut P,
        kernel: &impl Kernel,
        ip: &Ip,
    ) -> Result<(), Reason> {
        let peer = self.mapping.peer();
        match self.quote {
            None => {
                if self.flags & SYN != 0 && self.mapping.mss() != 0 {
                    packet.clamp_mss(kernel, ip, self.header, self.mapping.mss()).ok_or(Reason::Malformed)?;
                }
                translate(packet, ip, self.direction, peer).ok_or(Reason::Malformed)
            }
            Some(quote) => {
                errors::translate(packet, ip, quote, self.direction, peer, true).ok_or(Reason::Malformed)?;
                kernel.count(match self.direction {
                    Direction::ToHost => Reason::ErrorToHost,
                    Direction::ToDevice => Reason::ErrorToDevice,
                });
                Ok(())
            }
        }
    }

    /// Counts a segment for its mapping.
    #[inline(always)]
    fn count(&self, kernel: &impl Kernel, ip: &Ip) {
        if self.quote.is_none() {
            kernel.count_traffic(self.mapping.counter(), self.direction, ip.length);
        }
    }
}

/// Whether a packet will not arrive, and the kernel is there to say so.
#[inline(always)]
fn is_failure(reason: Reason) -> bool {
    matches!(reason, Reason::HopLimit | Reason::NoRoute | Reason::TooBig)
}
