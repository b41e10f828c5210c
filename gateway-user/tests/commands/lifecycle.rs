//! What the command does, from load to unload, as its output and the kernel show it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::bytes::{self, mapping as mapping_bytes, shown, shown_portal};
use crate::document::{catalog, lone, mapping};
use crate::gateway::{Gateway, dump, stdout, write_entry};

#[test]
fn from_load_to_unload() {
    let gateway = Gateway::new();
    let not_loaded = gateway.lungate(&["status", "--json"]).output().unwrap();
    assert_eq!(not_loaded.status.code(), Some(1), "status says by its exit that nothing is loaded");
    let status: Value = serde_json::from_slice(&not_loaded.stdout).unwrap();
    assert_eq!(status["loaded"], false);

    gateway.json(&["load", "--iface", "h0", "--iface", "d0", "--max-mappings", "100"]);
    let status = gateway.json(&["status"]);
    assert_eq!((&status["loaded"], &status["max_mappings"]), (&json!(true), &json!(100)));
    assert_eq!((&status["in_sync"], &status["mappings"]), (&Value::Null, &json!(0)));
    let attached = status["interfaces"].as_array().unwrap();
    let names: BTreeSet<_> = attached.iter().map(|there| there["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["d0", "h0"]));
    assert!(attached.iter().all(|there| there["mode"] == "native"), "{status}");

    let applied = gateway.apply(&catalog());
    assert_eq!(applied["mappings"], 3);
    let status = gateway.json(&["status"]);
    assert_eq!((&status["in_sync"], &status["mappings"]), (&json!(true), &json!(3)));
    assert_eq!(status["differences"], json!([]));

    assert_eq!(gateway.json(&["unload"])["interfaces"], 2);
    assert!(!gateway.pins().exists(), "pins stay behind");
    let links = stdout(Command::new("ip").args(["link", "show", "h0"]));
    assert!(!links.contains("xdp"), "the program is still attached: {links}");
    gateway.expect_refused(&["unload"], &["no gateway is loaded"]);
}

#[test]
fn a_second_apply_changes_nothing() {
    let gateway = Gateway::loaded();
    let first = gateway.apply(&catalog());
    assert_eq!(first["changes"].as_array().unwrap().len(), 6, "three mappings, both ways: {first}");
    let table = gateway.table();
    let again = gateway.apply(&catalog());
    assert_eq!(again["changes"], json!([]));
    assert_eq!(gateway.table(), table);
    // Without a name, the catalog that was applied last.
    assert_eq!(gateway.json(&["apply"])["catalog"], again["catalog"]);
}

#[test]
fn apply_follows_the_catalog() {
    let gateway = Gateway::loaded();
    gateway.apply(&lone(&[
        mapping("10.9.0.1:1", "10.2.0.11:1", &[]),
        mapping("10.9.0.1:2", "10.2.0.11:2", &["10.1.0.0/24"]),
    ]));
    assert_eq!(dump(&gateway.map("ACCESS")).len(), 1);
    let moved = lone(&[mapping("10.9.0.1:1", "10.2.0.12:1", &[])]);
    let file = gateway.write("catalog.json", &moved);
    let expected = ["move 10.9.0.1:1 from 10.2.0.11:1 to 10.2.0.12:1", "remove 10.9.0.1:2 (to 10.2.0.11:2)"];
    let lines = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    };
    let before = lines(&gateway.json(&["status"])["differences"]);
    assert!(expected.iter().all(|line| before.iter().any(|found| found == line)), "{before:?}");
    assert_eq!(lines(&gateway.json(&["apply", &file])["changes"]), before, "apply does what status foretold");
    assert_eq!(entries(&gateway, "FORWARD"), pairs(&[("10.9.0.1:1", "10.2.0.12:1")]));
    assert_eq!(entries(&gateway, "REVERSE"), pairs(&[("10.2.0.12:1", "10.9.0.1:1")]));
    assert_eq!(dump(&gateway.map("ACCESS")).len(), 0);
}

#[test]
fn loading_again_replaces_the_program_and_keeps_the_table() {
    let gateway = Gateway::loaded();
    gateway.apply(&catalog());
    let programs = |status: &Value| -> BTreeSet<u64> {
        let there = status["interfaces"].as_array().unwrap().iter();
        there.map(|interface| interface["prog_id"].as_u64().unwrap()).collect()
    };
    let (table, before) = (gateway.table(), programs(&gateway.json(&["status"])));
    // One of the two interfaces is named; the program is replaced on both.
    gateway.json(&["load", "--iface", "h0", "--max-mappings", "7"]);
    let status = gateway.json(&["status"]);
    let after = programs(&status);
    assert_eq!((before.len(), after.len()), (1, 1), "one program serves both interfaces");
    assert!(before.is_disjoint(&after), "the program is the old one: {before:?}");
    assert_eq!(gateway.table(), table);
    assert_eq!(status["max_mappings"], 16_384, "the table keeps its size");
    assert_eq!(status["in_sync"], true);
}

#[test]
fn bpftool_sees_the_table_that_is_listed() {
    let gateway = Gateway::loaded();
    let mut document = catalog();
    document["mappings"].as_array_mut().unwrap().push(mapping(
        "[fd09::1]:4001",
        "[fd02::11]:5005",
        &["fd01::/64"],
    ));
    gateway.apply(&document);
    let listed = gateway.json(&["map", "list"]);
    let listed: BTreeSet<(SocketAddr, SocketAddr)> = listed["mappings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let portal = |name: &str| line[name].as_str().unwrap().parse().unwrap();
            (portal("vip"), portal("device"))
        })
        .collect();
    assert_eq!(listed.len(), 4);
    assert_eq!(entries(&gateway, "FORWARD"), listed);
    let turned = listed.into_iter().map(|(vip, device)| (device, vip)).collect();
    assert_eq!(entries(&gateway, "REVERSE"), turned);
}

