//! What the gateway's own kernel says about packets that are translated already: on its way out the quoted device becomes
//! the VIP again.

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};

use crate::ends::{BOTH, both_lines};
use crate::frame::{Body, Frame, faults};
use crate::network::{H0, Wire};
use crate::runner::{Runner, hex, ip};

/// Verdicts of a tcx program.
const OK: u32 = 0;

/// Runs a frame through the program at the end of an interface. A frame has to have 14 bytes at least.
fn run(runner: &Runner, egress: u32, frame: &[u8]) -> (u32, Vec<u8>) {
    let program: &SchedClassifier = runner.ebpf.program("lungate_egress").unwrap().try_into().unwrap();
    let mut out = vec![0; frame.len() + 64];
    // `struct __sk_buff`: `ifindex` is at 40.
    let mut context = [0; 192];
    context[40..44].copy_from_slice(&egress.to_ne_bytes());
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    });
    let result = result.unwrap();
    out.truncate(usize::try_from(result.data_size_out).unwrap());
    (result.return_value, out)
}

fn runner() -> Runner {
    let mut runner = Runner::new(&both_lines());
    let program: &mut SchedClassifier =
        runner.ebpf.program_mut("lungate_egress").unwrap().try_into().unwrap();
    program.load().unwrap();
    runner
}

#[test]
fn the_gateways_own_errors_speak_of_the_vip() {
    let runner = runner();
    for ends in BOTH {
        let host = ip(ends.host).to_string();
        let own = Wire::of(H0).addresses(1)[usize::from(!ends.is_v4())].to_string();
        let kinds: &[(u8, u8)] =
            if ends.is_v4() { &[(3, 0), (3, 1), (3, 4), (11, 0)] } else { &[(1, 0), (1, 3), (2, 0), (3, 0)] };
        for kind in kinds {
            for quoted in [28, 40, 58, 68, 128, 528] {
                for vary in [
                    |_: &mut Frame| {},
                    |frame: &mut Frame| {
                        frame.ip_options = vec![1; 8];
                        frame.extensions = vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0])];
                    },
                ] {
                    let (mut sent, mut seen) = ends.to_device();
                    for frame in [&mut sent, &mut seen] {
                        frame.payload = vec![0x11; 600];
                        vary(frame);
                    }
                    let error =
                        |about: &Frame| Frame::error(&own, &host, *kind, &about.packet()[..quoted]).bytes();
                    let (before, after) = (error(&seen), error(&sent));
                    let ports_at = seen.packet().len() - 600 - 20;
                    if quoted < ports_at + 4 || quoted == ports_at + 17 {
                        continue;
                    }
                    let what = format!("{kind:?}, {quoted} bytes quoted of {ends:?}");
                    let (verdict, out) = run(&runner, H0, &before);
                    assert_eq!((verdict, hex(&out)), (OK, hex(&after)), "{what}");
                    assert_eq!(faults(&out), Vec::<&str>::new(), "{what}");
                }
            }
        }
    }
}

#[test]
fn all_else_leaves_as_it_is() {
    let runner = runner();
    for ends in BOTH {
        let host = ip(ends.host).to_string();
        let own = Wire::of(H0).addresses(1)[usize::from(!ends.is_v4())].to_string();
        let about = |frame: Frame| frame.packet();
        let (sent, seen) = ends.to_device();
        let other = Frame::new(ends.host, if ends.is_v4() { "10.2.0.99:1" } else { "[fd02::99]:1" });
        for (what, frame) in [
            ("from another", Frame::error(&ip(ends.device).to_string(), &host, (3, 1), &about(seen.clone()))),
            ("about the VIP", Frame::error(&own, &host, (3, 1), &about(sent))),
            ("about another", Frame::error(&own, &host, (3, 1), &about(other))),
            (
                "about UDP",
                Frame::error(&own, &host, (3, 1), &about(Frame { body: Body::Udp, ..seen.clone() })),
            ),
            ("no error", Frame::echo(&own, &host)),
            ("a segment", seen),
            ("a reply", ends.to_host().1),
        ] {
            let frame = frame.bytes();
            assert_eq!(run(&runner, H0, &frame), (OK, frame), "{what}, {ends:?}");
        }
    }
    // The kernel takes no frame here that ends within its IP header.
    for length in 34..80 {
        let error = Frame::error("10.1.0.1", "10.1.0.2", (3, 1), &BOTH[0].to_device().1.packet()).bytes();
        let cut = &error[..length.min(error.len())];
        assert_eq!(run(&runner, H0, cut).0, OK, "cut at {length}");
    }
}
