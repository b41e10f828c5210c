//! `lungate load` and `lungate unload`.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::Global;
use crate::commands::status::Status;
use crate::links::{Hook, Mode, attach};
use crate::network::{Interface, interface_named, interfaces};
use crate::object;
use crate::pins::Pins;
use crate::surroundings::refresh;

pub(crate) fn load(global: &Global, names: &[String], mode: Mode, max_mappings: u32) -> Result<()> {
    let pins = global.pins();
    pins.check_layout()?;
    let was_loaded = pins.exist();
    let interfaces = wanted(&pins, names)?;
    let max_mappings = if was_loaded { object::pinned_capacity(&pins)? } else { max_mappings };
    eprintln!(
        "the table holds {max_mappings} mappings and takes at most {} MiB of the kernel's memory",
        object::memory(max_mappings).div_ceil(1 << 20)
    );
    pins.create()?;
    let loaded = attach_all(&pins, &interfaces, mode, max_mappings);
    let whys = match loaded {
        Ok(whys) => whys,
        Err(error) => {
            if !was_loaded {
                // Nothing was there before, so nothing stays.
                pins.remove().context("cannot take back what was done before the error below").ok();
            }
            return Err(error);
        }
    };
    let mut status = Status::read(global)?;
    for (interface, why) in whys {
        status.explain(interface, &why);
    }
    global.print(&status)
}

/// The interfaces that were named, and those on which a program is to be replaced.
fn wanted(pins: &Pins, names: &[String]) -> Result<Vec<Interface>> {
    let mut wanted = names.iter().map(|name| interface_named(name)).collect::<Result<Vec<_>>>()?;
    let linked: BTreeSet<u32> = pins.links()?.into_iter().map(|(interface, _)| interface).collect();
    let here = interfaces()?.into_iter().filter(|interface| linked.contains(&interface.index));
    wanted.extend(here);
    wanted.sort_by_key(|interface| interface.index);
    wanted.dedup_by_key(|interface| interface.index);
    Ok(wanted)
}

/// Attaches to every interface, or to none. Why those that are new are attached as they are.
fn attach_all(
    pins: &Pins,
    interfaces: &[Interface],
    mode: Mode,
    max_mappings: u32,
) -> Result<Vec<(u32, String)>> {
    let mut ebpf = object::load(pins, max_mappings)?;
    refresh(pins)?;
    let (mut new, mut whys) = (Vec::new(), Vec::new());
    for interface in interfaces {
        for hook in Hook::of(interface) {
            match attach(&mut ebpf, pins, interface, hook, mode) {
                Ok(attached) => {
                    new.extend(attached.is_new.then(|| pins.link(hook, interface.index)));
                    whys.extend(attached.why.map(|why| (interface.index, why)));
                }
                Err(error) => {
                    for path in new {
                        // Removing the pin detaches; the error to tell is the first one.
                        let _ = std::fs::remove_file(path);
                    }
                    return Err(error);
                }
            }
        }
    }
    // Only now frames can be redirected to what is new.
    refresh(pins)?;
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
    if !pins.exist() {
        bail!("no gateway is loaded at {}", pins.folder().display());
    }
    let interfaces = pins.links()?.into_iter().map(|(interface, _)| interface).collect::<BTreeSet<_>>().len();
    pins.remove()?;
    global.print(&Unloaded { interfaces })
}
