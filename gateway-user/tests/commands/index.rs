//! `INDEX` holds the lines of `FORWARD` and `REVERSE` once more: never one that differs from them, and after a change
//! all of those that the quick way uses.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bytes::shown;
use crate::document::{lone, mapping};
use crate::gateway::{Gateway, dump};
use crate::random::Random;

const FROZEN: u32 = 1;
const RESTRICTED: u32 = 2;
/// Bits of an entry's state.
const TO_DEVICE: u8 = 1;
const TO_HOST: u8 = 2;
const LISTED: u8 = 4;
/// Entries of a bucket, and bytes of an entry.
const WAYS: usize = 4;
const ENTRY: usize = 16;

/// An entry, or a line as it would be one: address and port, state, the peer's address and port, counter.
type Entry = ([u8; 6], u8, [u8; 6], u32);

/// The map, and the lines that belong in it.
pub(crate) struct Index {
    buckets: BTreeMap<u32, Vec<Entry>>,
    lines: BTreeSet<Entry>,
}

impl Index {
    pub(crate) fn of(gateway: &Gateway) -> Self {
        let buckets = dump(&gateway.map("INDEX")).into_iter().map(|bucket| {
            let place = u32::from_le_bytes(shown(&bucket["key"]).try_into().unwrap());
            let entries = shown(&bucket["value"]);
            (place, entries.chunks(ENTRY).map(entry).filter(|(_, state, ..)| *state != 0).collect())
        });
        let lines =
            [("FORWARD", TO_DEVICE), ("REVERSE", TO_HOST)].into_iter().flat_map(|(name, direction)| {
                dump(&gateway.map(name)).into_iter().filter_map(move |entry| line(&entry, direction))
            });
        Self { buckets: buckets.collect(), lines: lines.collect() }
    }

    fn entries(&self) -> BTreeSet<Entry> {
        let entries: Vec<Entry> = self.buckets.values().flatten().copied().collect();
        let unique: BTreeSet<Entry> = entries.iter().copied().collect();
        assert_eq!(unique.len(), entries.len(), "an entry stands twice");
        unique
    }

    /// Nothing in it differs from the lines.
    pub(crate) fn expect_right(&self, after: &str) {
        let wrong: Vec<Entry> = self.entries().difference(&self.lines).copied().collect();
        assert!(wrong.is_empty(), "{after}: {wrong:?} in the index are not {:?}", self.lines);
        for (place, bucket) in &self.buckets {
            assert!(bucket.iter().all(|entry| self.place(entry) == *place), "{after}: {bucket:?} at {place}");
        }
    }

    /// Every line is in it, but for those whose bucket is full of others.
    pub(crate) fn expect_whole(&self, after: &str) {
        self.expect_right(after);
        let has_room = |line: &Entry| self.buckets[&self.place(line)].len() < WAYS;
        let entries = self.entries();
        let missing: Vec<Entry> = self.lines.difference(&entries).copied().filter(has_room).collect();
        assert!(missing.is_empty(), "{after}: {missing:?} are not in the index");
    }

    fn place(&self, (portal, ..): &Entry) -> u32 {
        place(portal, u32::try_from(self.buckets.len()).unwrap())
    }
}

/// Where a portal belongs: the upper bits of the product of address and port with 2⁶⁴ over the golden ratio.
fn place(portal: &[u8; 6], buckets: u32) -> u32 {
    let key = portal.iter().fold(0_u64, |key, byte| key << 8 | u64::from(*byte));
    u32::try_from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).unwrap() % buckets
}

/// Address, port, the peer's port and address as they lie in a packet, three bytes of counter, one of state.
fn entry(bytes: &[u8]) -> Entry {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, state] = bytes.try_into().unwrap();
    ([a, b, c, d, e, f], state, [i, j, k, l, g, h], u32::from_le_bytes([m, n, o, 0]))
}

