//! Answers of the forwarding table that are kept: for how long, for which packets, and when the kernel has to see one.

use std::time::{Duration, Instant};

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use lungate_gateway_common::table::{HOP_SLOTS, Hop, Way, control, map};
use lungate_gateway_common::verdict::Reason;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::ends::{BOTH, DEVICE, Ends, V4, V6, both_lines, leaving};
use crate::frame::{CUSTOMER, Frame};
use crate::model::{PASS, REDIRECT};
use crate::network::{D0, H0, V7, Wire, shell};
use crate::runner::{Line, Runner, line};

/// Another neighbour on the same wire.
const OTHER: u8 = 0x12;

/// A runner whose packets all go through one processor, as answers are kept for each.
fn runner(lines: &[Line]) -> Runner {
    let mut set = CpuSet::new();
    set.set(sched_getcpu());
    sched_setaffinity(None, &set).unwrap();
    Runner::new(lines)
}

/// The last byte of the link address that a host's packet goes to.
fn neighbour(runner: &Runner, ends: &Ends) -> u8 {
    let (action, out) = runner.run(H0, &ends.to_device().0.bytes());
    assert_eq!(action, REDIRECT);
    out[5]
}

/// Gives the device of the tests another link address.
fn move_device(last: u8) {
    let link = Wire::of(D0).link(last).map(|byte| format!("{byte:02x}")).join(":");
    for address in Wire::of(D0).addresses(DEVICE) {
        shell(&format!("ip neigh replace {address} lladdr {link} dev d0 nud permanent"));
    }
}

/// The kernel's ticks since it started.
fn ticks(runner: &mut Runner) -> u64 {
    let program: &mut SchedClassifier = runner.ebpf.program_mut("lungate_clock").unwrap().try_into().unwrap();
    program.load().unwrap();
    let mut out = [0; 64];
    let options =
        TestRunOptions { data_in: Some(&[0; 64]), data_out: Some(&mut out), ..TestRunOptions::default() };
    program.test_run(options).unwrap();
    u64::from_ne_bytes(out[..8].try_into().unwrap())
}

/// The clock of answers, in nanoseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

#[test]
fn an_answer_is_kept_for_its_generation() {
    let mut runner = runner(&both_lines());
    for watched_until in [u64::MAX, ticks(&mut runner) + 1_000_000] {
        runner.control(control::WATCHED_UNTIL, watched_until);
        for (generation, next, last) in [(1, 2, OTHER), (3, 4, DEVICE)] {
            runner.control(control::GENERATION, generation);
            let before = BOTH.map(|ends| neighbour(&runner, &ends));
            move_device(last);
            assert_eq!(BOTH.map(|ends| neighbour(&runner, &ends)), before, "nobody counted a change");
            runner.control(control::GENERATION, next);
            assert_eq!(BOTH.map(|ends| neighbour(&runner, &ends)), [last; 2], "a change was counted");
        }
    }
}

#[test]
fn an_answer_that_nobody_watches_is_kept_for_a_moment() {
    let mut runner = runner(&both_lines());
    for watched_until in [0, ticks(&mut runner)] {
        runner.control(control::WATCHED_UNTIL, watched_until);
        for last in [OTHER, DEVICE] {
            let start = Instant::now();
            move_device(last);
            while BOTH.map(|ends| neighbour(&runner, &ends)) != [last; 2] {
                assert!(start.elapsed() < Duration::from_secs(5), "the change is not followed");
            }
        }
    }
}

/// Writes the times of all answers that are kept.
fn set_times(runner: &mut Runner, asked: u64, confirmed: u64) {
    let mut hops: PerCpuArray<&mut MapData, [u8; size_of::<Hop>()]> =
        runner.map(map::HOPS).try_into().unwrap();
    for slot in 0..HOP_SLOTS {
        let mut values = hops.get(&slot, 0).unwrap().to_vec();
        if values.iter().all(|hop| hop.iter().all(|byte| *byte == 0)) {
            continue;
        }
        for hop in &mut values {
            hop[56..64].copy_from_slice(&asked.to_ne_bytes());
            hop[64..72].copy_from_slice(&confirmed.to_ne_bytes());
        }
        hops.set(slot, PerCpuValues::try_from(values).unwrap(), 0).unwrap();
    }
}

/// One packet goes through the kernel's neighbour table, which then asks whether the neighbour is still there.
#[test]
fn the_kernel_sees_a_packet_now_and_then() {
    let mut runner = runner(&both_lines());
    runner.control(control::WATCHED_UNTIL, 0);
    for ends in BOTH {
        let (before, after) = ends.to_device();
        let before = before.bytes();
        let sent = (REDIRECT, leaving(&after, D0, DEVICE).bytes());
        assert_eq!(runner.run(H0, &before), sent, "the first one");
        // Whether the answer is still used or asked for again, the kernel has seen nothing of the neighbour since.
        let times = now();
        set_times(&mut runner, times, times - 4_000_000_000);
        assert_eq!(runner.run(H0, &before), sent, "not yet");
        for asked in [0, now()] {
            set_times(&mut runner, asked, times - 5_000_000_000);
            let traffic = runner.traffic();
            let handed = runner.outcome(H0, &before);
            assert_eq!((handed.action, handed.reasons), (PASS, vec![Reason::Confirm]));
            assert_eq!(handed.frame, after.bytes(), "translated, but for its hops");
            assert_ne!(runner.traffic(), traffic, "it is carried");
            assert_eq!(runner.run(H0, &before), sent, "the next one");
        }
        runner.control(control::WATCHED_UNTIL, u64::MAX);
        set_times(&mut runner, times, 0);
        assert_eq!(runner.run(H0, &before), sent, "somebody watches");
        runner.control(control::WATCHED_UNTIL, 0);
    }
}

