//! Programs are replaced, commands are killed and a table of the layout before is brought over, all under load: no
//! packet is lost, counted one by one and by what iperf3 sends again.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lungate_tests::counted::{Counted, Route};
use lungate_tests::layout_1;
use lungate_tests::net::{FAMILIES, Family, Net, wait_until};
use lungate_tests::random::Random;
use serde_json::{Value, json};

const SEED: u64 = 0x6c75_6e67_6174_6501;
/// How long iperf3 sends, and how fast each way: far less than the links take, so that they lose nothing themselves.
const SECONDS: u32 = 20;
const RATE: &str = "40M";
/// What must at least happen in that time.
const LOADS: u32 = 20;
const KILLS: u32 = 8;
const UPGRADES: u32 = 3;

const LOAD: [&str; 5] = ["load", "--iface", "h0", "--iface", "d0"];

/// iperf3, the counted segments each way, and a mapping that moves, by their ports at the VIP and at the device.
const IPERF: (u16, u16) = (4001, 5001);
const COUNTED: (u16, u16) = (4002, 5002);
const MOVING: (u16, u16) = (4003, 5003);
const MOVED: u16 = 5004;
/// The host's end of counted segments.
const HOST: u16 = 40_002;

#[test]
fn nothing_is_lost_while_everything_is_replaced_killed_and_upgraded() -> Result<()> {
    let net = Net::new()?;
    net.load(&mappings())?;
    let net = &net;
    // No retransmission for any other reason than a loss.
    for machine in ["host", "device"] {
        net.lab.shell(machine, "sysctl -qw net.ipv4.tcp_early_retrans=0")?;
    }
    warm_up(net)?;
    let counted = FAMILIES.into_iter().flat_map(|family| routes(family));
    let counted = counted.map(|route| Counted::start(net, route)).collect::<Result<Vec<_>>>()?;
    let clients = FAMILIES.map(|family| iperf(net, family)).into_iter().collect::<Result<Vec<_>>>()?;
    let is_over = || clients.iter().any(|client| net.lab.ended(client).is_some());

    let mut random = Random::new(SEED);
    // A command is killed at the latest when it would end by itself.
    let begin = Instant::now();
    load(net)?;
    let load_takes = begin.elapsed();
    net.lab.lungate(&["apply"])?;
    let others_take = begin.elapsed() - load_takes;
    let takes = |arguments: &[String]| match arguments {
        [word, ..] if word == "load" || word == "serve" => load_takes,
        _ => others_take,
    };
    let (mut loads, mut kills, mut upgrades) = (0, 0, 0);
    while !is_over() {
        for _ in 0..4 {
            load(net)?;
            loads += 1;
        }
        for arguments in commands(&mut random) {
            kill(net, &arguments, random_part(takes(&arguments), &mut random)?)?;
            kills += 1;
            heal(net)?;
            loads += 1;
        }
        layout_1::bring_back(net)?;
        // Half of the upgrades are interrupted and begun anew.
        if random.one_in(2) {
            let again = words(&LOAD);
            kill(net, &again, random_part(takes(&again), &mut random)?)?;
            kills += 1;
        }
        load(net)?;
        upgrades += 1;
        heal(net)?;
        loads += 2;
    }

    let mut retransmits = 0;
    for client in &clients {
        wait_until("the end of iperf3", || Ok(net.lab.ended(client).is_some()))?;
        retransmits += retransmitted(&fs::read_to_string(net.lab.log(client))?)
            .with_context(|| format!("{client} {:?}", net.lab.ended(client)))?;
    }
    let mut sent = 0;
    for stream in counted {
        sent += stream.finish()?;
    }
    println!(
        "load takes {load_takes:?}, apply {others_take:?}; {loads} loads, {kills} kills, {upgrades} upgrades; {sent} segments counted, {retransmits} retransmitted"
    );
    ensure!(loads >= LOADS && kills >= KILLS && upgrades >= UPGRADES, "too little was done");
    ensure!(retransmits == 0, "iperf3 sent {retransmits} segments again");
    let stats = net.lab.lungate(&["stats"])?;
    ensure!(stats["dropped"]["packets"] == 0, "the gateway dropped some: {}", stats["dropped"]);
    Ok(())
}

fn mappings() -> Vec<(SocketAddr, SocketAddr)> {
    let of = |family: Family| {
        [IPERF, COUNTED, MOVING]
            .map(|(vip, device)| (SocketAddr::new(family.vip, vip), SocketAddr::new(family.device, device)))
    };
    FAMILIES.into_iter().flat_map(of).collect()
}

