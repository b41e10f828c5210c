//! A lab in network namespaces: one host, one gateway, a switch, and devices that each run a real `tgtd` with the
//! project's shim in front of it. Nothing in it can reach anything outside.
//!
//! ```text
//!   host ── eth0 10.77.1.2 │ 10.77.1.1 host0 ── gateway ── dev0 10.77.2.1 │ switch ── eth0 10.77.2.11 ── device a
//!                                                                               └──── eth0 10.77.2.12 ── device b
//! ```
//!
//! The volume `vol0` has the VIP 10.77.100.1, which the host routes to the gateway.

pub mod bare;
pub(crate) mod ledger;
mod plan;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lungate_catalog::model::Catalog;
use rustix::thread::LinkNameSpaceType;
use serde_json::json;

use crate::step::output;
use crate::workspace::Binaries;
use ledger::{Ledger, remove_pins};
pub use plan::{DEVICES, Device, EXTENT_BLOCKS, Lun, PORTAL, VOLUME};

/// Names of namespaces and folders begin so; what follows is the process that made them.
const PREFIX: &str = "lungate-";
/// The same for labs that are to stay.
const KEPT_PREFIX: &str = "lungate-kept-";
/// How long anything in a lab may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where processes of a lab write their logs, sockets, disks and settings.
const FOLDERS: &str = "/run/lungate-lab";
pub(crate) const PIN_ROOTS: &str = "/sys/fs/bpf";

/// A lab; dropping it takes everything down.
#[derive(Debug)]
pub struct Lab {
    name: String,
    folder: PathBuf,
    pins: PathBuf,
    binaries: Binaries,
    ledger: Arc<Ledger>,
    keep: bool,
}

/// A machine of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The host.
    Host,
    /// The gateway.
    Gateway,
    /// The switch between gateway and devices.
    Switch,
    /// A device.
    Device(Device),
}

impl Machine {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Gateway => "gateway",
            Self::Switch => "switch",
            Self::Device(device) => device.name,
        }
    }
}

impl Lab {
    /// Makes the network, and on every device a target with its LUNs and a shim in front of it.
    pub fn new(binaries: &Binaries, keep: bool) -> Result<Self> {
        let name = prepare(keep)?;
        let lab = Self {
            folder: Path::new(FOLDERS).join(&name),
            pins: Path::new(PIN_ROOTS).join(&name),
            name,
            binaries: binaries.clone(),
            ledger: Ledger::open(),
            keep,
        };
        lab.ledger.folder(&lab.folder)?;
        lab.ledger.pins(&lab.pins);
        lab.network().context("cannot make the lab's network")?;
        lab.write("catalog.json", &plan::catalog()?.to_text()?)?;
        for device in DEVICES {
            lab.start_target(device)?;
            lab.start_shim(device)?;
        }
        Ok(lab)
    }

    /// The folder with the lab's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The catalog's file.
    pub fn catalog_file(&self) -> PathBuf {
        self.folder.join("catalog.json")
    }

    /// Where the gateway's maps and links are pinned.
    pub fn pin_root(&self) -> &Path {
        &self.pins
    }

    /// The file behind a LUN.
    pub fn disk(&self, device: Device, lun: &Lun) -> PathBuf {
        self.folder.join(format!("{}-lun{}.img", device.name, lun.lun))
    }

