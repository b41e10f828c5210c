//! Late writes: what a dead connection sent to the real target must be done with before the same initiator gets
//! a new session, or it could overwrite what is written next.
//!
//! Every connection past its login stands in this book, from the moment its initiator is known until the real
//! target owes it nothing. A new login waits for those of the same initiator that have lost their host; one with
//! the same ISID is a reinstatement (RFC 7143, 6.3.5) and first ends the connection that it replaces.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The connections of one port.
#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    of: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    initiator: String,
    isid: [u8; 6],
    /// Ends the connection.
    end: CancellationToken,
    /// The host is gone; the real target may still be at work.
    draining: bool,
    /// Closed when the entry is gone.
    gone: watch::Receiver<()>,
}

/// A connection's line in the book; dropping it strikes the line out.
#[derive(Debug)]
pub(crate) struct Line {
    book: Arc<Book>,
    number: u64,
    _gone: watch::Sender<()>,
}

impl Book {
    /// Enters a connection, once all that came before it from the same initiator is done with. `Err` where
    /// that takes longer than `patience`.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        initiator: &str,
        isid: [u8; 6],
        end: CancellationToken,
        patience: Duration,
    ) -> Result<Line, ()> {
        let entered = async {
            loop {
                // Several may have waited for the same connection: the one that enters first is a
                // predecessor of the others.
                let before = match self.try_enter(initiator, isid, &end) {
                    Ok(line) => return line,
                    Err(before) => before,
                };
                for mut gone in before {
                    // The sender is never used, only dropped.
                    while gone.changed().await.is_ok() {}
                }
            }
        };
        timeout(patience, entered).await.map_err(|_| ())
    }

    /// Enters a connection, or ends those that are in its way and gives what tells that they are gone.
    fn try_enter(
        self: &Arc<Self>,
        initiator: &str,
        isid: [u8; 6],
        end: &CancellationToken,
    ) -> Result<Line, Vec<watch::Receiver<()>>> {
        let mut entries = self.lock();
        let own = entries.of.values().filter(|entry| entry.initiator == initiator);
        let before: Vec<_> = own
            .filter(|entry| entry.draining || entry.isid == isid)
            .map(|entry| {
                entry.end.cancel();
                entry.gone.clone()
            })
            .collect();
        if !before.is_empty() {
            return Err(before);
        }
        let (sender, gone) = watch::channel(());
        let number = entries.next;
        entries.next += 1;
        let entry = Entry { initiator: initiator.to_owned(), isid, end: end.clone(), draining: false, gone };
        entries.of.insert(number, entry);
        Ok(Line { book: Arc::clone(self), number, _gone: sender })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing can panic while it is held, and the book is whole between statements.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Says that the host is gone.
    pub(crate) fn draining(&self) {
        if let Some(entry) = self.book.lock().of.get_mut(&self.number) {
            entry.draining = true;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.book.lock().of.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);
    const NOW: Duration = Duration::ZERO;

    #[tokio::test]
    async fn a_reinstatement_ends_the_old_connection_and_waits_for_it() {
        let book = Arc::new(Book::default());
        let old_end = CancellationToken::new();
        let old = book.enter("iqn.a", [1; 6], old_end.clone(), PATIENCE).await.unwrap();
        assert!(book.enter("iqn.a", [1; 6], CancellationToken::new(), NOW).await.is_err());
        assert!(old_end.is_cancelled());
        drop(old);
        assert!(book.enter("iqn.a", [1; 6], CancellationToken::new(), NOW).await.is_ok());
    }

    #[tokio::test]
    async fn other_sessions_go_on_until_they_lose_their_host() {
        let book = Arc::new(Book::default());
        let other_end = CancellationToken::new();
        let other = book.enter("iqn.a", [1; 6], other_end.clone(), PATIENCE).await.unwrap();
        let _second = book.enter("iqn.a", [2; 6], CancellationToken::new(), NOW).await.unwrap();
        let _stranger = book.enter("iqn.b", [1; 6], CancellationToken::new(), NOW).await.unwrap();
        assert!(!other_end.is_cancelled());
        other.draining();
        assert!(book.enter("iqn.a", [3; 6], CancellationToken::new(), NOW).await.is_err());
    }

    #[tokio::test]
    async fn of_two_that_wait_for_the_same_connection_one_replaces_the_other() {
        let book = Arc::new(Book::default());
        let old = book.enter("iqn.a", [1; 6], CancellationToken::new(), PATIENCE).await.unwrap();
        let (a, b) = (CancellationToken::new(), CancellationToken::new());
        let (one, two, ()) = tokio::join!(
            book.enter("iqn.a", [1; 6], a.clone(), PATIENCE),
            book.enter("iqn.a", [1; 6], b.clone(), Duration::from_millis(200)),
            async {
                tokio::task::yield_now().await;
                drop(old)
            },
        );
        let both = one.is_ok() && two.is_ok();
        assert!(!both || a.is_cancelled() || b.is_cancelled(), "both live: {both}");
    }
}
