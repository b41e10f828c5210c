//! Frames that are right in every byte, and the means to see whether one is.

mod check;

use std::net::{IpAddr, SocketAddr};

pub(crate) use check::faults;

/// TCP flags.
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// EtherTypes of VLAN tags: 802.1Q and 802.1ad.
pub(crate) const CUSTOMER: u16 = 0x8100;
pub(crate) const SERVICE: u16 = 0x88a8;

/// IP protocol numbers.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// The fragment field of IPv4: "don't fragment", and "more of them follow".
pub(crate) const DF: u16 = 0x4000;
pub(crate) const MF: u16 = 0x2000;

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// A TCP segment, by the frame's TCP fields.
    Tcp,
    /// A UDP datagram between the frame's ports.
    Udp,
    /// A message of ICMP or ICMPv6 (as the family is): type, code and the second word.
    Icmp(u8, u8, [u8; 4]),
    /// The payload alone, under this protocol number.
    Plain(u8),
}

/// An IP packet in an Ethernet frame, before it is bytes.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Destination and source.
    pub(crate) link: ([u8; 6], [u8; 6]),
    /// VLAN tags from the outer one on: EtherType, and identifier with priority.
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) body: Body,
    /// TOS or traffic class.
    pub(crate) class: u8,
    pub(crate) hops: u8,
    /// TCP's sequence and acknowledgement number, and flags.
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) flags: u8,
    /// IPv4 options or TCP options; a multiple of 4 bytes.
    pub(crate) ip_options: Vec<u8>,
    pub(crate) tcp_options: Vec<u8>,
    /// IPv6 extension headers, each beginning with a byte that is set to what follows it: (protocol, bytes).
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// The IPv4 fragment field; 0x4000 is "don't".
    pub(crate) fragment: u16,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A data segment from one portal to another.
    pub(crate) fn new(source: &str, destination: &str) -> Self {
        Self::between(source.parse().unwrap(), destination.parse().unwrap())
    }

    /// As [`Frame::new`].
    pub(crate) fn between(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            link: ([2, 0, 0, 0, 0, 0x99], [2, 0, 0, 0, 0, 0x98]),
            tags: Vec::new(),
            source,
            destination,
            body: Body::Tcp,
            class: 0,
            hops: 64,
            sequence: 1,
            acknowledged: 2,
            flags: ACK,
            ip_options: Vec::new(),
            tcp_options: Vec::new(),
            extensions: Vec::new(),
            fragment: DF,
            payload: b"forty-two".to_vec(),
        }
    }

    /// An error message that quotes the beginning of a packet.
    pub(crate) fn error(from: &str, to: &str, kind: (u8, u8), quote: &[u8]) -> Self {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let mut frame = Self::between(address(from), address(to));
        frame.body = Body::Icmp(kind.0, kind.1, [0, 0, 5, 0]);
        frame.payload = quote.to_vec();
        frame
    }

    /// A ping.
    pub(crate) fn echo(from: &str, to: &str) -> Self {
        let mut frame = Self::error(from, to, (8, 0), b"0123456789abcdef");
        let kind = if frame.source.is_ipv4() { 8 } else { 128 };
        frame.body = Body::Icmp(kind, 0, [0, 7, 0, 1]);
        frame
    }

    /// A neighbour solicitation with its asker's link address.
    pub(crate) fn solicitation(from: &str, to: &str, target: &str, asker: [u8; 6]) -> Self {
        let mut frame = Self::error(from, to, (135, 0), &address_bytes(target.parse().unwrap()));
        frame.body = Body::Icmp(135, 0, [0; 4]);
        frame.payload.extend([1, 1]);
        frame.payload.extend(asker);
        frame.hops = 255;
        frame.link.1 = asker;
        frame
    }

    /// The frame with every length and checksum.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.link.0.as_slice(), &self.link.1].concat();
        for (protocol, control) in &self.tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(self.packet());
        frame
    }

    /// The IP packet alone.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let (protocol, body) = self.body();
        let mut packet = Vec::new();
        if self.source.is_ipv4() {
            let header = 20 + self.ip_options.len();
            let length = u16::try_from(header + body.len()).unwrap().to_be_bytes();
            let [high, low] = self.fragment.to_be_bytes();
            let version = 0x40 | u8::try_from(header / 4).unwrap();
            packet.extend([version, self.class, length[0], length[1], 0x12, 0x34, high, low]);
            packet.extend([self.hops, protocol, 0, 0]);
            packet.extend(self.addresses());
            packet.extend(&self.ip_options);
            let checksum = !sum(&packet);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let mut next = protocol;
            let mut chain = Vec::new();
            for (protocol, bytes) in self.extensions.iter().rev() {
                let mut header = bytes.clone();
                header[0] = next;
                chain.splice(0..0, header);
                next = *protocol;
            }
            let length = u16::try_from(chain.len() + body.len()).unwrap().to_be_bytes();
            let (high, low) = (0x60 | self.class >> 4, self.class << 4);
            packet.extend([high, low, 0, 0, length[0], length[1], next, self.hops]);
            packet.extend(self.addresses());
            packet.extend(chain);
        }
        packet.extend(body);
        packet
    }

    /// What IP carries, and its protocol number.
    fn body(&self) -> (u8, Vec<u8>) {
        let ports = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        let (protocol, mut bytes, checksum_at) = match self.body {
            Body::Tcp => (TCP, self.tcp(ports), 16),
            Body::Udp => {
                let length = u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes();
                (UDP, [&ports, length.as_slice(), &[0, 0], &self.payload].concat(), 6)
            }
            Body::Icmp(kind, code, word) => {
                let protocol = if self.source.is_ipv4() { ICMP } else { ICMPV6 };
                (protocol, [&[kind, code, 0, 0], word.as_slice(), &self.payload].concat(), 2)
            }
            Body::Plain(protocol) => return (protocol, self.payload.clone()),
        };
        let checksum = !sum(&[pseudo(protocol, &self.addresses(), bytes.len()), bytes.clone()].concat());
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        (protocol, bytes)
    }

    fn tcp(&self, ports: Vec<u8>) -> Vec<u8> {
        let offset = u8::try_from((20 + self.tcp_options.len()) / 4).unwrap() << 4;
        let mut tcp = ports;
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([offset, self.flags, 0x20, 0, 0, 0, 0, 0]);
        tcp.extend(&self.tcp_options);
        tcp.extend(&self.payload);
        tcp
    }

    fn addresses(&self) -> Vec<u8> {
        [address_bytes(self.source.ip()), address_bytes(self.destination.ip())].concat()
    }
}

