//! A change that the kernel refuses in the middle leaves table and catalog as they were.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::bytes::{mapping as value, portal};
use crate::document::{lone, mapping};
use crate::gateway::{Gateway, dump, stdout};
use crate::index::Index;

/// A table for `max` mappings with one of them, and its catalog.
fn one_of(max: &str) -> Gateway {
    let gateway = Gateway::new();
    gateway.json(&["load", "--iface", "h0", "--max-mappings", max]);
    gateway.apply(&lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &[])]));
    gateway
}

/// The command must fail, name all of `parts`, and leave everything as it was.
fn expect_undone(gateway: &Gateway, arguments: &[&str], parts: &[&str]) {
    let catalog = || fs::read_to_string(gateway.file("catalog.json")).unwrap();
    let before = (gateway.table(), catalog(), dump(&gateway.map("INDEX")));
    gateway.expect_refused(arguments, parts);
    assert_eq!(gateway.table(), before.0, "{arguments:?}: the table was changed");
    assert_eq!(catalog(), before.1, "{arguments:?}: the catalog was changed");
    Index::of(gateway).expect_right(&format!("{arguments:?}"));
    assert_eq!(dump(&gateway.map("INDEX")), before.2, "{arguments:?}: the index was changed");
}

#[test]
fn access_lists_that_become_full() {
    let gateway = one_of("1");
    for counter in [1, 2] {
        // Prefixes of less than a counter: no list's, so the command does not count them.
        let mut key = vec![0; 24];
        (key[0], key[4]) = (8, counter);
        gateway.write_entry("ACCESS", &key, &[0; 4]);
    }
    let hosts = ["10.1.0.0/24", "10.3.0.0/24", "10.4.0.0/24"];
    let file = gateway.write("listed.json", &lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &hosts)]));
    expect_undone(&gateway, &["apply", &file], &["ACCESS is full", "--max-mappings"]);
    let two = gateway.write("two.json", &lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &hosts[..2])]));
    gateway.json(&["apply", &two]);
}

#[test]
fn device_portals_that_become_full() {
    let gateway = one_of("1");
    gateway.write_entry("REVERSE", &portal("10.2.0.99:9"), &value("10.9.0.9:9", 0, 0, 0));
    let parts = ["REVERSE is full", "1 mappings", "--max-mappings", "catalog is as before"];
    expect_undone(&gateway, &["map", "migrate", "10.9.0.1:1", "--to", "10.2.0.12:1"], &parts);
}

/// By then the new device's way back is there.
#[test]
fn mappings_that_become_full() {
    let gateway = one_of("2");
    gateway.write_entry("FORWARD", &portal("10.9.0.9:9"), &value("10.2.0.99:9", 0, 0, 0));
    let parts = ["FORWARD is full", "--max-mappings", "catalog is as before"];
    expect_undone(&gateway, &["map", "add", "10.9.0.2:1", "10.2.0.12:1"], &parts);
}

#[test]
fn maps_that_take_no_writes() {
    let freeze = |gateway: &Gateway, name: &str| {
        stdout(Command::new("bpftool").args(["map", "freeze", "pinned"]).arg(gateway.map(name)));
    };
    let gateway = one_of("4");
    freeze(&gateway, "FORWARD");
    let migrate = ["map", "migrate", "10.9.0.1:1", "--to", "10.2.0.12:1"];
    expect_undone(&gateway, &migrate, &["FORWARD may not be written", "CAP_BPF", "catalog is as before"]);
    let gateway = one_of("4");
    freeze(&gateway, "INDEX");
    expect_undone(&gateway, &migrate, &["INDEX may not be written", "catalog is as before"]);
    // What was removed already comes back.
    let gateway = one_of("4");
    freeze(&gateway, "REVERSE");
    let nothing = gateway.write("nothing.json", &lone(&[]));
    expect_undone(&gateway, &["apply", &nothing], &["REVERSE may not be written"]);
    expect_undone(&gateway, &["map", "remove", "10.9.0.1:1"], &["REVERSE may not be written"]);
    assert_eq!(gateway.json(&["status"])["in_sync"], json!(true));
}