/// Both ways of the counted segments of a family.
fn routes(family: Family) -> [Route<'static>; 2] {
    let host = SocketAddr::new(family.host, HOST);
    let vip = SocketAddr::new(family.vip, COUNTED.0);
    let device = SocketAddr::new(family.device, COUNTED.1);
    [
        Route {
            from: "host",
            gateway: "h0",
            to: "device",
            source: host,
            destination: vip,
            shown: host,
            at: device,
        },
        Route {
            from: "device",
            gateway: "d0",
            to: "host",
            source: device,
            destination: host,
            shown: vip,
            at: host,
        },
    ]
}

/// Every machine knows its neighbours.
fn warm_up(net: &Net) -> Result<()> {
    for (machine, number) in [("host", 1), ("device", 2)] {
        net.lab.shell(machine, &format!("ping -c 1 -W 5 10.{number}.0.1; ping -c 1 -W 5 fd0{number}::1"))?;
    }
    Ok(())
}

/// iperf3 both ways through the VIP, and its server; the name of the client's process.
fn iperf(net: &Net, family: Family) -> Result<String> {
    let (server, client) = (format!("server{}", family.option), format!("client{}", family.option));
    let mut listen = net.lab.on("device", "iperf3");
    listen.args(["--server", "--one-off", "--bind", &family.device.to_string()]);
    net.lab.start(&server, listen.args(["--port", &IPERF.1.to_string()]))?;
    let listening = format!("ss -Hltn {} sport = :{}", family.option, IPERF.1);
    wait_until("iperf3 to listen", || Ok(!net.lab.shell("device", &listening)?.is_empty()))?;
    let mut send = net.lab.on("host", "iperf3");
    send.args(["--client", &family.vip.to_string(), "--port", &IPERF.0.to_string(), "--bidir", "--json"]);
    send.args(["--bitrate", RATE, "--window", "128K", "--time", &SECONDS.to_string()]);
    net.lab.start(&client, &mut send)?;
    Ok(client)
}

/// What iperf3 sent again, both ways.
fn retransmitted(report: &str) -> Result<u64> {
    let report: Value = serde_json::from_str(report).with_context(|| report.to_owned())?;
    let mut all = 0;
    for way in ["sum_sent", "sum_sent_bidir_reverse"] {
        let sum = &report["end"][way];
        let bytes = sum["bytes"].as_u64().unwrap_or(0);
        ensure!(bytes > u64::from(SECONDS) << 20, "{way}: only {bytes} bytes: {}", report["error"]);
        all += sum["retransmits"].as_u64().with_context(|| format!("{way} counts no retransmits: {sum}"))?;
    }
    Ok(all)
}

/// Replaces the programs.
fn load(net: &Net) -> Result<()> {
    net.lab.lungate(&LOAD).map(|_| ())
}

/// What is killed: every command that changes something, and the one that stays.
fn commands(random: &mut Random) -> Vec<Vec<String>> {
    let family = FAMILIES[usize::from(random.one_in(2))];
    let to = if random.one_in(2) { MOVED } else { MOVING.1 };
    let vip = SocketAddr::new(family.vip, MOVING.0).to_string();
    let to = SocketAddr::new(family.device, to).to_string();
    vec![words(&["serve"]), words(&["apply"]), words(&LOAD), words(&["map", "migrate", &vip, "--to", &to])]
}

fn words(of: &[&str]) -> Vec<String> {
    of.iter().map(|word| (*word).to_owned()).collect()
}

/// Less than all of a time.
fn random_part(of: Duration, random: &mut Random) -> Result<Duration> {
    Ok(Duration::from_micros(random.below(u64::try_from(of.as_micros())?)))
}

/// Starts a command and kills it after so long, wherever it is by then.
fn kill(net: &Net, arguments: &[String], life: Duration) -> Result<()> {
    let mut command = net.lab.lungate_command();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Killed(command.spawn().context("cannot start lungate")?);
    let begin = Instant::now();
    while begin.elapsed() < life {
        std::thread::park_timeout(life.saturating_sub(begin.elapsed()));
    }
    child.0.kill().context("cannot kill lungate")?;
    child.0.wait()?;
    Ok(())
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One `load` and one `apply` make right whatever a killed command left behind.
fn heal(net: &Net) -> Result<()> {
    load(net)?;
    net.lab.lungate(&["apply"])?;
    let status = net.lab.lungate(&["status"])?;
    ensure!(status["in_sync"] == json!(true), "not healed: {status}");
    Ok(())
}
