//! `lungate serve`: what it follows, and that packets do without it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::thread::sched_getcpu;
use serde_json::{Value, json};

use crate::document::{lone, mapping};
use crate::gateway::{Gateway, dump, shell, stdout};
use crate::serving::{BOUND, Serving, wait_until};
use crate::traffic::{Stream, Wire};

/// How soon a change must be followed.
const SOON: Duration = Duration::from_secs(1);
/// How long a `lungate serve` that was killed is still believed, at most, and hops are used then.
const BELIEVED: Duration = Duration::from_millis(1500);

/// The bit of the generation that says that hops are shared by all sources.
const SHARED: u64 = 1 << 63;

const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 2, 0x11];
const REPLACED: [u8; 6] = [2, 0, 0, 0, 2, 0x99];
const BACKUP: [u8; 6] = [2, 0, 0, 0, 4, 0x11];

/// Two ways to a device at 10.3.0.1: over d0, and where that is not there over e0.
const WAYS: &str = "
ip link set h0 address 02:00:00:00:01:01
ip link add e0 type veth peer name e1
for i in e0 e1; do ip link set $i up; done
for i in h1 d1 e1; do ethtool -K $i gro on; done
ip addr add 10.4.0.1/24 dev e0
ip neigh add 10.4.0.11 lladdr 02:00:00:00:04:11 dev e0 nud permanent
ip route add 10.3.0.0/24 via 10.2.0.11 dev d0 metric 10
ip route add 10.3.0.0/24 via 10.4.0.11 dev e0 metric 20
";

/// A gateway with a mapping to 10.3.0.1, and the wires at its interfaces.
struct Paths {
    gateway: Gateway,
    host: Wire,
    device: Wire,
    backup: Wire,
    cpu: usize,
}

impl Paths {
    fn new() -> Self {
        let gateway = Gateway::new();
        shell(WAYS);
        gateway.json(&["load", "--iface", "h0", "--iface", "d0", "--iface", "e0"]);
        gateway.apply(&lone(&[mapping("10.9.0.1:1", "10.3.0.1:1", &[])]));
        let [host, device, backup] = ["h1", "d1", "e1"].map(Wire::open);
        Self { gateway, host, device, backup, cpu: sched_getcpu() }
    }

    fn stream(&self) -> Stream<'_> {
        let vip = [10, 9, 0, 1].into();
        Stream { from: &self.host, gateway: [2, 0, 0, 0, 1, 1], vip, port: 1, cpu: self.cpu }
    }

    /// Makes a change while packets flow; how long it took from there until one went the new way.
    fn follows(&self, change: &str, at: &Wire, neighbour: [u8; 6], within: Duration) {
        self.stream().arrives(&self.device, NEIGHBOUR, BOUND);
        let begin = Instant::now();
        shell(change);
        self.stream().arrives(at, neighbour, BOUND);
        let took = begin.elapsed();
        eprintln!("{change}: followed after {took:?}");
        assert!(took < within, "{change}: followed after {took:?}, {within:?} is the most");
    }
}

const MOVED_NEIGHBOUR: &str = "ip neigh replace 10.2.0.11 lladdr 02:00:00:00:02:99 dev d0 nud permanent";
const MOVED_ROUTE: &str = "ip route replace 10.3.0.0/24 via 10.4.0.11 dev e0 metric 5";
const LINK_DOWN: &str = "ip link set d0 down";

#[test]
fn a_neighbour_that_changes_its_link_address_is_followed() {
    let paths = Paths::new();
    let _serving = Serving::start(&paths.gateway, &[]);
    paths.follows(MOVED_NEIGHBOUR, &paths.device, REPLACED, SOON);
}

#[test]
fn a_route_that_moves_is_followed() {
    let paths = Paths::new();
    let _serving = Serving::start(&paths.gateway, &[]);
    paths.follows(MOVED_ROUTE, &paths.backup, BACKUP, SOON);
}

#[test]
fn a_link_that_goes_down_is_followed() {
    let paths = Paths::new();
    let _serving = Serving::start(&paths.gateway, &[]);
    paths.follows(LINK_DOWN, &paths.backup, BACKUP, SOON);
}

#[test]
fn a_machine_that_stops_forwarding_is_followed() {
    let paths = Paths::new();
    let serving = Serving::start(&paths.gateway, &[]);
    paths.stream().arrives(&paths.device, NEIGHBOUR, BOUND);
    let begin = Instant::now();
    shell("sysctl -qw net.ipv4.ip_forward=0");
    let passed = || paths.gateway.json(&["stats"])["passed"]["by_reason"]["not_forwarding"].as_u64().unwrap();
    wait_until("a packet that is not forwarded", || {
        paths.stream().send();
        passed() > 0
    });
    assert!(begin.elapsed() < SOON, "followed after {:?}", begin.elapsed());
    serving.expect_that("followed", |event| event["routes"].as_u64().unwrap() > 0);
}

