//! Packets that go through the kernel itself: into a TUN device or the far end of a veth, through the programs at their
//! hooks and the kernel's routing, and out of the far end of another veth.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode};
use lungate_gateway_common::table::{Interface, Tag, map};

use crate::foreign::Foreign;
use crate::network::shell;
use crate::runner::Runner;

/// How long a packet may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Attaches a program at an interface's tcx hook.
pub(crate) fn attach_tcx(runner: &mut Runner, name: &str, interface: &str, hook: TcAttachType) {
    let program: &mut SchedClassifier = runner.ebpf.program_mut(name).unwrap().try_into().unwrap();
    if program.fd().is_err() {
        program.load().unwrap();
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    program.attach_with_options(interface, hook, order).unwrap();
}

/// Attaches the program for frames in the driver of an interface, and lets its far end receive what is redirected or
/// sent back: a veth flushes what a program sends back only towards one with a program of its own.
pub(crate) fn attach_xdp(runner: &mut Runner, interface: &str) -> Foreign {
    let program: &mut Xdp = runner.ebpf.program_mut("lungate").unwrap().try_into().unwrap();
    program.attach(interface, XdpMode::Driver).unwrap();
    // It takes no frames in several buffers.
    shell(&format!("ip link set {interface} mtu 1500; ip link set {interface}p mtu 1500"));
    Foreign::attach(&format!("{interface}p"))
}

/// A tunnel, of which the test is the far end.
pub(crate) struct Tun {
    file: File,
}

impl Tun {
    /// A device that takes packets without link headers, each behind a `struct virtio_net_hdr`.
    pub(crate) fn new(runner: &mut Runner, name: &str) -> Self {
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        const FLAGS: libc::c_int = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        // `struct ifreq`: the name, and the flags at 16.
        let mut request = [0_u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[16..18].copy_from_slice(&u16::try_from(FLAGS).unwrap().to_ne_bytes());
        // SAFETY: the request is as large as the kernel's and lives through the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
        assert_eq!(done, 0, "cannot make the tunnel {name}: {}", io::Error::last_os_error());
        shell(&format!(
            "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{name}.rp_filter=0
             ip link set {name} addrgenmode none mtu 9000 up"
        ));
        let device = index(name);
        let entry =
            Interface { device, flags: 0, tags: 0, tag: [Tag::default(); 2], link: [0; 6], reserved: 0 };
        let mut known: HashMap<&mut MapData, u32, Interface> =
            runner.map(map::INTERFACES).try_into().unwrap();
        known.insert(device, entry, 0).unwrap();
        attach_tcx(runner, "lungate_tunnel", name, TcAttachType::Ingress);
        Self { file }
    }

    /// Sends a packet as it is.
    pub(crate) fn send_finished(&mut self, packet: &[u8]) {
        self.file.write_all(&[&[0; 10], packet].concat()).unwrap();
    }

    /// Sends a TCP packet whose checksum the kernel still has to finish: over many segments of this size, or one.
    pub(crate) fn send(&mut self, packet: &[u8], segment: Option<u16>) {
        const NEEDS_CSUM: u8 = 1;
        const TCPV4: u8 = 1;
        const TCPV6: u8 = 4;
        let (is_v6, start) = (packet[0] >> 4 == 6, if packet[0] >> 4 == 6 { 40 } else { 20 });
        let header = start + u16::from(packet[usize::from(start) + 12] >> 4) * 4;
        let kind = if segment.is_none() {
            0
        } else if is_v6 {
            TCPV6
        } else {
            TCPV4
        };
        let mut bytes = vec![NEEDS_CSUM, kind];
        for number in [header, segment.unwrap_or(0), start, 16] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(packet);
        self.file.write_all(&bytes).unwrap();
    }
}

/// What arrives at an interface, and what is sent by it.
pub(crate) struct Tap {
    socket: OwnedFd,
}

impl Tap {
    /// Opens an interface.
    pub(crate) fn new(name: &str) -> Self {
        let all = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        // SAFETY: a plain system call.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(all)) };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the kernel has just given it to us.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: zeros are a value of it.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        address.sll_protocol = all;
        address.sll_ifindex = i32::try_from(index(name)).unwrap();
        let size = u32::try_from(size_of_val(&address)).unwrap();
        // SAFETY: the address lives through the call.
        let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        Self { socket }
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: the frame lives through the call.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(usize::try_from(sent), Ok(frame.len()), "{}", io::Error::last_os_error());
    }

    /// The next frame that is wanted, of those that arrive or leave; `None` after too long a wait.
    pub(crate) fn receive(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + PATIENCE;
        let mut bytes = vec![0; 1 << 16];
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let milliseconds = i32::try_from(left.as_millis()).unwrap();
            // SAFETY: one structure, which lives through the call.
            if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } != 1 {
                continue;
            }
            // SAFETY: the buffer lives through the call.
            let length =
                unsafe { libc::recv(self.socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
            let frame = &bytes[..usize::try_from(length).unwrap_or(0)];
            if frame.len() >= 14 && is_wanted(frame) {
                return Some(frame.to_vec());
            }
        }
        None
    }
}

/// The index of an interface in this thread's namespace.
fn index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name ends with a zero and lives through the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}