    /// A command on a machine of the lab.
    pub fn on(&self, machine: Machine, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace(machine).display())).arg("--").arg(program);
        command.env("TGT_IPC_SOCKET", self.folder.join(format!("{}-tgt.sock", machine.name())));
        command
    }

    /// The network namespace of a machine, for [`enter`].
    pub fn namespace(&self, machine: Machine) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}-{}", self.name, machine.name()))
    }

    /// `lungate` on the gateway; gives what it prints.
    pub fn lungate(&self, arguments: &[&str]) -> Result<String> {
        output(self.lungate_command().args(arguments))
    }

    /// `lungate` on the gateway, to be run.
    pub fn lungate_command(&self) -> Command {
        let mut command = self.on(Machine::Gateway, &self.binaries.gateway);
        command.arg("--pin-root").arg(&self.pins);
        command
    }

    /// Attaches the program to both interfaces of the gateway and fills the table.
    pub fn load_gateway(&self) -> Result<serde_json::Value> {
        let text =
            self.lungate(&["load", "--mode", "native", "--iface", "host0", "--iface", "dev0", "--json"])?;
        let catalog = self.catalog_file();
        output(self.lungate_command().arg("apply").arg(catalog))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Starts a device's real target and its LUNs.
    pub fn start_target(&self, device: Device) -> Result<()> {
        let name = format!("tgtd-{}", device.name);
        let mut tgtd = self.on(Machine::Device(device), "tgtd");
        tgtd.args(["--foreground", "--iscsi", &format!("portal={}", plan::BACKEND)]);
        self.start(&name, &mut tgtd)?;
        let tgtadm = |arguments: &[&str]| {
            let mut tgtadm = self.on(Machine::Device(device), "tgtadm");
            output(tgtadm.args(["--lld", "iscsi"]).args(arguments))
        };
        self.wait(&name, || tgtadm(&["--op", "show", "--mode", "target"]).is_ok())?;
        for (number, lun) in device.luns.iter().enumerate() {
            let tid = (number + 1).to_string();
            let disk = self.disk(device, lun);
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&disk)
                .and_then(|file| file.set_len(EXTENT_BLOCKS * 512))
                .with_context(|| format!("cannot make {}", disk.display()))?;
            tgtadm(&["--op", "new", "--mode", "target", "--tid", &tid, "-T", &lun.target_name(device)])?;
            tgtadm(&[
                "--op",
                "new",
                "--mode",
                "logicalunit",
                "--tid",
                &tid,
                "--lun",
                &lun.lun.to_string(),
                "-b",
                &disk.to_string_lossy(),
            ])?;
            tgtadm(&[
                "--op",
                "update",
                "--mode",
                "target",
                "--tid",
                &tid,
                "--name",
                "HeaderDigest",
                "--value",
                "CRC32C",
            ])?;
            tgtadm(&["--op", "bind", "--mode", "target", "--tid", &tid, "-I", "ALL"])?;
        }
        Ok(())
    }

    /// Starts a device's shim, with the device's view of the catalog.
    pub fn start_shim(&self, device: Device) -> Result<()> {
        let view = self.catalog()?.device_view(device.name).context("the device is not in the catalog")?;
        let file = format!("{}.json", device.name);
        self.write(&file, &serde_json::to_string_pretty(&view)?)?;
        let config =
            self.write(&format!("{}-target.json", device.name), &json!({ "device": file }).to_string())?;
        let mut shim = self.on(Machine::Device(device), &self.binaries.target);
        shim.arg("--config").arg(config);
        self.start_ready(&format!("lungate-target-{}", device.name), &mut shim)
    }

    /// Starts the host's daemon, with the host's view of the catalog.
    pub fn start_host(&self) -> Result<()> {
        let config = self.host_config()?;
        let mut host = self.on(Machine::Host, &self.binaries.host);
        host.arg("--config").arg(config);
        self.start_ready("lungate-host", &mut host)
    }

    /// The host's settings; written anew from the catalog.
    pub fn host_config(&self) -> Result<PathBuf> {
        let view = self.catalog()?.host_view(VOLUME).context("the volume is not in the catalog")?;
        self.write("vol0.json", &serde_json::to_string_pretty(&view)?)?;
        let control = self.folder.join("host-control.sock");
        let config = json!({ "volumes": ["vol0.json"], "portal": PORTAL, "control_socket": control });
        self.write("host.json", &config.to_string())
    }

    /// `lungate-host` on the host, to be run with a command.
    pub fn host_command(&self) -> Command {
        let mut command = self.on(Machine::Host, &self.binaries.host);
        command.arg("--config").arg(self.folder.join("host.json"));
        command
    }

    /// The URL of the volume, for initiators on the host.
    pub fn url(&self) -> String {
        format!("iscsi://{PORTAL}/iqn.2026-11.io.lungate:{VOLUME}/0")
    }

    /// The catalog as it stands.
    pub fn catalog(&self) -> Result<Catalog> {
        Ok(lungate_catalog::store::Store::read(&self.catalog_file())?)
    }

    /// Starts a process that stays; what it prints goes to a log of its name.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<u32> {
        let log = self.folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        self.ledger.process(name, command, self.keep)
    }

    /// Starts a daemon that says "ready" on its standard output, and waits for that.
    fn start_ready(&self, name: &str, command: &mut Command) -> Result<()> {
        let out = self.folder.join(format!("{name}.out"));
        let log = self.folder.join(format!("{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(stderr);
        self.ledger.process(name, command, self.keep)?;
        let is_ready = || {
            let lines = File::open(&out).map(|file| BufReader::new(file).lines().map_while(Result::ok));
            lines.is_ok_and(|mut lines| lines.any(|line| line.starts_with("ready")))
        };
        self.wait(name, is_ready)
    }

    /// Ends a process by the name that it was started with: with SIGTERM, or at once.
    pub fn end(&self, name: &str, at_once: bool) -> Result<()> {
        self.ledger.end(name, at_once)
    }

    /// Waits for a condition; fails early where the process that it depends on has ended.
    pub fn wait(&self, process: &str, condition: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            let ended = self.ledger.ended(process);
            if ended.is_some() || Instant::now() > deadline {
                let log = self.folder.join(format!("{process}.log"));
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let why =
                    ended.map_or_else(|| "was not ready in time".to_owned(), |how| format!("ended: {how}"));
                bail!("{process} {why}\n{}", said.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Lets the lab stand, and says how to use it and how to take it down.
    pub fn keep(self) -> String {
        self.ledger.keep();
        let enter = |machine: &str| format!("  nsenter --net=/run/netns/{}-{machine}", self.name);
        let machines = ["host", "gateway", "switch", "a", "b"].map(enter).join("\n");
        format!(
            "the lab {} stands; its files are in {}\nenter its machines with\n{machines}\nuse the gateway with\n  nsenter --net=/run/netns/{}-gateway -- {} --pin-root {} status\ntake it down with\n  cargo xtask lab down {}",
            self.name,
            self.folder.display(),
            self.name,
            self.binaries.gateway.display(),
            self.pins.display(),
            self.name
        )
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn network(&self) -> Result<()> {
        let machines = [Machine::Host, Machine::Gateway, Machine::Switch].into_iter();
        for machine in machines.chain(DEVICES.map(Machine::Device)) {
            self.ledger.namespace(&format!("{}-{}", self.name, machine.name()))?;
            self.shell(machine, "ip link set lo up")?;
        }
        let peer = |machine: Machine| format!("netns {}-{}", self.name, machine.name());
        let (host, gateway, switch) = (peer(Machine::Host), peer(Machine::Gateway), peer(Machine::Switch));
        // A veth that is to receive a redirected frame needs NAPI, which gro turns on; hosts and devices must
        // send whole checksums, as real network cards do.
        self.shell(
            Machine::Gateway,
            &format!("ip link add name host0 {gateway} type veth peer name eth0 {host}"),
        )?;
        self.shell(
            Machine::Gateway,
            &format!("ip link add name dev0 {gateway} type veth peer name gateway {switch}"),
        )?;
        self.shell(
            Machine::Host,
            "ip addr add 10.77.1.2/24 dev eth0; ip link set eth0 up; ip route add 10.77.100.0/24 via 10.77.1.1;
             ethtool -K eth0 tx off gro on >/dev/null",
        )?;
        self.shell(
            Machine::Gateway,
            "ip addr add 10.77.1.1/24 dev host0; ip addr add 10.77.2.1/24 dev dev0; ip link set host0 up;
             ip link set dev0 up; sysctl -qw net.ipv4.ip_forward=1;
             for i in all host0 dev0; do sysctl -qw net.ipv4.conf.$i.rp_filter=0; done",
        )?;
        self.shell(
            Machine::Switch,
            "ip link add name br0 type bridge; ip link set br0 up; ip link set gateway master br0 up;
             ethtool -K gateway gro on >/dev/null",
        )?;
        for device in DEVICES {
            let (name, address) = (device.name, device.address);
            let there = peer(Machine::Device(device));
            self.shell(Machine::Switch, &format!("ip link add name port-{name} {switch} type veth peer name eth0 {there}; ip link set port-{name} master br0 up"))?;
            self.shell(
                Machine::Device(device),
                &format!(
                    "ip addr add {address}/24 dev eth0; ip link set eth0 up; ip route add default via 10.77.2.1;
                     ethtool -K eth0 tx off gro on >/dev/null"
                ),
            )?;
        }
        Ok(())
    }

    fn shell(&self, machine: Machine, script: &str) -> Result<()> {
        output(self.on(machine, "sh").args(["-ec", script])).map(|_| ())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.ledger.undo();
    }
}

/// Makes the machine ready for a lab, and gives the lab's name, which no other has.
fn prepare(keep: bool) -> Result<String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    sweep();
    mount_bpffs()?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let prefix = if keep { KEPT_PREFIX } else { PREFIX };
    Ok(format!("{prefix}{}-{number}", std::process::id()))
}

/// Mounts the BPF file system where nobody has done so yet.
pub(crate) fn mount_bpffs() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    if mounts.lines().any(|line| line.split(' ').skip(1).take(2).eq([PIN_ROOTS, "bpf"])) {
        return Ok(());
    }
    output(Command::new("mount").args(["-t", "bpf", "bpf", PIN_ROOTS])).map(|_| ())
}

/// Moves the calling thread into a network namespace; for threads that end afterwards.
pub fn enter(namespace: &Path) -> Result<()> {
    let file = File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter {}", namespace.display()))
}

/// Takes down what a process that was killed has left behind.
fn sweep() {
    for name in labs() {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let maker = rest.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            take_down(&name);
        }
    }
}

/// The names of all labs on this machine.
pub fn labs() -> Vec<String> {
    let entries = std::fs::read_dir(FOLDERS).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Takes a lab down by its name: the processes in its namespaces, the namespaces, files and pins.
pub fn take_down(name: &str) {
    let listed = output(Command::new("ip").args(["netns", "list"])).unwrap_or_default();
    let namespaces = listed.lines().filter_map(|line| line.split(' ').next());
    for namespace in namespaces.filter(|namespace| namespace.starts_with(&format!("{name}-"))) {
        let pids = output(Command::new("ip").args(["netns", "pids", namespace])).unwrap_or_default();
        for pid in pids.lines().filter_map(|pid| pid.trim().parse::<i32>().ok()) {
            // SAFETY: sends a signal; the processes of a namespace of a lab are the lab's own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let _ = output(Command::new("ip").args(["netns", "del", namespace]));
    }
    remove_pins(&Path::new(PIN_ROOTS).join(name));
    let _ = std::fs::remove_dir_all(Path::new(FOLDERS).join(name));
}

/// A device's portal for one of its LUNs.
pub fn portal(device: Device, lun: &Lun) -> SocketAddr {
    SocketAddr::new(device.address, lun.port)
}
