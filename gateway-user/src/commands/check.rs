//! `lungate check`: what would keep the gateway from working, and the command that mends it.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use rustix::system::uname;
use serde::Serialize;

use crate::cli::Global;
use crate::kernel;
use crate::network::{Interface, interface_named, interfaces};
use crate::object::{PROGRAM, program_name};

/// The smallest MTU at which drivers may refuse programs that do not know packets of several buffers.
const JUMBO: u32 = 3500;

/// Everything that was looked at.
#[derive(Serialize)]
struct Report {
    works: bool,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    /// The command that mends it.
    mend: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// Works, but worth knowing.
    Note,
    /// Would keep the gateway from working.
    Bad,
}

pub(crate) fn check(global: &Global, interface: Option<&str>) -> Result<ExitCode> {
    let mut report = Report { works: true, findings: Vec::new() };
    report.machine();
    if let Some(name) = interface {
        report.interface(&interface_named(name)?, &interfaces()?);
    }
    report.works = report.findings.iter().all(|finding| finding.verdict != Verdict::Bad);
    global.print(&report)?;
    Ok(if report.works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Report {
    fn find(&mut self, verdict: Verdict, what: impl Into<String>, mend: Option<String>) {
        // What is well needs no mending.
        let mend = mend.filter(|_| verdict != Verdict::Good);
        self.findings.push(Finding { what: what.into(), verdict, mend });
    }

    fn machine(&mut self) {
        let release = uname();
        let release = release.release().to_string_lossy();
        let verdict = if kernel::version() >= kernel::OLDEST { Verdict::Good } else { Verdict::Bad };
        let (major, minor) = kernel::OLDEST;
        let upgrade = format!("boot a kernel of version {major}.{minor} or later");
        self.find(verdict, format!("kernel {release} ({major}.{minor} or later is needed)"), Some(upgrade));

        let is_root = rustix::process::geteuid().is_root();
        let verdict = if is_root { Verdict::Good } else { Verdict::Bad };
        self.find(verdict, "privilege to load programs (root)", Some("run it with sudo".to_owned()));

        let has_btf = Path::new("/sys/kernel/btf/vmlinux").exists();
        let verdict = if has_btf { Verdict::Good } else { Verdict::Note };
        self.find(verdict, "the kernel's own type information (BTF), for tools that show the table", None);

        let (verdict, what) = match kernel::can_wait_for_programs() {
            Ok(()) => {
                (Verdict::Good, "the kernel can wait until programs have ended (membarrier)".to_owned())
            }
            Err(error) => (
                Verdict::Note,
                format!(
                    "the kernel cannot wait until programs have ended ({error}): INDEX stays empty, and packets are looked up more slowly"
                ),
            ),
        };
        let mend = "boot a kernel with CONFIG_MEMBARRIER, and without nohz_full".to_owned();
        self.find(verdict, what, Some(mend));

        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let has_bpffs = mounts.lines().any(|line| line.split(' ').nth(2) == Some("bpf"));
        let verdict = if has_bpffs { Verdict::Good } else { Verdict::Bad };
        self.find(verdict, "a BPF file system to pin in", Some("mount -t bpf bpf /sys/fs/bpf".to_owned()));

        for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let sysctl = format!("net.{}", family.replace('/', "."));
            let on = read_sysctl(&format!("/proc/sys/net/{family}")) == Some(1);
            let needed = family.starts_with("ipv4");
            let verdict = match (on, needed) {
                (true, _) => Verdict::Good,
                (false, true) => Verdict::Bad,
                (false, false) => Verdict::Note,
            };
            let what = format!(
                "{sysctl} is {}: next hops are looked up only while the kernel forwards",
                u8::from(on)
            );
            self.find(verdict, what, Some(format!("sysctl -w {sysctl}=1")));
        }
    }

    fn interface(&mut self, interface: &Interface, all: &[Interface]) {
        let name = &interface.name;
        if interface.is_ethernet {
            self.find(Verdict::Good, format!("{name} has Ethernet headers: XDP"), None);
            self.frames(interface, all);
        } else {
            self.find(Verdict::Good, format!("{name} has no Ethernet headers: tcx ingress"), None);
        }
        let filter =
            |scope: &str| read_sysctl(&format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter")).unwrap_or(0);
        let strict = filter("all").max(filter(name)) == 1;
        let verdict = if strict { Verdict::Note } else { Verdict::Good };
        let what = format!(
            "rp_filter on {name} is {}: strict filtering drops a reply whose next hop is not known yet",
            if strict { "strict" } else { "not strict" }
        );
        self.find(
            verdict,
            what,
            Some(format!("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{name}.rp_filter=2")),
        );
    }

    /// What only matters where the program sees frames.
    fn frames(&mut self, interface: &Interface, all: &[Interface]) {
        let name = &interface.name;
        if let Some(vlan) = interface.vlan {
            let below = vlan.parent.and_then(|parent| all.iter().find(|other| other.index == parent));
            let below = below.map_or("the interface below it", |below| below.name.as_str());
            let what = format!("{name} is a VLAN: the program on {below} looks through the tags");
            self.find(Verdict::Bad, what, Some(format!("lungate load --iface {below}")));
            return;
        }
        self.xdp(interface);
        let verdict = if interface.takes_multicast { Verdict::Good } else { Verdict::Note };
        let what = format!(
            "{name} takes in {} multicast frames: for an IPv6 VIP it must take in those in which hosts ask for it",
            if interface.takes_multicast { "all" } else { "some" }
        );
        self.find(verdict, what, Some(format!("ip link set dev {name} allmulticast on")));
        let is_above = |other: &&Interface| other.vlan.and_then(|vlan| vlan.parent) == Some(interface.index);
        if let Some(vlan) = all.iter().find(is_above) {
            let what = format!(
                "{} is a VLAN on {name}: a card that takes tags off before the program sees them hides it",
                vlan.name
            );
            self.find(Verdict::Note, what, Some(format!("ethtool -K {name} rxvlan off")));
        }
        if interface.mtu > JUMBO {
            let what =
                format!("MTU {} on {name}: the driver must know packets of several buffers", interface.mtu);
            self.find(
                Verdict::Note,
                what,
                Some(format!("lungate load --iface {name} --mode native says whether it does")),
            );
        }
        if interface.is_veth {
            let what = format!(
                "{name} is virtual: its peer receives redirected frames only with gro on, and must send finished checksums"
            );
            self.find(Verdict::Note, what, Some("ethtool -K PEER gro on tx off".to_owned()));
        }
    }

    fn xdp(&mut self, interface: &Interface) {
        let name = &interface.name;
        let Some(xdp) = interface.xdp else {
            return self.find(Verdict::Good, format!("{name} has no XDP program yet"), None);
        };
        let program = program_name(xdp.program);
        let (verdict, what, mend) = match (program == PROGRAM, xdp.mode) {
            (true, "native") => (Verdict::Good, "runs lungate in the driver".to_owned(), None),
            (true, mode) => (Verdict::Note, format!("runs lungate in {mode} mode, which is slower"), None),
            (false, _) => (
                Verdict::Bad,
                format!("has the foreign XDP program {program:?} (id {})", xdp.program),
                Some(format!("ip link set dev {name} xdp off")),
            ),
        };
        self.find(verdict, format!("{name} {what}"), mend);
    }
}

fn read_sysctl(path: &str) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { what, verdict, mend } in &self.findings {
            let word = match verdict {
                Verdict::Good => "good",
                Verdict::Note => "note",
                Verdict::Bad => "BAD ",
            };
            writeln!(f, "{word}  {what}")?;
            if let Some(mend) = mend {
                writeln!(f, "      {mend}")?;
            }
        }
        let verdict = if self.works { "nothing keeps the gateway from working" } else { "see what is BAD" };
        writeln!(f, "{verdict}")
    }
}