/// While no rule looks at sources, hops are shared by all of them; a rule that does is followed like anything else.
#[test]
fn a_rule_for_some_sources_is_followed() {
    let paths = Paths::new();
    assert_eq!(control(&paths.gateway, 0) & SHARED, 0, "nobody watches");
    let mut serving = Serving::start(&paths.gateway, &[]);
    assert_eq!(control(&paths.gateway, 0) & SHARED, SHARED);
    shell("ip route add 10.3.0.0/24 via 10.4.0.11 dev e0 table 100");
    paths.follows("ip rule add from 10.1.0.0/24 lookup 100", &paths.backup, BACKUP, SOON);
    wait_until("hops by source", || control(&paths.gateway, 0) & SHARED == 0);
    serving.expect_that("followed", |event| event["rules"].as_u64().unwrap() > 0);
    // Whoever writes down the surroundings meanwhile leaves it so.
    paths.gateway.json(&["apply"]);
    assert_eq!(control(&paths.gateway, 0) & SHARED, 0);
    shell("ip rule del from 10.1.0.0/24 lookup 100");
    wait_until("shared hops", || control(&paths.gateway, 0) & SHARED != 0);
    paths.gateway.json(&["apply"]);
    assert_eq!(control(&paths.gateway, 0) & SHARED, SHARED);
    assert!(serving.end_by(Signal::TERM));
    assert_eq!(control(&paths.gateway, 0) & SHARED, 0);
}

#[test]
fn changes_are_followed_without_it() {
    let paths = Paths::new();
    assert_eq!(paths.gateway.json(&["status"])["watched"], false);
    paths.follows(MOVED_ROUTE, &paths.backup, BACKUP, SOON);
    shell("ip route del 10.3.0.0/24 metric 5");
    paths.follows(LINK_DOWN, &paths.backup, BACKUP, SOON);
    let paths = Paths::new();
    paths.follows(MOVED_NEIGHBOUR, &paths.device, REPLACED, SOON);
}

#[test]
fn packets_flow_and_changes_are_followed_when_it_is_killed() {
    let paths = Paths::new();
    let mut serving = Serving::start(&paths.gateway, &[]);
    paths.stream().arrives(&paths.device, NEIGHBOUR, BOUND);
    assert!(!serving.end_by(Signal::KILL));
    paths.stream().arrives(&paths.device, NEIGHBOUR, SOON);
    // It had promised to watch for another second.
    paths.follows(MOVED_NEIGHBOUR, &paths.device, REPLACED, BELIEVED);
    wait_until("the promise to run out", || paths.gateway.json(&["status"])["watched"] == false);
    shell("ip neigh replace 10.2.0.11 lladdr 02:00:00:00:02:11 dev d0 nud permanent");
    paths.follows(MOVED_ROUTE, &paths.backup, BACKUP, SOON);
}

/// A device in a network namespace of its own, which answers ARP.
struct Device {
    process: Child,
}

impl Device {
    fn new() -> Self {
        let process = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let device = Self { process };
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let there = format!("/proc/{}/ns/net", device.process.id());
        wait_until("the device's namespace", || fs::read_link(&there).is_ok_and(|there| there != own));
        shell(&format!("ip link set d1 netns {}", device.process.id()));
        device.shell(
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1; ip link set lo up
             ip link set d1 address 02:00:00:00:02:11; ip addr add 10.2.0.11/24 dev d1; ip link set d1 up
             ethtool -K d1 gro on",
        );
        device
    }

    fn shell(&self, script: &str) {
        let net = format!("--net=/proc/{}/ns/net", self.process.id());
        stdout(Command::new("nsenter").args([&net, "sh", "-ec", script]));
    }

