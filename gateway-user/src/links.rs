//! The programs' attachments to interfaces: BPF links, pinned, so that they outlive the command.

use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp};
use clap::ValueEnum;
use rustix::io::Errno;

use crate::network::Interface;
use crate::object::{EGRESS_PROGRAM, PROGRAM, TUNNEL_PROGRAM, program, program_name};
use crate::pins::Pins;

/// How the program for frames is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// In the driver where that works, above it otherwise.
    Auto,
    /// In the driver.
    Native,
    /// Above the driver: works everywhere, at the price of a socket buffer for each packet.
    Generic,
}

/// Where a program sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// XDP, where frames come in.
    Xdp,
    /// tcx ingress, where packets come in that have no Ethernet headers.
    Tunnel,
    /// tcx egress, for what the kernel itself sends about translated packets.
    Egress,
}

/// What came of attaching.
pub(crate) struct Attached {
    /// It was not there before.
    pub(crate) is_new: bool,
    /// Why it is attached as it is, as far as only attaching shows it.
    pub(crate) why: Option<String>,
}

/// A pinned link.
pub(crate) struct Link {
    pub(crate) interface: u32,
    pub(crate) hook: Hook,
    /// The program's identifier in the kernel.
    pub(crate) program: u32,
}

impl Hook {
    pub(crate) const ALL: [Self; 3] = [Self::Xdp, Self::Tunnel, Self::Egress];

    /// The hooks of an interface. The way out first, so that it is there when the first packet comes in.
    pub(crate) fn of(interface: &Interface) -> [Self; 2] {
        [Self::Egress, if interface.is_ethernet { Self::Xdp } else { Self::Tunnel }]
    }

    /// The name in the path of its pin.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tunnel => "tunnel",
            Self::Egress => "egress",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Xdp => PROGRAM,
            Self::Tunnel => TUNNEL_PROGRAM,
            Self::Egress => EGRESS_PROGRAM,
        }
    }
}

/// The links that are pinned.
pub(crate) fn links(pins: &Pins) -> Result<Vec<Link>> {
    let links = pins.links()?.into_iter().map(|(interface, hook)| {
        let link = FdLink::from(open(&pins.link(hook, interface))?);
        Ok(Link { interface, hook, program: link.info()?.program_id() })
    });
    links.collect()
}

/// Attaches a program to an interface, or replaces it there.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interface: &Interface,
    hook: Hook,
    mode: Mode,
) -> Result<Attached> {
    let path = pins.link(hook, interface.index);
    if path.exists() && replace(ebpf, &path, &interface.name, hook)? {
        return Ok(Attached { is_new: false, why: None });
    }
    let (link, why) = match hook {
        Hook::Xdp => attach_xdp(program(ebpf, hook.program())?, interface, mode)?,
        Hook::Tunnel if mode == Mode::Native => bail!(
            "{0} has no Ethernet headers, so no driver runs the XDP program there: leave out --mode, and {0} is served at tcx ingress",
            interface.name
        ),
        Hook::Tunnel => (attach_tcx(program(ebpf, hook.program())?, interface, TcAttachType::Ingress)?, None),
        Hook::Egress => (attach_tcx(program(ebpf, hook.program())?, interface, TcAttachType::Egress)?, None),
    };
    link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
    Ok(Attached { is_new: true, why })
}

/// Replaces the programs of links whose interfaces are not in this network namespace; forgets those whose interfaces
/// are gone.
pub(crate) fn replace_elsewhere(ebpf: &mut Ebpf, pins: &Pins, here: &[Interface]) -> Result<()> {
    for (index, hook) in pins.links()? {
        if !here.iter().any(|interface| interface.index == index) {
            let name = format!("the interface of index {index}, which is not here");
            replace(ebpf, &pins.link(hook, index), &name, hook)?;
        }
    }
    Ok(())
}