/// A line as an entry; none of IPv6, nor of what is frozen.
fn line(shown_entry: &Value, direction: u8) -> Option<Entry> {
    let (key, value) = (shown(&shown_entry["key"]), shown(&shown_entry["value"]));
    let is_v4 = |portal: &[u8]| portal[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let number = |at: usize| u32::from_ne_bytes(value[at..at + 4].try_into().unwrap());
    let (flags, counter) = (number(20), number(24));
    let listed = if flags & RESTRICTED != 0 { LISTED } else { 0 };
    let entry =
        (key[12..18].try_into().unwrap(), direction | listed, value[12..18].try_into().unwrap(), counter);
    (is_v4(&key) && is_v4(&value) && flags & FROZEN == 0).then_some(entry)
}

/// A gateway whose index is small enough to be looked at often.
pub(crate) fn loaded() -> Gateway {
    let gateway = Gateway::new();
    gateway.json(&["load", "--iface", "h0", "--max-mappings", "64"]);
    gateway
}

#[test]
fn what_apply_writes_is_in_it_but_not_ipv6_nor_what_is_frozen() {
    let gateway = loaded();
    let mut frozen = mapping("10.9.0.3:1", "10.2.0.13:1", &[]);
    frozen["state"] = json!("frozen");
    let mut document = lone(&[
        mapping("10.9.0.1:1", "10.2.0.11:1", &[]),
        mapping("10.9.0.2:1", "10.2.0.12:1", &["10.1.0.0/24"]),
        mapping("[fd09::1]:1", "[fd02::11]:1", &[]),
        frozen.clone(),
    ]);
    document["retired"] = json!([{ "vip": "10.9.0.1:1", "device": "10.2.0.14:1" }]);
    gateway.apply(&document);
    let index = Index::of(&gateway);
    index.expect_whole("apply");
    let states: Vec<u8> = index.entries().iter().map(|(_, state, ..)| *state).collect();
    assert_eq!(states, [TO_HOST, TO_HOST | LISTED, TO_HOST, TO_DEVICE, TO_DEVICE | LISTED]);
    // Thawed, and another one frozen.
    for line in document["mappings"].as_array_mut().unwrap() {
        let is_first = line["vip"] == "10.9.0.1:1";
        line["state"] = json!(if is_first { "frozen" } else { "live" });
    }
    gateway.apply(&document);
    let index = Index::of(&gateway);
    index.expect_whole("freezing");
    assert!(index.entries().iter().all(|(portal, ..)| *portal != [10, 9, 0, 1, 0, 1]));
    gateway.apply(&lone(&[]));
    assert!(Index::of(&gateway).entries().is_empty());
}

/// More lines of one bucket than it holds, and where one goes that is in it `apply` has room for another one.
#[test]
fn a_bucket_that_is_full_leaves_a_line_out() {
    let gateway = loaded();
    let is_there = |port: &u16| {
        let [high, low] = port.to_be_bytes();
        place(&[10, 9, 0, 1, high, low], 64) == 7
    };
    let ports: Vec<u16> = (1..=u16::MAX).filter(is_there).take(WAYS + 1).collect();
    let lines = ports.iter().enumerate();
    let lines =
        lines.map(|(i, port)| mapping(&format!("10.9.0.1:{port}"), &format!("10.2.0.11:{}", i + 1), &[]));
    gateway.apply(&lone(&lines.collect::<Vec<_>>()));
    let index = Index::of(&gateway);
    index.expect_whole("apply");
    assert_eq!((index.buckets[&7].len(), index.entries().len()), (WAYS, index.lines.len() - 1));
    gateway.json(&["map", "remove", &format!("10.9.0.1:{}", ports[0])]);
    Index::of(&gateway).expect_right("remove");
    gateway.json(&["apply"]);
    let index = Index::of(&gateway);
    index.expect_whole("apply of fewer");
    assert_eq!((index.buckets[&7].len(), index.entries().len()), (WAYS, index.lines.len()));
}

#[test]
fn an_apply_without_differences_mends_it() {
    let gateway = loaded();
    let document =
        lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &[]), mapping("10.9.0.2:1", "10.2.0.12:1", &[])]);
    gateway.apply(&document);
    let places: Vec<Vec<u8>> = dump(&gateway.map("INDEX")).iter().map(|entry| shown(&entry["key"])).collect();
    // Of a VIP that is not there, at every place.
    let mut wrong = vec![10, 9, 0, 9, 0, 1, 0, 1, 10, 2, 0, 11, 0, 0, 0, TO_DEVICE];
    wrong.resize(64, 0);
    for value in [vec![0; 64], wrong] {
        places.iter().for_each(|place| gateway.write_entry("INDEX", place, &value));
        assert_eq!(gateway.apply(&document)["changes"], json!([]));
        let index = Index::of(&gateway);
        index.expect_whole("apply");
        assert_eq!(index.entries().len(), 4);
    }
}

