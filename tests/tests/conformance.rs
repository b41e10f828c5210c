//! libiscsi's conformance suite straight at a real target and through the shim: no test that passes straight does
//! anything else through the shim. The LUN has another number on the two sides.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lungate_tests::{lab, run};
use xtask::lab::{DEVICES, Lab, Machine};

/// Longer than the suite takes on a loaded machine; a test that hangs ends it.
const LIMIT_SECONDS: &str = "240";

#[test]
fn what_passes_straight_passes_through_the_shim() -> Result<()> {
    let lab = lab()?;
    let device = DEVICES[0];
    let lun = &device.luns[0];
    let straight = suite(&lab, &format!("iscsi://127.0.0.1:3260/{}/{}", lun.target_name(device), lun.lun))?;
    let name = "iqn.2026-11.io.lungate:vol0.4001";
    let shim = suite(&lab, &format!("iscsi://{}:{}/{name}/0", device.address, lun.port))?;
    let passed = |results: &BTreeMap<String, String>| results.values().filter(|r| *r == "passed").count();
    println!(
        "{} tests straight, {} passed; {} passed through the shim",
        straight.len(),
        passed(&straight),
        passed(&shim)
    );
    ensure!(straight.len() > 150 && passed(&straight) > 100, "the suite did not run: {straight:?}");
    let worse: Vec<_> = straight
        .iter()
        .filter(|(test, result)| *result == "passed" && shim.get(*test) != Some(result))
        .collect();
    ensure!(worse.is_empty(), "through the shim these are not passed: {worse:?}");
    Ok(())
}

/// Every test's result, by suite and name.
fn suite(lab: &Lab, url: &str) -> Result<BTreeMap<String, String>> {
    let mut tests = lab.on(Machine::Device(DEVICES[0]), "timeout");
    tests.args([LIMIT_SECONDS, "stdbuf", "-oL", "iscsi-test-cu", "--dataloss", "-v", "-t", "ALL", url]);
    let out = run(&mut tests)?;
    let text = String::from_utf8_lossy(&out.stdout);
    // Some tests fail on this target, and then so does the suite; only its end says that all of them ran.
    ensure!(text.contains("Run Summary"), "the suite ended with {}:\n{text}", out.status);
    let mut results = BTreeMap::new();
    let (mut group, mut test) = (String::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("Suite: ") {
            group = name.to_owned();
        }
        if let Some(rest) = line.strip_prefix("Test: ") {
            test = Some(format!("{group}/{}", rest.split(' ').next().context("a test without a name")?));
        }
        // A result stands at the end of its test's line, or on a later one behind what the test said.
        let result = ["passed", "FAILED"].into_iter().find(|word| line.ends_with(word));
        let is_skipped = line.contains("[SKIPPED]");
        let Some(name) = test.clone() else { continue };
        if is_skipped {
            results.insert(name, "skipped".to_owned());
        } else if let Some(result) = result {
            results.entry(name).or_insert_with(|| result.to_owned());
            test = None;
        }
    }
    Ok(results)
}
