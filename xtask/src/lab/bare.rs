//! Machines in network namespaces with nothing on them: for labs that need a network and `lungate`, and no targets.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::ledger::Ledger;
use super::{FOLDERS, PIN_ROOTS, enter, prepare};
use crate::step::output;
use crate::workspace::Binaries;

/// Machines, a folder and a place for pins; dropping it takes everything down.
#[derive(Debug)]
pub struct Bare {
    name: String,
    folder: PathBuf,
    pins: PathBuf,
    binaries: Binaries,
    ledger: Arc<Ledger>,
}

impl Bare {
    /// Makes machines of these names, one of them `gateway`, with nothing but loopback.
    pub fn new(binaries: &Binaries, machines: &[&str]) -> Result<Self> {
        let name = prepare(false)?;
        let bare = Self {
            folder: Path::new(FOLDERS).join(&name),
            pins: Path::new(PIN_ROOTS).join(&name),
            name,
            binaries: binaries.clone(),
            ledger: Ledger::open(),
        };
        bare.ledger.folder(&bare.folder)?;
        bare.ledger.pins(&bare.pins);
        for machine in machines {
            bare.ledger.namespace(&bare.namespace(machine))?;
            bare.shell(machine, "ip link set lo up")?;
        }
        Ok(bare)
    }

    /// The name of a machine's network namespace.
    pub fn namespace(&self, machine: &str) -> String {
        format!("{}-{machine}", self.name)
    }

    /// The folder with the lab's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the gateway's maps and links are pinned.
    pub fn pin_root(&self) -> &Path {
        &self.pins
    }

    /// A command on a machine.
    pub fn on(&self, machine: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path(machine).display())).arg("--").arg(program);
        command
    }

    /// Runs a script on a machine; gives what it prints.
    pub fn shell(&self, machine: &str, script: &str) -> Result<String> {
        output(self.on(machine, "sh").args(["-ec", script]))
    }

    /// Runs a closure on a machine. Sockets that it makes stay there.
    pub fn within<T: Send>(&self, machine: &str, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path(machine);
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| enter(&path).and_then(|()| run()));
            inside.join().unwrap_or_else(|_| Err(anyhow!("a thread on {machine} panicked")))
        })
    }

    /// `lungate` on the gateway, to be run.
    pub fn lungate_command(&self) -> Command {
        let mut command = self.on("gateway", &self.binaries.gateway);
        command.env_remove("LUNGATE_CATALOG").arg("--pin-root").arg(&self.pins);
        command
    }

    /// What `lungate` on the gateway prints as JSON.
    pub fn lungate(&self, arguments: &[&str]) -> Result<Value> {
        let text = output(self.lungate_command().arg("--json").args(arguments))?;
        serde_json::from_str(&text).with_context(|| format!("lungate {arguments:?} has not answered in JSON"))
    }

    /// Starts a process that stays until the lab goes; what it prints goes to a log of its name.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<u32> {
        let log = self.log(name);
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        self.ledger.process(name, command, false)
    }

    /// Where a process that was started writes what it prints.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Whether a process has ended by itself, and how.
    pub fn ended(&self, name: &str) -> Option<String> {
        self.ledger.ended(name)
    }

    /// Ends a process by its name with SIGKILL.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.ledger.end(name, true)
    }

    fn path(&self, machine: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.namespace(machine))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.ledger.undo();
    }
}
