//! The ends that most tables speak of, in both families.

use std::net::SocketAddr;

use crate::frame::Frame;
use crate::network::Wire;
use crate::runner::{Line, line};

/// A host, a VIP's portal, the device portal that it leads to, and the device's interface when it is that of devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) host: &'static str,
    pub(crate) vip: &'static str,
    pub(crate) device: &'static str,
}

pub(crate) const V4: Ends = Ends { host: "10.1.0.2:40000", vip: "10.9.0.1:4001", device: "10.2.0.11:5005" };
pub(crate) const V6: Ends =
    Ends { host: "[fd01::2]:40000", vip: "[fd09::1]:4001", device: "[fd02::11]:5005" };
pub(crate) const BOTH: [Ends; 2] = [V4, V6];

/// The last bytes of the link addresses of that host and that device.
pub(crate) const HOST: u8 = 0x02;
pub(crate) const DEVICE: u8 = 0x11;

impl Ends {
    /// The line of the table.
    pub(crate) fn line(&self) -> Line {
        line(self.vip, self.device)
    }

    /// A segment from the host as it comes, and as it goes to the device.
    pub(crate) fn to_device(self) -> (Frame, Frame) {
        (Frame::new(self.host, self.vip), Frame::new(self.host, self.device))
    }

    /// A segment from the device as it comes, and as it goes to the host.
    pub(crate) fn to_host(self) -> (Frame, Frame) {
        (Frame::new(self.device, self.host), Frame::new(self.vip, self.host))
    }

    /// Whether they are of IPv4.
    pub(crate) fn is_v4(&self) -> bool {
        self.vip.parse::<SocketAddr>().unwrap().is_ipv4()
    }
}

/// The lines of [`BOTH`].
pub(crate) fn both_lines() -> [Line; 2] {
    BOTH.map(|ends| ends.line())
}

/// A translated frame as it leaves by an interface, to the neighbour with this last byte of the link address: one
/// hop less, with that interface's tags.
pub(crate) fn leaving(frame: &Frame, index: u32, last: u8) -> Frame {
    let wire = Wire::of(index);
    let link = (wire.link(last), wire.link(1));
    Frame { link, tags: wire.tags.to_vec(), hops: frame.hops - 1, ..frame.clone() }
}
