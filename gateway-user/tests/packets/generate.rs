//! Random frames of every kind that the gateway tells apart, whole, bent and cut. The same numbers give the same frame.

use std::net::{IpAddr, SocketAddr};

use crate::frame::{
    ACK, Arp, Body, CUSTOMER, DF, FIN, Frame, ICMP, ICMPV6, MF, RST, SERVICE, SYN, TCP, address_bytes,
};
use crate::network::{D0, F0, G0, H0, K0, N0, T0};
use crate::runner::{Line, line};

/// A fast generator of numbers (SplitMix64).
pub(crate) struct Rng(u64);

impl Rng {
    /// The generator for one frame of a run.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let mut rng = Self(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// True in so many cases of a hundred.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_be_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// VIP, device, and the largest segment.
const LINES: [(&str, &str, u16); 35] = [
    ("10.9.0.1:4001", "10.2.0.11:5005", 0),
    ("[fd09::1]:4001", "[fd02::11]:5005", 0),
    ("10.9.0.1:4002", "10.2.7.11:5005", 1380),
    ("[fd09::1]:4002", "[fd02:0:0:7::11]:5005", 1360),
    ("10.9.0.1:4003", "10.2.9.11:5005", 536),
    ("[fd09::1]:4003", "[fd02:0:0:9::11]:5005", 1220),
    ("10.9.0.3:1", "10.2.30.11:1", 0),
    ("10.9.0.3:2", "10.2.31.11:1", 0),
    ("10.9.0.3:3", "10.2.32.11:1", 1000),
    ("10.9.0.3:4", "10.8.0.1:1", 0),
    ("10.9.0.3:5", "10.2.50.9:1", 0),
    ("10.9.0.3:6", "10.2.40.9:1", 0),
    ("10.9.0.3:7", "10.2.0.77:1", 0),
    ("10.9.0.3:8", "10.2.21.11:1", 0),
    ("10.9.0.3:9", "10.2.22.11:1", 0),
    ("10.9.0.3:10", "10.2.23.11:1", 0),
    ("10.9.0.3:11", "10.1.6.11:1", 0),
    ("10.9.0.3:12", "10.2.3.11:1", 0),
    ("10.9.0.3:13", "10.1.0.11:1", 0),
    ("10.9.0.3:14", "10.1.5.11:1", 0),
    ("10.9.0.3:15", "10.2.0.11:4002", 0),
    ("[fd09::3]:1", "[fd02:0:0:30::11]:1", 0),
    ("[fd09::3]:2", "[fd02:0:0:31::11]:1", 0),
    ("[fd09::3]:4", "[fd08::1]:1", 0),
    ("[fd09::3]:5", "[fd02:0:0:50::9]:1", 0),
    ("[fd09::3]:6", "[fd02:0:0:40::9]:1", 0),
    ("[fd09::3]:7", "[fd02::77]:1", 0),
    ("[fd09::3]:8", "[fd02:0:0:21::11]:1", 0),
    ("[fd09::3]:9", "[fd02:0:0:22::11]:1", 0),
    ("[fd09::3]:10", "[fd02:0:0:23::11]:1", 0),
    ("[fd09::3]:11", "[fd01:0:0:6::11]:1", 0),
    ("[fd09::3]:12", "[fd02:0:0:3::11]:1", 0),
    ("[fd09::3]:13", "[fd01::11]:1", 0),
    ("[fd09::3]:14", "[fd01:0:0:5::11]:1", 0),
    ("10.9.0.4:65535", "10.2.0.12:1", 1400),
];

/// The table of the random packets.
pub(crate) fn lines() -> Vec<Line> {
    let mut lines: Vec<Line> =
        LINES.iter().map(|(vip, device, mss)| Line { mss: *mss, ..line(vip, device) }).collect();
    lines.extend([
        Line { is_frozen: true, ..line("10.9.0.2:4001", "10.2.0.12:5005") },
        Line { is_frozen: true, ..line("[fd09::2]:4001", "[fd02::12]:5005") },
        Line { allow: &["10.1.5.0/24", "10.1.0.8/30"], ..line("10.9.0.2:4002", "10.2.0.12:5006") },
        Line { allow: &["fd01:0:0:5::/64", "fd01::8/125"], ..line("[fd09::2]:4002", "[fd02::12]:5006") },
        Line { is_retired: true, ..line("10.9.0.1:4001", "10.2.0.12:5007") },
        Line { is_retired: true, ..line("[fd09::1]:4001", "[fd02::12]:5007") },
        Line { is_frozen: true, allow: &["10.1.0.0/16"], ..line("10.9.0.2:4003", "10.2.7.12:1") },
    ]);
    lines
}

const HOSTS_V4: [&str; 20] = [
    "10.1.0.2",
    "10.1.0.2",
    "10.1.0.2",
    "10.1.0.9",
    "10.1.5.2",
    "10.1.5.2",
    "10.1.6.2",
    "10.1.41.9",
    "10.1.51.9",
    "10.1.52.1",
    "10.1.0.1",
    "10.1.8.2",
    "10.2.21.2",
    "10.2.22.2",
    "10.2.23.2",
    "10.2.30.5",
    "8.8.8.8",
    "10.1.0.255",
    "10.2.0.2",
    "10.2.9.2",
];
const HOSTS_V6: [&str; 18] = [
    "fd01::2",
    "fd01::2",
    "fd01::2",
    "fd01::9",
    "fd01:0:0:5::2",
    "fd01:0:0:5::2",
    "fd01:0:0:6::2",
    "fd01:0:0:51::9",
    "fd01::1",
    "fd01:0:0:8::2",
    "fd02:0:0:21::2",
    "fd02:0:0:22::2",
    "fd02:0:0:23::2",
    "fd02:0:0:30::5",
    "2001:db8::1",
    "::ffff:10.1.0.2",
    "fd02:0:0:9::2",
    "fd01::",
];

/// Where frames come in, most of them where hosts and devices are.
const WAYS_IN: [u32; 16] = [H0, H0, H0, H0, H0, D0, D0, D0, D0, D0, G0, G0, F0, N0, K0, T0];

/// Makes random frames.
pub(crate) struct Generator {
    lines: Vec<Line>,
    hosts: Vec<IpAddr>,
}

impl Generator {
    /// For the table of [`lines`].
    pub(crate) fn new() -> Self {
        let hosts = HOSTS_V4.iter().chain(&HOSTS_V6).map(|host| host.parse().unwrap()).collect();
        Self { lines: lines(), hosts }
    }

