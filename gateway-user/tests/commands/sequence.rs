//! Changes one by one, which look at the lines they touch, leave what `apply` of the whole catalog would.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::bytes::shown_portal;
use crate::document::lone;
use crate::gateway::{Gateway, dump};
use crate::index::{Index, loaded};
use crate::random::Random;

const CHANGES: usize = 60;

/// A few VIPs that share addresses, and more device portals than that.
fn portal(network: &str, number: usize) -> String {
    format!("{network}.{}:{}", 1 + number / 2, 1 + number % 2)
}

/// The portals and peers of the table, and all of what is derived from it.
fn derived(gateway: &Gateway) -> (BTreeSet<String>, Vec<Value>) {
    let mut lines = BTreeSet::new();
    for name in ["FORWARD", "REVERSE"] {
        lines.extend(dump(&gateway.map(name)).iter().map(|entry| {
            format!("{name} {} {}", shown_portal(&entry["key"]), shown_portal(&entry["value"]))
        }));
    }
    let mut rest: Vec<Value> = ["VIPS", "FILTER"]
        .into_iter()
        .flat_map(|name| dump(&gateway.map(name)))
        .map(|entry| json!([entry["key"], entry["value"]]))
        .collect();
    rest.sort_by_key(Value::to_string);
    (lines, rest)
}

/// Freezes the mapping of a VIP in a catalog, or lets it live again.
fn turn(catalog: &str, vip: &str) {
    let mut document: Value = serde_json::from_str(&fs::read_to_string(catalog).unwrap()).unwrap();
    for mapping in document["mappings"].as_array_mut().unwrap() {
        if mapping["vip"] == vip {
            mapping["state"] = json!(if mapping["state"] == "frozen" { "live" } else { "frozen" });
        }
    }
    fs::write(catalog, document.to_string()).unwrap();
}

#[test]
fn changes_one_by_one_leave_what_apply_would() {
    let gateway = loaded();
    gateway.apply(&lone(&[]));
    let catalog = gateway.file("catalog.json");
    let mut random = Random::new();
    let mut done = 0;
    for _ in 0..CHANGES {
        let (vip, device) = (portal("10.9.0", random.below(6)), portal("10.2.0", random.below(24)));
        let change = match random.below(5) {
            0 | 1 => vec!["map", "add", &vip, &device],
            2 => vec!["map", "migrate", &vip, "--to", &device],
            3 => vec!["map", "remove", &vip],
            _ => {
                turn(&catalog, &vip);
                vec!["apply", &catalog]
            }
        };
        let table = gateway.table();
        if gateway.lungate(&change).output().unwrap().status.success() {
            done += 1;
            let status = gateway.json(&["status"]);
            assert_eq!(status["in_sync"], true, "after {change:?}: {}", status["differences"]);
        } else {
            assert_eq!(gateway.table(), table, "{change:?} was refused and changed something");
        }
        Index::of(&gateway).expect_whole(&format!("{change:?}"));
    }
    assert!(done > CHANGES / 3, "only {done} changes were possible");
    let changed = derived(&gateway);
    let document = fs::read_to_string(catalog).unwrap();
    let fresh = loaded();
    fresh.apply(&serde_json::from_str(&document).unwrap());
    assert_eq!(derived(&fresh), changed);
}
