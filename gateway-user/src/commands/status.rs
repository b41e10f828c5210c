//! `lungate status`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use lungate_catalog::store::Store;
use lungate_gateway_common::table::LAYOUT;
use serde::Serialize;

use crate::cli::Global;
use crate::links::{Hook, Link, links};
use crate::network::{Interface, interfaces};
use crate::pins::Pins;
use crate::surroundings::Surroundings;
use crate::table::{Content, Table};

/// What is loaded, and how it differs from the catalog.
#[derive(Serialize)]
pub(crate) struct Status {
    loaded: bool,
    layout: u32,
    pin_path: PathBuf,
    interfaces: Vec<Attachment>,
    /// A `lungate serve` promises to follow changes of routes, neighbours and links at once.
    watched: bool,
    mappings: usize,
    max_mappings: u32,
    catalog: Option<PathBuf>,
    /// Whether kernel and catalog agree; `null` where no catalog was applied yet.
    in_sync: Option<bool>,
    differences: Vec<String>,
}

/// The programs on one interface.
#[derive(Serialize)]
struct Attachment {
    name: String,
    ifindex: u32,
    /// Where packets come in: "xdp", "tcx", or "none".
    hook: &'static str,
    /// "native" or "generic" for XDP, "ingress" for tcx, "none" where nothing is attached.
    mode: &'static str,
    prog_id: u32,
    /// The program at tcx egress; `null` where there is none.
    egress_prog_id: Option<u32>,
    why: String,
}

