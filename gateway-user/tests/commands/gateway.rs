//! A gateway for one test: a network namespace that ends with the thread, and a folder of pins of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;
use tempfile::TempDir;

const BPFFS: &str = "/sys/fs/bpf";

const NETWORK: &str = "
ip link set lo up
ip link add h0 type veth peer name h1
ip link add d0 type veth peer name d1
for i in h0 h1 d0 d1; do ip link set $i up; done
sysctl -qw net.ipv4.ip_forward=1
ip addr add 10.1.0.1/24 dev h0; ip addr add 10.2.0.1/24 dev d0
ip neigh add 10.1.0.2 lladdr 02:00:00:00:01:02 dev h0 nud permanent
ip neigh add 10.2.0.11 lladdr 02:00:00:00:02:11 dev d0 nud permanent
";

/// Tells apart the pins of the tests of one process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where a test runs the command; what it pinned is gone when this is dropped.
pub(crate) struct Gateway {
    pins: PathBuf,
    folder: TempDir,
}

impl Gateway {
    /// A machine on which nothing is loaded.
    pub(crate) fn new() -> Self {
        // SAFETY: only the network namespace of this thread changes; no file descriptors are shared anew.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("tests of the gateway need root");
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
            stdout(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]));
        }
        shell(NETWORK);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins = Path::new(BPFFS).join(format!("lungate-test-{}-{number}", std::process::id()));
        Self { pins, folder: TempDir::new().unwrap() }
    }

    /// The same with the program on both interfaces.
    pub(crate) fn loaded() -> Self {
        let gateway = Self::new();
        gateway.json(&["load", "--iface", "h0", "--iface", "d0"]);
        gateway
    }

    /// Where the pins of this gateway begin.
    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    /// Where a map is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.pins.join("2").join(name)
    }

    /// The command with arguments, not yet started.
    pub(crate) fn lungate(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lungate"));
        // Nothing of the tester's own settings.
        command.env_remove("LUNGATE_PIN_ROOT").env_remove("LUNGATE_CATALOG");
        command.arg("--pin-root").arg(&self.pins).args(arguments);
        command
    }

    /// What a command that must succeed prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&stdout(self.lungate(arguments).arg("--json"))).unwrap()
    }

    /// What a command that must fail says.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.lungate(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} succeeded; it said {said}");
        assert!(output.stdout.is_empty(), "{arguments:?} failed, and printed a result");
        said
    }

    /// The command must fail and name all of `parts`.
    pub(crate) fn expect_refused(&self, arguments: &[&str], parts: &[&str]) {
        let said = self.refused(arguments);
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: {part:?} is not in: {said}");
        }
    }

    /// Writes a document and applies it.
    pub(crate) fn apply(&self, document: &Value) -> Value {
        let file = self.write("catalog.json", document);
        self.json(&["apply", &file])
    }

    /// Writes a document; its path.
    pub(crate) fn write(&self, name: &str, document: &Value) -> String {
        let file = self.file(name);
        fs::write(&file, document.to_string()).unwrap();
        file
    }

    /// The path of a file of this test.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes an entry of a map past the command, as bytes.
    pub(crate) fn write_entry(&self, name: &str, key: &[u8], value: &[u8]) {
        write_entry(&self.map(name), key, value);
    }

    /// Every entry of every map that decides about packets, as the kernel has them; in no order of its own.
    pub(crate) fn table(&self) -> Vec<String> {
        let mut entries = Vec::new();
        for name in ["FORWARD", "REVERSE", "VIPS", "FILTER", "ACCESS", "SETTINGS"] {
            let dump = dump(&self.map(name));
            // Without the interpretation, which repeats the bytes.
            entries.extend(dump.iter().map(|entry| format!("{name} {} {}", entry["key"], entry["value"])));
        }
        entries.sort();
        entries
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Not there where nothing was loaded, or where it was unloaded again.
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// Runs a script in the network namespace of the test's thread.
pub(crate) fn shell(script: &str) {
    stdout(Command::new("sh").args(["-ec", script]));
}

/// A pinned map's entries as bpftool has them.
pub(crate) fn dump(map: &Path) -> Vec<Value> {
    let text = stdout(Command::new("bpftool").args(["--json", "map", "dump", "pinned"]).arg(map));
    serde_json::from_str(&text).unwrap()
}

/// Writes an entry of a pinned map.
pub(crate) fn write_entry(map: &Path, key: &[u8], value: &[u8]) {
    let mut command = Command::new("bpftool");
    command.args(["map", "update", "pinned"]).arg(map);
    for (word, bytes) in [("key", key), ("value", value)] {
        command.arg(word).args(bytes.iter().map(u8::to_string));
    }
    stdout(&mut command);
}

/// What a command that must succeed prints.
pub(crate) fn stdout(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