    /// A frame and the interface that it comes in by.
    pub(crate) fn frame(&self, rng: &mut Rng) -> (u32, Vec<u8>) {
        let ingress = rng.pick(&WAYS_IN);
        let mut frame = match rng.below(100) {
            0..5 => arp(rng, &self.lines, ingress),
            5..7 => {
                let length = 14 + rng.below(120);
                let mut frame = rng.bytes(length);
                frame[12..14].copy_from_slice(&rng.pick(&[
                    [0x08, 0x00],
                    [0x86, 0xdd],
                    [0x81, 0x00],
                    [0x08, 0x06],
                ]));
                frame
            }
            _ => self.packet(rng, ingress).bytes(),
        };
        if rng.chance(20) {
            bend(rng, &mut frame);
        }
        if rng.chance(6) {
            frame.truncate(14 + rng.below(frame.len() - 13));
        } else if rng.chance(10) {
            let padding = rng.below(40);
            frame.extend(rng.bytes(padding));
        }
        (ingress, frame)
    }

    /// A line, the plain ones more often.
    fn line(&self, rng: &mut Rng) -> &Line {
        let among = if rng.chance(50) { 6 } else { self.lines.len() };
        &self.lines[rng.below(among)]
    }

    fn packet(&self, rng: &mut Rng, ingress: u32) -> Frame {
        let mut frame = match rng.below(100) {
            0..58 => self.segment(rng),
            58..82 => self.error(rng),
            82..87 => self.echo(rng),
            87..91 => self.solicitation(rng),
            _ => {
                let mut frame = self.segment(rng);
                let other = rng.byte();
                frame.body =
                    rng.pick(&[Body::Udp, Body::Udp, Body::Plain(other), Body::Plain(50), Body::Plain(58)]);
                frame
            }
        };
        frame.tags = tags(rng, ingress);
        frame.class = if rng.chance(10) { rng.byte() } else { 0 };
        dress(rng, &mut frame);
        frame
    }