#[test]
fn mappings_are_added_moved_and_removed() {
    let gateway = Gateway::loaded();
    gateway.apply(&lone(&[]));
    gateway.json(&["map", "add", "10.9.0.1:1", "10.2.0.11:1"]);
    assert_eq!(entries(&gateway, "FORWARD"), pairs(&[("10.9.0.1:1", "10.2.0.11:1")]));
    let moved = gateway.json(&["map", "migrate", "10.9.0.1:1", "--to", "10.2.0.12:1"]);
    assert_eq!((&moved["from"], &moved["to"]), (&json!("10.2.0.11:1"), &json!("10.2.0.12:1")));
    assert_eq!(entries(&gateway, "FORWARD"), pairs(&[("10.9.0.1:1", "10.2.0.12:1")]));
    let both = pairs(&[("10.2.0.11:1", "10.9.0.1:1"), ("10.2.0.12:1", "10.9.0.1:1")]);
    assert_eq!(entries(&gateway, "REVERSE"), both, "late replies of the device before are still translated");
    assert_eq!(gateway.json(&["status"])["in_sync"], true, "the catalog holds each change");
    gateway.json(&["map", "remove", "10.9.0.1:1"]);
    assert_eq!(entries(&gateway, "FORWARD"), BTreeSet::new());
    assert_eq!(gateway.json(&["status"])["in_sync"], true);
}

#[test]
fn vips_and_filter_follow_the_table() {
    let gateway = Gateway::loaded();
    let vips = || -> BTreeSet<Vec<u8>> {
        dump(&gateway.map("VIPS")).iter().map(|entry| shown(&entry["key"])).collect()
    };
    let vip = |text: &str| bytes::address(text.parse().unwrap());
    let filter = || dump(&gateway.map("FILTER"))[0]["value"].clone();
    let empty = filter();
    gateway.apply(&lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &[])]));
    let (first, first_filter) = (gateway.table(), filter());
    assert_ne!(first_filter, empty);
    gateway.json(&["map", "add", "10.9.0.1:2", "10.2.0.11:2"]);
    assert_eq!(filter(), first_filter, "addresses are known already");
    gateway.json(&["map", "add", "10.9.0.2:1", "10.2.0.12:1"]);
    assert_eq!(vips(), BTreeSet::from([vip("10.9.0.1"), vip("10.9.0.2")]));
    gateway.json(&["map", "remove", "10.9.0.1:2"]);
    assert_eq!(vips(), BTreeSet::from([vip("10.9.0.1"), vip("10.9.0.2")]), "another port has the VIP");
    gateway.json(&["map", "remove", "10.9.0.2:1"]);
    assert_eq!(gateway.table(), first);
    gateway.json(&["map", "migrate", "10.9.0.1:1", "--to", "10.2.0.12:1"]);
    assert_ne!(filter(), first_filter, "both devices are in it");
    gateway.apply(&lone(&[]));
    assert_eq!((vips(), filter()), (BTreeSet::new(), empty));
}

