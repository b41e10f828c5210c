//! What is wrong is refused with an error that names thing, value and rule, and nothing changes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lungate_tests::{lab, refused, run};
use serde_json::{Value, json};
use xtask::lab::{DEVICES, Lab, Machine, PORTAL, VOLUME};
use xtask::step::output;

/// How long a daemon may take to close a connection that it has reason to close.
const PATIENCE: Duration = Duration::from_secs(15);

fn contains(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    Ok(())
}

/// What the kernel's table holds.
fn table(lab: &Lab) -> Result<Value> {
    Ok(serde_json::from_str(&lab.lungate(&["map", "list", "--json"])?)?)
}

#[test]
fn the_gateway_refuses_and_stays_as_it_was() -> Result<()> {
    let lab = lab()?;
    contains(
        &refused(lab.lungate_command().args(["map", "list"]))?,
        &["no gateway is loaded", "lungate load"],
    )?;
    contains(
        &refused(lab.lungate_command().args(["load", "--iface", "host0", "--iface", "nosuch0"]))?,
        &["nosuch0", "host0", "dev0"],
    )?;
    ensure!(!lab.pin_root().join("2").exists(), "a refused load left pins behind");

    lab.load_gateway()?;
    let before = table(&lab)?;
    let catalog = std::fs::read_to_string(lab.catalog_file())?;

    let wrong = [
        (
            json!(131_073),
            "/volumes/vol0/extents/1/first_lba",
            vec!["volumes.vol0.extents[1].first_lba is 131073", "a gap"],
        ),
        (
            json!(131_071),
            "/volumes/vol0/extents/1/first_lba",
            vec!["extents[1].first_lba is 131071", "an overlap"],
        ),
        (
            json!(4001),
            "/volumes/vol0/extents/1/port",
            vec!["10.77.100.1:4001", "already used by volumes.vol0.extents[0]"],
        ),
        (
            json!("10.77.2.11:5005"),
            "/volumes/vol0/extents/1/device",
            vec!["extents[1].device is 10.77.2.11:5005"],
        ),
        (json!(1000), "/devices/b/luns/0/blocks", vec!["devices.b.luns[0].holds is 1000 blocks", "must fit"]),
        (json!("10.77.2.300"), "/devices/b/address", vec!["devices.b.address", "invalid"]),
    ];
    for (value, place, expected) in wrong {
        let mut document: Value = serde_json::from_str(&catalog)?;
        *document.pointer_mut(place).context("no such place")? = value;
        let file = lab.folder().join("wrong.json");
        std::fs::write(&file, document.to_string())?;
        contains(&refused(lab.lungate_command().arg("apply").arg(&file))?, &expected)?;
        contains(&refused(lab.lungate_command().args(["catalog", "check"]).arg(&file))?, &expected)?;
    }

    let refusals: [(&[&str], &[&str]); 7] = [
        (
            &["map", "add", "10.77.100.1:4001", "10.77.2.11:9"],
            &["10.77.100.1:4001", "already mapped to 10.77.2.11:5005"],
        ),
        (
            &["map", "add", "10.77.100.9:1", "10.77.2.11:5005"],
            &["10.77.2.11:5005", "already serves 10.77.100.1:4001"],
        ),
        (&["map", "remove", "10.77.100.1:4001"], &["extent of volume vol0"]),
        (&["map", "remove", "10.77.100.9:9"], &["no mapping 10.77.100.9:9"]),
        (
            &["map", "migrate", "10.77.100.1:4001", "--to", "10.77.2.12:5121"],
            &["10.77.2.12:5121", "holds vol0:4003"],
        ),
        (
            &["map", "migrate", "10.77.100.1:4001", "--to", "10.77.2.11:5009"],
            &["10.77.2.11:5009", "holds no extent"],
        ),
        (&["map", "add", "10.77.100.300:1", "10.77.2.11:9"], &["10.77.100.300:1"]),
    ];
    for (arguments, expected) in refusals {
        contains(&refused(lab.lungate_command().args(arguments))?, expected)?;
    }
    ensure!(table(&lab)? == before, "a refused change reached the kernel");
    ensure!(std::fs::read_to_string(lab.catalog_file())? == catalog, "a refused change reached the catalog");

    // Another layout beside this one.
    std::fs::create_dir(lab.pin_root().join("999"))?;
    let load = ["load", "--iface", "host0"];
    contains(&refused(lab.lungate_command().args(load))?, &["layout 999", "layout 2"])?;
    std::fs::remove_dir(lab.pin_root().join("999"))?;

    // The interfaces have a program: for a second gateway it is a foreign one.
    let other = lab.pin_root().join("other");
    let mut second = lab.on(Machine::Gateway, xtask::workspace::binaries().gateway);
    second.arg("--pin-root").arg(&other).args(load);
    contains(&refused(&mut second)?, &["host0", "already has the XDP program \"lungate\"", "xdp off"])?;
    ensure!(!other.join("2").exists(), "a refused load left pins behind");
    std::fs::remove_dir(other).ok();

    // A table that is full.
    lab.lungate(&["unload"])?;
    lab.lungate(&["load", "--iface", "host0", "--iface", "dev0", "--max-mappings", "3"])?;
    let full = refused(lab.lungate_command().arg("apply").arg(lab.catalog_file()))?;
    contains(&full, &["4 mappings", "holds 3 at most", "--max-mappings"])?;
    ensure!(table(&lab)?["mappings"] == json!([]), "a table that cannot hold all got a part");
    Ok(())
}