#[test]
fn moving_and_loading_again_keep_it() {
    let gateway = loaded();
    gateway.apply(&lone(&[mapping("10.9.0.1:1", "10.2.0.11:1", &[])]));
    gateway.json(&["map", "migrate", "10.9.0.1:1", "--to", "10.2.0.12:1"]);
    Index::of(&gateway).expect_whole("migrate");
    gateway.json(&["load", "--iface", "d0"]);
    let index = Index::of(&gateway);
    index.expect_whole("load");
    assert_eq!(index.entries().len(), 3);
}

/// Commands that are killed at any moment leave nothing wrong in it, and the next `apply` fills it.
#[test]
fn a_command_that_is_killed_leaves_nothing_wrong() {
    let gateway = loaded();
    let lines = |device: u8| -> Vec<Value> {
        let of = |i: u8| {
            let hosts: &[&str] = if (i + device).is_multiple_of(3) { &["10.1.0.0/24"] } else { &[] };
            let mut line = mapping(&format!("10.9.0.{i}:1"), &format!("10.2.0.{}:{i}", device), hosts);
            line["state"] = json!(if (i + device).is_multiple_of(4) { "frozen" } else { "live" });
            line
        };
        (1..=8).map(of).collect()
    };
    let catalog = gateway.file("catalog.json");
    gateway.apply(&lone(&lines(11)));
    let others = gateway.write("others.json", &lone(&lines(12)));
    let mut random = Random::new();
    let mut killed = 0;
    for round in 0..120 {
        let (vip, to) = (format!("10.9.0.{}:1", 1 + random.below(8)), format!("10.2.0.13:{round}"));
        let arguments = match random.below(4) {
            0 => vec!["apply", &catalog],
            1 => vec!["apply", &others],
            _ => vec!["--catalog", &catalog, "map", "migrate", &vip, "--to", &to],
        };
        let mut command = gateway.lungate(&arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_micros(u64::try_from(random.below(70_000)).unwrap()));
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().code().is_none());
        let after = format!("{round}: {arguments:?}");
        Index::of(&gateway).expect_right(&after);
        if round % 8 == 7 {
            gateway.json(&["apply", &catalog]);
            Index::of(&gateway).expect_whole(&after);
        }
    }
    assert!(killed > 30, "only {killed} commands were killed before they ended");
}

/// A kernel that cannot wait for programs: the table works without the index, and the command says so once.
#[test]
fn without_grace_periods_it_stays_empty_and_is_never_wrong() {
    let gateway = loaded();
    let document = |device: &str| lone(&[mapping("10.9.0.1:1", device, &[])]);
    gateway.apply(&document("10.2.0.11:1"));
    let file = gateway.write("moved.json", &document("10.2.0.12:1"));
    let output = without_membarrier(gateway.lungate(&["apply", &file])).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.matches("note: ").count() == 1, "{said}");
    assert!(said.contains("not in INDEX") && said.contains("lungate check"), "{said}");
    let index = Index::of(&gateway);
    index.expect_right("apply");
    assert!(index.entries().is_empty());
    let output = without_membarrier(gateway.lungate(&["check"])).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("note  the kernel cannot wait until programs have ended"), "{said}");
    gateway.json(&["apply", &file]);
    Index::of(&gateway).expect_whole("apply by a kernel that can wait");
}

/// The command, for which membarrier(2) is unknown.
fn without_membarrier(mut command: Command) -> Command {
    let statement =
        |code: u32, k: u32, jf: u8| libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf, k };
    let number = u32::try_from(libc::SYS_membarrier).unwrap();
    // The number of the system call: 4 bytes at the beginning of Linux `struct seccomp_data`.
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(), 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    // SAFETY: between fork and exec there is one system call, with memory that the closure owns.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
            match libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    command
}
