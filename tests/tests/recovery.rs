//! Devices that go away and come back while a client writes and verifies: it sees delays and no error.

use std::thread;

use anyhow::{Result, ensure};
use lungate_tests::lab;
use serde_json::Value;
use xtask::demo::clients::{fio_verify, serve_nbd};
use xtask::lab::{DEVICES, EXTENT_BLOCKS, Lab};
use xtask::step::output;

const VOLUME_BYTES: u64 = 4 * EXTENT_BLOCKS * 512;

/// How often the sessions of all extents were opened again.
fn reconnects(lab: &Lab) -> Result<u64> {
    let status: Value = serde_json::from_str(&output(lab.host_command().args(["status", "--json"]))?)?;
    let extents = status["volumes"][0]["extents"].as_array().cloned().unwrap_or_default();
    Ok(extents.iter().filter_map(|extent| extent["reconnects"].as_u64()).sum())
}

/// What the gateway has carried to devices.
fn bytes_to_devices(lab: &Lab) -> Result<u64> {
    let stats: Value = serde_json::from_str(&lab.lungate(&["stats", "--json"])?)?;
    Ok(stats["to_device"]["bytes"].as_u64().unwrap_or(0))
}

#[test]
fn a_client_does_not_notice_a_shim_or_a_target_that_is_killed() -> Result<()> {
    let lab = lab()?;
    lab.load_gateway()?;
    lab.start_host()?;
    let socket = serve_nbd(&lab)?;
    for killed in ["lungate-target-a", "tgtd-b", "lungate-target-b"] {
        let before = reconnects(&lab)?;
        let verified = thread::scope(|scope| {
            let fio = scope.spawn(|| fio_verify(&lab, &socket, 0, VOLUME_BYTES, "4k-64k"));
            let at_start = bytes_to_devices(&lab)?;
            let is_writing = || bytes_to_devices(&lab).is_ok_and(|now| now > at_start + (32 << 20));
            lab.wait("lungate-host", is_writing)?;
            lab.end(killed, true)?;
            match killed {
                "tgtd-b" => lab.start_target(DEVICES[1])?,
                "lungate-target-a" => lab.start_shim(DEVICES[0])?,
                _ => lab.start_shim(DEVICES[1])?,
            }
            fio.join().unwrap_or_else(|_| anyhow::bail!("the thread with fio panicked"))
        })?;
        ensure!(verified.errors == 0, "{killed}: fio found {} errors", verified.errors);
        ensure!(verified.bytes == VOLUME_BYTES, "{killed}: only {} bytes were verified", verified.bytes);
        lab.wait("lungate-host", || reconnects(&lab).is_ok_and(|now| now > before))?;
    }
    Ok(())
}
