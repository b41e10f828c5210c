//! Where a packet goes next. The kernel's forwarding table is asked, and its answer is kept for the packets that
//! follow, for as long as nothing can have changed.

use crate::gateway::Kernel;
use crate::table::{ETHERNET, GENERIC, Hop, Interface, NATIVE, Way, Word, control};
use crate::verdict::Reason;

/// What the forwarding table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Out of an interface, to and from these link addresses (destination first); the route's MTU in bytes.
    By {
        /// The interface's index.
        interface: u32,
        /// The link addresses, as they lie in a frame.
        link: [Word; 6],
        /// The largest IP packet that the route takes, in bytes.
        mtu: u16,
    },
    /// The neighbour's link address has to be asked for.
    NoNeighbour,
    /// There is no way.
    NoRoute,
    /// Through a link that is too narrow.
    TooBig,
    /// The kernel does not forward.
    NotForwarding,
}

/// The next hop of a packet of `length` bytes that came in as a frame by the interface `ingress`.
#[inline(always)]
pub(crate) fn next<'k>(
    kernel: &'k impl Kernel,
    way: &Way,
    length: u16,
    ingress: u32,
) -> Result<&'k Hop, Reason> {
    let generation = kernel.control(control::GENERATION);
    let hop = kernel.hop(way.slot(generation)).ok_or(Reason::KernelRoute)?;
    // While somebody watches, it does not matter how old an answer is.
    let now = if is_watched(kernel, hop) { None } else { Some(kernel.now()) };
    if !hop.answers(way, generation) || now.is_some_and(|now| !hop.is_good_unwatched(way, now)) {
        let now = now.unwrap_or_else(|| kernel.now());
        let (mtu, by) = learn(kernel, way, length, ingress)?;
        hop.learn(way, generation, now, mtu);
        if let Some((interface, link)) = by {
            hop.send_by(interface, link);
        }
    }
    if length > hop.mtu() {
        return Err(Reason::TooBig);
    }
    if hop.interface() == 0 {
        return Err(Reason::KernelRoute);
    }
    if let Some(now) = now
        && hop.wants_confirmation(now)
    {
        hop.confirm(now);
        return Err(Reason::Confirm);
    }
    Ok(hop)
}

/// The next hop of an untagged frame, where nothing has to be asked or to be said about it.
#[inline(always)]
pub(crate) fn known<'k>(kernel: &'k impl Kernel, way: &Way, length: u16) -> Option<&'k Hop> {
    let generation = kernel.control(control::GENERATION);
    let hop = kernel.hop(way.slot(generation))?;
    let is_known =
        hop.answers(way, generation) && hop.interface() != 0 && hop.tags().1 == 0 && length <= hop.mtu();
    if !is_known {
        return None;
    }
    if !is_watched(kernel, hop) {
        let now = kernel.now();
        if !hop.is_good_unwatched(way, now) || hop.wants_confirmation(now) {
            return None;
        }
    }
    Some(hop)
}

/// Whether somebody counts changes of neighbours, routes and links. The promise is asked for anew when the one that
/// the hop knows of is over: whoever takes it back counts a change.
#[inline(always)]
fn is_watched(kernel: &impl Kernel, hop: &mut Hop) -> bool {
    let ticks = kernel.ticks();
    if ticks < hop.watched_until() {
        return true;
    }
    hop.watch(kernel.control(control::WATCHED_UNTIL));
    ticks < hop.watched_until()
}

/// Whether the kernel can send on a packet of `length` bytes.
#[inline(always)]
pub(crate) fn fits(kernel: &impl Kernel, way: &Way, length: u16) -> Result<(), Reason> {
    match kernel.ask(way, length) {
        Answer::By { .. } | Answer::NoNeighbour => Ok(()),
        Answer::NoRoute => Err(Reason::NoRoute),
        Answer::TooBig => Err(Reason::TooBig),
        Answer::NotForwarding => Err(Reason::NotForwarding),
    }
}

/// What can send a frame: an interface, and the link addresses of the frame, destination first.
type By<'k> = Option<(&'k Interface, [Word; 6])>;

/// Asks the forwarding table: the route's MTU, and what sends; nothing where the kernel must.
#[inline(always)]
fn learn<'k>(kernel: &'k impl Kernel, way: &Way, length: u16, ingress: u32) -> Result<(u16, By<'k>), Reason> {
    match kernel.ask(way, length) {
        Answer::By { interface, link, mtu } => {
            let interface = kernel.interface(interface);
            let interface = interface.filter(|interface| takes_frames(kernel, interface, ingress));
            Ok((mtu, interface.map(|interface| (interface, link))))
        }
        Answer::NoNeighbour => Err(Reason::NoNeighbour),
        Answer::NoRoute => Err(Reason::NoRoute),
        Answer::TooBig => Err(Reason::TooBig),
        Answer::NotForwarding => Err(Reason::NotForwarding),
    }
}

/// Whether a frame that came in by one interface can be redirected to another: only a driver that runs a program
/// takes frames from one, and above the drivers everything is taken. Back to where it came from it always goes.
#[inline(always)]
fn takes_frames(kernel: &impl Kernel, to: &Interface, ingress: u32) -> bool {
    if to.flags & ETHERNET == 0 {
        return false;
    }
    to.device == ingress
        || to.flags & NATIVE != 0
        || (to.flags & GENERIC != 0
            && kernel.interface(ingress).is_some_and(|ingress| ingress.flags & GENERIC != 0))
}
