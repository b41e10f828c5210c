//! A running `lungate serve`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::gateway::Gateway;

/// How long anything may take that is only a matter of this machine's load.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// The process and what it says; killed when this is dropped.
pub(crate) struct Serving {
    child: Child,
    events: Receiver<Value>,
}

impl Serving {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(gateway: &Gateway, arguments: &[&str]) -> Self {
        let mut command = gateway.lungate(&[&["serve", "--json"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let serving = Self { child, events };
        serving.expect("ready");
        serving
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an event of that name.
    pub(crate) fn expect(&self, name: &str) -> Value {
        self.expect_that(name, |_| true)
    }

    /// Waits for an event of that name that is as wanted.
    pub(crate) fn expect_that(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + BOUND;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|error| panic!("no {name}: {error}"));
            if event["event"] == name && wanted(&event) {
                return event;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; whether that was a success.
    pub(crate) fn end(&mut self) -> bool {
        let mut success = None;
        wait_until("the end of serve", || {
            success = self.child.try_wait().unwrap().map(|status| status.success());
            success.is_some()
        });
        success.unwrap()
    }

    /// Sends a signal that ends it; whether it ended well.
    pub(crate) fn end_by(&mut self, signal: Signal) -> bool {
        self.signal(signal);
        self.end()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Not there where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition, with a bound.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < BOUND, "{what}: not within {BOUND:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
