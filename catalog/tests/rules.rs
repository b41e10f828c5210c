//! Every rule of the document, broken once: the error names the place, the value and the rule.

use lungate_catalog::model::Catalog;
use serde_json::{Value, json};

/// Two devices, one volume of two extents with a prepared copy of the second, and a lone mapping.
fn sound() -> Value {
    let lun = |port: u16, target: &str, lun: u16, holds: Value| {
        json!({
            "port": port, "blocks": 2048, "block_size": 512, "holds": holds,
            "backend": { "portal": "127.0.0.1:3260", "target_name": target, "lun": lun },
        })
    };
    json!({
        "version": 1,
        "devices": {
            "a": { "address": "10.2.0.1", "luns": [
                lun(5001, "iqn.2026-11.lab:a", 5, json!({ "volume": "v", "port": 4001 })),
                lun(5002, "iqn.2026-11.lab:a", 6, json!({ "volume": "v", "port": 4002 })),
            ]},
            "b": { "address": "10.2.0.2", "luns": [
                lun(5001, "iqn.2026-11.lab:b", 7, json!({ "volume": "v", "port": 4002 })),
            ]},
        },
        "volumes": { "v": {
            "uuid": "6b0a1f4e-38a5-4bb1-92f2-2f7c55f0a001", "vip": "10.9.0.1",
            "block_size": 512, "blocks": 4096,
            "extents": [
                { "port": 4001, "first_lba": 0, "blocks": 2048, "device": "10.2.0.1:5001" },
                { "port": 4002, "first_lba": 2048, "blocks": 2048, "device": "10.2.0.2:5001" },
            ],
        }},
        "mappings": [{ "vip": "10.9.0.2:80", "device": "10.2.0.9:80" }],
    })
}

fn parse(document: &Value) -> Result<Catalog, String> {
    Catalog::parse(document.to_string().as_bytes()).map_err(|e| e.to_string())
}

#[test]
fn a_sound_document_passes_and_round_trips() {
    let catalog = parse(&sound()).unwrap();
    let again = Catalog::parse(catalog.to_text().unwrap().as_bytes()).unwrap();
    assert_eq!(catalog, again);
}

#[test]
fn each_broken_rule_is_named() {
    let extent = "/volumes/v/extents/1";
    let cases: &[(&str, &str, Value, &[&str])] = &[
        ("version", "/version", json!(9), &["version is 9", "version 1"]),
        (
            "gap",
            &format!("{extent}/first_lba"),
            json!(2050),
            &["volumes.v.extents[1].first_lba is 2050", "2048 to 2049", "gap"],
        ),
        (
            "overlap",
            &format!("{extent}/first_lba"),
            json!(2000),
            &["extents[1].first_lba is 2000", "overlap"],
        ),
        ("short cover", "/volumes/v/blocks", json!(5000), &["volumes.v.blocks is 5000", "cover 4096 blocks"]),
        (
            "doubled port",
            &format!("{extent}/port"),
            json!(4001),
            &["10.9.0.1:4001", "already used by volumes.v.extents[0]"],
        ),
        ("port 0", &format!("{extent}/port"), json!(0), &["extents[1].port is 0", "1 to 65535"]),
        (
            "portal twice",
            &format!("{extent}/device"),
            json!("10.2.0.1:5001"),
            &["extents[1].device is 10.2.0.1:5001", "already used by volumes.v.extents[0]"],
        ),
        (
            "no such portal",
            &format!("{extent}/device"),
            json!("10.2.0.7:1"),
            &["extents[1].device is 10.2.0.7:1", "no device has a LUN"],
        ),
        (
            "wrong family",
            &format!("{extent}/device"),
            json!("[fd00::1]:1"),
            &["extents[1].device is fd00::1", "family"],
        ),
        (
            "LUN too small",
            "/devices/b/luns/0/blocks",
            json!(2047),
            &["devices.b.luns[0].holds is 2047 blocks", "2048 blocks and must fit"],
        ),
        (
            "LUN block size",
            "/devices/b/luns/0/block_size",
            json!(4096),
            &["devices.b.luns[0].holds", "512 bytes a block"],
        ),
        (
            "block size 520",
            "/volumes/v/block_size",
            json!(520),
            &["volumes.v.block_size", "520", "512 or 4096"],
        ),
        (
            "LUN port twice",
            "/devices/a/luns/1/port",
            json!(5001),
            &["devices.a.luns[1].port is 10.2.0.1:5001", "devices.a.luns[0]"],
        ),
        (
            "one LUN, two ports",
            "/devices/a/luns/1/backend/lun",
            json!(5),
            &["devices.a.luns[1].backend", "devices.a.luns[0]"],
        ),
        (
            "LUN number",
            "/devices/a/luns/1/backend/lun",
            json!(16384),
            &["luns[1].backend.lun is 16384", "16383"],
        ),
        (
            "target name",
            "/devices/a/luns/1/backend/target_name",
            json!("disk"),
            &["backend.target_name is \"disk\"", "iqn."],
        ),
        (
            "holds nothing known",
            "/devices/a/luns/1/holds",
            json!({ "volume": "w", "port": 1 }),
            &["luns[1].holds is w:1", "no volume"],
        ),
        ("multicast VIP", "/volumes/v/vip", json!("224.0.0.1"), &["volumes.v.vip is 224.0.0.1", "unicast"]),
        ("not an address", "/volumes/v/vip", json!("10.9.0.300"), &["volumes.v.vip", "invalid"]),
        (
            "VIP is a device",
            "/mappings/0/vip",
            json!("10.2.0.1:80"),
            &["devices.a.address is 10.2.0.1", "cannot be a VIP"],
        ),
        (
            "lone mapping on a served portal",
            "/mappings/0/device",
            json!("10.2.0.1:5001"),
            &["mappings[0].device is 10.2.0.1:5001", "serves one extent"],
        ),
        (
            "prefix of the other family",
            "/volumes/v/allow",
            json!(["fd00::/8"]),
            &["volumes.v.allow[0]", "family"],
        ),
        (
            "retired but live",
            "/retired",
            json!([{ "vip": "10.9.0.1:4001", "device": "10.2.0.1:5001" }]),
            &["retired[0].device", "live or retired"],
        ),
        (
            "segment too small for its options",
            "/volumes/v/mss_clamp",
            json!(87),
            &["volumes.v.mss_clamp is 87", "88 to 65495"],
        ),
        (
            "segment larger than a packet",
            "/mappings/0/mss_clamp",
            json!(65_496),
            &["mappings[0].mss_clamp is 65496", "88 to 65495"],
        ),
        ("segment of no size", "/mappings/0/mss_clamp", json!(65_536), &["mappings[0].mss_clamp", "65536"]),
        ("unknown key", "/volumes/v/colour", json!("red"), &["volumes.v", "colour"]),
    ];
    for (what, place, value, expected) in cases {
        let mut document = sound();
        let (parent, key) = place.rsplit_once('/').unwrap();
        let parent = document.pointer_mut(parent).unwrap();
        match key.parse::<usize>() {
            Ok(index) => parent[index] = value.clone(),
            Err(_) => parent[key] = value.clone(),
        }
        let error = parse(&document).expect_err(what);
        for part in *expected {
            assert!(error.contains(part), "{what}: {part:?} is not in:\n{error}");
        }
    }
}

