//! The initiators of the demonstration, none of them written here: libiscsi's tools, QEMU's, and fio by way of
//! QEMU's NBD server.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::{Lab, Machine};
use crate::step::output;

/// The name of the NBD server in the lab.
pub const NBD: &str = "qemu-nbd";

/// What libiscsi's tools say of the volume: its lines in `iscsi-ls`, and its size in bytes.
pub fn look(lab: &Lab) -> Result<(String, u64)> {
    let url = lab.url();
    let shown =
        output(lab.on(Machine::Host, "iscsi-ls").args(["-s", &format!("iscsi://{}", crate::lab::PORTAL)]))?;
    let luns = shown.lines().filter(|line| line.starts_with("Lun:")).count();
    ensure!(luns == 1, "iscsi-ls shows {luns} LUNs instead of one:\n{shown}");
    let inquiry = output(lab.on(Machine::Host, "iscsi-inq").arg(&url))?;
    ensure!(inquiry.contains("LUNGATE"), "iscsi-inq does not show the volume:\n{inquiry}");
    let capacity = output(lab.on(Machine::Host, "iscsi-readcapacity16").arg(&url))?;
    let bytes = capacity.lines().find_map(|line| line.strip_prefix("Total size:")?.trim().parse().ok());
    Ok((shown, bytes.with_context(|| format!("iscsi-readcapacity16 shows no size:\n{capacity}"))?))
}

/// An NBD server on a Unix socket whose initiator is libiscsi: one session that stays.
pub fn serve_nbd(lab: &Lab) -> Result<PathBuf> {
    let socket = lab.folder().join("nbd.sock");
    let mut server = lab.on(Machine::Host, "qemu-nbd");
    server.args([
        "--persistent",
        "--shared=4",
        "--format=raw",
        "--cache=none",
        "--discard=unmap",
        "--socket",
    ]);
    server.arg(&socket).arg(lab.url());
    lab.start(NBD, &mut server)?;
    lab.wait(NBD, || socket.exists())?;
    Ok(socket)
}

/// What fio did.
#[derive(Debug)]
pub struct Verified {
    /// Bytes read back and found right.
    pub bytes: u64,
    /// Requests that failed or were found wrong.
    pub errors: u64,
}

/// Writes random data with checksums into a range of the volume in requests of random size, and reads it back.
pub fn fio_verify(lab: &Lab, socket: &Path, offset: u64, size: u64, requests: &str) -> Result<Verified> {
    let mut fio = Command::new("fio");
    fio.current_dir(lab.folder())
        .args(["--name=verify", "--ioengine=nbd", "--iodepth=16", "--rw=randwrite", "--output-format=json"])
        .args([
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--randrepeat=0",
        ])
        .arg(format!("--uri=nbd+unix:///?socket={}", socket.display()))
        .arg(format!("--bsrange={requests}"))
        .arg(format!("--offset={offset}"))
        .arg(format!("--size={size}"));
    // fio ends with an error where one block is wrong; its numbers are of interest all the same.
    let out = fio.output().context("cannot start fio")?;
    let text = String::from_utf8_lossy(&out.stdout);
    // fio may say something before its JSON.
    let json = text.find('{').map(|start| &text[start..]).unwrap_or_default();
    let report: Value = serde_json::from_str(json)
        .with_context(|| format!("fio failed: {}", String::from_utf8_lossy(&out.stderr).trim()))?;
    let job = &report["jobs"][0];
    let failed = job["error"].as_u64().unwrap_or(1) + job["total_err"].as_u64().unwrap_or(0);
    let errors = failed + u64::from(!out.status.success() && failed == 0);
    if errors > 0 {
        eprintln!("{}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(Verified { bytes: job["read"]["io_bytes"].as_u64().unwrap_or(0), errors })
}

/// Puts an image on the volume.
pub fn put_image(lab: &Lab, image: &Path) -> Result<()> {
    let mut convert = lab.on(Machine::Host, "qemu-img");
    convert.args(["convert", "-n", "-f", "raw", "-O", "raw"]).arg(image).arg(lab.url());
    output(&mut convert).map(|_| ())
}

/// Compares the volume with an image; says what differs.
pub fn compare_image(lab: &Lab, image: &Path, volume: &str) -> Result<Result<(), String>> {
    let mut compare = lab.on(Machine::Host, "qemu-img");
    compare.args(["compare", "-f", "raw", "-F", "raw"]).arg(image).arg(volume);
    let out = compare.output().context("cannot start qemu-img")?;
    let said = [out.stdout, out.stderr].concat();
    Ok(if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).trim().to_owned()) })
}
