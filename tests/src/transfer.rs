//! Transfers over TCP, both ways at once, of bytes that either end works out for itself and compares one by one.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::scope;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use xtask::lab::bare::Bare;

use crate::worker::Worker;

/// How long an end may hear nothing.
const SILENCE: Duration = Duration::from_secs(8);
const CHUNK: usize = 64 << 10;

/// The device's end: takes connections until it is told to end.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    worker: Worker<()>,
}

impl Server {
    /// Listens on the device.
    pub fn start(lab: &Bare, address: IpAddr, port: u16) -> Result<Self> {
        let address = SocketAddr::new(address, port);
        let listener = lab.within("device", || {
            TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))
        })?;
        listener.set_nonblocking(true)?;
        let worker = Worker::start(move |told| {
            scope(|connections| {
                let mut open = Vec::new();
                while !told.to_end() {
                    match listener.accept() {
                        Ok((stream, _)) => open.push(connections.spawn(move || answer(stream))),
                        Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
                    }
                }
                open.into_iter().try_for_each(joined)
            })
        });
        Ok(Self { address, worker })
    }

    /// Waits for the connections; fails where one of them got other bytes than it should.
    pub fn finish(self) -> Result<()> {
        self.worker.finish().with_context(|| format!("at {}", self.address))
    }
}

/// Opens so many connections from the host at once, each with so many bytes either way, and compares them.
pub fn exchange(lab: &Bare, to: SocketAddr, connections: u64, bytes: u64) -> Result<()> {
    let streams = lab.within("host", || {
        let connect = |_| TcpStream::connect_timeout(&to, SILENCE).with_context(|| format!("to {to}"));
        (0..connections).map(connect).collect::<Result<Vec<_>>>()
    })?;
    let run = |(number, mut stream): (u64, TcpStream)| {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let seed = (number << 32) | u64::from(to.port());
        stream.write_all(&[seed.to_be_bytes(), bytes.to_be_bytes()].concat())?;
        both_ways(&stream, seed, !seed, bytes).with_context(|| format!("connection {number} to {to}"))
    };
    let run = &run;
    scope(|threads| {
        let running: Vec<_> = (0..).zip(streams).map(|stream| threads.spawn(move || run(stream))).collect();
        running.into_iter().try_for_each(joined)
    })
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let (mut seed, mut bytes) = ([0; 8], [0; 8]);
    stream.read_exact(&mut seed).context("no seed")?;
    stream.read_exact(&mut bytes).context("no length")?;
    let (seed, bytes) = (u64::from_be_bytes(seed), u64::from_be_bytes(bytes));
    both_ways(&stream, !seed, seed, bytes)
}

/// Sends bytes of one seed while it reads those of another, to the end of the stream.
fn both_ways(stream: &TcpStream, out: u64, back: u64, bytes: u64) -> Result<()> {
    scope(|threads| {
        let sending = threads.spawn(move || send(stream, out, bytes));
        let received = receive(stream, back, bytes);
        joined(sending).and(received)
    })
}

fn send(mut stream: &TcpStream, seed: u64, bytes: u64) -> Result<()> {
    let mut pattern = Pattern(seed);
    let mut left = usize::try_from(bytes)?;
    while left > 0 {
        let chunk = pattern.next(left.min(CHUNK));
        stream.write_all(&chunk).with_context(|| format!("cannot send: {left} bytes are left"))?;
        left -= chunk.len();
    }
    stream.shutdown(Shutdown::Write).context("cannot end what is sent")
}

fn receive(mut stream: &TcpStream, seed: u64, bytes: u64) -> Result<()> {
    let mut pattern = Pattern(seed);
    let mut got = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let length = stream.read(&mut got).with_context(|| format!("nothing more after {at} bytes"))?;
        if length == 0 {
            ensure!(at == bytes, "{at} bytes came where {bytes} were sent");
            return Ok(());
        }
        let wanted = pattern.next(length);
        if let Some(wrong) = wanted.iter().zip(&got).position(|(wanted, got)| wanted != got) {
            return Err(anyhow!("byte {} is {:#x}, not {:#x}", at + wrong as u64, got[wrong], wanted[wrong]));
        }
        at += length as u64;
    }
}

/// Bytes that follow from a seed; all of them are at least 0x40, so no address of a lab can be found in them.
struct Pattern(u64);

impl Pattern {
    fn next(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn byte(&mut self) -> u8 {
        // A step of a linear congruential generator (Knuth, MMIX).
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        0x40 | self.0.to_be_bytes()[0] & 0x3f
    }
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
}