    /// A wire in its namespace.
    fn wire(&self) -> Wire {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", self.process.id())).unwrap();
        let open = move || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
            Wire::open("d1")
        };
        std::thread::spawn(open).join().unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Nothing is heard from a neighbour that was replaced; the kernel finds out because it is told to ask.
#[test]
fn a_neighbour_that_is_replaced_in_silence_is_found() {
    let gateway = Gateway::new();
    shell(
        "ip link set h0 address 02:00:00:00:01:01; ip neigh del 10.2.0.11 dev d0
         sysctl -qw net.ipv4.neigh.d0.base_reachable_time_ms=3000 net.ipv4.neigh.d0.delay_first_probe_time=1 \
             net.ipv4.neigh.d0.retrans_time_ms=100",
    );
    let device = Device::new();
    gateway.json(&["load", "--iface", "h0", "--iface", "d0"]);
    gateway.apply(&lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &[])]));
    let (host, wire) = (Wire::open("h1"), device.wire());
    let serving = Serving::start(&gateway, &[]);
    let stream = Stream {
        from: &host,
        gateway: [2, 0, 0, 0, 1, 1],
        vip: [10, 9, 0, 1].into(),
        port: 1,
        cpu: sched_getcpu(),
    };
    stream.arrives(&wire, NEIGHBOUR, BOUND);
    // By then the kernel believes what it knows, and does not ask by itself.
    let stale = || stdout(Command::new("ip").args(["neigh", "show", "10.2.0.11"])).contains("STALE");
    wait_until("the neighbour to be stale", stale);
    device.shell("ip link set d1 address 02:00:00:00:02:99");
    let took = stream.arrives(&wire, REPLACED, BOUND);
    eprintln!("found after {took:?}");
    serving.expect("asked");
}

/// The words of `CONTROL`.
fn control(gateway: &Gateway, place: usize) -> u64 {
    let bytes = dump(&gateway.map("CONTROL"))[place]["value"].clone();
    let bytes: Vec<u8> = bytes
        .as_array()
        .unwrap()
        .iter()
        .map(|byte| u8::from_str_radix(byte.as_str().unwrap().trim_start_matches("0x"), 16).unwrap())
        .collect();
    u64::from_ne_bytes(bytes.try_into().unwrap())
}

#[test]
fn it_promises_to_watch_and_takes_that_back() {
    let gateway = Gateway::loaded();
    assert_eq!((gateway.json(&["status"])["watched"].clone(), control(&gateway, 1)), (json!(false), 0));
    let mut serving = Serving::start(&gateway, &[]);
    assert_eq!(gateway.json(&["status"])["watched"], true);
    let first = control(&gateway, 1);
    wait_until("a renewal", || control(&gateway, 1) > first);
    assert!(serving.end_by(Signal::TERM));
    assert_eq!((gateway.json(&["status"])["watched"].clone(), control(&gateway, 1)), (json!(false), 0));
    let mut serving = Serving::start(&gateway, &[]);
    assert!(serving.end_by(Signal::INT));
    assert_eq!(control(&gateway, 1), 0);
}

