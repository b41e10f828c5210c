//! Which hook an interface gets, and what is said of it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::{Value, json};

use crate::document::{lone, mapping};
use crate::gateway::{Gateway, dump, shell, stdout};
use crate::serving::wait_until;
use crate::traffic::{Tunnel, Wire, packet};

/// What status says of an interface.
fn of<'a>(status: &'a Value, name: &str) -> &'a Value {
    let interfaces = status["interfaces"].as_array().unwrap();
    interfaces.iter().find(|there| there["name"] == name).unwrap_or_else(|| panic!("no {name}: {status}"))
}

/// The programs at each hook of an interface, as the kernel has them. It detaches a little later than it is told.
fn programs(interface: &str) -> Vec<String> {
    let shown = stdout(Command::new("ip").args(["-j", "link", "show", interface]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let xdp = shown[0]["xdp"]["prog"]["name"].as_str().map(|name| format!("xdp {name}"));
    let tcx = [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)].map(|(way, at)| {
        let (_, programs) = SchedClassifier::query_tcx(interface, at).unwrap();
        programs.into_iter().map(move |program| format!("{way} {}", program.name_as_str().unwrap()))
    });
    xdp.into_iter().chain(tcx.into_iter().flatten()).collect()
}

const ETHERNET: [&str; 2] = ["xdp lungate", "egress lungate_egress"];
const TUNNEL: [&str; 2] = ["ingress lungate_tunnel", "egress lungate_egress"];

#[test]
fn an_interface_without_ethernet_is_served_at_tcx() {
    let gateway = Gateway::new();
    shell("ip tuntap add mode tun dev t0; ip link set t0 up");
    gateway.json(&["load", "--iface", "h0", "--iface", "t0"]);
    let status = gateway.json(&["status"]);
    let tunnel = of(&status, "t0");
    assert_eq!((&tunnel["hook"], &tunnel["mode"]), (&json!("tcx"), &json!("ingress")));
    assert_eq!(tunnel["why"], "no Ethernet headers: tcx ingress");
    let ethernet = of(&status, "h0");
    assert_eq!((&ethernet["hook"], &ethernet["mode"]), (&json!("xdp"), &json!("native")));
    assert_eq!(ethernet["why"], "the driver runs it");
    assert_eq!(tunnel["egress_prog_id"], ethernet["egress_prog_id"]);
    assert!(tunnel["egress_prog_id"].is_u64(), "{status}");
    assert_eq!(programs("t0"), TUNNEL);
    assert_eq!(programs("h0"), ETHERNET);
    let text = stdout(&mut gateway.lungate(&["status"]));
    assert!(text.contains("t0: tcx ingress, program") && text.contains("h0: xdp native, program"), "{text}");
    gateway.json(&["unload"]);
    wait_until("the programs to be gone", || programs("t0").is_empty() && programs("h0").is_empty());
}

/// There and back, with the kernel's routing in between.
#[test]
fn what_comes_by_a_tunnel_is_translated() {
    let gateway = Gateway::new();
    shell(
        "ip tuntap add mode tun dev t0; ip link set t0 up; ip addr add 10.8.0.1/24 dev t0
         ip link set d0 address 02:00:00:00:02:01; ethtool -K d1 gro on
         ip neigh replace 10.2.0.11 lladdr 02:00:00:00:02:11 dev d0 nud permanent",
    );
    gateway.json(&["load", "--iface", "d0", "--iface", "t0"]);
    gateway.apply(&lone(&[mapping("10.9.0.1:1", "10.2.0.11:5", &["10.8.0.0/24"])]));
    let (mut tunnel, wire) = (Tunnel::open("t0"), Wire::open("d1"));
    let [host, vip, device] = ["10.8.0.2:40000", "10.9.0.1:1", "10.2.0.11:5"].map(|end| end.parse().unwrap());
    // One hop further.
    let arrives =
        |sent: &[u8], found: &[u8]| found.len() >= 40 && sent[12..40] == found[12..40] && found[8] == 63;
    let (there, back) = (packet(host, device, 7), packet(vip, host, 9));
    // Again and again: a device that has just been opened loses what it is given.
    wait_until("the packet at the device", || {
        tunnel.send(&packet(host, vip, 7));
        wire.receive().is_some_and(|frame| frame.get(14..).is_some_and(|found| arrives(&there, found)))
    });
    let answer = [&[2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 2, 0x11, 8, 0], &packet(device, host, 9)[..]].concat();
    wait_until("the answer in the tunnel", || {
        wire.send(&answer);
        tunnel.receive().is_some_and(|found| arrives(&back, &found))
    });
}

#[test]
fn drops_at_a_tunnel_can_be_watched() {
    let gateway = Gateway::new();
    shell("ip tuntap add mode tun dev t0; ip link set t0 up; ip addr add 10.8.0.1/24 dev t0");
    gateway.json(&["load", "--iface", "t0"]);
    gateway.apply(&lone(&[mapping("10.9.0.1:1", "10.2.0.11:5", &["10.7.0.0/24"])]));
    let mut tunnel = Tunnel::open("t0");
    let mut watching = gateway.lungate(&["watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let refused = packet("10.8.0.2:40000".parse().unwrap(), "10.9.0.1:1".parse().unwrap(), 7);
    // What is dropped before it watches is not shown.
    let (stop, stopped) = channel::<()>();
    let sending = std::thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
            tunnel.send(&refused);
        }
    });
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    drop(stop);
    sending.join().unwrap();
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!((&line["reason"], &line["interface"]), (&json!("refused"), &json!("t0")), "{line}");
    assert_eq!((&line["source"], &line["destination"]), (&json!("10.8.0.2:40000"), &json!("10.9.0.1:1")));
}

