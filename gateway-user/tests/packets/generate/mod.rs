//! Random frames of every kind that the gateway tells apart, whole, bent and cut. The same numbers give the same frame.

mod rng;
mod shapes;

use std::net::{IpAddr, SocketAddr};

pub(crate) use rng::Rng;

use crate::frame::{ACK, Body, FIN, Frame, RST, SYN, address_bytes};
use crate::network::{D0, F0, G0, H0, K0, N0, T0};
use crate::runner::{Line, line};

use shapes::{arp, bend, dress, mapped, payload, tags, tcp_options};

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
