//! The whole path: what the demonstration shows, held to account.

use anyhow::{Result, ensure};
use serde_json::Value;
use xtask::demo;
use xtask::step::output;
use xtask::workspace::binaries;

#[test]
fn the_demonstration_finds_no_error() -> Result<()> {
    let (summary, lab) = demo::run(&binaries(), false)?;
    summary.show();
    ensure!(summary.errors == 0, "{} errors", summary.errors);
    ensure!(summary.gateway_connections == 0, "the gateway's kernel had TCP connections");
    // fio's volume and three borders, qemu-img's comparison before and after the move.
    ensure!(summary.bytes_verified >= 3 * (256 << 20), "only {} bytes were verified", summary.bytes_verified);
    ensure!(summary.packets.to_device > 10_000 && summary.packets.to_host > 10_000, "{:?}", summary.packets);
    let moved: Vec<u16> =
        summary.extents.iter().filter(|e| e.device_before != e.device_after).map(|e| e.port).collect();
    ensure!(moved == [4003], "{moved:?} moved");
    ensure!(summary.migrate_first_io_ms > 0.0, "the time to the first command is missing");

    // The kernel's table as lungate and as bpftool show it.
    let listed: Value = serde_json::from_str(&lab.lungate(&["map", "list", "--json"])?)?;
    let ours = listed["mappings"].as_array().into_iter().flatten();
    let mut ours: Vec<(String, String)> = ours.map(|m| (text(&m["vip"]), text(&m["device"]))).collect();
    ours.sort();
    let pinned = lab.pin_root().join("2/FORWARD");
    let mut bpftool = std::process::Command::new("bpftool");
    let dump = output(bpftool.args(["--json", "map", "dump", "pinned"]).arg(pinned))?;
    let dump: Value = serde_json::from_str(&dump)?;
    let entries = dump.as_array().into_iter().flatten();
    let mut theirs: Vec<(String, String)> = entries
        .map(|entry| (portal(&entry["formatted"]["key"]), portal(&entry["formatted"]["value"]["peer"])))
        .collect();
    theirs.sort();
    ensure!(ours.len() == 4 && ours == theirs, "lungate says {ours:?}, bpftool says {theirs:?}");

    // A second application of the catalog has nothing to do, and the table agrees with it.
    let applied: Value = serde_json::from_str(&lab.lungate(&["apply", "--json"])?)?;
    ensure!(applied["changes"] == Value::Array(Vec::new()), "apply changed {}", applied["changes"]);
    let status: Value = serde_json::from_str(&lab.lungate(&["status", "--json"])?)?;
    ensure!(status["in_sync"] == true && status["interfaces"][0]["mode"] == "native", "{status}");
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A portal from the named fields that bpftool shows: sixteen bytes of address, two of port.
fn portal(fields: &Value) -> String {
    let byte = |value: &Value| {
        value.as_u64().or_else(|| u64::from_str_radix(value.as_str()?.trim_start_matches("0x"), 16).ok())
    };
    let bytes = |value: &Value| value.as_array().into_iter().flatten().filter_map(byte).collect::<Vec<_>>();
    let (address, port) = (bytes(&fields["address"]["bytes"]), bytes(&fields["port"]));
    match (&address[..], &port[..]) {
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, a, b, c, d], [high, low]) => {
            format!("{a}.{b}.{c}.{d}:{}", high * 256 + low)
        }
        _ => format!("not a portal: {fields}"),
    }
}
