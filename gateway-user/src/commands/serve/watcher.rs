//! The thread that follows changes and promises to do so. It does nothing else, so that nothing keeps it from either.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::netlink::Subscription;
use super::report::{Changes, Event, Reporter};
use crate::network::Interface;
use crate::pins::Pins;
use crate::surroundings::Surroundings;

/// How long a promise holds.
const PROMISE: Duration = Duration::from_secs(1);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_millis(250);
/// How long a burst of changes may go on until it is followed.
const BURST: Duration = Duration::from_millis(10);
/// The kernel tells of a link before everything that hangs on it has changed, so hops are asked for once more.
const ECHO: Duration = Duration::from_millis(100);

/// The running thread.
pub(super) struct Watcher {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
struct Work {
    pins: Pins,
    subscription: Subscription,
    surroundings: Surroundings,
    /// The gateway's interfaces that are here.
    here: BTreeMap<u32, String>,
    stop: Arc<OwnedFd>,
    report: Reporter,
    renewed: Instant,
    /// What is not followed yet.
    owed: Changes,
    /// Why it is not, as it was said.
    behind: Option<String>,
    echo: Option<Instant>,
}

impl Watcher {
    /// Subscribes, writes down what there is, promises to follow, and starts the thread. The receiver hears why it
    /// ended.
    pub(super) fn start(pins: &Pins, report: Reporter) -> Result<(Self, oneshot::Receiver<Result<()>>)> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let mut work = Work {
            pins: pins.clone(),
            // First, so that no change is missed between a look and the subscription.
            subscription: Subscription::open()?,
            surroundings: Surroundings::open(pins)?,
            here: BTreeMap::new(),
            stop: Arc::clone(&stop),
            report,
            renewed: Instant::now(),
            owed: Changes::default(),
            behind: None,
            echo: None,
        };
        let interfaces = work.surroundings.refresh_watched()?;
        work.look_for_vanished(&interfaces)?;
        work.renew()?;
        let (ended, end) = oneshot::channel();
        let run = move || {
            let watched = work.run();
            let unpromised = work.surroundings.end_promise();
            // Nobody listens where this was asked to stop.
            let _ = ended.send(watched.and(unpromised));
        };
        let thread = std::thread::Builder::new().name("watcher".to_owned()).spawn(run)?;
        Ok((Self { stop, thread }, end))
    }

    /// Ends the promise and the thread.
    pub(super) fn stop(self) {
        // Neither can fail: the counter is not full, and the thread does not panic.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        let _ = self.thread.join();
    }
}

impl Work {
    fn run(&mut self) -> Result<()> {
        while !self.wait()? {
            let changes = self.subscription.drain()?;
            if changes.any() {
                self.owed.add(changes);
                // At once, for what has changed already; and again when the burst is over.
                self.surroundings.forget_hops()?;
                std::thread::sleep(BURST);
                self.owed.add(self.subscription.drain()?);
            }
            if self.owed.any() {
                self.follow();
            }
            if self.echo.is_some_and(|echo| echo <= Instant::now()) {
                self.surroundings.forget_hops()?;
                self.echo = None;
            }
            if self.renewed.elapsed() >= RENEWAL && !self.owed.any() && !self.is_told()? {
                if !self.surroundings.are_pinned() {
                    bail!("its maps are not pinned any more");
                }
                self.renew()?;
            }
        }
        Ok(())
    }

    /// Waits for messages, the next renewal or echo, or the end; whether it is the end.
    fn wait(&self) -> Result<bool> {
        let renewal = RENEWAL.saturating_sub(self.renewed.elapsed());
        // Where a renewal is held up by what is owed, that is tried again in a while.
        let renewal = if renewal.is_zero() { RENEWAL } else { renewal };
        let echo = self.echo.map(|echo| echo.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(echo.map_or(renewal, |echo| echo.min(renewal)))?;
        let mut fds =
            [PollFd::new(&self.subscription, PollFlags::IN), PollFd::new(&*self.stop, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(fds[1].revents().contains(PollFlags::IN)),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error).context("cannot wait for the kernel's messages about changes"),
        }
    }

    /// Whether messages wait to be read.
    fn is_told(&self) -> Result<bool> {
        let mut fds = [PollFd::new(&self.subscription, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&Timespec::default()))? > 0)
    }

    /// Makes the surroundings right and lets hops be asked for anew. What fails is owed still.
    fn follow(&mut self) {
        let followed = if self.owed.surroundings() {
            self.surroundings.refresh_watched().and_then(|interfaces| self.look_for_vanished(&interfaces))
        } else {
            self.surroundings.forget_hops()
        };
        match followed {
            Ok(()) => {
                self.report.say(&Event::Followed(self.owed));
                self.owed = Changes::default();
                self.behind = None;
                self.echo = Some(Instant::now() + ECHO);
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.behind.as_ref() != Some(&error) {
                    self.report.say(&Event::Behind { error: error.clone() });
                }
                self.behind = Some(error);
            }
        }
    }

    /// Says which interfaces of the gateway are not here any more.
    fn look_for_vanished(&mut self, interfaces: &[Interface]) -> Result<()> {
        let linked = self.pins.links()?.into_iter().map(|(interface, _)| interface);
        let here: BTreeMap<u32, String> = linked
            .filter_map(|index| interfaces.iter().find(|there| there.index == index))
            .map(|interface| (interface.index, interface.name.clone()))
            .collect();
        for (_, name) in self.here.iter().filter(|(index, _)| !here.contains_key(index)) {
            self.report.say(&Event::Vanished { interface: name.clone() });
        }
        self.here = here;
        Ok(())
    }

    fn renew(&mut self) -> Result<()> {
        self.surroundings.promise(PROMISE)?;
        self.renewed = Instant::now();
        Ok(())
    }
}