#[test]
fn people_read_one_word_when_it_is_ready() {
    let gateway = Gateway::loaded();
    let mut command = gateway.lungate(&["serve"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    shell("ip addr add 10.7.0.1/24 dev d0");
    let mut said = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(first, "ready\n");
    assert!(said.starts_with("followed changes: "), "{said}");
}

#[test]
fn a_second_one_is_refused() {
    let gateway = Gateway::loaded();
    let mut serving = Serving::start(&gateway, &[]);
    let process = format!("process {}", serving.id());
    gateway.expect_refused(&["serve"], &["already", &process]);
    assert!(!serving.end_by(Signal::KILL));
    drop(Serving::start(&gateway, &[]));
}

#[test]
fn it_ends_with_the_gateway() {
    let gateway = Gateway::new();
    gateway.expect_refused(&["serve"], &["no gateway is loaded"]);
    gateway.json(&["load", "--iface", "h0"]);
    let mut serving = Serving::start(&gateway, &[]);
    gateway.json(&["unload"]);
    assert!(!serving.end());
}

#[test]
fn addresses_and_interfaces_are_followed() {
    let gateway = Gateway::loaded();
    shell("ip tuntap add mode tun dev t0");
    gateway.json(&["load", "--iface", "t0"]);
    let serving = Serving::start(&gateway, &[]);
    let before = control(&gateway, 0);
    let is_local = || {
        dump(&gateway.map("LOCAL"))
            .iter()
            .any(|entry| entry["key"].to_string().contains(r#""0x0a","0x07","0x00","0x01""#))
    };
    shell("ip addr add 10.7.0.1/24 dev d0");
    wait_until("the new address", is_local);
    shell("ip addr del 10.7.0.1/24 dev d0");
    wait_until("the address to be forgotten", || !is_local());
    assert!(control(&gateway, 0) > before);
    let interfaces = dump(&gateway.map("INTERFACES")).len();
    shell("ip link add x0 type veth peer name x1");
    wait_until("the new interfaces", || dump(&gateway.map("INTERFACES")).len() == interfaces + 2);
    shell("ip link del t0");
    assert_eq!(serving.expect("vanished")["interface"], "t0");
}

/// What it could not read in time is made up for by looking at everything.
#[test]
fn lost_messages_are_made_up_for() {
    let gateway = Gateway::loaded();
    let serving = Serving::start(&gateway, &[]);
    serving.signal(Signal::STOP);
    let lines =
        (0..40_000).map(|i| format!("neigh replace 10.2.0.77 lladdr 02:00:00:00:03:{:02x} dev d0\n", i % 2));
    let file = gateway.file("batch");
    fs::write(&file, lines.collect::<String>()).unwrap();
    stdout(Command::new("ip").args(["-batch", &file]));
    wait_until("the promise to run out", || gateway.json(&["status"])["watched"] == false);
    serving.signal(Signal::CONT);
    serving.expect_that("followed", |event| event["lost"] == true);
    wait_until("a new promise", || gateway.json(&["status"])["watched"] == true);
}

fn lines(gateway: &Gateway) -> Vec<String> {
    let listed = gateway.json(&["map", "list"]);
    let line =
        |line: &Value| format!("{} {}", line["vip"].as_str().unwrap(), line["device"].as_str().unwrap());
    listed["mappings"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn a_catalog_that_changes_is_applied() {
    let gateway = Gateway::loaded();
    let document = |device: &str| lone(&[mapping("10.9.0.1:1", device, &[])]);
    gateway.apply(&document("10.2.0.11:1"));
    let serving = Serving::start(&gateway, &[]);
    // Written in place, and replaced.
    gateway.write("catalog.json", &document("10.2.0.12:1"));
    serving.expect("applied");
    assert_eq!(lines(&gateway), ["10.9.0.1:1 10.2.0.12:1"]);
    let new = gateway.write("catalog.json.mine", &document("10.2.0.13:1"));
    fs::rename(new, gateway.file("catalog.json")).unwrap();
    serving.expect("applied");
    assert_eq!(lines(&gateway), ["10.9.0.1:1 10.2.0.13:1"]);
    // A catalog that breaks a rule is told of, and changes nothing.
    let table = gateway.table();
    gateway.write("catalog.json", &document("10.2.0.300:1"));
    let refused = serving.expect("refused");
    assert!(refused["error"].as_str().unwrap().contains("mappings[0].device"), "{refused}");
    fs::write(gateway.file("catalog.json"), "{").unwrap();
    serving.expect("refused");
    assert_eq!(gateway.table(), table);
    gateway.write("catalog.json", &document("10.2.0.14:1"));
    serving.expect("applied");
    assert_eq!(lines(&gateway), ["10.9.0.1:1 10.2.0.14:1"]);
}

#[test]
fn the_catalog_that_was_applied_last_is_followed() {
    let gateway = Gateway::loaded();
    let serving = Serving::start(&gateway, &[]);
    let other = gateway.write("other.json", &lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &[])]));
    gateway.json(&["apply", &other]);
    gateway.write("other.json", &lone(&[mapping("10.9.0.1:1", "10.2.0.12:1", &[])]));
    serving.expect("applied");
    assert_eq!(lines(&gateway), ["10.9.0.1:1 10.2.0.12:1"]);
}

#[test]
fn a_named_catalog_is_applied_at_the_start() {
    let gateway = Gateway::loaded();
    let file = gateway.write("named.json", &lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &[])]));
    let serving = Serving::start(&gateway, &["--catalog", &file]);
    assert_eq!(serving.expect("applied")["changes"].as_array().unwrap().len(), 2);
    assert_eq!(gateway.json(&["status"])["catalog"], json!(fs::canonicalize(file).unwrap()));
}

/// Changes by command are made by the command alone: nothing is left to do, and nothing is undone.
#[test]
fn changes_by_command_are_left_alone() {
    let gateway = Gateway::loaded();
    gateway.apply(&lone(&[]));
    let serving = Serving::start(&gateway, &[]);
    for port in 1..=20 {
        let (vip, device) = (format!("10.9.0.1:{port}"), format!("10.2.0.11:{port}"));
        gateway.json(&["map", "add", &vip, &device]);
        gateway.json(&["map", "migrate", &vip, "--to", &format!("10.2.0.12:{port}")]);
    }
    assert_eq!(lines(&gateway).len(), 20);
    assert_eq!(gateway.json(&["status"])["in_sync"], true);
    // The first that it applies is this.
    gateway.write("catalog.json", &lone(&[]));
    let applied = serving.expect("applied");
    assert!(applied["changes"].to_string().contains("remove 10.9.0.1:1 "), "{applied}");
    assert_eq!(applied["changes"].as_array().unwrap().len(), 60, "20 mappings, 40 ways back: {applied}");
}
