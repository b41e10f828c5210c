//! The demonstration: what a newcomer sees, on real targets and with initiators that nobody here wrote.

pub mod clients;
pub mod image;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::lab::{DEVICES, Device, EXTENT_BLOCKS, Lab, Lun, Machine, VOLUME, portal};
use crate::step::output;
use crate::workspace::Binaries;
use clients::{NBD, compare_image, fio_verify, look, put_image, serve_nbd};

const EXTENT_BYTES: u64 = EXTENT_BLOCKS * 512;
/// Requests that straddle a border are written in a range of this many bytes around it.
const AROUND_BORDER: u64 = 4 << 20;
/// The extent that moves: from device a's LUN 7 to device b's LUN 21.
const MOVING_PORT: u16 = 4003;
/// How long to wait for the first command on the new device.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the demonstration found; also what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Whatever went wrong in what was verified; 0 where all is well.
    pub errors: u64,
    /// Bytes that were read back and found right.
    pub bytes_verified: u64,
    /// Packets that XDP has translated and dropped.
    pub packets: Packets,
    /// Where each extent was and is.
    pub extents: Vec<ExtentSummary>,
    /// From the change of the table to the first command completed on the new device, in milliseconds.
    pub migrate_first_io_ms: f64,
    /// From the first to the last system call of that change, in microseconds.
    pub migrate_flip_us: f64,
    /// TCP connections that ended or began at the gateway's own kernel.
    pub gateway_connections: u64,
}

/// Packets at the gateway.
#[derive(Debug, Serialize)]
pub struct Packets {
    /// Translated from VIP to device.
    pub to_device: u64,
    /// Translated from device to VIP.
    pub to_host: u64,
    /// Dropped.
    pub dropped: u64,
    /// Dropped, by reason.
    pub dropped_by_reason: BTreeMap<String, u64>,
}

/// One extent's places.
#[derive(Debug, Serialize)]
pub struct ExtentSummary {
    /// Its port at the VIP.
    pub port: u16,
    /// The device portal that served it at first.
    pub device_before: SocketAddr,
    /// The one that serves it in the end.
    pub device_after: SocketAddr,
}

/// Runs the demonstration in a lab.
pub fn run(binaries: &Binaries, keep: bool) -> Result<(Summary, Lab)> {
    say(
        "1. the lab: a host, a gateway, a switch and two devices, each with a real tgtd and a shim in front of it",
    );
    let lab = Lab::new(binaries, keep)?;
    let before = places(&lab)?;
    for (port, device) in &before {
        say(&format!("   {VOLUME} extent {port}: 64 MiB at {device}, {}", real_lun(*device)));
    }

    say("2. the gateway: XDP on both interfaces, the table from the catalog");
    let loaded = lab.load_gateway()?;
    for interface in loaded["interfaces"].as_array().into_iter().flatten() {
        ensure!(interface["mode"] == "native", "{} is not in native mode", interface["name"]);
        say(&format!(
            "   {}: {} mode, program {}",
            interface["name"], interface["mode"], interface["prog_id"]
        ));
    }

    let mut demo = Demo { lab, errors: 0, bytes_verified: 0 };
    demo.use_volume()?;
    let image = demo.show_places()?;
    let (migrate_first_io_ms, migrate_flip_us) = demo.move_extent(&image)?;
    let after = places(&demo.lab)?;
    let extents = before.iter().zip(&after).map(|((port, before), (_, after))| ExtentSummary {
        port: *port,
        device_before: *before,
        device_after: *after,
    });
    let summary = Summary {
        errors: demo.errors,
        bytes_verified: demo.bytes_verified,
        packets: packets(&demo.lab)?,
        extents: extents.collect(),
        migrate_first_io_ms,
        migrate_flip_us,
        gateway_connections: gateway_connections(&demo.lab)?,
    };
    Ok((summary, demo.lab))
}

struct Demo {
    lab: Lab,
    errors: u64,
    bytes_verified: u64,
}

impl Demo {
    /// Clients write all over the volume and read it back.
    fn use_volume(&mut self) -> Result<()> {
        say(
            "3. the host: vol0 behind an iSCSI portal on its loopback, used by clients that nobody here wrote",
        );
        self.lab.start_host()?;
        let (shown, bytes) = look(&self.lab)?;
        shown.lines().for_each(|line| say(&format!("   iscsi-ls: {line}")));
        ensure!(bytes == 4 * EXTENT_BYTES, "the volume has {bytes} bytes instead of {}", 4 * EXTENT_BYTES);
        say(&format!("   iscsi-readcapacity16: {bytes} bytes, four extents of {EXTENT_BYTES}"));
        let socket = serve_nbd(&self.lab)?;
        self.fio(&socket, "random requests of 4 to 256 KiB all over it", 0, 4 * EXTENT_BYTES, "4k-256k")?;
        for border in 1..4 {
            let offset = border * EXTENT_BYTES - AROUND_BORDER / 2 - 4096;
            let what =
                format!("requests of 192 KiB across the border of extents {border} and {}", border + 1);
            self.fio(&socket, &what, offset, AROUND_BORDER, "192k-192k")?;
        }
        Ok(())
    }

