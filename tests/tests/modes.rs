//! The program above the driver, on both sides or on one: packets flow all the same, and where a frame cannot be
//! redirected to the other side the kernel takes it there.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lungate_tests::net::{FAMILIES, Net};
use lungate_tests::transfer::{Server, exchange};

const CONNECTIONS: u64 = 2;
/// Either way, and of each connection.
const BYTES: u64 = 2 << 20;

fn transfer(modes: [&str; 2], goes_by_the_kernel: bool) -> Result<()> {
    let net = Net::new()?;
    net.load_in(
        modes,
        &FAMILIES.map(|of| (SocketAddr::new(of.vip, 4001), SocketAddr::new(of.device, 5001))),
    )?;
    let status = net.lab.lungate(&["status"])?;
    for (name, mode) in ["h0", "d0"].into_iter().zip(modes) {
        let interfaces = status["interfaces"].as_array().into_iter().flatten();
        let found = interfaces.filter(|there| there["name"] == name && there["mode"] == mode).count();
        ensure!(found == 1, "{name} is not in {mode} mode: {status}");
    }
    for family in FAMILIES {
        let server = Server::start(&net.lab, family.device, 5001)?;
        exchange(&net.lab, SocketAddr::new(family.vip, 4001), CONNECTIONS, BYTES)?;
        server.finish()?;
    }
    let stats = net.lab.lungate(&["stats"])?;
    let by_kernel = stats["handed"]["by_reason"]["kernel_route"].as_u64().unwrap_or(0);
    ensure!((by_kernel > 100) == goes_by_the_kernel, "{modes:?}: {by_kernel} packets by the kernel");
    ensure!(stats["dropped"]["packets"] == 0, "{stats}");
    Ok(())
}

#[test]
fn above_the_driver_on_both_sides() -> Result<()> {
    transfer(["generic", "generic"], false)
}

#[test]
fn above_the_driver_on_the_devices_side() -> Result<()> {
    transfer(["native", "generic"], true)
}

#[test]
fn above_the_driver_on_the_hosts_side() -> Result<()> {
    transfer(["generic", "native"], true)
}
