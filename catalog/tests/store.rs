//! The catalog's file and journal: what was acknowledged is there, what was refused or cut off is not.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::path::PathBuf;

use lungate_catalog::change::{Change, ChangeError};
use lungate_catalog::model::{Catalog, Mapping, MappingState};
use lungate_catalog::store::{Store, StoreError};
use tempfile::TempDir;

struct Place {
    _folder: TempDir,
    file: PathBuf,
    journal: PathBuf,
}

fn place() -> Place {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("catalog.json");
    Place { journal: folder.path().join("catalog.json.journal"), file, _folder: folder }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn add(vip: &str, device: &str) -> Change {
    let (vip, device) = (at(vip), at(device));
    Change::Add(Mapping { vip, device, state: MappingState::Live, allow: Vec::new(), mss_clamp: None })
}

fn migrate(vip: &str, to: &str) -> Change {
    Change::Migrate { vip: at(vip), to: at(to) }
}

#[test]
fn a_recorded_change_survives_without_a_checkpoint() {
    let place = place();
    let mut store = Store::create(&place.file, &Catalog::empty()).unwrap();
    store.record(add("10.9.0.1:1", "10.2.0.1:1")).unwrap();
    store.record(migrate("10.9.0.1:1", "10.2.0.2:1")).unwrap();
    let expected = store.catalog().clone();
    drop(store);
    assert_eq!(Store::read(&place.file).unwrap(), expected);
    assert_eq!(expected.mappings[0].device, at("10.2.0.2:1"));
    assert_eq!(expected.retired[0].device, at("10.2.0.1:1"));
}

#[test]
fn a_journal_that_outlives_its_checkpoint_is_not_applied_twice() {
    let place = place();
    let mut store = Store::create(&place.file, &Catalog::empty()).unwrap();
    store.record(add("10.9.0.1:1", "10.2.0.1:1")).unwrap();
    store.record(Change::Remove { vip: at("10.9.0.1:1") }).unwrap();
    let journal = std::fs::read(&place.journal).unwrap();
    store.checkpoint().unwrap();
    let expected = store.catalog().clone();
    drop(store);
    std::fs::write(&place.journal, journal).unwrap();
    assert_eq!(Store::read(&place.file).unwrap(), expected);
}

#[test]
fn a_line_cut_off_by_a_crash_never_happened() {
    let place = place();
    let mut store = Store::create(&place.file, &Catalog::empty()).unwrap();
    store.record(add("10.9.0.1:1", "10.2.0.1:1")).unwrap();
    let expected = store.catalog().clone();
    store.record(add("10.9.0.1:2", "10.2.0.1:2")).unwrap();
    drop(store);
    let whole = std::fs::read(&place.journal).unwrap();
    let first_line = whole.iter().position(|&b| b == b'\n').unwrap() + 1;
    for length in first_line..whole.len() {
        std::fs::write(&place.journal, &whole[..length]).unwrap();
        assert_eq!(Store::read(&place.file).unwrap(), expected, "cut at {length}");
    }
    let mut store = Store::open(&place.file).unwrap();
    store.record(add("10.9.0.1:3", "10.2.0.1:3")).unwrap();
    drop(store);
    assert_eq!(Store::read(&place.file).unwrap().mappings.len(), 2);
}

#[test]
fn a_reverted_change_is_gone_from_memory_and_disk() {
    let place = place();
    let mut store = Store::create(&place.file, &Catalog::empty()).unwrap();
    store.record(add("10.9.0.1:1", "10.2.0.1:1")).unwrap();
    let expected = store.catalog().clone();
    store.record(migrate("10.9.0.1:1", "10.2.0.2:1")).unwrap();
    store.revert_last().unwrap();
    assert_eq!(store.catalog(), &expected);
    drop(store);
    assert_eq!(Store::read(&place.file).unwrap(), expected);
}

#[test]
fn refusals_change_nothing_and_say_why() {
    let place = place();
    let mut store = Store::create(&place.file, &Catalog::empty()).unwrap();
    store.record(add("10.9.0.1:1", "10.2.0.1:1")).unwrap();
    store.record(add("10.9.0.1:2", "10.2.0.1:2")).unwrap();
    store.record(migrate("10.9.0.1:2", "10.2.0.2:2")).unwrap();
    let before = store.catalog().clone();
    type Refused = (Change, fn(&ChangeError) -> bool);
    let refused: Vec<Refused> = vec![
        (add("10.9.0.1:1", "10.2.0.3:1"), |e| matches!(e, ChangeError::Mapped { .. })),
        (add("10.9.0.1:3", "10.2.0.1:1"), |e| matches!(e, ChangeError::Serving { .. })),
        (add("10.9.0.1:3", "10.2.0.1:2"), |e| matches!(e, ChangeError::StillRetired { .. })),
        (add("10.9.0.1:3", "[fd00::1]:1"), |e| matches!(e, ChangeError::BadMapping { .. })),
        (add("10.9.0.1:0", "10.2.0.3:1"), |e| matches!(e, ChangeError::BadMapping { .. })),
        (migrate("10.9.0.9:9", "10.2.0.3:1"), |e| matches!(e, ChangeError::NoMapping(_))),
        (migrate("10.9.0.1:1", "10.2.0.2:2"), |e| matches!(e, ChangeError::Serving { .. })),
        (migrate("10.9.0.1:1", "10.2.0.1:1"), |e| matches!(e, ChangeError::Serving { .. })),
        (Change::Remove { vip: at("10.9.0.9:9") }, |e| matches!(e, ChangeError::NoMapping(_))),
        (Change::Forget { device: at("10.2.0.1:1") }, |e| matches!(e, ChangeError::NotRetired(_))),
    ];
    for (change, is_expected) in refused {
        let text = change.to_string();
        match store.record(change) {
            Err(StoreError::Change(error)) => assert!(is_expected(&error), "{text}: {error}"),
            other => panic!("{text}: {other:?}"),
        }
        assert_eq!(store.catalog(), &before, "{text}");
    }
    drop(store);
    assert_eq!(Store::read(&place.file).unwrap(), before);
}

#[test]
fn a_mapping_can_move_away_and_back() {
    let place = place();
    let mut store = Store::create(&place.file, &Catalog::empty()).unwrap();
    store.record(add("10.9.0.1:1", "10.2.0.1:1")).unwrap();
    store.record(migrate("10.9.0.1:1", "10.2.0.2:1")).unwrap();
    store.record(migrate("10.9.0.1:1", "10.2.0.1:1")).unwrap();
    store.checkpoint().unwrap();
    let catalog = Store::read(&place.file).unwrap();
    assert_eq!(catalog.mappings[0].device, at("10.2.0.1:1"));
    assert_eq!(catalog.retired.len(), 1);
    assert_eq!(catalog.retired[0].device, at("10.2.0.2:1"));
}

#[test]
fn an_existing_file_is_never_created_over() {
    let place = place();
    drop(Store::create(&place.file, &Catalog::empty()).unwrap());
    assert!(matches!(Store::create(&place.file, &Catalog::empty()), Err(StoreError::Exists(_))));
}
