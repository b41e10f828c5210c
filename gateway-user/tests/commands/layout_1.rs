//! A table of layout 1, as an older lungate has left it, is brought over by `load`, from wherever an earlier one was
//! interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bytes::{address, portal};
use crate::document::{lone, mapping};
use crate::foreign::Foreign;
use crate::gateway::{Gateway, stdout, write_entry};
use crate::index::Index;

const RESTRICTED: u32 = 2;
const RETIRED: u32 = 4;

/// The pins of an older lungate.
struct Old<'a> {
    gateway: &'a Gateway,
    folder: PathBuf,
}

impl<'a> Old<'a> {
    /// Maps for 100 mappings with nothing in them, on no interface.
    fn pin(gateway: &'a Gateway) -> Self {
        let folder = gateway.pins().join("1");
        fs::create_dir_all(folder.join("links")).unwrap();
        let old = Self { gateway, folder };
        for (name, kind, key, value, entries, flags) in [
            ("FORWARD", "hash", "20", "48", "100", "0"),
            ("REVERSE", "hash", "20", "48", "200", "0"),
            ("ACCESS", "lpm_trie", "24", "4", "400", "1"),
            ("LOCAL", "hash", "16", "4", "1024", "0"),
            ("TRAFFIC", "percpu_array", "4", "32", "100", "0"),
            ("REASONS", "percpu_array", "4", "8", "14", "0"),
            ("SETTINGS", "array", "4", "4096", "1", "0"),
        ] {
            let mut create = Command::new("bpftool");
            create.args(["map", "create"]).arg(old.folder.join(name)).args(["type", kind, "key", key]);
            create.args(["value", value, "entries", entries, "name", name, "flags", flags]);
            stdout(&mut create);
        }
        old
    }

    fn put(&self, map: &str, key: &str, peer: &str, flags: u32, counter: u32) {
        let mut value = portal(peer);
        value.extend(flags.to_ne_bytes());
        value.extend(counter.to_ne_bytes());
        value.extend([0; 20]);
        write_entry(&self.folder.join(map), &portal(key), &value);
    }

    /// A mapping for hosts in 10.1.0.0/24 with a retired portal and traffic, and the catalog that says so.
    fn fill(&self) {
        self.put("FORWARD", "10.9.0.1:1", "10.2.0.12:1", RESTRICTED, 7);
        self.put("REVERSE", "10.2.0.12:1", "10.9.0.1:1", RESTRICTED, 7);
        self.put("REVERSE", "10.2.0.11:1", "10.9.0.1:1", RETIRED, 7);
        let mut access = (32 + 96 + 24_u32).to_ne_bytes().to_vec();
        access.extend(7_u32.to_ne_bytes());
        access.extend(address("10.1.0.0".parse().unwrap()));
        write_entry(&self.folder.join("ACCESS"), &access, &1_u32.to_ne_bytes());
        let traffic: Vec<u8> = [3_u64, 300, 5, 500].into_iter().flat_map(u64::to_ne_bytes).collect();
        write_entry(&self.folder.join("TRAFFIC"), &7_u32.to_ne_bytes(), &traffic);
        let mut document = lone(&[mapping("10.9.0.1:1", "10.2.0.12:1", &["10.1.0.0/24"])]);
        document["retired"] = json!([{ "vip": "10.9.0.1:1", "device": "10.2.0.11:1" }]);
        let catalog = self.gateway.write("catalog.json", &document);
        let mut settings = 0_u32.to_ne_bytes().to_vec();
        settings.extend(u32::try_from(catalog.len()).unwrap().to_ne_bytes());
        settings.extend(catalog.as_bytes());
        settings.resize(4096, 0);
        write_entry(&self.folder.join("SETTINGS"), &0_u32.to_ne_bytes(), &settings);
    }

    /// A program on an interface, its link pinned; the link's identifier.
    fn attach(&self, interface: &str) -> u64 {
        let pin = self.folder.join("links").join(index(interface));
        Foreign::attach(interface).pin(&pin);
        link(&pin)
    }
}

/// What `fill` wrote is there, and what `load` is to leave of layout 1: nothing.
fn expect_brought_over(gateway: &Gateway) {
    assert!(!gateway.pins().join("1").exists());
    let status = gateway.json(&["status"]);
    assert_eq!((&status["in_sync"], &status["mappings"]), (&json!(true), &json!(1)), "{status}");
    let listed = gateway.json(&["map", "list"]);
    assert_eq!(listed["mappings"][0]["device"], "10.2.0.12:1");
    assert_eq!(listed["retired"], json!([{ "vip": "10.9.0.1:1", "device": "10.2.0.11:1" }]));
    Index::of(gateway).expect_whole("the upgrade");
    let again = gateway.json(&["apply"]);
    assert_eq!(again["changes"], json!([]));
}

/// The program of this lungate is on an interface, by that link.
fn expect_attached(gateway: &Gateway, interface: &str, by: u64) {
    assert_eq!(link(&gateway.pins().join("2/links").join(format!("xdp-{}", index(interface)))), by);
    let status = gateway.json(&["status"]);
    let there = status["interfaces"].as_array().unwrap().iter().find(|there| there["name"] == interface);
    let program = there.unwrap()["prog_id"].to_string();
    let shown = stdout(Command::new("bpftool").args(["--json", "prog", "show", "id", &program]));
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["name"], "lungate");
}

fn index(interface: &str) -> String {
    let shown = stdout(Command::new("ip").args(["-json", "link", "show", interface]));
    serde_json::from_str::<Value>(&shown).unwrap()[0]["ifindex"].to_string()
}