    /// A TCP segment of a mapping, or that only looks like one.
    fn segment(&self, rng: &mut Rng) -> Frame {
        let line = self.line(rng);
        let host = self.host(rng, line.vip.is_ipv4());
        let stranger = self.host(rng, line.vip.is_ipv4());
        let (source, destination) = match rng.below(100) {
            0..45 => (host, line.vip),
            45..80 => (line.device, host),
            80..88 => (host, SocketAddr::new(line.vip.ip(), 4000 + u16::from(rng.byte()))),
            88..93 => (host, line.device),
            93..95 => (line.device, line.vip),
            95..97 => (SocketAddr::new(line.device.ip(), 6), host),
            97..98 => (mapped(line.device), mapped(host)),
            98..99 => (mapped(host), mapped(line.vip)),
            _ => (host, stranger),
        };
        let mut frame = Frame::between(source, destination);
        let random = rng.byte();
        frame.flags = rng.pick(&[
            ACK,
            ACK,
            SYN,
            SYN,
            SYN | ACK,
            SYN | ACK,
            RST,
            RST | ACK,
            FIN | ACK,
            SYN | FIN,
            0,
            random,
        ]);
        if frame.flags & SYN != 0 || rng.chance(10) {
            frame.tcp_options = tcp_options(rng);
        }
        if rng.chance(10) {
            frame.sequence = u32::MAX - u32::from(rng.byte());
            frame.acknowledged = u32::from_be_bytes([rng.byte(), rng.byte(), rng.byte(), rng.byte()]);
        }
        frame.payload = payload(rng);
        frame
    }

    fn host(&self, rng: &mut Rng, is_v4: bool) -> SocketAddr {
        let hosts = if is_v4 { &self.hosts[..HOSTS_V4.len()] } else { &self.hosts[HOSTS_V4.len()..] };
        SocketAddr::new(rng.pick(hosts), rng.pick(&[40000, 40000, 4001, 3260, 65535]))
    }

    /// An error about a segment.
    fn error(&self, rng: &mut Rng) -> Frame {
        let mut segment = self.segment(rng);
        // What was sent as from the VIP is what devices' errors are about, and the other way round.
        let line = self.line(rng);
        let host = self.host(rng, line.vip.is_ipv4());
        match rng.below(10) {
            0..4 => (segment.source, segment.destination) = (host, line.device),
            4..8 => (segment.source, segment.destination) = (line.vip, host),
            _ => {}
        }
        segment.hops = rng.pick(&[0, 1, 60]);
        if rng.chance(20) {
            dress(rng, &mut segment);
        }
        let mut quote = segment.packet();
        match rng.below(10) {
            0..3 => quote.truncate(if segment.source.is_ipv4() { 28 } else { 48 }),
            3..6 => quote.truncate(rng.below(100)),
            6..8 => quote.truncate(548),
            _ => {}
        }
        if rng.chance(10) && !quote.is_empty() {
            let at = rng.below(quote.len());
            quote[at] = rng.byte();
        }
        let to = if rng.chance(95) { segment.source } else { self.host(rng, segment.source.is_ipv4()) };
        let router = self.host(rng, segment.source.is_ipv4());
        let from = if rng.chance(50) { segment.destination } else { router };
        let mut frame = Frame::between(from, to);
        let kind = if rng.chance(90) {
            rng.pick(if to.is_ipv4() { &[3, 3, 4, 11, 12] } else { &[1, 2, 3, 4] })
        } else {
            rng.byte()
        };
        frame.body = Body::Icmp(kind, rng.pick(&[0, 1, 3, 4]), [rng.byte(), 0, 5, rng.byte()]);
        frame.payload = quote;
        frame
    }

