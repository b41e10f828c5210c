//! Bad input: an exit that is not zero, an error that names thing and value, and nothing changed.

use std::fs;

use serde_json::{Value, json};

use crate::document::{catalog, lone, mapping};
use crate::foreign::{self, Foreign};
use crate::gateway::Gateway;

#[test]
fn nothing_works_before_load() {
    let gateway = Gateway::new();
    let file = gateway.write("catalog.json", &catalog());
    let commands: [&[&str]; 6] = [
        &["apply", &file],
        &["map", "list"],
        &["map", "add", "10.9.0.1:1", "10.2.0.11:1"],
        &["stats"],
        &["watch"],
        &["unload"],
    ];
    for arguments in commands {
        gateway.expect_refused(arguments, &["no gateway is loaded", gateway.pins().to_str().unwrap()]);
    }
    assert!(!gateway.pins().exists());
}

#[test]
fn load_attaches_to_all_interfaces_or_to_none() {
    let gateway = Gateway::new();
    gateway.expect_refused(&["load", "--iface", "h0", "--iface", "nosuch0"], &["nosuch0", "h0", "d0"]);
    gateway.expect_refused(&["load", "--iface", "h0", "--mode", "fast"], &["fast", "auto, native, generic"]);
    gateway.expect_refused(&["load", "--iface", "h0", "--max-mappings", "0"], &["0", "max-mappings"]);
    let foreign = Foreign::attach("d0");
    let parts = ["d0", foreign::NAME, "ip link set dev d0 xdp off"];
    gateway.expect_refused(&["load", "--iface", "h0", "--iface", "d0"], &parts);
    assert!(!gateway.pins().exists() || fs::read_dir(gateway.pins()).unwrap().next().is_none());
    drop(foreign);
    gateway.json(&["load", "--iface", "h0", "--iface", "d0"]);
}

#[test]
fn a_foreign_program_leaves_a_loaded_gateway_alone() {
    let gateway = Gateway::new();
    gateway.json(&["load", "--iface", "h0"]);
    gateway.apply(&catalog());
    let table = gateway.table();
    let _foreign = Foreign::attach("d0");
    gateway.expect_refused(&["load", "--iface", "d0"], &["d0", foreign::NAME]);
    assert_eq!(gateway.table(), table);
    let status = gateway.json(&["status"]);
    assert_eq!(status["interfaces"].as_array().unwrap().len(), 1);
    assert_eq!((&status["interfaces"][0]["name"], &status["in_sync"]), (&json!("h0"), &json!(true)));
}

#[test]
fn pins_of_another_layout_or_outside_a_bpf_file_system_are_refused() {
    let gateway = Gateway::new();
    fs::create_dir_all(gateway.pins().join("999")).unwrap();
    gateway.expect_refused(&["load", "--iface", "h0"], &["layout 999", "layout 2"]);
    assert!(!gateway.pins().join("2").exists());
    let elsewhere = gateway.file("pins");
    // Given again, it is the one that counts.
    gateway.expect_refused(
        &["load", "--iface", "h0", "--pin-root", &elsewhere],
        &[&elsewhere, "mount -t bpf bpf /sys/fs/bpf"],
    );
    assert!(!fs::exists(&elsewhere).unwrap());
}

