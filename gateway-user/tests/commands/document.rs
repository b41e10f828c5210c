//! Catalogs to apply.

use serde_json::{Value, json};

/// A volume of two extents on one device, and one mapping that belongs to no volume.
pub(crate) fn catalog() -> Value {
    let lun = |port: u16, lun: u16, holds: u16| {
        json!({
            "port": port,
            "backend": { "portal": "127.0.0.1:3260", "target_name": "iqn.2026-11.io.example:disks", "lun": lun },
            "blocks": 1000,
            "block_size": 512,
            "holds": { "volume": "vol0", "port": holds },
        })
    };
    json!({
        "version": 1,
        "devices": { "a": { "address": "10.2.0.11", "luns": [lun(5005, 5, 4001), lun(5006, 6, 4002)] } },
        "volumes": { "vol0": {
            "uuid": "6f1c2d34-5b6a-4c7d-8e9f-0a1b2c3d4e5f",
            "vip": "10.9.0.1",
            "block_size": 512,
            "blocks": 2000,
            "extents": [
                { "port": 4001, "first_lba": 0, "blocks": 1000, "device": "10.2.0.11:5005" },
                { "port": 4002, "first_lba": 1000, "blocks": 1000, "device": "10.2.0.11:5006" },
            ],
        } },
        "mappings": [mapping("10.9.0.2:3260", "10.2.0.12:3260", &[])],
    })
}

/// A catalog of nothing but these mappings.
pub(crate) fn lone(mappings: &[Value]) -> Value {
    json!({ "version": 1, "mappings": mappings })
}

/// A mapping for hosts in `allow`; for anybody where that is empty.
pub(crate) fn mapping(vip: &str, device: &str, allow: &[&str]) -> Value {
    json!({ "vip": vip, "device": device, "allow": allow })
}
