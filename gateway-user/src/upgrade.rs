//! A table of layout 1 brought over to this layout while packets flow: its entries, counters and settings are
//! copied, then the program in its links is replaced, one atomic step for each link.
//!
//! Until a link's program is replaced the old one translates by the old maps, afterwards the new one by maps that
//! hold the same. The order says how far an interrupted `load` came, so that another one goes on from there: no link
//! under this layout: the copy is not finished, and begins anew; a link there: only links are left to do; no
//! `FORWARD` under layout 1: only pins are left to remove.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray};
use aya::programs::Xdp;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use lungate_gateway_common::table::{Access, Mapping, Portal, Traffic, map};

use crate::batch::Batched;
use crate::content::{Content, lines, prefix};
use crate::links::Hook;
use crate::pins::Pins;
use crate::table::Table;

/// A line of layout 1: the same in both directions.
#[repr(C)]
#[derive(Clone, Copy)]
struct OldMapping {
    peer: Portal,
    flags: u32,
    counter: u32,
    next_hop: [u8; 20],
}

/// The settings of layout 1.
#[repr(C)]
#[derive(Clone, Copy)]
struct OldSettings {
    log_drops: u32,
    catalog_length: u32,
    catalog: [u8; 4088],
}

const _: () = assert!(size_of::<OldMapping>() == 48);
const _: () = assert!(size_of::<OldSettings>() == 4096);

// SAFETY: `repr(C)` of integers and byte arrays that fill it (asserted above); any bytes are a value.
unsafe impl Pod for OldMapping {}
// SAFETY: `repr(C)` of integers and bytes that fill it (asserted above); any bytes are a value.
unsafe impl Pod for OldSettings {}

/// How far bringing over a table of layout 1 has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// There is none.
    None,
    /// Its entries are to be copied.
    Copy,
    /// They are copied.
    Links,
}

impl Upgrade {
    /// How far it has come.
    pub(crate) fn state(pins: &Pins) -> Result<Self> {
        if !pins.has_layout_before() {
            return Ok(Self::None);
        }
        let is_left = !pins.folder_before().join(map::FORWARD).exists() && pins.map(map::FORWARD).exists();
        Ok(if is_left || !pins.links()?.is_empty() { Self::Links } else { Self::Copy })
    }

    /// The capacity of the old table, where it is still to be copied.
    pub(crate) fn capacity(self, pins: &Pins) -> Result<Option<u32>> {
        if self != Self::Copy {
            return Ok(None);
        }
        let path = pins.folder_before().join(map::FORWARD);
        let info = MapInfo::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Some(info.max_entries()))
    }

    /// Copies the table into the maps of this layout, and takes the pins of the links over.
    pub(crate) fn copy(self, pins: &Pins) -> Result<()> {
        if self == Self::Copy {
            let mut table = Table::open_maps(pins)?;
            copy(&pins.folder_before(), &mut table)
                .with_context(|| format!("cannot copy the table at {}", pins.folder_before().display()))?;
        }
        if self != Self::None {
            for (path, interface) in pins.links_before()? {
                let to = pins.link(Hook::Xdp, interface);
                // The same link is never without a pin: a rename is one step.
                fs::rename(&path, &to).with_context(|| format!("cannot move {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Replaces the program in every link and removes the old maps.
    pub(crate) fn finish(self, pins: &Pins, program: &mut Xdp) -> Result<()> {
        if self == Self::None {
            return Ok(());
        }
        for (interface, hook) in pins.links()?.into_iter().filter(|(_, hook)| *hook == Hook::Xdp) {
            let path = pins.link(hook, interface);
            match replace(program, &path) {
                // The interface is gone, and the link with it.
                Err(error) if is_defunct(&error) => {
                    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
                }
                replaced => {
                    replaced.with_context(|| format!("cannot replace the program in {}", path.display()))?
                }
            }
        }
        let forward = pins.folder_before().join(map::FORWARD);
        if forward.exists() {
            fs::remove_file(&forward).with_context(|| format!("cannot remove {}", forward.display()))?;
        }
        pins.remove_before()
    }
}

fn replace(program: &mut Xdp, path: &Path) -> Result<()> {
    let link = FdLink::from(PinnedLink::from_pin(path)?);
    program.attach_to_link(XdpLink::try_from(link)?)?;
    Ok(())
}

fn is_defunct(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.raw_os_error() == Some(libc::ENOLINK))
    })
}

fn copy(from: &Path, table: &mut Table) -> Result<()> {
    let entries = |name: &str| -> Result<Vec<(Portal, Mapping)>> {
        let old = Batched::<Portal, OldMapping>::open(&from.join(name))?;
        let entries = old.entries().with_context(|| format!("cannot read {}", old.path().display()))?;
        let mapping = |old: OldMapping| Mapping::new(old.peer, old.flags, old.counter, 0);
        Ok(entries.into_iter().map(|(portal, old)| (portal, mapping(old))).collect())
    };
    let (forward, reverse) = (lines(entries(map::FORWARD)?), lines(entries(map::REVERSE)?));
    let mut wanted = Content { forward, reverse, ..Content::default() };
    let access = Batched::<Key<Access>, u32>::open(&from.join(map::ACCESS))?;
    for (key, _) in access.entries().context("cannot read the access lists")? {
        if let Some((counter, net)) = prefix(key) {
            wanted.access.entry(counter).or_default().insert(net);
        }
    }
    let plan = table.plan(&Content::default(), &wanted)?;
    table.execute(&plan)?;
    copy_traffic(from, table, &wanted)?;
    let settings = MapData::from_pin(from.join(map::SETTINGS))?;
    let settings: Array<_, OldSettings> = Map::Array(settings).try_into()?;
    let settings = settings.get(&0, 0)?;
    if let Some(path) =
        settings.catalog.get(..settings.catalog_length as usize).filter(|path| !path.is_empty())
    {
        use std::os::unix::ffi::OsStrExt;
        table.set_catalog(Path::new(std::ffi::OsStr::from_bytes(path)))?;
    }
    table.set_log_drops(settings.log_drops != 0)
}

/// Counters count on from where they were.
fn copy_traffic(from: &Path, table: &mut Table, content: &Content) -> Result<()> {
    let old = MapData::from_pin(from.join(map::TRAFFIC))?;
    let old: PerCpuArray<_, Traffic> = Map::PerCpuArray(old).try_into()?;
    let late = content.reverse.values().map(|line| line.counter);
    let counters: std::collections::BTreeSet<u32> =
        content.forward.values().map(|line| line.counter).chain(late).collect();
    for counter in counters {
        let values = old.get(&counter, 0).context("cannot read a mapping's counters")?;
        if values.iter().any(|value| *value != Traffic::default()) {
            table.set_traffic(counter, values)?;
        }
    }
    Ok(())
}