fn link(pin: &Path) -> u64 {
    let shown = stdout(Command::new("bpftool").args(["--json", "link", "show", "pinned"]).arg(pin));
    serde_json::from_str::<Value>(&shown).unwrap()["id"].as_u64().unwrap()
}

#[test]
fn entries_counters_settings_and_links_are_brought_over() {
    let gateway = Gateway::new();
    let old = Old::pin(&gateway);
    old.fill();
    let (h0, d0) = (old.attach("h0"), old.attach("d0"));
    // Until then nothing else is done with it.
    gateway.expect_refused(&["apply"], &["no gateway is loaded"]);
    let status = gateway.json(&["load", "--iface", "h0"]);
    assert_eq!(status["max_mappings"], 100, "the table keeps its size");
    expect_brought_over(&gateway);
    expect_attached(&gateway, "h0", h0);
    // Not named, but an old program must not stay with an old table.
    expect_attached(&gateway, "d0", d0);
    let cpus = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let cpus = cpus.trim().rsplit('-').next().unwrap().parse::<u64>().unwrap() + 1;
    let stats = gateway.json(&["stats"]);
    let flow = |packets, bytes| json!({ "packets": packets * cpus, "bytes": bytes * cpus });
    assert_eq!(stats["mappings"][0]["to_device"], flow(3, 300));
    assert_eq!(stats["mappings"][0]["to_host"], flow(5, 500));
}

#[test]
fn a_larger_table_can_be_asked_for() {
    let gateway = Gateway::new();
    Old::pin(&gateway).fill();
    assert_eq!(gateway.json(&["load", "--iface", "h0", "--max-mappings", "200"])["max_mappings"], 200);
    expect_brought_over(&gateway);
    let gateway = Gateway::new();
    Old::pin(&gateway).fill();
    assert_eq!(gateway.json(&["load", "--iface", "h0", "--max-mappings", "1"])["max_mappings"], 100);
    expect_brought_over(&gateway);
}

#[test]
fn a_copy_that_was_interrupted_begins_anew() {
    let gateway = Gateway::new();
    let old = Old::pin(&gateway);
    old.fill();
    let h0 = old.attach("h0");
    fs::create_dir_all(gateway.pins().join("2/links")).unwrap();
    let mut create = Command::new("bpftool");
    create.args(["map", "create"]).arg(gateway.map("FORWARD"));
    create.args(["type", "hash", "key", "20", "value", "32", "entries", "3", "name", "FORWARD"]);
    stdout(&mut create);
    gateway.expect_refused(&["map", "list"], &["layout 1", "not brought over", "lungate load"]);
    gateway.json(&["load", "--iface", "h0"]);
    expect_brought_over(&gateway);
    expect_attached(&gateway, "h0", h0);
}

#[test]
fn links_that_were_left_are_brought_over_and_the_table_stays() {
    let gateway = Gateway::new();
    let old = Old::pin(&gateway);
    old.fill();
    let h0 = old.attach("h0");
    gateway.json(&["load", "--iface", "h0"]);
    // As if it had ended after the first of two links; the entries of the old table no longer count.
    let old = Old::pin(&gateway);
    let d0 = old.attach("d0");
    gateway.expect_refused(&["apply"], &["layout 1", "lungate load"]);
    gateway.json(&["load", "--iface", "h0"]);
    expect_brought_over(&gateway);
    expect_attached(&gateway, "h0", h0);
    expect_attached(&gateway, "d0", d0);
}

#[test]
fn pins_that_were_left_are_removed_and_the_table_stays() {
    let gateway = Gateway::new();
    Old::pin(&gateway).fill();
    gateway.json(&["load", "--iface", "h0"]);
    let old = Old::pin(&gateway);
    fs::remove_file(old.folder.join("FORWARD")).unwrap();
    // Of the last interface, which has gone.
    for hook in ["xdp", "egress"] {
        fs::remove_file(gateway.pins().join("2/links").join(format!("{hook}-{}", index("h0")))).unwrap();
    }
    gateway.json(&["load", "--iface", "d0"]);
    expect_brought_over(&gateway);
}

#[test]
fn an_upgrade_that_fails_leaves_the_old_table_alone() {
    let gateway = Gateway::new();
    let old = Old::pin(&gateway);
    old.fill();
    let h0 = old.attach("h0");
    gateway.expect_refused(&["load", "--iface", "nosuch0"], &["nosuch0"]);
    // Of another form than that of any lungate.
    fs::remove_file(old.folder.join("REVERSE")).unwrap();
    let mut create = Command::new("bpftool");
    create.args(["map", "create"]).arg(old.folder.join("REVERSE"));
    create.args(["type", "hash", "key", "20", "value", "8", "entries", "3", "name", "REVERSE"]);
    stdout(&mut create);
    gateway.expect_refused(&["load", "--iface", "h0"], &["cannot copy", "1/REVERSE", "8", "48"]);
    assert!(!gateway.pins().join("2").exists());
    assert_eq!(link(&old.folder.join("links").join(index("h0"))), h0);
}

#[test]
fn an_interface_that_cannot_be_had_costs_no_entry() {
    let gateway = Gateway::new();
    Old::pin(&gateway).fill();
    let foreign = Foreign::attach("h0");
    gateway.expect_refused(&["load", "--iface", "h0"], &["h0", "foreign"]);
    drop(foreign);
    gateway.json(&["load", "--iface", "d0"]);
    expect_brought_over(&gateway);
}
