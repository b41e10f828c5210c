//! Keeps the table equal to the catalog: its file, which is replaced by renaming, and the journal beside it.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lungate_catalog::model::Catalog;
use lungate_catalog::store::Store;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::report::{Event, Reporter};
use crate::commands::status::differences;
use crate::pins::Pins;
use crate::table::Table;

/// How often it is looked whether another catalog was applied, or a folder that was missing is there.
const LOOK: Duration = Duration::from_secs(1);
/// How long a change of the files is given to be whole.
const SETTLE: Duration = Duration::from_millis(20);

/// What follows the catalog.
pub(super) struct Follower {
    pins: Pins,
    table: Table,
    /// The catalog of the command line; without it, the one that was applied last.
    named: Option<PathBuf>,
    report: Reporter,
    watched: Option<Watched>,
    /// What was last read of it: what is there again needs no second look.
    seen: Option<Seen>,
    /// A folder could not be watched, and that was said.
    complained: bool,
}

type Seen = Result<Catalog, String>;

/// The folder that a catalog lies in.
struct Watched {
    path: PathBuf,
    folder: AsyncFd<OwnedFd>,
}

impl Follower {
    pub(super) fn new(pins: &Pins, table: Table, named: Option<PathBuf>, report: Reporter) -> Result<Self> {
        let named = named.map(std::path::absolute).transpose().context("cannot find the catalog")?;
        let mut follower =
            Self { pins: pins.clone(), table, named, report, watched: None, seen: None, complained: false };
        follower.look()?;
        Ok(follower)
    }

    /// Watches the catalog that there is to follow.
    fn look(&mut self) -> Result<()> {
        let path = match &self.named {
            Some(named) => Some(named.canonicalize().unwrap_or_else(|_| named.clone())),
            None => self.table.catalog()?,
        };
        if self.watched.as_ref().map(|watched| &watched.path) == path.as_ref() {
            return Ok(());
        }
        self.seen = None;
        self.watched = match path.map(Watched::new).transpose() {
            Ok(watched) => {
                self.complained = false;
                watched
            }
            // Tried again in a while.
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    self.report.say(&Event::Failed { error: format!("{error:#}") });
                }
                None
            }
        };
        Ok(())
    }
}

/// Applies the catalog, and again whenever it changes.
pub(super) async fn follow(mut follower: Follower) -> Result<()> {
    loop {
        follower.look()?;
        let Some(Watched { path, .. }) = &follower.watched else {
            sleep(LOOK).await;
            continue;
        };
        let (pins, path, seen) = (follower.pins.clone(), path.clone(), follower.seen.take());
        // Another command may hold the lock for a while.
        let (seen, event) = tokio::task::spawn_blocking(move || catch_up(&pins, &path, seen)).await?;
        follower.seen = Some(seen);
        if let Some(event) = event {
            follower.report.say(&event);
        }
        follower.wait().await?;
    }
}

impl Follower {
    /// Waits until the files change or there is another catalog.
    async fn wait(&mut self) -> Result<()> {
        loop {
            if let Some(watched) = &self.watched {
                tokio::select! {
                    is_watched = watched.changed() => {
                        if !is_watched? {
                            self.watched = None;
                        }
                        sleep(SETTLE).await;
                        return Ok(());
                    }
                    () = sleep(LOOK) => {}
                }
            }
            let before = self.watched.as_ref().map(|watched| watched.path.clone());
            self.look()?;
            if self.watched.as_ref().map(|watched| &watched.path) != before.as_ref() {
                return Ok(());
            }
        }
    }
}

impl Watched {
    fn new(path: PathBuf) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let events =
            WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, folder, events)
            .with_context(|| format!("cannot watch {}", folder.display()))?;
        // SAFETY: the descriptor is owned, so it stays what it is for as long as it is registered.
        let folder = unsafe { AsyncFd::register(watch) }?;
        Ok(Self { folder, path })
    }

    /// Waits until the file or its journal was written, replaced or removed. Whether more can be waited for: not
    /// where the folder itself is gone.
    async fn changed(&self) -> Result<bool> {
        loop {
            let mut ready = self.folder.readable().await?;
            let (found, is_watched) = self.read_events().context("cannot watch the catalog's folder")?;
            if found || !is_watched {
                return Ok(is_watched);
            }
            ready.clear_ready();
        }
    }

    /// Takes all events. Whether one was about the catalog, and whether the folder is still there.
    fn read_events(&self) -> Result<(bool, bool), Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.folder.get_ref(), &mut buffer);
        let (mut found, mut is_watched) = (false, true);
        loop {
            match reader.next() {
                Ok(event) => {
                    // Where events were lost, one may have been about the catalog.
                    let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                    found |= lost || event.file_name().is_some_and(|name| self.is_meant(name));
                    is_watched &= !event.events().contains(ReadFlags::IGNORED);
                }
                Err(Errno::AGAIN) => return Ok((found, is_watched)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn is_meant(&self, name: &CStr) -> bool {
        let name = OsStr::from_bytes(name.to_bytes());
        let file = self.path.file_name().unwrap_or_default();
        let journal = [file.as_bytes(), b".journal"].concat();
        name == file || name.as_bytes() == journal
    }
}

/// Applies the catalog if it is not what was seen last. What it is now, and what there is to say.
fn catch_up(pins: &Pins, path: &Path, before: Option<Seen>) -> (Seen, Option<Event>) {
    // Without the lock and without touching the files: they are left alone where nothing is new.
    let now = Store::read(path).map_err(|error| error.to_string());
    if before.as_ref() == Some(&now) {
        return (now, None);
    }
    let catalog = path.to_owned();
    let applied = now.clone().and_then(|_| apply(pins, path).map_err(|error| format!("{error:#}")));
    match applied {
        Ok((now, changes)) => {
            let event = (!changes.is_empty()).then_some(Event::Applied { catalog, changes });
            (Ok(now), event)
        }
        // What could not be applied as it is, is not tried again as it is.
        Err(error) => (now, Some(Event::Refused { catalog, error })),
    }
}

/// Makes the table equal to the catalog, while no other command changes either. The catalog, and what changed.
fn apply(pins: &Pins, path: &Path) -> Result<(Catalog, Vec<String>)> {
    let mut table = Table::open(pins)?;
    let _lock = pins.lock()?;
    let store = Store::open(path)?;
    let now = table.content()?;
    let wanted = table.wanted(&store.catalog().gateway_view(), &now)?;
    let plan = table.plan(&now, &wanted)?;
    table.execute(&plan)?;
    table.set_catalog(path)?;
    Ok((store.catalog().clone(), differences(&now, &wanted)))
}
