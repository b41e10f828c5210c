//! Says on stderr what long work is doing, once it has become long.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long a person waits without wondering.
const PATIENCE: Duration = Duration::from_secs(1);

/// Work in phases. Nothing is said of work that is done soon.
pub(crate) struct Progress {
    phases: Sender<String>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let (phases, received) = channel::<String>();
        std::thread::spawn(move || {
            let begin = Instant::now();
            let mut phase = String::new();
            loop {
                match received.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
                    Ok(next) => phase = next,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            eprintln!("{phase} …");
            received.into_iter().for_each(|phase| eprintln!("{phase} …"));
        });
        Self { phases }
    }

    /// The work has come to another phase.
    pub(crate) fn phase(&self, phase: impl Into<String>) {
        // Who listens ends only with this.
        let _ = self.phases.send(phase.into());
    }
}