#[test]
fn a_segment_size_reaches_the_gateway_and_nobody_else() {
    let mut document = sound();
    document["volumes"]["v"]["mss_clamp"] = json!(88);
    document["mappings"][0]["mss_clamp"] = json!(65_495);
    let catalog = parse(&document).unwrap();
    assert_eq!(Catalog::parse(catalog.to_text().unwrap().as_bytes()).unwrap(), catalog);
    let clamps: Vec<_> = catalog.gateway_view().mappings.iter().map(|mapping| mapping.mss_clamp).collect();
    assert_eq!(clamps, [Some(88), Some(88), Some(65_495)]);
    let host = serde_json::to_string(&catalog.host_view("v").unwrap()).unwrap();
    assert!(!host.contains("mss"), "{host}");
    let unclamped = parse(&sound()).unwrap();
    assert!(unclamped.gateway_view().mappings.iter().all(|mapping| mapping.mss_clamp.is_none()));
    assert!(!unclamped.to_text().unwrap().contains("mss"), "what is not said is not written");
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let text = r#"{ "version": 1, "devices": { "a": { "address": "10.2.0.1", "luns": [] }, "a": { "address": "10.2.0.2", "luns": [] } } }"#;
    let error = Catalog::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("devices") && error.contains("\"a\" stands twice"), "{error}");
}

#[test]
fn each_view_tells_its_party_nothing_of_the_others() {
    let catalog = parse(&sound()).unwrap();
    let host = serde_json::to_string(&catalog.host_view("v").unwrap()).unwrap();
    assert!(!host.contains("10.2.0.") && !host.contains("backend"), "{host}");
    let gateway = serde_json::to_string(&catalog.gateway_view()).unwrap();
    assert!(!gateway.contains("lba") && !gateway.contains("iqn"), "{gateway}");
    let device = serde_json::to_string(&catalog.device_view("a").unwrap()).unwrap();
    assert!(!device.contains("10.2.0.2") && !device.contains("10.9.0."), "{device}");
}

#[test]
fn an_extent_looks_the_same_on_both_devices_and_unlike_its_neighbour() {
    let catalog = parse(&sound()).unwrap();
    let (a, b) = (catalog.device_view("a").unwrap(), catalog.device_view("b").unwrap());
    let host = catalog.host_view("v").unwrap();
    assert_eq!(
        (&a.ports[1].target_name, &a.ports[1].identity),
        (&b.ports[0].target_name, &b.ports[0].identity)
    );
    assert_eq!(
        (&host.extents[1].target_name, &host.extents[1].identity),
        (&b.ports[0].target_name, &b.ports[0].identity)
    );
    assert_ne!(a.ports[0].identity, a.ports[1].identity);
    assert_ne!(a.ports[0].target_name, a.ports[1].target_name);
    assert_eq!(host.identity.naa.bytes()[0] >> 4, 3);
}