#[test]
fn the_host_serves_nothing_that_is_not_what_the_catalog_says() -> Result<()> {
    let lab = lab()?;
    lab.load_gateway()?;
    lab.host_config()?;
    let mut info = lab.host_command();
    info.arg("info");
    output(&mut info)?;

    // A volume for other hosts, and then for this one's network.
    let mut catalog: Value = serde_json::from_str(&std::fs::read_to_string(lab.catalog_file())?)?;
    let mut allow = |prefixes: Value| -> Result<()> {
        catalog["volumes"]["vol0"]["allow"] = prefixes;
        let file = lab.folder().join("restricted.json");
        std::fs::write(&file, catalog.to_string())?;
        output(lab.lungate_command().arg("apply").arg(file)).map(|_| ())
    };
    allow(json!(["10.78.0.0/16", "10.77.1.3/32"]))?;
    lab.start("watch", lab.lungate_command().args(["watch", "--json"]))?;
    let log = || std::fs::read_to_string(lab.folder().join("watch.log")).unwrap_or_default();
    lab.wait("watch", || log().contains("watching"))?;
    contains(&refused(lab.host_command().arg("info"))?, &["10.77.100.1:400", "did not answer"])?;
    let seen = r#""reason":"refused","interface":"host0","source":"10.77.1.2:"#;
    lab.wait("watch", || log().contains(seen))?;
    lab.end("watch", false)?;
    let stats: Value = serde_json::from_str(&lab.lungate(&["stats", "--json"])?)?;
    ensure!(stats["dropped"]["by_reason"]["refused"].as_u64() > Some(0), "{stats}");
    allow(json!(["10.77.1.0/24"]))?;
    output(&mut info)?;

    // A mapping that leads to another extent's LUN: sizes fit, the identity does not.
    let mut view: Value = serde_json::from_str(&std::fs::read_to_string(lab.folder().join("vol0.json"))?)?;
    let other = view["extents"][1]["identity"].clone();
    let real = std::mem::replace(&mut view["extents"][0]["identity"], other);
    let settings = |volume: &Value| -> Result<Command> {
        let config = json!({ "volumes": ["odd.json"], "attach_timeout_ms": 1500, "control_socket": lab.folder().join("odd.sock") });
        std::fs::write(lab.folder().join("odd.json"), volume.to_string())?;
        std::fs::write(lab.folder().join("odd-host.json"), config.to_string())?;
        let mut command = lab.on(Machine::Host, xtask::workspace::binaries().host);
        command.arg("--config").arg(lab.folder().join("odd-host.json"));
        Ok(command)
    };
    contains(&refused(settings(&view)?.arg("info"))?, &["10.77.100.1:4001", "serial number", "another LUN"])?;
    view["extents"][0]["identity"] = real;

    // A target name that is not the port's.
    let name = view["extents"][0]["target_name"].clone();
    view["extents"][0]["target_name"] = json!("iqn.2026-11.io.lungate:other.4001");
    contains(&refused(settings(&view)?.arg("info"))?, &["10.77.100.1:4001", "target not found"])?;
    view["extents"][0]["target_name"] = name;

    // Blocks of another size than the device's.
    view["block_size"] = json!(4096);
    contains(&refused(settings(&view)?.arg("info"))?, &["block size of 512", "says 4096"])?;
    view["block_size"] = json!(512);

    // Ranges outside the volume, and a key that nobody knows.
    let mut read = settings(&view)?;
    read.args(["read", "--lba", "524287", "--blocks", "2"]);
    contains(&refused(&mut read)?, &["LBA 524287", "524288 blocks"])?;
    std::fs::write(
        lab.folder().join("odd-host.json"),
        json!({ "volumes": ["vol0.json"], "colour": 1 }).to_string(),
    )?;
    let mut unknown = lab.on(Machine::Host, xtask::workspace::binaries().host);
    unknown.arg("--config").arg(lab.folder().join("odd-host.json")).arg("info");
    contains(&refused(&mut unknown)?, &["odd-host.json", "colour", "volumes"])?;

    // A device that is down.
    lab.end("lungate-target-b", true)?;
    contains(&refused(settings(&view)?.arg("info"))?, &["10.77.100.1:400", "cannot connect"])?;
    Ok(())
}

