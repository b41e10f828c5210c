//! Packets without link headers, through the program before the kernel's routing: translated, and never sent on by the
//! program itself.
//!
//! In `BPF_PROG_TEST_RUN` the kernel takes the first 14 bytes for an Ethernet header, looks into no more than the
//! protocol there, and shows the program all of them; so what it is given here is the IP packet alone.

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use lungate_gateway_common::verdict::Reason;

use crate::agree::{Hook, PACKETS, compare_all, number};
use crate::ends::{BOTH, both_lines};
use crate::frame::{Body, Frame, SYN, faults};
use crate::generate::{Generator, Rng, lines};
use crate::model::{self, DROP, PASS, TX};
use crate::network::T0;
use crate::runner::{Line, Runner, hex, ip};

/// Verdicts of a tcx program.
const OK: u32 = 0;
const SHOT: u32 = 2;
const REDIRECTED: u32 = 7;
/// What the kernel takes: a link header with an IP header behind, and a page at most.
const SIZES: std::ops::Range<usize> = 54..3500;

fn runner(lines: &[Line]) -> Runner {
    let mut runner = Runner::new(lines);
    let program: &mut SchedClassifier =
        runner.ebpf.program_mut("lungate_tunnel").unwrap().try_into().unwrap();
    program.load().unwrap();
    runner
}

/// Runs a packet that comes in by a tunnel.
fn run(runner: &Runner, packet: &[u8]) -> (u32, Vec<u8>) {
    let program: &SchedClassifier = runner.ebpf.program("lungate_tunnel").unwrap().try_into().unwrap();
    let mut out = vec![0; packet.len() + 64];
    // `struct __sk_buff`: `ingress_ifindex` is at 36, `ifindex` at 40.
    let mut context = [0; 192];
    context[36..40].copy_from_slice(&T0.to_ne_bytes());
    context[40..44].copy_from_slice(&T0.to_ne_bytes());
    let result = program.test_run(TestRunOptions {
        data_in: Some(packet),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    });
    let result = result.unwrap_or_else(|error| panic!("{error:?}: {}", hex(packet)));
    out.truncate(usize::try_from(result.data_size_out).unwrap());
    // What is dropped may be half rewritten.
    if result.return_value == SHOT {
        out = packet.to_vec();
    }
    let action = match result.return_value {
        OK => PASS,
        SHOT => DROP,
        REDIRECTED => TX,
        other => panic!("verdict {other} for {}", hex(packet)),
    };
    (action, out)
}

/// A packet that comes in: what becomes of it is this, and what the model says.
fn expect(runner: &Runner, what: &str, packet: &[u8], action: u32, out: &[u8], reasons: &[Reason]) {
    let outcome = runner.counted(|| run(runner, packet));
    assert_eq!((outcome.action, outcome.reasons.as_slice()), (action, reasons), "{what}: {}", hex(packet));
    assert_eq!(hex(&outcome.frame), hex(out), "{what}");
    assert_eq!(outcome, model::run_tunnel(&runner.world, T0, packet), "{what}: {}", hex(packet));
}

#[test]
fn both_ways_with_whole_checksums() {
    let runner = runner(&BOTH.map(|ends| Line { mss: 1000, ..ends.line() }));
    for ends in BOTH {
        for (before, after) in [ends.to_device(), ends.to_host()] {
            for (flags, options, lowered) in [
                (0x10, vec![], vec![]),
                (SYN, vec![1, 2, 4, 5, 0xb4, 0, 0, 0], vec![1, 2, 4, 3, 0xe8, 0, 0, 0]),
            ] {
                let made = |frame: &Frame, options: &[u8]| {
                    let mut frame = frame.clone();
                    (frame.flags, frame.tcp_options) = (flags, options.to_vec());
                    frame.payload = vec![0xee; 1301];
                    frame.packet()
                };
                let (before, after) = (made(&before, &options), made(&after, &lowered));
                expect(&runner, "a segment", &before, PASS, &after, &[]);
            }
        }
    }
}

#[test]
fn errors_answers_and_drops() {
    let runner = runner(&both_lines());
    for ends in BOTH {
        let (sent, seen) = ends.to_device();
        let address = |portal| ip(portal).to_string();
        let error = |from, about: &Frame| {
            Frame::error(&address(from), &address(ends.host), (3, 1), &about.packet()).packet()
        };
        let (before, after) = (error(ends.device, &seen), error(ends.vip, &sent));
        expect(&runner, "an error", &before, PASS, &after, &[Reason::ErrorToHost]);
        let ping = Frame::echo(&address(ends.host), &address(ends.vip));
        let mut pong = Frame { source: ping.destination, destination: ping.source, ..ping.clone() };
        pong.body = Body::Icmp(if ends.is_v4() { 0 } else { 129 }, 0, [0, 7, 0, 1]);
        expect(&runner, "a ping", &ping.packet(), TX, &pong.packet(), &[Reason::Echo]);
        let mut closed = sent.clone();
        closed.destination.set_port(4009);
        let (action, reset) = run(&runner, &closed.packet());
        assert_eq!(action, TX, "a closed port");
        let framed = [&[0; 12], if ends.is_v4() { [8, 0] } else { [0x86, 0xdd] }.as_slice(), &reset].concat();
        assert_eq!(faults(&framed), Vec::<&str>::new());
        let udp = Frame { body: Body::Udp, ..sent.clone() }.packet();
        expect(&runner, "UDP to a VIP", &udp, DROP, &udp, &[Reason::NotServed]);
        let foreign = Frame::new(ends.host, ends.device).packet();
        expect(&runner, "a stranger", &foreign, PASS, &foreign, &[Reason::NoMapping]);
    }
}

/// As for frames with link headers, fewer.
#[test]
fn kernel_and_model_agree() {
    let hook = Hook { run: |runner, _, packet| run(runner, packet), model: model::run_tunnel };
    let packets = number("LUNGATE_PACKETS", PACKETS) / 5;
    let generator = Generator::new();
    let make = |rng: &mut Rng| {
        let (_, frame) = generator.frame(rng);
        let is_tag = |tag: &&[u8]| matches!(tag, [0x81, 0, ..] | [0x88, 0xa8, ..]);
        let tags = frame[12..].chunks(4).take_while(is_tag).count();
        let packet = frame.get(14 + 4 * tags..)?;
        SIZES.contains(&packet.len()).then(|| (T0, packet.to_vec()))
    };
    compare_all(&hook, &mut runner(&lines()), packets, make, |_, _| {});
}
