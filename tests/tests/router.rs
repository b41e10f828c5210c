//! The gateway as a router among real kernels: path MTU discovery, error messages, neighbours, pings and resets, and
//! nothing on the host's link that names a device.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lungate_tests::icmp::{IcmpError, Kind};
use lungate_tests::net::{BOUND, FAMILIES, Family, Net, V4};
use lungate_tests::packet::{Seen, Sniffer};
use lungate_tests::transfer::{Server, exchange};
use rustix::io::Errno;
use rustix::net::sockopt::{set_ip_ttl, set_ipv6_unicast_hops, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, connect, socket};

const VIP_PORT: u16 = 4001;
const DEVICE_PORT: u16 = 5001;
/// To a device port at which nobody listens.
const CLOSED: u16 = 4002;
/// To a device to which there is no route.
const NOWHERE: u16 = 4003;
/// At no mapping.
const UNMAPPED: u16 = 4999;
/// An answer that comes at once.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Connections and bytes of a transfer: enough for the full size of segments.
const CONNECTIONS: u64 = 2;
const BYTES: u64 = 1 << 20;

/// MTUs of the wide and the narrow links.
const LINKS: [(u32, u32); 2] = [(9000, 1500), (1500, 1400)];

#[test]
fn a_host_learns_that_the_way_to_a_device_is_narrow() -> Result<()> {
    for (wide, narrow) in LINKS {
        let net = Net::new()?;
        let wide_ends = format!("ip link set dev eth0 mtu {wide}");
        net.lab.shell("host", &wide_ends)?;
        net.lab.shell("device", &wide_ends)?;
        net.lab
            .shell("gateway", &format!("ip link set dev h0 mtu {wide}; ip link set dev d0 mtu {narrow}"))?;
        knows_only_itself(&net, "device", 2, (wide, narrow))?;
        expect_learned(&net, narrow, |family, error| {
            ensure!(error.from == gateway_at_host(family), "{error:?}");
            Ok(())
        })?;
        let stats = net.lab.lungate(&["stats"])?;
        ensure!(stats["handed"]["by_reason"]["too_big"].as_u64() > Some(1), "{stats}");
    }
    Ok(())
}

#[test]
fn a_host_learns_of_a_narrow_link_behind_a_router() -> Result<()> {
    let net = Net::with_router()?;
    net.lab.shell("router", "ip link set dev v0 mtu 1400")?;
    knows_only_itself(&net, "device", 2, (1500, 1400))?;
    // The router has no name at the host.
    expect_learned(&net, 1400, |family, error| {
        ensure!(error.from == family.vip, "{error:?}");
        Ok(())
    })?;
    let stats = net.lab.lungate(&["stats"])?;
    ensure!(stats["errors"]["by_reason"]["error_to_host"].as_u64() > Some(1), "{stats}");
    Ok(())
}

#[test]
fn a_device_learns_that_the_way_to_a_host_is_narrow() -> Result<()> {
    for (wide, narrow) in LINKS {
        let net = Net::new()?;
        let wide_ends = format!("ip link set dev eth0 mtu {wide}");
        net.lab.shell("host", &wide_ends)?;
        net.lab.shell("device", &wide_ends)?;
        net.lab
            .shell("gateway", &format!("ip link set dev d0 mtu {wide}; ip link set dev h0 mtu {narrow}"))?;
        knows_only_itself(&net, "host", 1, (wide, narrow))?;
        let sniffer = sniffer(&net)?;
        net.load(&mappings())?;
        for family in FAMILIES {
            transfer(&net, family)?;
            ensure!(path_mtu(&net, "device", family, family.host)? == Some(narrow));
        }
        expect_no_device(&sniffer.stop()?)?;
    }
    Ok(())
}

#[test]
fn a_device_learns_of_a_narrow_link_behind_a_router() -> Result<()> {
    let net = Net::with_router_at_host()?;
    net.lab.shell("router", "ip link set dev v0 mtu 1400")?;
    knows_only_itself(&net, "host", 1, (1500, 1400))?;
    let sniffer = net.lab.within("device", || Sniffer::start("eth0"))?;
    net.load(&mappings())?;
    for family in FAMILIES {
        transfer(&net, family)?;
        let learned = path_mtu(&net, "device", family, family.host)?;
        ensure!(learned == Some(1400), "the path to {} has an MTU of {learned:?}", family.host);
    }
    let errors = errors(&sniffer.stop()?);
    for family in FAMILIES {
        let device = SocketAddr::new(family.device, DEVICE_PORT);
        ensure!(errors.iter().any(|error| error.source == device), "nobody told {device}: {errors:?}");
    }
    for error in &errors {
        let is_of_host = FAMILIES.iter().any(|family| error.destination.ip() == family.host);
        ensure!(error.kind == Kind::TooBig(1400) && is_of_host && error.is_sound, "{error:?}");
    }
    let stats = net.lab.lungate(&["stats"])?;
    ensure!(stats["errors"]["by_reason"]["error_to_device"].as_u64() > Some(1), "{stats}");
    Ok(())
}

