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
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const SEED: u64 = 0x6c75_6e67_6174_6501;
/// How fast iperf3 sends each way: far less than the links take, so that they lose nothing themselves.
const RATE: &str = "40M";
/// Longer than any machine takes; iperf3 is told when it is to end.
const SECONDS: &str = "600";
/// How often everything is done: six loads, five or six kills, an upgrade.
const ROUNDS: u32 = 4;
/// What must at least have gone through meanwhile, iperf3's bytes each way of each family.
const BYTES: u64 = 8 << 20;
const SEGMENTS: u32 = 10_000;

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
    only_losses_are_sent_again(net)?;
    warm_up(net)?;
    let counted = FAMILIES.into_iter().flat_map(routes);
    let counted = counted.map(|route| Counted::start(net, route)).collect::<Result<Vec<_>>>()?;
    let sent_again = retransmitted(net)?;
    let clients = FAMILIES.map(|family| iperf(net, family)).into_iter().collect::<Result<Vec<_>>>()?;

    let mut random = Random::new(SEED);
    // A command is killed at the latest when it would end by itself.
    let begin = Instant::now();
    load(net)?;
    let load_takes = begin.elapsed();
    net.lab.lungate(&["apply"])?;
    let others_take = begin.elapsed() - load_takes;
    let takes = |arguments: &[String]| match arguments {
        [word, ..] if ["load", "serve", "watch"].contains(&word.as_str()) => load_takes,
        _ => others_take,
    };
    let (mut loads, mut kills, mut upgrades) = (0, 0, 0);
    for _ in 0..ROUNDS {
        for _ in 0..4 {
            load(net)?;
            loads += 1;
        }
        for arguments in commands(&mut random) {
            kill(net, &arguments, random_part(takes(&arguments), &mut random)?)?;
            kills += 1;
            if arguments == LOAD {
                load(net)?;
                loads += 1;
            }
            heal(net)?;
        }
        layout_1::bring_back(net)?;
        // Half of the upgrades are interrupted and begun anew.
        if random.one_in(2) {
            let again = words(&LOAD);
            kill(net, &again, random_part(takes(&again), &mut random)?)?;
            kills += 1;
        }
        load(net)?;
        loads += 1;
        upgrades += 1;
        heal(net)?;
    }

    let reports = clients.iter().map(|client| client.end(net)).collect::<Result<Vec<_>>>()?;
    let sent_again = retransmitted(net)? - sent_again;
    let sent = counted.into_iter().map(Counted::finish).sum::<Result<u32>>()?;
    println!(
        "load takes {load_takes:?}, apply {others_take:?}; {loads} loads, {kills} kills, {upgrades} upgrades; \
         {sent} segments counted, {sent_again} retransmitted"
    );
    ensure!(loads >= 20 && sent >= SEGMENTS, "too little was done");
    ensure!(sent_again == 0, "{sent_again} segments were sent again:\n{}", drops(net)?);
    reports.iter().try_for_each(expect_clean)?;
    let stats = net.lab.lungate(&["stats"])?;
    ensure!(stats["dropped"]["packets"] == 0, "the gateway dropped some: {}", stats["dropped"]);
    Ok(())
}

