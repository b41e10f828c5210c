//! Frames are lost, repeated and reordered on both sides of the gateway, and what TCP carries stays as it is.

use std::net::SocketAddr;
use std::thread;

use anyhow::{Result, ensure};
use lungate_tests::net::{FAMILIES, Net};
use lungate_tests::rough::RoughWire;
use lungate_tests::transfer::{Server, exchange};

const SEED: u64 = 0x6c75_6e67_6174_6503;
const CONNECTIONS: u64 = 4;
/// Either way, and of each connection: 16 MiB together for each family.
const BYTES: u64 = 4 << 20;
/// The frames that this many bytes make at least, on one wire.
const LEAST: u64 = 2 * 2 * CONNECTIONS * BYTES / 1500;

#[test]
fn what_tcp_carries_over_rough_wires_stays_byte_exact() -> Result<()> {
    let net = Net::with_wires()?;
    let wires = [
        RoughWire::start(&net.lab, "a0", "a1", SEED)?,
        RoughWire::start(&net.lab, "b0", "b1", SEED.rotate_left(32))?,
    ];
    net.load(&FAMILIES.map(|of| (SocketAddr::new(of.vip, 4001), SocketAddr::new(of.device, 5001))))?;
    let carry = |vip, device| -> Result<()> {
        let server = Server::start(&net.lab, device, 5001)?;
        exchange(&net.lab, SocketAddr::new(vip, 4001), CONNECTIONS, BYTES)?;
        server.finish()
    };
    thread::scope(|scope| {
        let running = FAMILIES.map(|of| scope.spawn(move || carry(of.vip, of.device)));
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a panic")))
    })?;
    for wire in wires {
        let fate = wire.stop()?;
        println!("{fate:?}");
        ensure!(fate.all > LEAST, "too few frames: {fate:?}");
        for part in [fate.lost, fate.repeated, fate.reordered] {
            ensure!(part * 200 > fate.all, "the wire was not rough: {fate:?}");
        }
    }
    let stats = net.lab.lungate(&["stats"])?;
    ensure!(stats["dropped"]["packets"] == 0, "the gateway dropped some: {}", stats["dropped"]);
    Ok(())
}
