//! What the machine must be and have, and what is said of it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::document::{catalog, lone};
use crate::gateway::{Gateway, stdout};

/// The command under another one that changes what it runs in.
fn under(gateway: &Gateway, wrapper: &[&str], arguments: &[&str]) -> String {
    let inner = gateway.lungate(arguments);
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args());
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{wrapper:?} {arguments:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_old_kernel_is_named_before_anything_is_created() {
    let gateway = Gateway::new();
    let said = under(&gateway, &["setarch", "--uname-2.6"], &["load", "--iface", "h0"]);
    assert!(said.contains("this is Linux 2.6") && said.contains("Linux 6.6 or later"), "{said}");
    assert!(!gateway.pins().exists());
}

#[test]
fn missing_privilege_is_named_and_changes_nothing() {
    let gateway = Gateway::new();
    let without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let said = under(&gateway, &without, &["load", "--iface", "h0"]);
    assert!(said.contains("root, or CAP_BPF"), "{said}");
    assert!(!gateway.pins().exists());
    gateway.json(&["load", "--iface", "h0"]);
    let file = gateway.write("catalog.json", &catalog());
    let table = gateway.table();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let said = under(&gateway, &nobody, &["apply", &file]);
    assert!(said.contains("root, or CAP_BPF"), "{said}");
    assert_eq!(gateway.table(), table);
}

#[test]
fn the_memory_that_is_announced_is_what_the_kernel_takes() {
    for mappings in [1_000, 100_000] {
        let gateway = Gateway::new();
        let load = ["load", "--iface", "h0", "--max-mappings", &mappings.to_string()];
        let output = gateway.lungate(&load).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("holds {mappings} mappings")), "{said}");
        let words: Vec<&str> = said.split(' ').collect();
        let at = words.iter().position(|word| *word == "takes").unwrap();
        let announced: u64 = words[at + 1].parse().unwrap();
        let maps = fs::read_dir(gateway.map("FORWARD").parent().unwrap()).unwrap();
        let taken: u64 = maps
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file() && !path.ends_with("clock"))
            .map(|path| {
                let shown =
                    stdout(Command::new("bpftool").args(["--json", "map", "show", "pinned"]).arg(path));
                serde_json::from_str::<Value>(&shown).unwrap()["bytes_memlock"].as_u64().unwrap()
            })
            .sum();
        let taken = taken.div_ceil(1 << 20);
        // Page by page the kernel takes a little more or less.
        assert!(announced.abs_diff(taken) <= 1 + taken / 20, "{announced} MiB announced, {taken} MiB taken");
    }
}

/// A catalog that comes slowly: through a pipe that nobody writes to yet.
#[test]
fn long_work_says_what_it_does() {
    let gateway = Gateway::new();
    gateway.json(&["load", "--iface", "h0"]);
    let pipe = gateway.file("pipe.json");
    stdout(Command::new("mkfifo").arg(&pipe));
    let mut command = gateway.lungate(&["apply", &pipe]);
    let mut apply = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(apply.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("reading the catalog") && line.contains("pipe.json"), "{line}");
    fs::OpenOptions::new()
        .write(true)
        .open(&pipe)
        .unwrap()
        .write_all(lone(&[]).to_string().as_bytes())
        .unwrap();
    assert!(apply.wait().unwrap().success());
}
