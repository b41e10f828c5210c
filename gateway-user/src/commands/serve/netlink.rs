//! The kernel's messages about what changes in this network namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::report::Changes;

/// Groups of messages (Linux `enum rtnetlink_groups`): links, neighbours, IPv4 and IPv6 addresses, routes, rules and
/// settings such as forwarding, and next hops.
const GROUPS: [u32; 11] = [1, 3, 5, 7, 8, 9, 11, 19, 24, 25, 32];
/// Messages that mean nothing by themselves, and the one that says that some are missing (Linux `NLMSG_*`).
const OVERRUN: u16 = 4;
const CONTROL: std::ops::RangeInclusive<u16> = 0..=15;
/// Types of messages (Linux `RTM_NEWLINK` and its followers): in fours, new, gone, get and set.
const LINK: u16 = 16 / 4;
const ADDRESS: u16 = 20 / 4;
const NEIGHBOUR: u16 = 28 / 4;
const RULE: u16 = 32 / 4;
/// Linux `struct nlmsghdr`.
const HEADER: usize = 16;
/// As much as the kernel puts together at once.
const DATAGRAM: usize = 64 << 10;
/// What the kernel keeps for a reader that is slow: some ten thousand messages.
const BACKLOG: usize = 8 << 20;

/// A subscription.
pub(super) struct Subscription {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Subscription {
    pub(super) fn open() -> Result<Self> {
        let open = || -> Result<OwnedFd, Errno> {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            // Worth having, not needed: what is lost is noticed.
            let _ = set_socket_recv_buffer_size_force(&socket, BACKLOG);
            let groups = GROUPS.iter().fold(0, |mask, group| mask | 1 << (group - 1));
            bind(&socket, &SocketAddrNetlink::new(0, groups))?;
            Ok(socket)
        };
        let socket = open().context("cannot subscribe to the kernel's messages about changes")?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Reads all that has come.
    pub(super) fn drain(&mut self) -> Result<Changes> {
        let mut changes = Changes::default();
        loop {
            match recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, length)) => match self.buffer.get(..length) {
                    Some(messages) => count(messages, &mut changes),
                    None => changes.lost = true,
                },
                Err(Errno::AGAIN) => return Ok(changes),
                Err(Errno::NOBUFS) => changes.lost = true,
                Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(error).context("cannot read the kernel's messages about changes");
                }
            }
        }
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Counts the messages of a datagram by what they are about. One that cannot be told counts as lost.
fn count(mut messages: &[u8], changes: &mut Changes) {
    while !messages.is_empty() {
        let Some((length, kind)) =
            header(messages).filter(|(length, _)| (HEADER..=messages.len()).contains(length))
        else {
            changes.lost = true;
            return;
        };
        match kind {
            OVERRUN => changes.lost = true,
            kind if CONTROL.contains(&kind) => {}
            kind if kind / 4 == LINK => changes.links += 1,
            kind if kind / 4 == ADDRESS => changes.addresses += 1,
            kind if kind / 4 == NEIGHBOUR => changes.neighbours += 1,
            kind if kind / 4 == RULE => changes.rules += 1,
            _ => changes.routes += 1,
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Length and type of the first message.
fn header(messages: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(messages.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(messages.get(4..6)?.try_into().ok()?);
    Some((usize::try_from(length).ok()?, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: usize) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload).unwrap();
        let mut message = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        message.resize((HEADER + payload).next_multiple_of(4), 0);
        message
    }

    fn counted(messages: &[u8]) -> Changes {
        let mut changes = Changes::default();
        count(messages, &mut changes);
        changes
    }

    #[test]
    fn messages_are_counted_by_what_they_are_about() {
        // New and gone: link, address, route, neighbour, rule, setting, next hop.
        let kinds = [16, 17, 20, 21, 24, 25, 28, 29, 32, 33, 80, 81, 104, 105];
        let messages: Vec<u8> = kinds.iter().flat_map(|&kind| message(kind, 5)).collect();
        let expected = Changes { links: 2, addresses: 2, neighbours: 2, routes: 6, rules: 2, lost: false };
        assert_eq!(counted(&messages), expected);
        assert_eq!(counted(&message(3, 4)), Changes::default(), "an end of a list is no change");
    }

    #[test]
    fn what_cannot_be_read_counts_as_lost() {
        let lost = |messages: &[u8]| counted(messages).lost;
        assert!(lost(&message(OVERRUN, 0)));
        let whole = message(16, 40);
        assert!((1..whole.len()).all(|length| lost(&whole[..length])));
        let mut endless = message(16, 0);
        endless[..4].fill(0);
        assert!(lost(&endless));
        assert!(!lost(&whole));
    }
}