/// A place in the catalog, what is written there, and what the error must name.
type Wrong = (&'static str, Value, &'static [&'static str]);

#[test]
fn a_catalog_that_breaks_a_rule_is_not_applied() {
    let gateway = Gateway::loaded();
    gateway.apply(&catalog());
    let table = gateway.table();
    let first = "/volumes/vol0/extents/1/first_lba";
    let rows: [Wrong; 11] = [
        (first, json!(1001), &["volumes.vol0.extents[1].first_lba is 1001", "a gap"]),
        (first, json!(999), &["volumes.vol0.extents[1].first_lba is 999", "an overlap"]),
        (
            "/volumes/vol0/extents/1/port",
            json!(4001),
            &["volumes.vol0.extents[1]", "4001", "already used by"],
        ),
        ("/volumes/vol0/extents/1/device", json!("10.2.0.11:5005"), &["extents[1].device is 10.2.0.11:5005"]),
        (
            "/mappings/0/device",
            json!("10.2.0.11:5005"),
            &["mappings[0].device is 10.2.0.11:5005", "already used"],
        ),
        ("/mappings/0/vip", json!("10.9.0.1:4001"), &["mappings[0].vip is 10.9.0.1:4001", "already used"]),
        ("/devices/a/luns/1/blocks", json!(999), &["devices.a.luns[1]", "999 blocks", "must fit"]),
        ("/devices/a/address", json!("10.2.0.300"), &["devices.a.address", "invalid IP address"]),
        ("/volumes/vol0/extents/0/port", json!(70_000), &["volumes.vol0.extents[0].port", "70000"]),
        ("/version", json!(2), &["version is 2", "version 1"]),
        ("/mappings/0/allow", json!(["10.1.0.0/33"]), &["mappings[0].allow"]),
    ];
    for (place, value, parts) in rows {
        let mut document = catalog();
        *document.pointer_mut(place).unwrap() = value;
        let file = gateway.write("wrong.json", &document);
        gateway.expect_refused(&["apply", &file], parts);
        assert_eq!(gateway.table(), table, "{place}: the table was changed");
    }
    let missing = gateway.file("missing.json");
    gateway.expect_refused(&["apply", &missing], &["missing.json", "No such file"]);
    fs::write(&missing, "{").unwrap();
    gateway.expect_refused(&["apply", &missing], &["missing.json"]);
    assert_eq!(gateway.table(), table);
}

#[test]
fn a_change_that_the_table_cannot_make_is_refused() {
    let gateway = Gateway::loaded();
    gateway.apply(&catalog());
    let (table, file) = (gateway.table(), gateway.file("catalog.json"));
    let before = fs::read_to_string(&file).unwrap();
    let rows: [(&[&str], &[&str]); 7] = [
        (&["map", "remove", "10.9.0.9:9"], &["no mapping 10.9.0.9:9"]),
        (&["map", "migrate", "10.9.0.9:9", "--to", "10.2.0.13:1"], &["10.9.0.9:9"]),
        (&["map", "remove", "10.9.0.1:4001"], &["10.9.0.1:4001", "vol0"]),
        (&["map", "add", "10.9.0.2:3260", "10.2.0.13:1"], &["10.9.0.2:3260", "10.2.0.12:3260"]),
        (&["map", "add", "10.9.0.3:1", "10.2.0.11:5005"], &["10.2.0.11:5005", "10.9.0.1:4001"]),
        (
            &["map", "migrate", "10.9.0.1:4001", "--to", "10.2.0.11:5006"],
            &["10.2.0.11:5006", "already serves 10.9.0.1:4002"],
        ),
        (&["map", "add", "10.9.0.300:1", "10.2.0.13:1"], &["10.9.0.300:1"]),
    ];
    for (arguments, parts) in rows {
        gateway.expect_refused(arguments, parts);
        assert_eq!(gateway.table(), table, "{arguments:?}: the table was changed");
        assert_eq!(fs::read_to_string(&file).unwrap(), before, "{arguments:?}: the catalog was changed");
    }
}

#[test]
fn a_table_that_is_full_takes_no_part_of_a_catalog() {
    let gateway = Gateway::new();
    gateway.json(&["load", "--iface", "h0", "--max-mappings", "1"]);
    let only = mapping("10.9.0.1:1", "10.2.0.11:1", &[]);
    gateway.apply(&lone(std::slice::from_ref(&only)));
    let table = gateway.table();
    let two = gateway.write("two.json", &lone(&[only, mapping("10.9.0.1:2", "10.2.0.11:2", &[])]));
    gateway.expect_refused(&["apply", &two], &["2 mappings", "holds 1 at most", "--max-mappings"]);
    assert_eq!(gateway.table(), table);
    let catalog = fs::read_to_string(gateway.file("catalog.json")).unwrap();
    gateway.expect_refused(
        &["map", "add", "10.9.0.1:2", "10.2.0.11:2"],
        &["2 mappings", "holds 1 at most", "catalog is as before"],
    );
    assert_eq!(gateway.table(), table);
    assert_eq!(fs::read_to_string(gateway.file("catalog.json")).unwrap(), catalog);
}

/// Old and new entries stand side by side while the table changes.
#[test]
fn a_change_without_room_for_old_and_new_is_refused_whole() {
    let gateway = Gateway::new();
    gateway.json(&["load", "--iface", "h0", "--max-mappings", "1"]);
    gateway.apply(&lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &["10.1.0.0/24"])]));
    let table = gateway.table();
    let other = gateway.write("other.json", &lone(&[mapping("10.9.0.2:1", "10.2.0.12:1", &[])]));
    gateway.expect_refused(&["apply", &other], &["room for 2 mappings", "holds 1 at most", "--max-mappings"]);
    assert_eq!(gateway.table(), table);
    let hosts = ["10.3.0.0/24", "10.4.0.0/24", "10.5.0.0/24", "10.6.0.0/24"];
    let listed = gateway.write("listed.json", &lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &hosts)]));
    gateway.expect_refused(&["apply", &listed], &["room for 5 prefixes", "holds 4 at most"]);
    assert_eq!(gateway.table(), table);
    gateway.json(&["map", "migrate", "10.9.0.1:1", "--to", "10.2.0.12:1"]);
    let table = gateway.table();
    let again = ["map", "migrate", "10.9.0.1:1", "--to", "10.2.0.13:1"];
    gateway.expect_refused(&again, &["room for 3 device portals", "holds 2 at most", "catalog is as before"]);
    assert_eq!(gateway.table(), table);
}

#[test]
fn a_catalog_that_cannot_be_read_does_not_hide_what_is_attached() {
    let gateway = Gateway::new();
    let status = gateway.json(&["--catalog", "/nosuch.json", "load", "--iface", "h0"]);
    assert_eq!((&status["loaded"], &status["in_sync"]), (&json!(true), &json!(false)));
    assert!(status["differences"][0].as_str().unwrap().contains("/nosuch.json"), "{status}");
}