#[test]
fn hops_that_are_used_up_end_at_the_vip() -> Result<()> {
    let net = Net::with_router()?;
    let sniffer = sniffer(&net)?;
    net.load(&mappings())?;
    for family in FAMILIES {
        transfer(&net, family)?;
        for hops in [1, 2] {
            let ended = net.lab.within("host", || open(SocketAddr::new(family.vip, VIP_PORT), Some(hops)))?;
            ensure!(ended == Err(Errno::HOSTUNREACH), "{hops} hops to {}: {ended:?}", family.vip);
        }
        let three = net.lab.within("host", || open(SocketAddr::new(family.vip, CLOSED), Some(3)))?;
        ensure!(three == Err(Errno::CONNREFUSED), "{three:?}");
    }
    let seen = sniffer.stop()?;
    expect_no_device(&seen)?;
    let errors = errors(&seen);
    for family in FAMILIES {
        let from = |who: IpAddr| errors.iter().filter(move |error| error.from == who);
        for who in [gateway_at_host(family), family.vip] {
            ensure!(from(who).count() > 0, "no message of {who}: {errors:?}");
        }
    }
    for error in errors {
        ensure!(error.kind == Kind::TimeExceeded, "{error:?}");
        expect_of_vip(&error)?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_reached_is_told_of_at_once() -> Result<()> {
    let net = Net::new()?;
    let sniffer = sniffer(&net)?;
    net.load(&mappings())?;
    for family in FAMILIES {
        // Neighbours are known from here on.
        transfer(&net, family)?;
        let to = |port| net.lab.within("host", || open(SocketAddr::new(family.vip, port), None));
        let (closed, nowhere) = (to(CLOSED)?, to(NOWHERE)?);
        ensure!(closed == Err(Errno::CONNREFUSED), "a closed port of a device: {closed:?}");
        ensure!(nowhere == Err(Errno::NETUNREACH), "a device without a route: {nowhere:?}");
        expect_refused_at_once(&net, SocketAddr::new(family.vip, UNMAPPED))?;
    }
    let seen = sniffer.stop()?;
    expect_no_device(&seen)?;
    let errors = errors(&seen);
    for family in FAMILIES {
        ensure!(errors.iter().any(|error| error.source.ip() == family.host), "nobody told {}", family.host);
    }
    for error in errors {
        ensure!(error.kind == Kind::Unreachable, "{error:?}");
        expect_of_vip(&error)?;
    }
    Ok(())
}

#[test]
fn a_vip_on_the_hosts_own_link_is_a_neighbour() -> Result<()> {
    let net = Net::new()?;
    let sniffer = sniffer(&net)?;
    net.load(&mappings())?;
    let gateway = net.link_address("gateway", "h0")?;
    let asked = net.lab.shell("host", &format!("arping -c 2 -w 5 -I eth0 {}", V4.on_link))?;
    ensure!(
        asked.to_lowercase().contains(&format!("unicast reply from {} [{gateway}]", V4.on_link)),
        "{asked}"
    );
    for family in FAMILIES {
        transfer_to(&net, family, family.on_link)?;
        let shown = format!("ip {} neigh show to {} dev eth0", family.option, family.on_link);
        let neighbour = net.lab.shell("host", &shown)?;
        ensure!(neighbour.contains(&format!("lladdr {gateway}")), "{}: {neighbour:?}", family.on_link);
        for vip in [family.on_link, family.vip] {
            let ping = format!("ping {} -c 5 -i 0.01 -W 5 {vip}", family.option);
            let said = net.lab.shell("host", &ping)?;
            ensure!(said.contains("5 received, 0% packet loss"), "{said}");
            expect_refused_at_once(&net, SocketAddr::new(vip, UNMAPPED))?;
        }
    }
    let stats = net.lab.lungate(&["stats"])?;
    for reason in ["arp", "solicitation", "echo", "port_closed"] {
        ensure!(stats["answered"]["by_reason"][reason].as_u64() > Some(0), "{reason}: {stats}");
    }
    expect_no_device(&sniffer.stop()?)
}

fn mappings() -> Vec<(SocketAddr, SocketAddr)> {
    let of = |family: Family| {
        [
            (SocketAddr::new(family.vip, VIP_PORT), SocketAddr::new(family.device, DEVICE_PORT)),
            (SocketAddr::new(family.on_link, VIP_PORT), SocketAddr::new(family.device, DEVICE_PORT + 1)),
            (SocketAddr::new(family.vip, CLOSED), SocketAddr::new(family.device, 1)),
            (SocketAddr::new(family.vip, NOWHERE), SocketAddr::new(family.nowhere, 1)),
        ]
    };
    FAMILIES.into_iter().flat_map(of).collect()
}

fn sniffer(net: &Net) -> Result<Sniffer> {
    net.lab.within("host", || Sniffer::start("eth0"))
}

/// The machine itself sends segments that fit the narrow link, and tells the other end to send larger ones.
fn knows_only_itself(net: &Net, machine: &str, network: u8, (wide, narrow): (u32, u32)) -> Result<()> {
    net.lab.shell(
        machine,
        &format!(
            "ip route replace default via 10.{network}.0.1 mtu {narrow} advmss {}
             ip -6 route replace default via fd0{network}::1 mtu {narrow} advmss {}",
            wide - 40,
            wide - 60
        ),
    )?;
    Ok(())
}

/// Transfers are whole, the host has learned the MTU of the path to the VIP, from messages that name nobody else.
fn expect_learned(net: &Net, narrow: u32, is_right: impl Fn(Family, &IcmpError) -> Result<()>) -> Result<()> {
    let sniffer = sniffer(net)?;
    net.load(&mappings())?;
    for family in FAMILIES {
        transfer(net, family)?;
        let learned = path_mtu(net, "host", family, family.vip)?;
        ensure!(learned == Some(narrow), "the path to {} has an MTU of {learned:?}", family.vip);
    }
    let seen = sniffer.stop()?;
    expect_no_device(&seen)?;
    let errors = errors(&seen);
    for family in FAMILIES {
        let of_family = errors.iter().filter(|error| error.source.ip() == family.host);
        let mut told = 0;
        for error in of_family {
            ensure!(error.kind == Kind::TooBig(narrow), "{error:?}");
            expect_of_vip(error)?;
            is_right(family, error)?;
            told += 1;
        }
        ensure!(told > 0, "nobody told {}", family.host);
    }
    Ok(())
}

fn transfer(net: &Net, family: Family) -> Result<()> {
    transfer_to(net, family, family.vip)
}

fn transfer_to(net: &Net, family: Family, vip: IpAddr) -> Result<()> {
    let port = DEVICE_PORT + u16::from(vip == family.on_link);
    let server = Server::start(&net.lab, family.device, port)?;
    exchange(&net.lab, SocketAddr::new(vip, VIP_PORT), CONNECTIONS, BYTES)?;
    server.finish()
}

/// The MTU that a machine has learned of the path to an address.
fn path_mtu(net: &Net, machine: &str, family: Family, to: IpAddr) -> Result<Option<u32>> {
    let route = net.lab.shell(machine, &format!("ip {} route get {to}", family.option))?;
    let mut words = route.split_whitespace();
    words.find(|word| *word == "mtu");
    words.next().map(|mtu| mtu.parse().with_context(|| format!("{mtu} in {route}"))).transpose()
}

/// Opens a connection and closes it again; how that ended. For a thread on the host.
fn open(to: SocketAddr, hops: Option<u8>) -> Result<Result<(), Errno>> {
    let of = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(of, SocketType::STREAM, None)?;
    set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(BOUND))?;
    match hops {
        Some(hops) if to.is_ipv4() => set_ip_ttl(&socket, hops.into())?,
        Some(hops) => set_ipv6_unicast_hops(&socket, Some(hops))?,
        None => {}
    }
    Ok(connect(&socket, &to))
}

/// A reset comes at once; the best of some tries, since this machine has other work.
fn expect_refused_at_once(net: &Net, to: SocketAddr) -> Result<()> {
    let tried = net.lab.within("host", || {
        let mut best = BOUND;
        for _ in 0..5 {
            let begin = Instant::now();
            match TcpStream::connect_timeout(&to, BOUND) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                other => bail!("{to}: {other:?}"),
            }
            best = best.min(begin.elapsed());
        }
        Ok(best)
    })?;
    ensure!(tried < AT_ONCE, "{to} answers after {tried:?}");
    Ok(())
}