#[test]
fn loading_again_replaces_every_program() {
    let gateway = Gateway::new();
    shell("ip tuntap add mode tun dev t0");
    gateway.json(&["load", "--iface", "h0", "--iface", "t0"]);
    let before = gateway.json(&["status"]);
    // A mode is for what is new.
    gateway.json(&["load", "--iface", "d0", "--mode", "native"]);
    let after = gateway.json(&["status"]);
    for name in ["h0", "t0"] {
        for program in ["prog_id", "egress_prog_id"] {
            let (before, after) = (&of(&before, name)[program], &of(&after, name)[program]);
            assert!(before.is_u64() && after.is_u64() && before != after, "{name}: {before} became {after}");
        }
    }
    assert_eq!(of(&after, "d0")["prog_id"], of(&after, "h0")["prog_id"]);
    assert_eq!(programs("h0"), ETHERNET, "replaced, not added");
    assert_eq!(programs("t0"), TUNNEL, "replaced, not added");
}

#[test]
fn a_driver_cannot_be_asked_for_where_there_is_no_ethernet() {
    let gateway = Gateway::new();
    shell("ip tuntap add mode tun dev t0");
    let arguments = ["load", "--iface", "h0", "--iface", "t0", "--mode", "native"];
    gateway.expect_refused(&arguments, &["t0 has no Ethernet headers", "leave out --mode"]);
    assert!(!gateway.pins().exists(), "pins stay behind");
    wait_until("the programs to be gone", || programs("t0").is_empty() && programs("h0").is_empty());
    // Of a gateway that is loaded only what was new is taken back.
    gateway.json(&["load", "--iface", "d0"]);
    gateway.refused(&arguments);
    wait_until("the programs to be gone", || programs("t0").is_empty() && programs("h0").is_empty());
    assert_eq!(programs("d0"), ETHERNET);
}

#[test]
fn a_driver_that_cannot_run_it_is_named_with_its_reason() {
    let gateway = Gateway::new();
    shell("ip link add link h1 name m0 type macvlan; ip link set m0 up");
    let loaded = gateway.json(&["load", "--iface", "m0"]);
    let there = of(&loaded, "m0");
    assert_eq!((&there["hook"], &there["mode"]), (&json!("xdp"), &json!("generic")));
    assert!(there["why"].as_str().unwrap().starts_with("the driver cannot run it: "), "{there}");
    gateway.expect_refused(&["load", "--iface", "m0", "--iface", "h0", "--mode", "none"], &["none"]);
}

/// The pins of an interface that is gone are in nobody's way, whatever number the next one has.
#[test]
fn an_interface_that_was_made_anew_is_attached_anew() {
    let gateway = Gateway::new();
    shell("ip link add v0 index 77 type veth peer name v1; ip tuntap add mode tun dev t0");
    gateway.json(&["load", "--iface", "v0", "--iface", "t0"]);
    shell("ip link del v0; ip link add v0 index 77 type veth peer name v1; ip link del t0");
    let status = gateway.json(&["status"]);
    assert_eq!(of(&status, "v0")["mode"], "none");
    assert_eq!(of(&status, "(gone)")["why"], "the interface is not in this network namespace");
    shell("ip tuntap add mode tun dev t0");
    let status = gateway.json(&["load", "--iface", "v0", "--iface", "t0"]);
    assert_eq!(
        (&of(&status, "v0")["mode"], &of(&status, "t0")["mode"]),
        (&json!("native"), &json!("ingress"))
    );
    assert_eq!(
        status["interfaces"].as_array().unwrap().len(),
        2,
        "nothing is left of what is gone: {status}"
    );
    assert_eq!(programs("v0"), ETHERNET);
    assert_eq!(programs("t0"), TUNNEL);
}

#[test]
fn load_writes_down_interfaces_and_addresses() {
    let gateway = Gateway::new();
    shell("ip tuntap add mode tun dev t0; ip addr add 10.8.0.1 peer 10.8.0.2 dev t0; ip link set t0 up");
    gateway.json(&["load", "--iface", "h0", "--iface", "t0"]);
    let known = |map: &str| dump(&gateway.map(map));
    // `Interface`: device, flags (Ethernet 1, native 2), tags, link address.
    let entry = |name: &str| {
        let index = of(&gateway.json(&["status"]), name)["ifindex"].as_u64().unwrap();
        let index: Vec<Value> =
            u32::try_from(index).unwrap().to_le_bytes().map(|b| json!(format!("0x{b:02x}"))).to_vec();
        let entries = known("INTERFACES");
        let entry = entries.iter().find(|entry| entry["key"] == json!(index)).unwrap();
        (entry["value"][4].clone(), entry["value"][0] == index[0])
    };
    assert_eq!(entry("h0"), (json!("0x03"), true));
    assert_eq!(entry("t0"), (json!("0x00"), true));
    let addresses: Vec<_> = known("LOCAL").iter().map(|entry| entry["key"].to_string()).collect();
    let has = |octets: &str| addresses.iter().any(|address| address.contains(octets));
    assert!(has(r#""0x0a","0x01","0x00","0x01""#), "{addresses:?}");
    assert!(has(r#""0x0a","0x08","0x00","0x01""#), "{addresses:?}");
    assert!(!has(r#""0x0a","0x08","0x00","0x02""#), "the other end is not the gateway's: {addresses:?}");
}

#[test]
fn check_says_what_an_interface_gets() {
    let gateway = Gateway::new();
    shell("ip tuntap add mode tun dev t0");
    let check = |name: &str| gateway.json(&["check", name])["findings"].to_string();
    assert!(check("t0").contains("tcx ingress"));
    assert!(check("h0").contains("ip link set dev h0 allmulticast on"));
    shell("ip link set dev h0 allmulticast on");
    assert!(!check("h0").contains("ip link set dev h0 allmulticast on"));
}