/// Two ways in one place: each is asked for when it was the other's.
#[test]
fn an_answer_is_its_ways_own() {
    let lines = [line("10.9.0.1:1", "10.2.0.11:1"), line("10.9.0.1:2", "10.2.7.11:1")];
    let runner = runner(&lines);
    let slot = |host: [u8; 4], line: &Line| {
        let way = Way::new(std::net::IpAddr::from(host).into(), line.device.ip().into(), false, H0, 0);
        way.slot(0)
    };
    let wanted = slot([10, 1, 0, 2], &lines[0]);
    let other = (0..=u16::MAX).map(|i| [10, 1, i.to_be_bytes()[0], i.to_be_bytes()[1]]);
    let other = other.into_iter().find(|host| slot(*host, &lines[1]) == wanted).unwrap();
    for _ in 0..3 {
        for (host, line, egress) in [([10, 1, 0, 2], &lines[0], D0), (other, &lines[1], V7)] {
            let host = (host, 7).into();
            let before = Frame::between(host, line.vip).bytes();
            let sent = leaving(&Frame::between(host, line.device), egress, DEVICE).bytes();
            assert_eq!(runner.run(H0, &before), (REDIRECT, sent));
        }
    }
}

/// Routes may depend on the class of service, and on the interface that a packet came in by.
#[test]
fn the_question_is_the_packets() {
    let mut runner = runner(&both_lines());
    shell(
        "ip route add 10.2.0.11/32 tos 0x10 via 10.2.0.12 dev d0
         ip -6 rule add dsfield 0x10 lookup 100
         ip -6 route add fd02::11/128 via fd02::12 dev d0 table 100
         for f in -4 -6; do ip $f rule add iif v5 lookup 101; done
         ip route add 10.2.0.11/32 via 10.2.0.12 dev d0 table 101
         ip -6 route add fd02::11/128 via fd02::12 dev d0 table 101",
    );
    runner.control(control::GENERATION, 1);
    for ends in [V4, V6] {
        for (class, tags, last) in [
            (0, vec![], DEVICE),
            (0x10, vec![], OTHER),
            (0, vec![(CUSTOMER, 5)], OTHER),
            (0, vec![(CUSTOMER, 0)], DEVICE),
            (0x10, vec![], OTHER),
            (0, vec![], DEVICE),
        ] {
            let (mut before, _) = ends.to_device();
            (before.class, before.tags) = (class, tags.clone());
            let (action, out) = runner.run(H0, &before.bytes());
            assert_eq!((action, out[5]), (REDIRECT, last), "{ends:?}, class {class}, tags {tags:?}");
        }
    }
}

/// While somebody says that no rule looks at sources, one answer is for all of them; otherwise each has its own.
#[test]
fn sources_share_an_answer_only_while_that_is_said() {
    let mut runner = runner(&both_lines());
    shell(
        "ip rule add from 10.1.0.9 lookup 101
         ip route add 10.2.0.11/32 via 10.2.0.12 dev d0 table 101
         ip -6 rule add from fd01::9 lookup 101
         ip -6 route add fd02::11/128 via fd02::12 dev d0 table 101",
    );
    let mut generation = 0;
    for (is_said, is_watched, other) in
        [(true, true, DEVICE), (false, true, OTHER), (true, false, OTHER), (false, false, OTHER)]
    {
        generation += 1;
        let shared = if is_said { control::SHARED } else { 0 };
        runner.control(control::GENERATION, generation | shared);
        runner.control(control::WATCHED_UNTIL, if is_watched { u64::MAX } else { 0 });
        for ends in BOTH {
            let (frame, _) = ends.to_device();
            let second = if frame.source.is_ipv4() { "10.1.0.9:40000" } else { "[fd01::9]:40000" };
            for (source, last) in [(frame.source, DEVICE), (second.parse().unwrap(), other)].repeat(2) {
                let (action, out) = runner.run(H0, &Frame { source, ..frame.clone() }.bytes());
                assert_eq!((action, out[5]), (REDIRECT, last), "{source}, {is_said}, {is_watched}");
            }
        }
    }
}

/// What a link takes is a part of the answer.
#[test]
fn a_narrower_link_is_noticed() {
    let mut runner = runner(&both_lines());
    let (mut frame, _) = V4.to_device();
    frame.payload = vec![7; 1400];
    assert_eq!(runner.run(H0, &frame.bytes()).0, REDIRECT);
    shell("ip link set d0 mtu 1439");
    runner.control(control::GENERATION, 1);
    assert_eq!(runner.outcome(H0, &frame.bytes()).reasons, [Reason::TooBig]);
    shell("ip link set d0 mtu 1440");
    runner.control(control::GENERATION, 2);
    assert_eq!(runner.run(H0, &frame.bytes()).0, REDIRECT);
}
