//! A wire that loses, repeats and reorders frames, by numbers that follow from a seed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xtask::lab::bare::Bare;

use crate::packet::{PacketSocket, wait};
use crate::random::Random;
use crate::worker::Worker;

/// Of so many frames one is lost, one is repeated; twice as many are held back.
const LOST: u64 = 100;
const REPEATED: u64 = 100;
const HELD: u64 = 33;
/// A frame is held until at most so many others have overtaken it, or for so long.
const OVERTAKERS: u64 = 8;
const PATIENCE: Duration = Duration::from_millis(5);

/// What became of frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// That came to the wire.
    pub all: u64,
    /// That it kept.
    pub lost: u64,
    /// That it sent twice.
    pub repeated: u64,
    /// That others overtook.
    pub reordered: u64,
}

/// The wire, at work.
#[derive(Debug)]
pub struct RoughWire(Worker<Fate>);

impl RoughWire {
    /// Between two interfaces of the machine `wire`.
    pub fn start(lab: &Bare, one: &str, other: &str, seed: u64) -> Result<Self> {
        let sockets =
            lab.within("wire", || Ok([PacketSocket::open(one, false)?, PacketSocket::open(other, false)?]))?;
        Ok(Self(Worker::start(move |told| {
            let [one, other] = &sockets;
            let mut ways = [Way::new(one, other, seed), Way::new(other, one, !seed)];
            while !told.to_end() {
                wait(&[one, other], PATIENCE);
                ways.iter_mut().try_for_each(Way::carry)?;
            }
            one.expect_all_seen()?;
            other.expect_all_seen()?;
            Ok(ways[0].fate + ways[1].fate)
        })))
    }

    /// What it has done to frames.
    pub fn stop(self) -> Result<Fate> {
        self.0.finish()
    }
}

impl std::ops::Add for Fate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            lost: self.lost + other.lost,
            repeated: self.repeated + other.repeated,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// One direction.
struct Way<'a> {
    from: &'a PacketSocket,
    to: &'a PacketSocket,
    random: Random,
    held: Vec<Held>,
    fate: Fate,
}

struct Held {
    frame: Vec<u8>,
    /// How many more may overtake it.
    more: u64,
    since: Instant,
    overtaken: bool,
}

impl<'a> Way<'a> {
    fn new(from: &'a PacketSocket, to: &'a PacketSocket, seed: u64) -> Self {
        Self { from, to, random: Random::new(seed), held: Vec::new(), fate: Fate::default() }
    }

    /// Everything that waits.
    fn carry(&mut self) -> Result<()> {
        while let Some(seen) = self.from.receive() {
            self.fate.all += 1;
            let frame = seen.bytes;
            if self.random.one_in(LOST) {
                self.fate.lost += 1;
            } else if self.random.one_in(HELD) {
                let more = 1 + self.random.below(OVERTAKERS);
                self.held.push(Held { frame, more, since: Instant::now(), overtaken: false });
            } else {
                self.send(&frame)?;
                if self.random.one_in(REPEATED) {
                    self.fate.repeated += 1;
                    self.send(&frame)?;
                }
            }
        }
        self.release()
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.to.send(frame).context("the wire cannot send")?;
        for held in &mut self.held {
            held.more = held.more.saturating_sub(1);
            held.overtaken = true;
        }
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        let is_due = |held: &mut Held| held.more == 0 || held.since.elapsed() > PATIENCE;
        for held in self.held.extract_if(.., is_due) {
            self.to.send(&held.frame).context("the wire cannot send")?;
            self.fate.reordered += u64::from(held.overtaken);
        }
        Ok(())
    }
}