/// What the kernels say of losses: of their own links, and whether what was sent again had arrived.
fn drops(net: &Net) -> Result<String> {
    let ends = "nstat -asz TcpRetransSegs TcpExtTCPTimeouts TcpExtTCPSpuriousRTO TcpExtTCPDSACKRecv \
                TcpExtTCPFastRetrans; ip -s link show eth0; ethtool -S eth0";
    let gateway = "ip -s link show h0; ip -s link show d0; ethtool -S h0; ethtool -S d0";
    Ok([net.lab.shell("host", ends)?, net.lab.shell("device", ends)?, net.lab.shell("gateway", gateway)?]
        .concat())
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

/// What arrives late on a busy machine is not taken for lost.
fn only_losses_are_sent_again(net: &Net) -> Result<()> {
    for (machine, number) in [("host", 1), ("device", 2)] {
        net.lab.shell(
            machine,
            &format!(
                "sysctl -qw net.ipv4.tcp_early_retrans=0
                 ip route replace default via 10.{number}.0.1 rto_min 5s
                 ip -6 route replace default via fd0{number}::1 rto_min 5s"
            ),
        )?;
    }
    Ok(())
}

/// Every machine knows its neighbours.
fn warm_up(net: &Net) -> Result<()> {
    for (machine, number) in [("host", 1), ("device", 2)] {
        net.lab.shell(machine, &format!("ping -c 1 -W 5 10.{number}.0.1; ping -c 1 -W 5 fd0{number}::1"))?;
    }
    Ok(())
}

/// A client of iperf3 that sends and receives.
struct Iperf {
    name: String,
    process: u32,
}

/// iperf3 both ways through the VIP, and its server.
fn iperf(net: &Net, family: Family) -> Result<Iperf> {
    let (server, name) = (format!("server{}", family.option), format!("client{}", family.option));
    let mut listen = net.lab.on("device", "iperf3");
    listen.args(["--server", "--one-off", "--bind", &family.device.to_string()]);
    net.lab.start(&server, listen.args(["--port", &IPERF.1.to_string()]))?;
    let listening = format!("ss -Hltn {} sport = :{}", family.option, IPERF.1);
    wait_until("iperf3 to listen", || Ok(!net.lab.shell("device", &listening)?.is_empty()))?;
    let mut send = net.lab.on("host", "iperf3");
    send.args(["--client", &family.vip.to_string(), "--port", &IPERF.0.to_string(), "--bidir", "--json"]);
    send.args(["--bitrate", RATE, "--window", "128K", "--time", SECONDS]);
    let process = net.lab.start(&name, &mut send)?;
    Ok(Iperf { name, process })
}

impl Iperf {
    /// Tells it to end; its report.
    fn end(&self, net: &Net) -> Result<Value> {
        let early = net.lab.ended(&self.name);
        ensure!(early.is_none(), "iperf3 ended by itself: {}", fs::read_to_string(net.lab.log(&self.name))?);
        let process = i32::try_from(self.process).ok().and_then(Pid::from_raw).context("no process")?;
        kill_process(process, Signal::INT)?;
        wait_until("the end of iperf3", || Ok(net.lab.ended(&self.name).is_some()))?;
        let said = fs::read_to_string(net.lab.log(&self.name))?;
        // Behind the report it says once more why it ended.
        let mut reports = serde_json::Deserializer::from_str(&said).into_iter();
        reports
            .next()
            .with_context(|| format!("iperf3 said {said}"))?
            .context("iperf3 has not answered in JSON")
    }
}

/// iperf3 has sent and received enough, and sent nothing again. Of what its server sent again only the device's
/// kernel knows.
fn expect_clean(report: &Value) -> Result<()> {
    for way in ["sum_sent", "sum_received_bidir_reverse"] {
        let sum = &report["end"][way];
        ensure!(sum["bytes"].as_u64() > Some(BYTES), "{way} is {sum}: {}", report["error"]);
    }
    let again = &report["end"]["sum_sent"]["retransmits"];
    ensure!(*again == 0, "iperf3 sent {again} segments again");
    Ok(())
}

/// The segments that the kernels of both ends have sent again.
fn retransmitted(net: &Net) -> Result<u64> {
    let count = |machine| -> Result<u64> {
        let said = net.lab.shell(machine, "nstat -asz TcpRetransSegs")?;
        let mut words = said.split_whitespace().skip_while(|word| *word != "TcpRetransSegs");
        words.nth(1).and_then(|count| count.parse().ok()).with_context(|| format!("nstat said {said}"))
    };
    Ok(count("host")? + count("device")?)
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
    vec![
        words(&["serve"]),
        words(&["watch"]),
        words(&["apply"]),
        words(&LOAD),
        words(&["map", "migrate", &vip, "--to", &to]),
    ]
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

/// One `apply` makes right whatever a killed command left behind in the table.
fn heal(net: &Net) -> Result<()> {
    net.lab.lungate(&["apply"])?;
    let status = net.lab.lungate(&["status"])?;
    ensure!(status["in_sync"] == json!(true), "not healed: {status}");
    Ok(())
}