    fn echo(&self, rng: &mut Rng) -> Frame {
        let line = self.line(rng);
        let host = self.host(rng, line.vip.is_ipv4());
        let mut frame = Frame::between(host, line.vip);
        let kind = if frame.source.is_ipv4() { 8 } else { 128 };
        frame.body = Body::Icmp(rng.pick(&[kind, kind, kind, 0, 129]), rng.pick(&[0, 0, 0, 1]), [1, 2, 3, 4]);
        frame.payload = payload(rng);
        frame
    }

    fn solicitation(&self, rng: &mut Rng) -> Frame {
        let line = loop {
            let line = self.line(rng);
            if line.vip.is_ipv6() {
                break line;
            }
        };
        let host = self.host(rng, false);
        let target = rng.pick(&[line.vip, line.vip, line.vip, line.device]).ip();
        let group: IpAddr = "ff02::1:ff00:1".parse().unwrap();
        let to = rng.pick(&[group, line.vip.ip()]);
        let mut frame = Frame::between(host, SocketAddr::new(to, 0));
        frame.body = Body::Icmp(rng.pick(&[135, 135, 135, 135, 136]), 0, [0; 4]);
        frame.payload = address_bytes(target);
        frame.payload.extend(rng.pick(&[[1, 1], [1, 1], [1, 1], [14, 1]]));
        let more = rng.pick(&[6, 6, 6, 14, 0]);
        frame.payload.extend(rng.bytes(more));
        frame.link.1 = [2, 0, 0, 0, 1, 2];
        frame.hops = rng.pick(&[255, 255, 255, 64]);
        frame
    }
}

/// The IPv6 address that holds an IPv4 one: in no table of IPv6.
fn mapped(end: SocketAddr) -> SocketAddr {
    match end.ip() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), end.port()),
        IpAddr::V6(_) => end,
    }
}

/// Adds options, extension headers, fragmentation and a hop limit.
fn dress(rng: &mut Rng, frame: &mut Frame) {
    if frame.hops != 255 {
        frame.hops = rng.pick(&[64, 64, 64, 64, 64, 64, 64, 64, 64, 255, 255, 2, 2, 1, 0]);
    }
    frame.fragment = rng.pick(&[
        DF,
        DF,
        DF,
        DF,
        DF,
        DF,
        DF,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        MF,
        MF | DF,
        1,
        0x1fff | MF,
        0x8000,
    ]);
    if rng.chance(15) {
        let length = 4 * (1 + rng.below(10));
        frame.ip_options = rng.bytes(length);
    }
    if rng.chance(20) {
        frame.extensions = (0..1 + rng.below(5)).map(|_| extension(rng)).collect();
    }
}

fn extension(rng: &mut Rng) -> (u8, Vec<u8>) {
    match rng.below(20) {
        0..2 => {
            let offset = rng.pick(&[[0, 1], [0, 0], [0, 8], [0xff, 0xf9]]);
            (44, vec![0, rng.byte(), offset[0], offset[1], 0, 0, 0, 7])
        }
        2..5 => (43, vec![0, 0, 4, rng.pick(&[0, 0, 0, 1]), 0, 0, 0, 0]),
        5..6 => (rng.pick(&[51, 135, 139]), vec![0, 0, 0, 0, 0, 0, 0, 0]),
        n => {
            let words = rng.pick(&[0, 0, 0, 1, 2, 7]);
            let mut header = rng.bytes(8 + 8 * usize::from(words));
            header[1] = words;
            (if n % 2 == 0 { 0 } else { 60 }, header)
        }
    }
}

