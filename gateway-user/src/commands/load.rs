//! `lungate load` and `lungate unload`.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::Global;
use crate::clock::Clock;
use crate::commands::status::Status;
use crate::kernel;
use crate::links::{Hook, Link, Mode, attach, links, replace_elsewhere};
use crate::network::{Interface, interface_named, interfaces};
use crate::object::{self, PROGRAM};
use crate::pins::Pins;
use crate::surroundings::refresh;
use crate::upgrade::Upgrade;

/// How many mappings a table holds where nobody says.
const MAX_MAPPINGS: u32 = 16_384;
/// How long the kernel may take to detach what is not pinned any more.
const DETACHED: Duration = Duration::from_secs(5);

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
            } else {
                // No frame may be redirected to what was taken back.
                refresh(&pins).context("cannot take back what was done before the error below").ok();
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
    let mut linked: BTreeSet<u32> = pins.links()?.into_iter().map(|(interface, _)| interface).collect();
    linked.extend(pins.links_before()?.into_iter().map(|(_, interface)| interface));
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
    upgrade: Upgrade,
) -> Result<Vec<(u32, String)>> {
    let mut ebpf = object::load(pins, max_mappings)?;
    Clock::pin(&mut ebpf, pins)?;
    upgrade.copy(pins)?;
    refresh(pins)?;
    upgrade.finish(pins, object::program(&mut ebpf, PROGRAM)?)?;
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
    replace_elsewhere(&mut ebpf, pins, interfaces)?;
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
    pins.check_upgraded()?;
    if !pins.exist() {
        bail!("no gateway is loaded at {}", pins.folder().display());
    }
    let _lock = pins.lock()?;
    let links = links(&pins)?;
    let interfaces = links.iter().map(|link| link.interface).collect::<BTreeSet<_>>().len();
    pins.remove()?;
    wait_until_detached(&links)?;
    global.print(&Unloaded { interfaces })
}

/// The kernel detaches a little later than it is told; until then another `load` would take the programs for foreign
/// ones.
fn wait_until_detached(links: &[Link]) -> Result<()> {
    let programs: BTreeSet<u32> = links.iter().map(|link| link.program).collect();
    let end = Instant::now() + DETACHED;
    let is_attached =
        |interface: &Interface| interface.xdp.is_some_and(|xdp| programs.contains(&xdp.program));
    while interfaces()?.iter().any(is_attached) {
        if Instant::now() >= end {
            bail!("the pins are removed, but the kernel has not detached the programs yet");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