/// The gateway as the host knows it.
fn gateway_at_host(family: Family) -> IpAddr {
    match family.host {
        IpAddr::V4(_) => IpAddr::from([10, 1, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, 1]),
    }
}

/// What the host was told by error messages.
fn errors(seen: &[Seen]) -> Vec<IcmpError> {
    let incoming = seen.iter().filter(|frame| !frame.outgoing);
    incoming.filter_map(|frame| IcmpError::read(&frame.bytes)).collect()
}

/// The message is about a segment from the host to the VIP.
fn expect_of_vip(error: &IcmpError) -> Result<()> {
    let is_known = FAMILIES
        .iter()
        .any(|family| error.source.ip() == family.host && error.destination.ip() == family.vip);
    let is_port = [VIP_PORT, CLOSED, NOWHERE].contains(&error.destination.port());
    ensure!(is_known && is_port && error.is_sound, "{error:?}");
    Ok(())
}

/// No frame on the host's link has in it an address that only devices and the gateway know.
fn expect_no_device(seen: &[Seen]) -> Result<()> {
    ensure!(seen.len() > 100, "only {} frames were seen", seen.len());
    let hidden: Vec<Vec<u8>> = FAMILIES
        .iter()
        .flat_map(|family| [family.device, family.nowhere])
        .map(|address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        })
        .collect();
    for frame in seen {
        for address in &hidden {
            let is_there = frame.bytes.windows(address.len()).any(|bytes| bytes == address);
            ensure!(!is_there, "{address:x?} is in {:02x?}", frame.bytes);
        }
    }
    Ok(())
}
