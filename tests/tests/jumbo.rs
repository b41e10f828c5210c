//! Frames of 9000 bytes, which XDP has in more than one buffer, go through the gateway whole.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lungate_tests::net::{FAMILIES, Net};
use lungate_tests::packet::{Seen, Sniffer};
use lungate_tests::transfer::{Server, exchange};

const MTU: u64 = 9000;
const CONNECTIONS: u64 = 2;
/// Either way, and of each connection.
const BYTES: u64 = 8 << 20;
/// Larger than one page, with its headers.
const LARGE: usize = 8 << 10;

#[test]
fn large_segments_go_through_byte_exact() -> Result<()> {
    let net = Net::new()?;
    for (machine, interfaces) in [("host", &["eth0"][..]), ("gateway", &["h0", "d0"]), ("device", &["eth0"])]
    {
        for name in interfaces {
            net.lab.shell(machine, &format!("ip link set dev {name} mtu {MTU}"))?;
        }
    }
    net.load(&FAMILIES.map(|of| (SocketAddr::new(of.vip, 4001), SocketAddr::new(of.device, 5001))))?;
    for family in FAMILIES {
        let sniff = |machine| net.lab.within(machine, || Sniffer::start("eth0"));
        let (at_host, at_device) = (sniff("host")?, sniff("device")?);
        let server = Server::start(&net.lab, family.device, 5001)?;
        exchange(&net.lab, SocketAddr::new(family.vip, 4001), CONNECTIONS, BYTES)?;
        server.finish()?;
        for seen in [at_host.stop()?, at_device.stop()?] {
            let large = seen.iter().filter(|frame| is_large(frame)).count();
            println!("{}: {large} large frames sent", family.vip);
            // Nearly all data left in segments of the full size.
            ensure!(large as u64 > CONNECTIONS * BYTES / MTU * 3 / 4, "only {large} large frames");
        }
    }
    let stats = net.lab.lungate(&["stats"])?;
    ensure!(stats["dropped"]["packets"] == 0 && stats["handed"]["by_reason"]["too_big"] == 0, "{stats}");
    Ok(())
}

/// As it left: frames that come in may have been merged.
fn is_large(frame: &Seen) -> bool {
    frame.outgoing && frame.bytes.len() > LARGE
}
