//! Any text as a catalog: what is valid round-trips and has its views.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lungate_catalog::model::Catalog;

fuzz_target!(|text: &[u8]| {
    let Ok(catalog) = Catalog::parse(text) else { return };
    let again = catalog.to_text().expect("a catalog is text");
    assert_eq!(Catalog::parse(again.as_bytes()).expect("that is valid"), catalog);
    let _ = catalog.gateway_view();
    for volume in catalog.volumes.keys() {
        assert!(catalog.host_view(volume).is_some());
    }
    for device in catalog.devices.keys() {
        assert!(catalog.device_view(device).is_some());
    }
});