    fn fio(&mut self, socket: &Path, what: &str, offset: u64, size: u64, requests: &str) -> Result<()> {
        let start = Instant::now();
        let verified = fio_verify(&self.lab, socket, offset, size, requests)?;
        self.errors += verified.errors;
        self.bytes_verified += verified.bytes;
        let seconds = start.elapsed().as_secs_f32();
        say(&format!(
            "   fio, {what}: {} MiB written and verified by crc32c in {seconds:.1} s, {} errors",
            verified.bytes >> 20,
            verified.errors
        ));
        Ok(())
    }

    /// An image is put on the volume, and every part of it is looked for on every disk.
    fn show_places(&mut self) -> Result<std::path::PathBuf> {
        let image = self.lab.folder().join("random.img");
        image::make(&image, 4 * EXTENT_BYTES, 0x1e55_0a7e)?;
        put_image(&self.lab, &image)?;
        self.compare(&image, &self.lab.url())?;
        say("4. where the bytes are: the image's four parts against the files behind all LUNs");
        for (part, (port, device)) in places(&self.lab)?.into_iter().enumerate() {
            let offset = u64::try_from(part)? * EXTENT_BYTES;
            let mut found = Vec::new();
            for (candidate, lun) in luns() {
                let disk = self.lab.disk(candidate, &lun);
                if image::is_at(&image, offset, EXTENT_BYTES, &disk)? {
                    found.push(portal(candidate, &lun));
                }
            }
            let is_right = found == [device];
            self.errors += u64::from(!is_right);
            let verdict =
                if is_right { "there and nowhere else".to_owned() } else { format!("FOUND AT {found:?}") };
            say(&format!("   extent {port} at {device}: {verdict}"));
        }
        let connections = gateway_connections(&self.lab)?;
        self.errors += connections;
        say(&format!("   the gateway's kernel has ended or begun {connections} TCP connections"));
        let Packets { to_device, to_host, dropped, .. } = packets(&self.lab)?;
        say(&format!(
            "   XDP has translated {to_device} packets to devices, {to_host} to the host; dropped {dropped}"
        ));
        Ok(image)
    }

    /// One change of the table moves an extent whose copy is there already.
    fn move_extent(&mut self, image: &Path) -> Result<(f64, f64)> {
        let [a, b] = DEVICES;
        let (from, to) = (a.luns[1], b.luns[2]);
        let vip = self.vip(MOVING_PORT)?;
        say(&format!("5. extent {MOVING_PORT} moves from {} to {}", portal(a, &from), portal(b, &to)));
        std::fs::copy(self.lab.disk(a, &from), self.lab.disk(b, &to)).context("cannot copy the extent")?;
        let sessions = self.host_status()?["volumes"][0]["sessions"].clone();
        let target = portal(b, &to).to_string();
        let text = self.lab.lungate(&["map", "migrate", &vip, "--to", &target, "--json"])?;
        let migrated: Value = serde_json::from_str(&text)?;
        let flipped = migrated["flipped_at_monotonic_ns"].as_u64().context("lungate gave no time")?;
        // The next command finds the old connection dead; the host logs in again and issues it again.
        let nbd = format!("nbd+unix:///?socket={}", self.lab.folder().join("nbd.sock").display());
        let mut read = self.lab.on(Machine::Host, "qemu-io");
        read.args(["-r", "-f", "raw", "-c"]).arg(format!("read {} 4096", 2 * EXTENT_BYTES)).arg(&nbd);
        output(&mut read).context("the first read after the move failed")?;
        let first = self.first_io_after(flipped)?;
        let first_io_ms = (first - flipped) as f64 / 1e6;
        let flip_us = migrated["flip_us"].as_f64().unwrap_or(0.0);
        say(&format!(
            "   the table changed in {flip_us:.0} µs; first command on the new device {first_io_ms:.1} ms later"
        ));
        self.compare(image, &nbd)?;
        let kept = self.host_status()?["volumes"][0]["sessions"] == sessions;
        self.errors += u64::from(!kept);
        say(&format!(
            "   the front end's sessions: {}",
            if kept { "the same as before" } else { "NOT THE SAME" }
        ));
        self.lab.end(NBD, false)?;
        Ok((first_io_ms, flip_us))
    }

