//! Changes one by one, which look at the lines they touch, leave what `apply` of the whole catalog would.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::bytes::shown_portal;
use crate::document::lone;
use crate::gateway::{Gateway, dump};

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

#[test]
fn changes_one_by_one_leave_what_apply_would() {
    let gateway = Gateway::loaded();
    gateway.apply(&lone(&[]));
    let catalog = gateway.file("catalog.json");
    // Knuth's MMIX generator: the same sequence each time.
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut done = 0;
    for _ in 0..CHANGES {
        let (vip, device) = (portal("10.9.0", random(6)), portal("10.2.0", random(24)));
        let change = match random(4) {
            0 | 1 => vec!["map", "add", &vip, &device],
            2 => vec!["map", "migrate", &vip, "--to", &device],
            _ => vec!["map", "remove", &vip],
        };
        let table = gateway.table();
        if gateway.lungate(&change).output().unwrap().status.success() {
            done += 1;
            let status = gateway.json(&["status"]);
            assert_eq!(status["in_sync"], true, "after {change:?}: {}", status["differences"]);
        } else {
            assert_eq!(gateway.table(), table, "{change:?} was refused and changed something");
        }
    }
    assert!(done > CHANGES / 3, "only {done} changes were possible");
    let changed = derived(&gateway);
    let document = fs::read_to_string(catalog).unwrap();
    let fresh = Gateway::loaded();
    fresh.apply(&serde_json::from_str(&document).unwrap());
    assert_eq!(derived(&fresh), changed);
}
