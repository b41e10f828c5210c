//! `lungate load` and `lungate unload`.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::Global;
use crate::commands::status::Status;
use crate::kernel;
use crate::links::{Hook, Mode, attach};
use crate::network::{Interface, interface_named, interfaces, own_addresses};
use crate::object;
use crate::pins::Pins;
use crate::table::Table;
use crate::upgrade::Upgrade;

/// How many mappings a table holds where nobody says.
const MAX_MAPPINGS: u32 = 16_384;

pub(crate) fn load(global: &Global, names: &[String], mode: Mode, max_mappings: Option<u32>) -> Result<()> {
    let pins = global.pins();
    kernel::check()?;
    pins.check_layout()?;
    let interfaces = wanted(&pins, names)?;
    pins.check_file_system()?;
    let _lock = pins.lock_or_create()?;
    let upgrade = Upgrade::state(&pins)?;
    if upgrade == Upgrade::Copy {
        // What an interrupted copy left behind.
        pins.remove_layout()?;
    }
    let was_loaded = pins.exist() || upgrade != Upgrade::None;
    let max_mappings = if pins.exist() {
        object::pinned_capacity(&pins)?
    } else {
        upgrade.capacity(&pins)?.max(max_mappings).unwrap_or(MAX_MAPPINGS)
    };
    if upgrade != Upgrade::None {
        eprintln!(
            "the table at {} is brought over to {}",
            pins.folder_before().display(),
            pins.folder().display()
        );
    }
    eprintln!("{}", object::memory(max_mappings));
    pins.create()?;
    let loaded = attach_all(&pins, &interfaces, mode, max_mappings, upgrade);
    let whys = match loaded {
        Ok(whys) => whys,
        Err(error) => {
            if Upgrade::state(&pins)? == Upgrade::Copy {
                // The table of the layout before is as it was.
                pins.remove_layout().context("cannot take back what was done before the error below").ok();
            } else if !was_loaded {
                // Nothing was there before, so nothing stays.
                pins.remove().context("cannot take back what was done before the error below").ok();
            }
            return Err(error);
        }
    };
    let mut status = Status::read(global)?;
    for (interface, why) in interfaces.iter().zip(whys) {
        status.explain(interface.index, why);
    }
    global.print(&status)
}

/// The interfaces that were named, and those on which a program is to be replaced.
fn wanted(pins: &Pins, names: &[String]) -> Result<Vec<Interface>> {
    let mut wanted = names.iter().map(|name| interface_named(name)).collect::<Result<Vec<_>>>()?;
    let mut linked: BTreeSet<u32> = pins.links()?.into_iter().map(|(interface, _)| interface).collect();
    linked.extend(pins.links_before()?.into_iter().map(|(_, interface)| interface));
    let here = interfaces()?.into_iter().filter(|interface| linked.contains(&interface.index));
    wanted.extend(here);
    wanted.sort_by_key(|interface| interface.index);
    wanted.dedup_by_key(|interface| interface.index);
    Ok(wanted)
}

/// Attaches to every interface, or to none.
fn attach_all(
    pins: &Pins,
    interfaces: &[Interface],
    mode: Mode,
    max_mappings: u32,
    upgrade: Upgrade,
) -> Result<Vec<&'static str>> {
    let mut ebpf = object::load(pins, max_mappings)?;
    upgrade.copy(pins)?;
    Table::open_maps(pins)?.set_local(&own_addresses()?)?;
    let program = object::program(&mut ebpf)?;
    upgrade.finish(pins, program)?;
    let (mut new, mut whys) = (Vec::new(), Vec::new());
    for interface in interfaces {
        match attach(program, pins, interface, mode) {
            Ok((is_new, why)) => {
                new.extend(is_new.then_some(interface));
                whys.push(why);
            }
            Err(error) => {
                for interface in new {
                    // Removing the pin detaches; the error to tell is the first one.
                    let _ = std::fs::remove_file(pins.link(Hook::Xdp, interface.index));
                }
                return Err(error);
            }
        }
    }
    Ok(whys)
}

/// What `unload` did.
#[derive(Serialize)]
struct Unloaded {
    interfaces: usize,
}

impl fmt::Display for Unloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "detached from {} interfaces; the table is gone, the catalog as it was", self.interfaces)
    }
}

pub(crate) fn unload(global: &Global) -> Result<()> {
    let pins = global.pins();
    pins.check_upgraded()?;
    if !pins.exist() {
        bail!("no gateway is loaded at {}", pins.folder().display());
    }
    let _lock = pins.lock()?;
    let interfaces = pins.links()?.len();
    pins.remove()?;
    global.print(&Unloaded { interfaces })
}
