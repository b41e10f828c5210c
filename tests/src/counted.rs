//! A stream of numbered segments: each must come out at the other end, once and in order.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::icmp::sum;
use crate::net::{BOUND, Net};
use crate::packet::{PacketSocket, wait};
use crate::worker::Worker;

/// From one segment to the next.
const PACE: Duration = Duration::from_micros(500);
/// Of a frame with a segment without data and options.
const LENGTHS: [u32; 2] = [54, 74];
/// How long the last segments may be on their way.
const LAST: Duration = Duration::from_secs(5);

/// The stream: one end that sends, one that looks what comes.
#[derive(Debug)]
pub struct Counted {
    sender: Worker<u32>,
    receiver: Worker<Arrived>,
    sent: Arc<AtomicU32>,
}

/// Where it begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The machine that sends, by its `eth0`.
    pub from: &'a str,
    /// The gateway's interface there.
    pub gateway: &'a str,
    /// The machine that receives, by its `eth0`.
    pub to: &'a str,
    /// As they are sent.
    pub source: SocketAddr,
    /// As they are sent.
    pub destination: SocketAddr,
    /// As they arrive.
    pub shown: SocketAddr,
    /// As they arrive.
    pub at: SocketAddr,
}

/// What has come.
#[derive(Clone, Copy, Debug, Default)]
struct Arrived {
    count: u32,
    /// The first that was not the one after the one before, and what it should have been.
    odd: Option<(u32, u32)>,
}

impl Counted {
    /// Begins to send. Neither kernel answers the segments.
    pub fn start(net: &Net, route: Route<'_>) -> Result<Self> {
        let port = route.at.port();
        net.lab.shell(
            route.to,
            &format!(
                "nft 'add table inet quiet; add chain inet quiet in {{ type filter hook input priority 0; }};
                  add rule inet quiet in tcp dport {port} drop'"
            ),
        )?;
        let to = net.lab.within(route.to, || PacketSocket::open("eth0", false))?;
        to.only(LENGTHS)?;
        let from = net.lab.within(route.from, || PacketSocket::open("eth0", false))?;
        from.only([0, 0])?;
        let mut head = mac(&net.link_address("gateway", route.gateway)?)?;
        head.extend(mac(&net.link_address(route.from, "eth0")?)?);
        let (source, destination) = (route.source, route.destination);
        let sent = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&sent);
        let sender = Worker::start(move |told| {
            let mut due = Instant::now();
            let mut number = 0;
            while !told.to_end() {
                let frame = [&head[..], &packet(source, destination, number)?].concat();
                send(&from, &frame)?;
                number += 1;
                counter.store(number, Ordering::Release);
                due = (due + PACE).max(Instant::now());
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(number)
        });
        let (shown, at) = (route.shown, route.at);
        let all = Arc::clone(&sent);
        let receiver = Worker::start(move |told| {
            let mut arrived = Arrived::default();
            let mut end = None;
            loop {
                wait(&[&to], Duration::from_millis(10));
                while let Some(frame) = to.receive() {
                    if let Some(number) = number(&frame.bytes, shown, at) {
                        arrived.add(number);
                    }
                }
                // The sender has ended before this is told to.
                if told.to_end() {
                    let is_late = *end.get_or_insert_with(|| Instant::now() + LAST) < Instant::now();
                    if is_late || arrived.count >= all.load(Ordering::Acquire) {
                        to.expect_all_seen()?;
                        return Ok(arrived);
                    }
                }
            }
        });
        Ok(Self { sender, receiver, sent })
    }

    /// How many are sent so far.
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Acquire)
    }

    /// Ends it; how many were sent. Fails where not every one of them came, once and in order.
    pub fn finish(self) -> Result<u32> {
        let sent = self.sender.finish()?;
        let arrived = self.receiver.finish()?;
        if let Some((number, wanted)) = arrived.odd {
            bail!("number {number} came where {wanted} was due; {} of {sent} came", arrived.count);
        }
        ensure!(arrived.count == sent, "{} of {sent} came", arrived.count);
        Ok(sent)
    }
}

impl Arrived {
    fn add(&mut self, number: u32) {
        if number != self.count {
            self.odd = self.odd.or(Some((number, self.count)));
        }
        self.count += 1;
    }
}

fn send(by: &PacketSocket, frame: &[u8]) -> Result<()> {
    let begin = Instant::now();
    loop {
        match by.send(frame) {
            // The socket's own room is used up.
            Err(error) if error.kind() == ErrorKind::WouldBlock && begin.elapsed() < BOUND => {
                std::thread::park_timeout(PACE);
            }
            sent => return sent.context("cannot send a segment"),
        }
    }
}

/// The number of a segment with these ends.
fn number(frame: &[u8], source: SocketAddr, destination: SocketAddr) -> Option<u32> {
    let expected = packet(source, destination, 0).ok()?;
    // Both from the EtherType on.
    let packet = frame.get(12..)?;
    let (addresses, tcp) = if source.is_ipv4() { (14..22, 22) } else { (10..42, 42) };
    let is_ours = packet.get(..2) == expected.get(..2)
        && packet.get(addresses.clone()) == expected.get(addresses)
        && packet.get(tcp..tcp + 4) == expected.get(tcp..tcp + 4);
    let number = packet.get(tcp + 4..tcp + 8)?.try_into().ok()?;
    is_ours.then(|| u32::from_be_bytes(number))
}

/// An ACK without data, behind its EtherType.
fn packet(source: SocketAddr, destination: SocketAddr, number: u32) -> Result<Vec<u8>> {
    let mut tcp = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    tcp.extend(number.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
    let (mut header, addresses) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let addresses = [source.octets(), destination.octets()].concat();
            let mut header = [&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0][..], &addresses].concat();
            let check = !sum(&header);
            header[10..12].copy_from_slice(&check.to_be_bytes());
            ([&[8, 0][..], &header].concat(), addresses)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let addresses = [source.octets(), destination.octets()].concat();
            ([&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64][..], &addresses].concat(), addresses)
        }
        _ => bail!("{source} and {destination} are of two families"),
    };
    let check = !sum(&[&addresses[..], &[0, 6, 0, 20], &tcp].concat());
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
    header.extend(tcp);
    Ok(header)
}

fn mac(text: &str) -> Result<Vec<u8>> {
    text.split(':')
        .map(|byte| u8::from_str_radix(byte, 16).with_context(|| format!("{text} is no link address")))
        .collect()
}
