//! `lungate map`.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use lungate_catalog::change::Change;
use lungate_catalog::model::{Catalog, Mapping, MappingState};
use lungate_catalog::store::Store;
use lungate_gateway_common::table::{FROZEN, RETIRED};
use serde::Serialize;

use super::catalog_path;
use crate::cli::{Global, Map};
use crate::table::Table;

pub(crate) fn map(global: &Global, command: Map) -> Result<()> {
    match command {
        Map::List => list(global),
        Map::Add { vip, device } => {
            let mapping =
                Mapping { vip, device, state: MappingState::Live, allow: Vec::new(), mss_clamp: None };
            change(global, Change::Add(mapping)).and_then(|done| global.print(&done))
        }
        Map::Remove { vip } => change(global, Change::Remove { vip }).and_then(|done| global.print(&done)),
        Map::Migrate { vip, to } => {
            let from = Table::open(&global.pins())?.at_vip(vip)?.map(|line| line.peer);
            let Changed { flip_us, changed_at_monotonic_ns, .. } =
                change(global, Change::Migrate { vip, to })?;
            let flipped_at_monotonic_ns = changed_at_monotonic_ns;
            global.print(&Migrated { vip, from, to, flipped_at_monotonic_ns, flip_us })
        }
    }
}

/// Makes a change: durable in the catalog first, then in the kernel. Where the kernel refuses, the catalog is as
/// before.
fn change(global: &Global, change: Change) -> Result<Changed> {
    let mut table = Table::open(&global.pins())?;
    let _lock = global.pins().lock()?;
    let path = catalog_path(global, &table)?;
    let mut store = match &change {
        // A gateway can do without volumes, so the first mapping may begin a catalog.
        Change::Add(_) if !path.exists() => Store::create(&path, &Catalog::empty())?,
        _ => Store::open(&path)?,
    };
    let text = change.to_string();
    let before = store.catalog().gateway_view();
    store.record(change)?;
    let plan = table.plan_change(&before, &store.catalog().gateway_view());
    let executed = match plan.and_then(|plan| table.execute(&plan)) {
        Ok(executed) => executed,
        Err(error) => {
            let reverted = store.revert_last();
            reverted.context("the kernel refused, and the catalog's change could not be taken back")?;
            return Err(error).context("the kernel's table could not be changed; the catalog is as before");
        }
    };
    store
        .checkpoint()
        .context("the change is made and in the journal, but the catalog could not be rewritten")?;
    if let Ok(path) = path.canonicalize() {
        table.set_catalog(&path)?;
    }
    Ok(Changed {
        change: text,
        changed_at_monotonic_ns: executed.at_monotonic_ns,
        flip_us: executed.took.as_secs_f64() * 1e6,
    })
}

/// What a change did.
#[derive(Serialize)]
struct Changed {
    change: String,
    /// CLOCK_MONOTONIC after the last of the system calls that packets wait for, in nanoseconds.
    changed_at_monotonic_ns: u64,
    /// From the first to the last map system call that packets wait for, in microseconds.
    flip_us: f64,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: done", self.change)
    }
}

/// What `migrate` did.
#[derive(Serialize)]
struct Migrated {
    vip: SocketAddr,
    from: Option<SocketAddr>,
    to: SocketAddr,
    /// CLOCK_MONOTONIC after the last of the system calls that packets wait for, in nanoseconds.
    flipped_at_monotonic_ns: u64,
    /// From the first to the last map system call that packets wait for, in microseconds.
    flip_us: f64,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.map_or_else(|| "?".to_owned(), |from| from.to_string());
        writeln!(f, "{}: from {from} to {} in {:.0} µs", self.vip, self.to, self.flip_us)
    }
}

/// The kernel's table.
#[derive(Serialize)]
struct List {
    mappings: Vec<Listed>,
    retired: Vec<ListedRetired>,
}

#[derive(Serialize)]
struct Listed {
    vip: SocketAddr,
    device: SocketAddr,
    state: MappingState,
    /// What segments are clamped to, in bytes.
    mss_clamp: Option<u16>,
    /// The volume whose extent it is, where the catalog is known and says so.
    volume: Option<String>,
}

#[derive(Serialize)]
struct ListedRetired {
    vip: SocketAddr,
    device: SocketAddr,
}

fn list(global: &Global) -> Result<()> {
    let table = Table::open(&global.pins())?;
    let content = table.content()?;
    // The kernel's table can be listed without a catalog; then it has no names.
    let catalog = Store::read(&catalog_path(global, &table)?).ok();
    let volume = |vip| catalog.as_ref().and_then(|catalog| catalog.volume_at(vip)).map(str::to_owned);
    let mappings = content.forward.iter().map(|(&vip, line)| Listed {
        vip,
        device: line.peer,
        state: if line.flags & FROZEN != 0 { MappingState::Frozen } else { MappingState::Live },
        mss_clamp: (line.mss != 0).then_some(line.mss),
        volume: volume(vip),
    });
    let retired = content.reverse.iter().filter(|(_, line)| line.flags & RETIRED != 0);
    let retired = retired.map(|(&device, line)| ListedRetired { vip: line.peer, device });
    global.print(&List { mappings: mappings.collect(), retired: retired.collect() })
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:<24} {:<8} {:<6} volume", "VIP", "device", "state", "mss")?;
        for Listed { vip, device, state, mss_clamp, volume } in &self.mappings {
            let state = match state {
                MappingState::Live => "live",
                MappingState::Frozen => "frozen",
            };
            let (vip, device) = (vip.to_string(), device.to_string());
            let mss = mss_clamp.map_or_else(|| "-".to_owned(), |mss| mss.to_string());
            let volume = volume.as_deref().unwrap_or("-");
            writeln!(f, "{vip:<24} {device:<24} {state:<8} {mss:<6} {volume}")?;
        }
        for ListedRetired { vip, device } in &self.retired {
            let (vip, device) = (vip.to_string(), device.to_string());
            writeln!(f, "{vip:<24} {device:<24} retired")?;
        }
        Ok(())
    }
}
