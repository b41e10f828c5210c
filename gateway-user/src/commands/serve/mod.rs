//! `lungate serve`: follows the changes around the gateway at once, asks after neighbours, and keeps the table equal
//! to the catalog. Packets flow without it.

mod catalog;
mod lock;
mod neighbours;
mod netlink;
mod report;
mod watcher;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinError;

use self::report::{Event, Reporter};
use self::watcher::Watcher;
use crate::cli::Global;
use crate::surroundings::Surroundings;
use crate::table::Table;

/// How long the end may take.
const LAST: Duration = Duration::from_secs(5);

pub(crate) fn serve(global: &Global) -> Result<()> {
    let pins = global.pins();
    // Says so where nothing is loaded.
    let table = Table::open(&pins)?;
    let surroundings = Surroundings::open(&pins)?;
    let _only = lock::take(&pins)?;
    let report = Reporter::new(global.json);
    let (watcher, mut ended) = Watcher::start(&pins, report)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let named = global.catalog.clone();
        let mut catalog = tokio::spawn(catalog::follow(catalog::Follower::new(&pins, table, named, report)?));
        let mut neighbours = tokio::spawn(neighbours::ask(Surroundings::open(&pins)?, report));
        report.say(&Event::Ready);
        tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            why = &mut ended => why.context("the thread that watches netlink has failed")?,
            ended = &mut catalog => unexpected("follows the catalog", ended),
            ended = &mut neighbours => unexpected("asks after neighbours", ended),
        }
    });
    watcher.stop();
    // A catalog that is being applied is applied whole; one that waits for another command is not waited for long.
    runtime.shutdown_timeout(LAST);
    if served.is_err() && !surroundings.are_pinned() {
        bail!("the gateway at {} was unloaded", pins.folder().display());
    }
    served?;
    report.say(&Event::Ended);
    Ok(())
}

fn unexpected(what: &str, ended: Result<Result<()>, JoinError>) -> Result<()> {
    match ended {
        Ok(Ok(())) => bail!("the task that {what} has ended"),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(error).with_context(|| format!("the task that {what} has failed")),
    }
}