pub(crate) fn status(global: &Global) -> Result<ExitCode> {
    let status = Status::read(global)?;
    global.print(&status)?;
    Ok(if status.loaded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Status {
    /// Looks at pins, interfaces, table and catalog.
    pub(crate) fn read(global: &Global) -> Result<Self> {
        let pins = global.pins();
        let mut status = Self {
            loaded: pins.exist(),
            layout: LAYOUT,
            pin_path: pins.folder().to_owned(),
            interfaces: Vec::new(),
            watched: false,
            mappings: 0,
            max_mappings: 0,
            catalog: None,
            in_sync: None,
            differences: Vec::new(),
        };
        if !status.loaded {
            return Ok(status);
        }
        status.interfaces = attachments(&pins)?;
        status.watched = Surroundings::open(&pins)?.are_watched()?;
        let table = Table::open(&pins)?;
        let content = table.content()?;
        status.mappings = content.forward.len();
        status.max_mappings = table.capacity();
        status.catalog = global.catalog.clone().or(table.catalog()?);
        if let Some(path) = &status.catalog {
            // What is attached is so, whether or not its catalog can be read and would fit.
            let wanted = Store::read(path).map_err(anyhow::Error::from);
            let wanted = wanted.and_then(|catalog| table.wanted(&catalog.gateway_view(), &content));
            status.differences = match wanted {
                Ok(wanted) => differences(&content, &wanted),
                Err(error) => vec![format!("nothing: {error:#}")],
            };
            status.in_sync = Some(status.differences.is_empty());
        }
        Ok(status)
    }

    /// Says why an interface is attached as it is.
    pub(crate) fn explain(&mut self, interface: u32, why: &str) {
        if let Some(attachment) = self.interfaces.iter_mut().find(|a| a.ifindex == interface) {
            why.clone_into(&mut attachment.why);
        }
    }
}

/// What is attached where.
fn attachments(pins: &Pins) -> Result<Vec<Attachment>> {
    let here = interfaces()?;
    let mut linked: BTreeMap<u32, Vec<Link>> = BTreeMap::new();
    for link in links(pins)? {
        linked.entry(link.interface).or_default().push(link);
    }
    Ok(linked
        .into_iter()
        .map(|(index, links)| match here.iter().find(|interface| interface.index == index) {
            Some(interface) => Attachment::of(interface, &links),
            None => Attachment {
                name: "(gone)".to_owned(),
                ifindex: index,
                hook: "none",
                mode: "none",
                prog_id: 0,
                egress_prog_id: None,
                why: "the interface is not in this network namespace".to_owned(),
            },
        })
        .collect())
}

impl Attachment {
    fn of(interface: &Interface, links: &[Link]) -> Self {
        let at = |hook| links.iter().find(|link| link.hook == hook).map(|link| link.program);
        let (hook, mode, prog_id, why) = match (at(Hook::Xdp), at(Hook::Tunnel)) {
            (Some(program), _) => match interface.xdp.filter(|xdp| xdp.program == program) {
                Some(xdp) if xdp.mode == "native" => ("xdp", xdp.mode, program, "the driver runs it"),
                Some(xdp) => {
                    ("xdp", xdp.mode, program, "the driver cannot run it, or generic mode was asked for")
                }
                None => ("xdp", "none", 0, "the program is not attached any more"),
            },
            (None, Some(program)) => ("tcx", "ingress", program, "no Ethernet headers: tcx ingress"),
            (None, None) => ("none", "none", 0, "nothing takes packets in: load it again"),
        };
        Self {
            name: interface.name.clone(),
            ifindex: interface.index,
            hook,
            mode,
            prog_id,
            egress_prog_id: at(Hook::Egress),
            why: why.to_owned(),
        }
    }
}

/// Each change that would make the kernel's table equal to the catalog's, as a line of text.
pub(crate) fn differences(now: &Content, wanted: &Content) -> Vec<String> {
    let mut found = Vec::new();
    let vips: BTreeSet<_> = now.forward.keys().chain(wanted.forward.keys()).collect();
    for vip in vips {
        found.extend(match (now.forward.get(vip), wanted.forward.get(vip)) {
            (None, Some(line)) => Some(format!("add {vip} to {}", line.peer)),
            (Some(line), None) => Some(format!("remove {vip} (to {})", line.peer)),
            (Some(old), Some(new)) if old.peer != new.peer => {
                Some(format!("move {vip} from {} to {}", old.peer, new.peer))
            }
            (Some(old), Some(new)) if old.flags != new.flags => Some(format!("change the flags of {vip}")),
            (Some(old), Some(new)) if old.mss != new.mss => Some(format!("change the MSS clamp of {vip}")),
            (Some(old), Some(new)) if old != new => Some(format!("change the counter of {vip}")),
            _ => None,
        });
    }
    let devices: BTreeSet<_> = now.reverse.keys().chain(wanted.reverse.keys()).collect();
    for device in devices {
        let (old, new) = (now.reverse.get(device), wanted.reverse.get(device));
        found.extend(match (old, new) {
            (None, Some(line)) => Some(format!("translate replies of {device} to {}", line.peer)),
            (Some(_), None) => Some(format!("forget replies of {device}")),
            (Some(old), Some(new)) if old != new => {
                Some(format!("change how replies of {device} are translated"))
            }
            _ => None,
        });
    }
    if now.access != wanted.access {
        found.push("change access lists".to_owned());
    }
    found
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.loaded {
            return writeln!(f, "no gateway is loaded at {}", self.pin_path.display());
        }
        writeln!(f, "loaded at {} (layout {})", self.pin_path.display(), self.layout)?;
        for Attachment { name, hook, mode, prog_id, egress_prog_id, why, .. } in &self.interfaces {
            if *mode == "none" {
                write!(f, "  {name}: {why}")?;
            } else {
                write!(f, "  {name}: {hook} {mode}, program {prog_id}: {why}")?;
            }
            match egress_prog_id {
                Some(egress) => writeln!(f, "; tcx egress, program {egress}")?,
                None => writeln!(f)?,
            }
        }
        let how = if self.watched {
            "at once: 'lungate serve' runs"
        } else {
            "within 200 ms: no 'lungate serve' runs"
        };
        writeln!(f, "changes of routes, neighbours and links are followed {how}")?;
        writeln!(f, "{} of {} mappings", self.mappings, self.max_mappings)?;
        match (&self.catalog, self.in_sync) {
            (Some(path), Some(true)) => {
                writeln!(f, "catalog {}: the kernel's table is equal", path.display())
            }
            (Some(path), _) => {
                writeln!(f, "catalog {}: 'lungate apply' would", path.display())?;
                self.differences.iter().try_for_each(|line| writeln!(f, "  {line}"))
            }
            (None, _) => writeln!(f, "no catalog was applied yet: see 'lungate apply --help'"),
        }
    }
}
