//! A thread that works until it is told to end, at the latest when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};

/// The thread.
#[derive(Debug)]
pub struct Worker<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<T>>>,
}

/// Tells the work when to end.
#[derive(Clone, Debug)]
pub struct Told(Arc<AtomicBool>);

impl Told {
    /// Whether it is to end.
    pub fn to_end(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts it.
    pub fn start(work: impl FnOnce(&Told) -> Result<T> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Told(Arc::clone(&stop));
        Self { stop, thread: Some(std::thread::spawn(move || work(&told))) }
    }
}

impl<T> Worker<T> {
    /// Tells it to end; what came of the work.
    pub fn finish(mut self) -> Result<T> {
        self.end().unwrap_or_else(|| Err(anyhow!("a thread panicked")))
    }

    fn end(&mut self) -> Option<Result<T>> {
        self.stop.store(true, Ordering::Release);
        self.thread.take()?.join().ok()
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.end();
    }
}
