//! The program's attachments to interfaces: BPF links, pinned, so that they outlive the command.

use anyhow::{Context, Result, anyhow, bail};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use clap::ValueEnum;

use crate::network::Interface;
use crate::object::{PROGRAM, program_name};
use crate::pins::Pins;

/// How the program is attached.
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
}

impl Hook {
    pub(crate) const ALL: [Self; 1] = [Self::Xdp];

    /// The name in the path of its pin.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
        }
    }
}

/// Attaches the program to an interface, or replaces it there. Says whether it is new there, and why it is
/// attached as it is.
pub(crate) fn attach(
    program: &mut Xdp,
    pins: &Pins,
    interface: &Interface,
    mode: Mode,
) -> Result<(bool, &'static str)> {
    let path = pins.link(Hook::Xdp, interface.index);
    if path.exists() {
        let link = PinnedLink::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let link = XdpLink::try_from(FdLink::from(link))?;
        program
            .attach_to_link(link)
            .with_context(|| format!("cannot replace the program on {}", interface.name))?;
        return Ok((false, "it was attached so before"));
    }
    if let Some(foreign) = interface.xdp {
        bail!(
            "{} already has the XDP program {:?} (id {}), which is not of this gateway: detach it first with 'ip link set dev {} xdp off'",
            interface.name,
            program_name(foreign.program),
            foreign.program,
            interface.name
        );
    }
    if !interface.is_ethernet {
        bail!("{} has no Ethernet headers, which the XDP program needs", interface.name);
    }
    let (link, why) = match mode {
        Mode::Native => (create(program, interface, XdpMode::Driver)?, "native mode was asked for"),
        Mode::Generic => (create(program, interface, XdpMode::Skb)?, "generic mode was asked for"),
        Mode::Auto => match create(program, interface, XdpMode::Driver) {
            Ok(link) => (link, "the driver supports it"),
            Err(error) => {
                eprintln!("{error:#}; using generic mode, which is slower");
                (create(program, interface, XdpMode::Skb)?, "the driver does not support native mode")
            }
        },
    };
    link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
    Ok((true, why))
}

/// Creates a link. An attachment without a link, to which aya falls back, could not be pinned: it is undone.
fn create(program: &mut Xdp, interface: &Interface, mode: XdpMode) -> Result<FdLink> {
    let attached = program.attach_to_if_index(interface.index, mode);
    let id = attached.map_err(|error| explain(error, interface, mode))?;
    let link = program.take_link(id)?;
    FdLink::try_from(link).map_err(|_| {
        anyhow!(
            "the kernel cannot attach {PROGRAM} to {} as a BPF link: Linux 5.9 or later is needed",
            interface.name
        )
    })
}

fn explain(error: ProgramError, interface: &Interface, mode: XdpMode) -> anyhow::Error {
    let name = &interface.name;
    let native = matches!(mode, XdpMode::Driver);
    let (word, hint) = if native {
        ("native", format!("; try --mode generic or see 'lungate check {name}'"))
    } else {
        ("generic", format!("; see 'lungate check {name}'"))
    };
    anyhow!(error).context(format!("cannot attach XDP to {name} in {word} mode{hint}"))
}
