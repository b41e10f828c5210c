//! Keeps what overlaps in order. While a write has no answer, later commands on its blocks wait: so it can be
//! issued again after a lost connection without ever landing on top of something newer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lungate_catalog::units::{BlockCount, Lba};
use tokio::sync::Notify;

/// What a command does with its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing that order matters for.
    None,
    /// Reads; reads do not wait for each other.
    Read,
    /// Changes them.
    Write,
}

/// The commands under way on one extent, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    entries: Mutex<Entries>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    list: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u64,
    access: Access,
    start: u64,
    end: u64,
}

/// A command's place among the others; dropping it lets those behind go on.
#[derive(Debug)]
pub(super) struct Turn {
    overlap: Arc<Overlap>,
    number: u64,
}

impl Overlap {
    /// Waits until nothing that came before is in the way.
    pub(super) async fn enter(self: &Arc<Self>, access: Access, lba: Lba, blocks: BlockCount) -> Turn {
        let (start, end) = (lba.0, lba.0.saturating_add(blocks.0));
        let turn = {
            let mut entries = self.lock();
            let number = entries.next;
            entries.next += 1;
            entries.list.push(Entry { number, access, start, end });
            Turn { overlap: Arc::clone(self), number }
        };
        loop {
            let left = self.left.notified();
            let mine = Entry { number: turn.number, access, start, end };
            if !self.lock().list.iter().any(|other| other.blocks(&mine)) {
                return turn;
            }
            left.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Whether this one must be over before `later` may start.
    fn blocks(&self, later: &Self) -> bool {
        let ordered = match (self.access, later.access) {
            (Access::None, _) | (_, Access::None) | (Access::Read, Access::Read) => false,
            (Access::Write, _) | (_, Access::Write) => true,
        };
        self.number < later.number && ordered && self.start < later.end && later.start < self.end
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut entries = self.overlap.lock();
        if let Some(at) = entries.list.iter().position(|entry| entry.number == self.number) {
            entries.list.swap_remove(at);
        }
        drop(entries);
        self.overlap.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn only_what_overlaps_a_write_waits_and_in_order() {
        let overlap = Arc::new(Overlap::default());
        let enter = |access, lba, blocks| overlap.enter(access, Lba(lba), BlockCount(blocks));
        let Poll::Ready(first) = poll(pin!(enter(Access::Read, 0, 8))) else {
            panic!("nothing is in the way")
        };
        let Poll::Ready(second) = poll(pin!(enter(Access::Read, 4, 8))) else { panic!("reads go together") };
        let mut write = pin!(enter(Access::Write, 6, 1));
        assert!(poll(write.as_mut()).is_pending());
        let mut read_behind = pin!(enter(Access::Read, 6, 1));
        assert!(poll(read_behind.as_mut()).is_pending(), "a read does not overtake the write before it");
        assert!(poll(pin!(enter(Access::Write, 12, 4))).is_ready());
        assert!(poll(pin!(enter(Access::None, 0, 99))).is_ready());
        drop(first);
        assert!(poll(write.as_mut()).is_pending());
        drop(second);
        let Poll::Ready(written) = poll(write.as_mut()) else { panic!("both reads are over") };
        assert!(poll(read_behind.as_mut()).is_pending());
        drop(written);
        assert!(poll(read_behind.as_mut()).is_ready());
    }
}
