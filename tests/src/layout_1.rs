//! A gateway at work put back to where an older lungate would have left it: the table pinned in layout 1, and nothing
//! of this layout pinned. The programs go on, in the same links, by maps that nobody can reach any more.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::step::output;

use crate::net::Net;

/// Name, type, sizes of key and value, entries and flags of every map.
const MAPS: [[&str; 6]; 7] = [
    ["FORWARD", "hash", "20", "48", "100", "0"],
    ["REVERSE", "hash", "20", "48", "200", "0"],
    ["ACCESS", "lpm_trie", "24", "4", "400", "1"],
    ["LOCAL", "hash", "16", "4", "1024", "0"],
    ["TRAFFIC", "percpu_array", "4", "32", "100", "0"],
    ["REASONS", "percpu_array", "4", "8", "14", "0"],
    ["SETTINGS", "array", "4", "4096", "1", "0"],
];
const RETIRED: u32 = 4;

/// Writes the table as it is down in layout 1, moves the pins of the links there and removes those of layout 2.
pub fn bring_back(net: &Net) -> Result<()> {
    let listed = net.lab.lungate(&["map", "list"])?;
    let (new, old) = (net.lab.pin_root().join("2"), net.lab.pin_root().join("1"));
    fs::create_dir_all(old.join("links"))?;
    for [name, kind, key, value, entries, flags] in MAPS {
        let mut create = bpftool(&["map", "create"]);
        create.arg(old.join(name)).args(["type", kind, "key", key, "value", value]);
        output(create.args(["entries", entries, "name", name, "flags", flags]))?;
    }
    let lines = |key: &str| -> Result<Vec<(SocketAddr, SocketAddr)>> {
        let lines = listed[key].as_array().with_context(|| format!("no {key} in {listed}"))?;
        lines.iter().map(|line| Ok((portal(&line["vip"])?, portal(&line["device"])?))).collect()
    };
    let mut counters = Vec::new();
    for (vip, device) in lines("mappings")? {
        let counter = u32::try_from(counters.len())?;
        counters.push(vip);
        put(&old.join("FORWARD"), vip, device, 0, counter)?;
        put(&old.join("REVERSE"), device, vip, 0, counter)?;
    }
    for (vip, device) in lines("retired")? {
        let counter = counters.iter().position(|known| *known == vip).context("a retired line of no VIP")?;
        put(&old.join("REVERSE"), device, vip, RETIRED, u32::try_from(counter)?)?;
    }
    let catalog = net.lab.folder().join("catalog.json");
    let catalog = catalog.to_str().context("a path that is no text")?.as_bytes();
    let mut settings = [&0_u32.to_ne_bytes(), &u32::try_from(catalog.len())?.to_ne_bytes(), catalog].concat();
    settings.resize(4096, 0);
    update(&old.join("SETTINGS"), &0_u32.to_ne_bytes(), &settings)?;
    move_links(&new, &old)
}

/// Links of XDP are moved; what layout 1 did not know goes.
fn move_links(new: &Path, old: &Path) -> Result<()> {
    for entry in fs::read_dir(new.join("links"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.strip_prefix("xdp-") {
            Some(interface) => fs::rename(&path, old.join("links").join(interface))?,
            None => fs::remove_file(&path)?,
        }
    }
    fs::remove_dir_all(new).with_context(|| format!("cannot remove {}", new.display()))
}

fn put(map: &Path, key: SocketAddr, peer: SocketAddr, flags: u32, counter: u32) -> Result<()> {
    let mut value = bytes(peer);
    value.extend(flags.to_ne_bytes());
    value.extend(counter.to_ne_bytes());
    value.extend([0; 20]);
    ensure!(value.len() == 48);
    update(map, &bytes(key), &value)
}

fn update(map: &Path, key: &[u8], value: &[u8]) -> Result<()> {
    let mut update = bpftool(&["map", "update", "pinned"]);
    update.arg(map);
    for (word, bytes) in [("key", key), ("value", value)] {
        update.arg(word).args(bytes.iter().map(u8::to_string));
    }
    output(&mut update).map(|_| ())
}

/// Sixteen bytes of address, two of port in network byte order, two of nothing.
fn bytes(portal: SocketAddr) -> Vec<u8> {
    let mut bytes = match portal.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.extend(portal.port().to_be_bytes());
    bytes.extend([0; 2]);
    bytes
}

fn portal(text: &Value) -> Result<SocketAddr> {
    text.as_str().and_then(|text| text.parse().ok()).with_context(|| format!("{text} is no portal"))
}

fn bpftool(arguments: &[&str]) -> Command {
    let mut command = Command::new("bpftool");
    command.args(arguments);
    command
}
