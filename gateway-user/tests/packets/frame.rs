//! Frames that are right in every byte, and the means to see whether one is.

use std::net::SocketAddr;

/// TCP flags.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// A TCP segment in an Ethernet frame, before it is bytes.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) link: ([u8; 6], [u8; 6]),
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) flags: u8,
    pub(crate) hops: u8,
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
        Self {
            link: ([2, 0, 0, 0, 0, 0x99], [2, 0, 0, 0, 0, 0x98]),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            flags: ACK,
            hops: 64,
            ip_options: Vec::new(),
            tcp_options: Vec::new(),
            extensions: Vec::new(),
            fragment: 0x4000,
            payload: b"forty-two".to_vec(),
        }
    }

    /// The frame with every length and checksum.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let tcp = self.tcp();
        let mut frame = [self.link.0.as_slice(), &self.link.1].concat();
        match (self.source, self.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                let header = 20 + self.ip_options.len();
                let length = u16::try_from(header + tcp.len()).unwrap().to_be_bytes();
                let [high, low] = self.fragment.to_be_bytes();
                let version = 0x40 | u8::try_from(header / 4).unwrap();
                let start = frame.len();
                frame.extend([version, 0, length[0], length[1], 0x12, 0x34, high, low, self.hops, 6, 0, 0]);
                frame.extend(source.ip().octets());
                frame.extend(destination.ip().octets());
                frame.extend(&self.ip_options);
                let checksum = !sum(&frame[start..]);
                frame[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
            }
            (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                let mut next = 6;
                let mut chain = Vec::new();
                for (protocol, bytes) in self.extensions.iter().rev() {
                    let mut header = bytes.clone();
                    header[0] = next;
                    chain.splice(0..0, header);
                    next = *protocol;
                }
                let length = u16::try_from(chain.len() + tcp.len()).unwrap().to_be_bytes();
                frame.extend([0x60, 0, 0, 0, length[0], length[1], next, self.hops]);
                frame.extend(source.ip().octets());
                frame.extend(destination.ip().octets());
                frame.extend(chain);
            }
            _ => panic!("both ends are of one family"),
        }
        frame.extend(tcp);
        frame
    }

    fn tcp(&self) -> Vec<u8> {
        let offset = u8::try_from((20 + self.tcp_options.len()) / 4).unwrap() << 4;
        let mut tcp = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        tcp.extend([0, 0, 0, 1, 0, 0, 0, 2, offset, self.flags, 0x20, 0, 0, 0, 0, 0]);
        tcp.extend(&self.tcp_options);
        tcp.extend(&self.payload);
        let checksum = !sum(&[self.pseudo(tcp.len()), tcp.clone()].concat());
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        tcp
    }

    fn pseudo(&self, length: usize) -> Vec<u8> {
        let mut pseudo = Vec::new();
        for end in [self.source, self.destination] {
            match end {
                SocketAddr::V4(v4) => pseudo.extend(v4.ip().octets()),
                SocketAddr::V6(v6) => pseudo.extend(v6.ip().octets()),
            }
        }
        pseudo.extend(u32::try_from(length).unwrap().to_be_bytes());
        pseudo.extend([0, 0, 0, 6]);
        pseudo
    }
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