/// Options in any order, some of them broken.
fn tcp_options(rng: &mut Rng) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..rng.below(8) {
        let mss = rng.pick(&[1460_u16, 8960, 536, 1380, 1361, 0, 65535]).to_be_bytes();
        let option = match rng.below(16) {
            0..6 => vec![2, 4, mss[0], mss[1]],
            6..10 => vec![1],
            10 => vec![3, 3, rng.byte()],
            11 => vec![4, 2],
            12 => [&[8, 10], rng.bytes(8).as_slice()].concat(),
            13 => vec![0],
            14 => vec![rng.byte(), rng.pick(&[0, 1, 2, 3, 41])],
            _ => vec![2, 3, mss[0]],
        };
        options.extend(option);
    }
    options.truncate(40);
    options.resize(options.len().next_multiple_of(4), rng.pick(&[0, 1, 2]));
    options
}

fn payload(rng: &mut Rng) -> Vec<u8> {
    let length = match rng.below(100) {
        0..30 => 0,
        30..80 => rng.below(60),
        80..96 => rng.pick(&[540, 541, 560, 561, 600, 1220, 1221, 1460]),
        96..99 => rng.below(1500),
        _ => 1500 + rng.below(7500),
    };
    rng.bytes(length)
}

/// Tags that may or may not be those of a VLAN on the interface.
fn tags(rng: &mut Rng, ingress: u32) -> Vec<(u16, u16)> {
    let known: &[&[(u16, u16)]] = match ingress {
        H0 => &[&[(CUSTOMER, 5)], &[(CUSTOMER, 5)], &[(CUSTOMER, 4)], &[(CUSTOMER, 6)]],
        D0 => &[&[(CUSTOMER, 7)], &[(SERVICE, 9), (CUSTOMER, 10)]],
        G0 => &[&[(CUSTOMER, 3)]],
        _ => &[],
    };
    let mut tags = match rng.below(20) {
        0..12 => Vec::new(),
        12..17 if !known.is_empty() => rng.pick(known).to_vec(),
        17 | 18 => vec![(rng.pick(&[CUSTOMER, SERVICE]), 0)],
        _ => (0..rng.below(4)).map(|_| (rng.pick(&[CUSTOMER, SERVICE]), rng.pick(&[0, 5, 7, 9]))).collect(),
    };
    for (_, control) in &mut tags {
        if rng.chance(30) {
            *control |= u16::from(rng.byte()) << 8 & 0xf000;
        }
    }
    tags
}

fn arp(rng: &mut Rng, lines: &[Line], ingress: u32) -> Vec<u8> {
    let asker = [2, 0, 0, 0, rng.byte(), 2];
    let line = &lines[rng.below(lines.len())];
    let IpAddr::V4(target) = rng.pick(&[line.vip, line.vip, line.vip, line.device]).ip() else {
        return rng.bytes(60);
    };
    let target = target.octets();
    let sender = rng.pick(&[[10, 1, 0, 2], [10, 1, 0, 2], [0, 0, 0, 0], target]);
    let mut arp = Arp::request(asker, sender, target);
    arp.link.1 = asker;
    arp.operation = rng.pick(&[1, 1, 1, 1, 2]);
    arp.tags = tags(rng, ingress);
    arp.bytes()
}

/// Changes some bytes, most of them of the headers.
fn bend(rng: &mut Rng, frame: &mut [u8]) {
    let protocols = [TCP, ICMP, ICMPV6, 0, 44, 60, 43];
    for _ in 0..1 + rng.below(3) {
        let reach = if rng.chance(90) { frame.len().min(110) } else { frame.len() };
        let at = rng.below(reach);
        frame[at] = match rng.below(10) {
            0..3 => rng.byte(),
            3..5 => frame[at] ^ 1 << rng.below(8),
            5..6 => rng.pick(&protocols),
            6..7 => frame[at].wrapping_add(1),
            7..8 => frame[at].wrapping_sub(1),
            8..9 => 0,
            _ => 0xff,
        };
        if rng.chance(3) && at + 1 < frame.len() {
            let word = rng.pick(&[0, 0xff]);
            frame[at & !1..(at & !1) + 2].fill(word);
        }
    }
}