#[test]
fn segments_are_clamped_as_the_catalog_says() {
    let gateway = Gateway::loaded();
    let mut document = catalog();
    gateway.apply(&document);
    document["volumes"]["vol0"]["mss_clamp"] = json!(1360);
    let changes = gateway.apply(&document)["changes"].clone();
    assert!(
        changes.as_array().unwrap().contains(&json!("change the MSS clamp of 10.9.0.1:4001")),
        "{changes}"
    );
    let listed = gateway.json(&["map", "list"]);
    let clamps: Vec<_> =
        listed["mappings"].as_array().unwrap().iter().map(|line| line["mss_clamp"].clone()).collect();
    assert_eq!(clamps, [json!(1360), json!(1360), Value::Null]);
    for map in ["FORWARD", "REVERSE"] {
        let entries = dump(&gateway.map(map));
        let clamped = entries.iter().map(|entry| shown(&entry["value"])[28..30].to_vec());
        let clamped = clamped.filter(|bytes| *bytes == 1360_u16.to_ne_bytes()).count();
        assert_eq!(clamped, 2, "{map}");
    }
    gateway.json(&["map", "migrate", "10.9.0.2:3260", "--to", "10.2.0.13:3260"]);
    assert_eq!(gateway.json(&["status"])["in_sync"], true);
    gateway.apply(&catalog());
    assert!(gateway.json(&["map", "list"])["mappings"][0]["mss_clamp"].is_null());
}

/// More entries than one system call takes.
#[test]
fn many_mappings_are_read_as_they_were_written() {
    let gateway = Gateway::new();
    gateway.json(&["load", "--iface", "h0", "--max-mappings", "20000"]);
    let many: Vec<Value> = (0..20_000_u32)
        .map(|i| {
            mapping(
                &format!("10.9.{}.1:{}", i / 60_000, i + 1),
                &format!("10.2.0.{}:{}", 1 + i % 200, i + 1),
                &[],
            )
        })
        .collect();
    let applied = gateway.apply(&lone(&many));
    assert_eq!(applied["changes"].as_array().unwrap().len(), 40_000);
    assert!(applied["kernel_ms"].as_f64().unwrap() > 0.0);
    let listed = gateway.json(&["map", "list"]);
    let pairs = |lines: &[Value]| -> BTreeSet<(String, String)> {
        lines.iter().map(|line| (line["vip"].to_string(), line["device"].to_string())).collect()
    };
    assert_eq!(pairs(listed["mappings"].as_array().unwrap()), pairs(&many));
    assert_eq!(gateway.apply(&lone(&many))["changes"], json!([]));
    gateway.apply(&lone(&[]));
    assert_eq!(gateway.json(&["map", "list"])["mappings"], json!([]));
}

/// Somebody else writes and removes entries all the while.
#[test]
fn a_table_is_read_whole_while_it_changes() {
    let gateway = Gateway::loaded();
    let many: Vec<Value> =
        (1..=500).map(|i| mapping(&format!("10.9.0.1:{i}"), &format!("10.2.0.11:{i}"), &[])).collect();
    gateway.apply(&lone(&many));
    let (forward, done) = (gateway.map("FORWARD"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in (1..=40_u8).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                let key = bytes::portal(&format!("10.8.0.{i}:1"));
                write_entry(&forward, &key, &mapping_bytes("10.2.0.99:1", 0, 0, 0));
                let mut delete = Command::new("bpftool");
                delete.args(["map", "delete", "pinned"]).arg(&forward).arg("key");
                stdout(delete.args(key.iter().map(u8::to_string)));
            }
        });
        for _ in 0..20 {
            let listed = gateway.json(&["map", "list"]);
            let vips =
                listed["mappings"].as_array().unwrap().iter().map(|line| line["vip"].as_str().unwrap());
            let stable: Vec<&str> = vips.filter(|vip| vip.starts_with("10.9.")).collect();
            assert_eq!(stable.len(), 500);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_change_leaves_alone_what_it_does_not_touch() {
    let gateway = Gateway::loaded();
    gateway.apply(&lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &[])]));
    // Something that the catalog does not know.
    let portal = bytes::portal("10.9.0.7:7");
    gateway.write_entry("FORWARD", &portal, &mapping_bytes("10.2.0.17:7", 0, 1, 0));
    gateway.json(&["map", "migrate", "10.9.0.1:1", "--to", "10.2.0.12:1"]);
    gateway.json(&["map", "add", "10.9.0.1:2", "10.2.0.11:2"]);
    assert_eq!(
        entries(&gateway, "FORWARD"),
        pairs(&[("10.9.0.1:1", "10.2.0.12:1"), ("10.9.0.7:7", "10.2.0.17:7"), ("10.9.0.1:2", "10.2.0.11:2")])
    );
    let counters = dump(&gateway.map("FORWARD"));
    let counters: BTreeSet<_> =
        counters.iter().map(|entry| shown(&entry["value"])[24..28].to_vec()).collect();
    assert_eq!(counters.len(), 3, "each has a counter of its own");
    let differences = gateway.json(&["status"])["differences"].clone();
    assert_eq!(differences, json!(["remove 10.9.0.7:7 (to 10.2.0.17:7)"]));
}