/// Replaces the program in a link, in one step for packets. Says no where the link has lost its interface, and
/// forgets it then.
fn replace(ebpf: &mut Ebpf, path: &Path, name: &str, hook: Hook) -> Result<bool> {
    let link = FdLink::from(open(path)?);
    let replaced = match hook {
        Hook::Xdp => {
            let link = XdpLink::try_from(link)?;
            program::<Xdp>(ebpf, hook.program())?.attach_to_link(link).map(drop)
        }
        Hook::Tunnel | Hook::Egress => {
            let link = SchedClassifierLink::try_from(link)?;
            program::<SchedClassifier>(ebpf, hook.program())?.attach_to_link(link).map(drop)
        }
    };
    match replaced.map_err(anyhow::Error::from) {
        Ok(()) => Ok(true),
        Err(error) if errno(&error) == Some(Errno::NOLINK) => {
            std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
            Ok(false)
        }
        Err(error) => Err(error.context(format!("cannot replace {} on {name}", hook.program()))),
    }
}

fn attach_xdp(program: &mut Xdp, interface: &Interface, mode: Mode) -> Result<(FdLink, Option<String>)> {
    let name = &interface.name;
    if let Some(foreign) = interface.xdp {
        bail!(
            "{name} already has the XDP program {:?} (id {}), which is not of this gateway: detach it first with 'ip link set dev {name} xdp off'",
            program_name(foreign.program),
            foreign.program,
        );
    }
    if interface.vlan.is_some() {
        bail!("{name} is a VLAN: load the interface below it, where the program looks through the tags");
    }
    let (link, why) = match mode {
        Mode::Native => {
            (create_xdp(program, interface, XdpMode::Driver)?, "native mode was asked for".to_owned())
        }
        Mode::Generic => {
            (create_xdp(program, interface, XdpMode::Skb)?, "generic mode was asked for".to_owned())
        }
        Mode::Auto => match create_xdp(program, interface, XdpMode::Driver) {
            Ok(link) => return Ok((link, None)),
            Err(error) => {
                eprintln!("{error:#}; using generic mode, which is slower");
                let why = format!("the driver cannot run it: {}", error.root_cause());
                (create_xdp(program, interface, XdpMode::Skb)?, why)
            }
        },
    };
    Ok((link, Some(why)))
}

/// Creates a link. An attachment without a link, to which aya falls back, could not be pinned: it is undone.
fn create_xdp(program: &mut Xdp, interface: &Interface, mode: XdpMode) -> Result<FdLink> {
    let name = &interface.name;
    let attached = program.attach_to_if_index(interface.index, mode).with_context(|| {
        let (word, hint) = if matches!(mode, XdpMode::Driver) {
            ("native", format!("; try --mode generic or see 'lungate check {name}'"))
        } else {
            ("generic", format!("; see 'lungate check {name}'"))
        };
        format!("cannot attach XDP to {name} in {word} mode{hint}")
    });
    let link = program.take_link(attached?)?;
    FdLink::try_from(link).map_err(|_| {
        anyhow!("the kernel cannot attach {PROGRAM} to {name} as a BPF link: Linux 5.9 or later is needed")
    })
}

fn attach_tcx(program: &mut SchedClassifier, interface: &Interface, at: TcAttachType) -> Result<FdLink> {
    let name = &interface.name;
    let way = if at == TcAttachType::Ingress { "ingress" } else { "egress" };
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let attached = program.attach_with_options(name, at, order).with_context(|| {
        format!(
            "cannot attach to tcx {way} of {name}: Linux 6.6 or later is needed; see 'lungate check {name}'"
        )
    });
    let link = program.take_link(attached?)?;
    FdLink::try_from(link).map_err(|_| anyhow!("{name}: the attachment to tcx {way} is no BPF link"))
}

fn open(path: &Path) -> Result<PinnedLink> {
    PinnedLink::from_pin(path).with_context(|| format!("cannot open {}", path.display()))
}

/// The system call's error at the bottom of an error.
fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).and_then(Errno::from_io_error)
}
