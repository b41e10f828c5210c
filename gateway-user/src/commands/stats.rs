//! `lungate stats`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use anyhow::Result;
use lungate_gateway_common::table::Traffic;
use lungate_gateway_common::verdict::{Kind, Reason};
use serde::Serialize;

use crate::cli::Global;
use crate::table::Table;

/// What the gateway has carried.
#[derive(Serialize)]
struct Stats {
    to_device: Flow,
    to_host: Flow,
    dropped: Reasons,
    passed: Reasons,
    handed: Reasons,
    answered: Reasons,
    errors: Reasons,
    mappings: Vec<MappingStats>,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Flow {
    packets: u64,
    bytes: u64,
}

#[derive(Default, Serialize)]
struct Reasons {
    packets: u64,
    by_reason: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct MappingStats {
    vip: SocketAddr,
    device: SocketAddr,
    to_device: Flow,
    to_host: Flow,
    /// Packets have gone to the device, and none came back: the device has no route to its hosts through a
    /// gateway, or is down.
    one_way: bool,
}

pub(crate) fn stats(global: &Global) -> Result<()> {
    let table = Table::open(&global.pins())?;
    let mut stats = Stats {
        to_device: Flow::default(),
        to_host: Flow::default(),
        dropped: Reasons::default(),
        passed: Reasons::default(),
        handed: Reasons::default(),
        answered: Reasons::default(),
        errors: Reasons::default(),
        mappings: Vec::new(),
    };
    for (&vip, line) in &table.content()?.forward {
        let traffic = table.traffic(line.counter)?;
        let Traffic { to_device_packets, to_device_bytes, to_host_packets, to_host_bytes } = traffic;
        let to_device = Flow { packets: to_device_packets, bytes: to_device_bytes };
        let to_host = Flow { packets: to_host_packets, bytes: to_host_bytes };
        stats.to_device.add(to_device);
        stats.to_host.add(to_host);
        let one_way = to_device.packets > 0 && to_host.packets == 0;
        stats.mappings.push(MappingStats { vip, device: line.peer, to_device, to_host, one_way });
    }
    for reason in Reason::ALL {
        let packets = table.reason(reason)?;
        let reasons = match reason.kind() {
            Kind::Dropped => &mut stats.dropped,
            Kind::Passed => &mut stats.passed,
            Kind::Handed => &mut stats.handed,
            Kind::Answered => &mut stats.answered,
            Kind::Errors => &mut stats.errors,
        };
        reasons.packets += packets;
        reasons.by_reason.insert(reason.name(), packets);
    }
    global.print(&stats)
}

impl Flow {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:<24} {:>12} {:>14} {:>12} {:>14}",
            "VIP", "device", "to device", "bytes", "to host", "bytes"
        )?;
        for MappingStats { vip, device, to_device, to_host, one_way } in &self.mappings {
            let (vip, device) = (vip.to_string(), device.to_string());
            let note = if *one_way { "  nothing comes back: see the device's routes" } else { "" };
            writeln!(
                f,
                "{vip:<24} {device:<24} {:>12} {:>14} {:>12} {:>14}{note}",
                to_device.packets, to_device.bytes, to_host.packets, to_host.bytes
            )?;
        }
        for (what, reasons) in [
            ("dropped", &self.dropped),
            ("passed to the kernel", &self.passed),
            ("handed to the kernel to go on with", &self.handed),
            ("answered in a VIP's place", &self.answered),
            ("translated error messages", &self.errors),
        ] {
            writeln!(f, "{what}: {} packets", reasons.packets)?;
            for (reason, packets) in reasons.by_reason.iter().filter(|(_, packets)| **packets > 0) {
                writeln!(f, "  {reason:<16} {packets:>12}")?;
            }
        }
        Ok(())
    }
}