    fn compare(&mut self, image: &Path, volume: &str) -> Result<()> {
        let start = Instant::now();
        let by = if volume.starts_with("nbd") {
            "qemu-img, in the session that was open all the time"
        } else {
            "qemu-img"
        };
        match compare_image(&self.lab, image, volume)? {
            Ok(()) => {
                self.bytes_verified += 4 * EXTENT_BYTES;
                let seconds = start.elapsed().as_secs_f32();
                say(&format!("   {by}: the whole volume is equal to the random image ({seconds:.1} s)"));
            }
            Err(said) => {
                self.errors += 1;
                say(&format!("   {by}: NOT EQUAL: {said}"));
            }
        }
        Ok(())
    }

    fn first_io_after(&self, flipped: u64) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.host_status()?;
            let extents = status["volumes"][0]["extents"].as_array().cloned().unwrap_or_default();
            let moved = extents.iter().find(|extent| extent["port"] == MOVING_PORT);
            let first = moved.and_then(|extent| extent["last_first_io_monotonic_ns"].as_u64()).unwrap_or(0);
            if first > flipped {
                return Ok(first);
            }
            ensure!(Instant::now() < deadline, "no command was completed on the new device: {status}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn host_status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&output(self.lab.host_command().args(["status", "--json"]))?)?)
    }

    fn vip(&self, port: u16) -> Result<String> {
        let catalog = self.lab.catalog()?;
        let volume = catalog.volumes.get(VOLUME).context("the volume is not in the catalog")?;
        Ok(SocketAddr::new(volume.vip, port).to_string())
    }
}

/// Each extent's port and the device portal that serves it, from the kernel's table.
fn places(lab: &Lab) -> Result<Vec<(u16, SocketAddr)>> {
    let catalog = lab.catalog()?;
    let volume = catalog.volumes.get(VOLUME).context("the volume is not in the catalog")?;
    Ok(volume.extents.iter().map(|extent| (extent.port, extent.device)).collect())
}

fn luns() -> impl Iterator<Item = (Device, Lun)> {
    DEVICES.into_iter().flat_map(|device| device.luns.map(|lun| (device, lun)))
}

fn real_lun(at: SocketAddr) -> String {
    let found = luns().find(|(device, lun)| portal(*device, lun) == at);
    found.map_or_else(String::new, |(device, lun)| {
        format!("LUN {} of {} on device {}", lun.lun, lun.target_name(device), device.name)
    })
}

fn packets(lab: &Lab) -> Result<Packets> {
    let stats: Value = serde_json::from_str(&lab.lungate(&["stats", "--json"])?)?;
    let count = |value: &Value| value["packets"].as_u64().unwrap_or(0);
    Ok(Packets {
        to_device: count(&stats["to_device"]),
        to_host: count(&stats["to_host"]),
        dropped: count(&stats["dropped"]),
        dropped_by_reason: serde_json::from_value(stats["dropped"]["by_reason"].clone())?,
    })
}

/// Connections that the gateway's kernel has accepted or opened, by its own count (`/proc/net/snmp`).
fn gateway_connections(lab: &Lab) -> Result<u64> {
    let snmp = output(lab.on(Machine::Gateway, "cat").arg("/proc/self/net/snmp"))?;
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap_or_default(), tcp.next().unwrap_or_default());
    let wanted = ["ActiveOpens", "PassiveOpens", "CurrEstab"];
    let found = names.split(' ').zip(values.split(' ')).filter(|(name, _)| wanted.contains(name));
    Ok(found.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
}

impl Summary {
    /// What stands at the end, for people.
    pub fn show(&self) {
        say("6. summary");
        say(&format!("   bytes verified: {} ({} MiB)", self.bytes_verified, self.bytes_verified >> 20));
        for ExtentSummary { port, device_before, device_after } in &self.extents {
            let moved = if device_before == device_after { "" } else { "  (moved)" };
            say(&format!("   extent {port}: {device_before} → {device_after}{moved}"));
        }
        let Packets { to_device, to_host, dropped, dropped_by_reason } = &self.packets;
        say(&format!(
            "   packets translated: {to_device} to devices, {to_host} to the host; dropped: {dropped}"
        ));
        for (reason, packets) in dropped_by_reason.iter().filter(|(_, packets)| **packets > 0) {
            say(&format!("     {reason}: {packets}"));
        }
        say(&format!("   first command after the move: {:.1} ms", self.migrate_first_io_ms));
        say(&format!("   errors: {}", self.errors));
    }
}

/// Texts for people go to stderr, so that stdout is for machines.
fn say(line: &str) {
    eprintln!("{line}");
}