#[test]
fn the_shim_refuses_a_lun_that_is_not_the_catalogs() -> Result<()> {
    let lab = lab()?;
    let device = DEVICES[0];
    lab.end("lungate-target-a", false)?;
    let mut view: Value = serde_json::from_str(&std::fs::read_to_string(lab.folder().join("a.json"))?)?;
    view["ports"][1]["blocks"] = json!(999);
    std::fs::write(lab.folder().join("odd.json"), view.to_string())?;
    std::fs::write(lab.folder().join("odd-target.json"), json!({ "device": "odd.json" }).to_string())?;
    let mut shim = lab.on(Machine::Device(device), xtask::workspace::binaries().target);
    shim.arg("--config").arg(lab.folder().join("odd-target.json"));
    contains(&refused(&mut shim)?, &["port 5007", "LUN 7", "131072 blocks", "says 999"])
}

/// Bytes that no initiator sends, to the shim and to the portal: each connection ends, and others go on.
#[test]
fn broken_pdus_end_their_own_connection_only() -> Result<()> {
    let lab = lab()?;
    lab.load_gateway()?;
    lab.start_host()?;
    let mut oversized_login = vec![0x43, 0x87, 0, 0, 0, 0x01, 0, 0];
    oversized_login.resize(48, 0);
    let mut command_first = vec![0x01, 0x81];
    command_first.resize(48, 0);
    let mut unknown_opcode = vec![0x7e];
    unknown_opcode.resize(48, 0);
    let mut unending_text = vec![0x43, 0x87, 0, 0, 0, 0, 0, 12];
    unending_text.resize(48, 0);
    unending_text.extend(b"InitiatorNam");
    let broken: [(&str, &[u8]); 5] = [
        ("an oversized data segment", &oversized_login),
        ("a command before the login", &command_first),
        ("an unknown opcode", &unknown_opcode),
        ("text without an end", &unending_text),
        ("noise", &[0xa5; 4096]),
    ];
    let shim = format!("{}:5005", DEVICES[0].address);
    for (machine, portal) in [(Machine::Device(DEVICES[0]), shim.as_str()), (Machine::Host, PORTAL)] {
        for (what, bytes) in broken {
            let closed = send(&lab, machine, portal, bytes)?;
            ensure!(closed, "{portal} did not close the connection after {what}");
        }
        // A PDU that is cut off.
        let closed = send_and_leave(&lab, machine, portal, &oversized_login[..20])?;
        ensure!(closed, "{portal} cannot be reached any more");
    }
    let out = run(lab.on(Machine::Host, "iscsi-readcapacity16").arg(lab.url()))?;
    ensure!(out.status.success(), "the volume is gone: {}", String::from_utf8_lossy(&out.stderr));
    let unknown = format!("iscsi://{PORTAL}/iqn.2026-11.io.lungate:nosuch/0");
    let out = run(lab.on(Machine::Host, "iscsi-inq").arg(unknown))?;
    let said = [out.stdout, out.stderr].concat();
    contains(&String::from_utf8_lossy(&said), &["Target not found"])?;
    ensure!(lab.catalog()?.volumes.contains_key(VOLUME));
    Ok(())
}

/// Sends bytes from within a machine, and says whether the other side then closes the connection.
fn send(lab: &Lab, machine: Machine, portal: &str, bytes: &[u8]) -> Result<bool> {
    let (portal, bytes) = (portal.to_owned(), bytes.to_vec());
    inside(lab, machine, move || {
        let mut stream = TcpStream::connect(&portal)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&bytes)?;
        let deadline = Instant::now() + PATIENCE;
        let mut answer = [0; 4096];
        while Instant::now() < deadline {
            match stream.read(&mut answer) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(true),
                Err(error) => bail!("{portal}: {error}"),
            }
        }
        Ok(false)
    })
}

fn send_and_leave(lab: &Lab, machine: Machine, portal: &str, bytes: &[u8]) -> Result<bool> {
    let (portal, bytes) = (portal.to_owned(), bytes.to_vec());
    inside(lab, machine, move || {
        TcpStream::connect(&portal)?.write_all(&bytes)?;
        Ok(TcpStream::connect(&portal).is_ok())
    })
}

/// Runs a closure in a machine's network namespace, on a thread of its own.
fn inside<T: Send + 'static>(
    lab: &Lab,
    machine: Machine,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let namespace = lab.namespace(machine);
    let thread = thread::spawn(move || {
        xtask::lab::enter(&namespace)?;
        work()
    });
    thread.join().map_err(|_| anyhow::anyhow!("the thread in the namespace panicked"))?
}
