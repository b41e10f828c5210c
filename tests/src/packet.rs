//! Frames as they are on an interface: packet sockets, and what is seen through them over a time.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::worker::Worker;

/// The bytes that may wait to be read.
const ROOM: i32 = 128 << 20;
/// Longer than any frame that the kernel hands on, merged ones included.
const LONGEST: usize = 1 << 17;

/// A packet socket on an interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

/// A frame that went by.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The interface's own machine sent it.
    pub outgoing: bool,
    /// The whole frame.
    pub bytes: Vec<u8>,
}

impl PacketSocket {
    /// On an interface of this thread's network namespace. Sees what comes in, and what goes out if that is wanted.
    pub fn open(interface: &str, outgoing: bool) -> Result<Self> {
        // Bound to no protocol until it is to receive.
        // SAFETY: a plain system call.
        let socket = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
        };
        ensure!(socket >= 0, "cannot open a packet socket: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just given it to us.
        let socket = Self { socket: unsafe { OwnedFd::from_raw_fd(socket) } };
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &ROOM)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &i32::from(!outgoing))?;
        let name = CString::new(interface)?;
        // SAFETY: all zeros are a value of it; the name ends with a zero and lives through the call.
        let (mut address, index) =
            unsafe { (std::mem::zeroed::<libc::sockaddr_ll>(), libc::if_nametoindex(name.as_ptr())) };
        address.sll_family = u16::try_from(libc::AF_PACKET)?;
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
        address.sll_ifindex = i32::try_from(index)?;
        let size = u32::try_from(size_of_val(&address))?;
        // SAFETY: the address lives through the call and has that size.
        let bound = unsafe { libc::bind(socket.socket.as_raw_fd(), (&raw const address).cast(), size) };
        ensure!(bound == 0, "cannot listen on {interface}: {}", io::Error::last_os_error());
        Ok(socket)
    }

    /// Takes only frames of one of two lengths.
    pub fn only(&self, lengths: [u32; 2]) -> Result<()> {
        let code = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        // Length; is it the first, is it the second; none of it, all of it.
        let mut filter = [
            code(0x80, 0, 0, 0),
            code(0x15, 2, 0, lengths[0]),
            code(0x15, 1, 0, lengths[1]),
            code(0x06, 0, 0, 0),
            code(0x06, 0, 0, u32::MAX),
        ];
        let program = libc::sock_fprog { len: u16::try_from(filter.len())?, filter: filter.as_mut_ptr() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the frame lives through the call.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame, if one waits.
    pub fn receive(&self) -> Option<Seen> {
        let mut bytes = vec![0; LONGEST];
        // SAFETY: all zeros are a value of it.
        let mut from = unsafe { std::mem::zeroed::<libc::sockaddr_ll>() };
        let mut size = u32::try_from(size_of_val(&from)).ok()?;
        // SAFETY: buffer and address live through the call and have those sizes.
        let length = unsafe {
            let from = (&raw mut from).cast();
            libc::recvfrom(
                self.socket.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                LONGEST,
                0,
                from,
                &raw mut size,
            )
        };
        bytes.truncate(usize::try_from(length).ok()?);
        bytes.shrink_to_fit();
        Some(Seen { outgoing: from.sll_pkttype == libc::PACKET_OUTGOING, bytes })
    }

    /// Fails where a frame found no room.
    pub fn expect_all_seen(&self) -> Result<()> {
        let mut statistics = [0_u32; 2];
        let mut size = u32::try_from(size_of_val(&statistics))?;
        // SAFETY: the value lives through the call and has that size.
        let got = unsafe {
            let value = (&raw mut statistics).cast();
            let option = libc::PACKET_STATISTICS;
            libc::getsockopt(self.socket.as_raw_fd(), libc::SOL_PACKET, option, value, &raw mut size)
        };
        ensure!(got == 0, "cannot read a packet socket's statistics: {}", io::Error::last_os_error());
        ensure!(statistics[1] == 0, "{} frames found no room to be looked at", statistics[1]);
        Ok(())
    }

    fn set<T>(&self, level: i32, option: i32, value: &T) -> Result<()> {
        let size = u32::try_from(size_of::<T>())?;
        // SAFETY: the value lives through the call and has that size.
        let set = unsafe {
            libc::setsockopt(self.socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), size)
        };
        ensure!(set == 0, "cannot set up a packet socket: {}", io::Error::last_os_error());
        Ok(())
    }
}

/// Waits until a frame can be read from one of them, but not for long.
pub fn wait(sockets: &[&PacketSocket], most: Duration) {
    let mut polled: Vec<_> = sockets
        .iter()
        .map(|one| libc::pollfd { fd: one.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the array lives through the call and has that length.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, most) };
}

/// Looks at everything on an interface until it is asked what it saw.
#[derive(Debug)]
pub struct Sniffer(Worker<Vec<Seen>>);

impl Sniffer {
    /// On an interface of this thread's network namespace.
    pub fn start(interface: &str) -> Result<Self> {
        let socket = PacketSocket::open(interface, true)?;
        Ok(Self(Worker::start(move |told| {
            let mut seen = Vec::new();
            loop {
                // What was there when it was told is looked at.
                let is_last = told.to_end();
                wait(&[&socket], Duration::from_millis(10));
                seen.extend(std::iter::from_fn(|| socket.receive()));
                if is_last {
                    socket.expect_all_seen()?;
                    return Ok(seen);
                }
            }
        })))
    }

    /// What it has seen.
    pub fn stop(self) -> Result<Vec<Seen>> {
        self.0.finish()
    }
}
