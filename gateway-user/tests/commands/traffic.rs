//! Frames on wires: sent by one end of a veth pair, taken up at another.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const ETHERTYPE_V4: [u8; 2] = [8, 0];

/// A raw socket on an interface.
pub(crate) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// On an interface of this thread's network namespace.
    pub(crate) fn open(interface: &str) -> Self {
        let every = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        // SAFETY: a plain system call.
        let socket = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
        };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the kernel has just given it to us.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: all zeros are a value of it; the name ends with a zero and lives through the call.
        let (mut address, index) =
            unsafe { (std::mem::zeroed::<libc::sockaddr_ll>(), libc::if_nametoindex(name.as_ptr())) };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        address.sll_protocol = every;
        address.sll_ifindex = i32::try_from(index).unwrap();
        let size = u32::try_from(size_of_val(&address)).unwrap();
        // SAFETY: the address lives through the call and has that size.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
        assert_eq!(bound, 0, "{interface}: {}", io::Error::last_os_error());
        Self { socket }
    }

    /// Sends a frame. One that finds no room is lost, as on any wire.
    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: the frame lives through the call.
        unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    }

    /// The next frame, if one has come.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 2048];
        // SAFETY: the buffer lives through the call and has that size.
        let length =
            unsafe { libc::recv(self.socket.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        frame.truncate(usize::try_from(length).ok()?);
        Some(frame)
    }

    /// Waits until there is a frame, but not for long.
    fn wait(&self) {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: it lives through the call.
        unsafe { libc::poll(&raw mut poll, 1, 5) };
    }
}

/// The other end of a TUN device: what is written comes in by it, what it sends is read.
pub(crate) struct Tunnel {
    file: File,
}

impl Tunnel {
    /// Takes hold of a device that `ip tuntap` has made in this thread's network namespace.
    pub(crate) fn open(interface: &str) -> Self {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open("/dev/net/tun").unwrap();
        // SAFETY: all zeros are a value of it.
        let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap();
        // SAFETY: the request lives through the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert_eq!(done, 0, "{interface}: {}", io::Error::last_os_error());
        Self { file }
    }

    pub(crate) fn send(&mut self, packet: &[u8]) {
        self.file.write_all(packet).unwrap();
    }

    /// The next packet, if one has come.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 2048];
        let length = self.file.read(&mut packet).ok()?;
        packet.truncate(length);
        Some(packet)
    }
}

/// A stream of segments to a VIP.
pub(crate) struct Stream<'a> {
    /// Where it is sent.
    pub(crate) from: &'a Wire,
    /// The link address of the gateway there.
    pub(crate) gateway: [u8; 6],
    pub(crate) vip: Ipv4Addr,
    pub(crate) port: u16,
    /// Where it is sent from: next hops are remembered by each CPU for itself.
    pub(crate) cpu: usize,
}

impl Stream<'_> {
    /// Sends segments until one comes out of a wire for a link address; how long that took. One that was sent
    /// before does not count.
    pub(crate) fn arrives(&self, at: &Wire, neighbour: [u8; 6], within: Duration) -> Duration {
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set(self.cpu);
        sched_setaffinity(None, &one).unwrap();
        let took = self.arrives_here(at, neighbour, within);
        // What is started later may run anywhere.
        sched_setaffinity(None, &all).unwrap();
        took
    }

    /// Sends one.
    pub(crate) fn send(&self) {
        self.from.send(&self.segment(0));
    }

    fn arrives_here(&self, at: &Wire, neighbour: [u8; 6], within: Duration) -> Duration {
        let begin = Instant::now();
        while at.receive().is_some() {}
        let first = u32::try_from(begin.elapsed().as_nanos() % 1_000_000).unwrap() ^ std::process::id() << 12;
        for sequence in 0.. {
            assert!(begin.elapsed() < within, "nothing has reached {neighbour:02x?} within {within:?}");
            self.from.send(&self.segment(first.wrapping_add(sequence)));
            at.wait();
            while let Some(frame) = at.receive() {
                let is_ours = frame.len() >= 54
                    && frame[..6] == neighbour
                    && frame[12..14] == ETHERTYPE_V4
                    && frame[23] == 6
                    && u32::from_be_bytes(frame[38..42].try_into().unwrap()).wrapping_sub(first) <= sequence;
                if is_ours {
                    return begin.elapsed();
                }
            }
        }
        unreachable!("the numbers of segments do not end")
    }

    fn segment(&self, sequence: u32) -> Vec<u8> {
        let host = SocketAddrV4::new([10, 1, 0, 2].into(), 40_000);
        let mut frame = self.gateway.to_vec();
        frame.extend([2, 0, 0, 0, 1, 2]);
        frame.extend(ETHERTYPE_V4);
        frame.extend(packet(host, SocketAddrV4::new(self.vip, self.port), sequence));
        frame
    }
}

/// An ACK without data. Its checksums are right, for where the kernel forwards it.
pub(crate) fn packet(source: SocketAddrV4, destination: SocketAddrV4, sequence: u32) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&source.ip().octets());
    header[16..].copy_from_slice(&destination.ip().octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    let mut tcp = [0; 20];
    tcp[..2].copy_from_slice(&source.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&destination.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[12..16].copy_from_slice(&[0x50, 0x10, 0x20, 0]);
    let pseudo = [&header[12..], &[0, 6, 0, 20], &tcp].concat();
    let sum = checksum(&pseudo);
    tcp[16..18].copy_from_slice(&sum);
    [header, tcp].concat()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}