/// An ARP packet in a frame.
#[derive(Clone, Debug)]
pub(crate) struct Arp {
    /// Destination and source.
    pub(crate) link: ([u8; 6], [u8; 6]),
    /// As in [`Frame`].
    pub(crate) tags: Vec<(u16, u16)>,
    /// 1 asks, 2 answers.
    pub(crate) operation: u16,
    pub(crate) sender: ([u8; 6], [u8; 4]),
    pub(crate) target: ([u8; 6], [u8; 4]),
}

impl Arp {
    /// Who has `target`? Tell `sender`.
    pub(crate) fn request(asker: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Self {
        let link = ([0xff; 6], asker);
        Self { link, tags: Vec::new(), operation: 1, sender: (asker, sender), target: ([0; 6], target) }
    }

    /// The frame, padded to Ethernet's 60 bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.link.0.as_slice(), &self.link.1].concat();
        for (protocol, control) in &self.tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
        frame.extend(self.operation.to_be_bytes());
        for (link, address) in [self.sender, self.target] {
            frame.extend(link);
            frame.extend(address);
        }
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

/// An address as it lies in a packet.
pub(crate) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// What a checksum covers before the body: addresses, length and protocol (RFC 9293, 3.1; RFC 8200, 8.1). ICMP
/// has nothing of the kind.
fn pseudo(protocol: u8, addresses: &[u8], length: usize) -> Vec<u8> {
    if protocol == ICMP {
        return Vec::new();
    }
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [addresses, &length, &[0, 0, 0, protocol]].concat()
}

/// The one's complement sum of 16-bit words.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