#[test]
fn stats_count_each_packet_once() {
    let gateway = Gateway::loaded();
    gateway.apply(&catalog());
    let program = gateway.json(&["status"])["interfaces"][0]["prog_id"].to_string();
    let send = |source: &str, destination: &str, times: usize| {
        let file = gateway.file("frame");
        std::fs::write(&file, segment(source.parse().unwrap(), destination.parse().unwrap())).unwrap();
        for _ in 0..times {
            stdout(Command::new("bpftool").args(["prog", "run", "id", &program, "data_in", &file]));
        }
    };
    send("10.1.0.2:40000", "10.9.0.1:4001", 3);
    send("10.2.0.11:5005", "10.1.0.2:40000", 2);
    send("10.1.0.2:40000", "10.9.0.1:4999", 1);
    send("10.1.0.2:40000", "10.2.0.11:5005", 1);
    send("10.1.0.2:40000", "10.2.0.99:5005", 2);
    send("10.1.0.2:40000", "10.9.0.2:3260", 1);
    let stats = gateway.json(&["stats"]);
    let mappings = stats["mappings"].as_array().unwrap();
    let used = mappings.iter().find(|line| line["vip"] == "10.9.0.1:4001").unwrap();
    assert_eq!(used["to_device"], json!({ "packets": 3, "bytes": 120 }));
    assert_eq!(used["to_host"], json!({ "packets": 2, "bytes": 80 }));
    assert_eq!(stats["to_device"], json!({ "packets": 4, "bytes": 160 }));
    assert_eq!(stats["to_host"], used["to_host"]);
    for (kind, reason, packets) in [
        ("dropped", "past_vip", 1),
        ("passed", "no_mapping", 2),
        ("answered", "port_closed", 1),
        ("handed", "no_neighbour", 1),
        ("errors", "error_to_host", 0),
    ] {
        assert_eq!(stats[kind]["by_reason"][reason], packets, "{reason}");
    }
}

/// A device in the hosts' own network: what comes in by an interface leaves by it, and another one is redirected to.
#[test]
fn a_packet_leaves_by_the_interface_it_came_in_by() {
    let gateway = Gateway::loaded();
    gateway
        .apply(&lone(&[mapping("10.9.0.1:1", "10.1.0.2:1", &[]), mapping("10.9.0.1:2", "10.2.0.11:2", &[])]));
    let status = gateway.json(&["status"]);
    let here = status["interfaces"].as_array().unwrap().iter().find(|there| there["name"] == "h0").unwrap();
    let (program, index) =
        (here["prog_id"].to_string(), u32::try_from(here["ifindex"].as_u64().unwrap()).unwrap());
    for (vip, action) in [("10.9.0.1:1", 3), ("10.9.0.1:2", 4)] {
        let frame = segment("10.1.0.9:40000".parse().unwrap(), vip.parse().unwrap());
        // Linux `struct xdp_md`: start, end, metadata, interface, its queue, and where it leaves.
        let context = [0, u32::try_from(frame.len()).unwrap(), 0, index, 0, 0];
        let (frame_file, context_file) = (gateway.file("frame"), gateway.file("context"));
        std::fs::write(&frame_file, frame).unwrap();
        std::fs::write(&context_file, context.map(u32::to_ne_bytes).concat()).unwrap();
        let run = ["--json", "prog", "run", "id", &program, "data_in", &frame_file, "ctx_in", &context_file];
        let result: Value = serde_json::from_str(&stdout(Command::new("bpftool").args(run))).unwrap();
        assert_eq!(result["retval"], action, "{vip}: {result}");
    }
}

/// A SYN in an Ethernet frame; the gateway takes its checksums as they are.
fn segment(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) else { return Vec::new() };
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0]);
    frame
}

fn pairs(of: &[(&str, &str)]) -> BTreeSet<(SocketAddr, SocketAddr)> {
    of.iter().map(|(key, peer)| (key.parse().unwrap(), peer.parse().unwrap())).collect()
}

/// A table's portals and peers, read from the bytes that bpftool shows.
fn entries(gateway: &Gateway, map: &str) -> BTreeSet<(SocketAddr, SocketAddr)> {
    let entries = dump(&gateway.map(map));
    entries.iter().map(|entry| (shown_portal(&entry["key"]), shown_portal(&entry["value"]))).collect()
}
