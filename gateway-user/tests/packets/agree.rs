//! The program in the kernel against the model: same verdict, same bytes, same counts, on packets that are valid,
//! bent and cut. `LUNGATE_PACKETS` and `LUNGATE_SEED` set how many and which.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::verdict::{Direction, Reason};

use crate::frame::faults;
use crate::generate::{Generator, Rng, lines};
use crate::model::{self, Outcome, REDIRECT, TX, World};
use crate::runner::{Runner, hex};

/// What `cargo test` takes.
pub(crate) const PACKETS: u64 = 1_000_000;
const SEED: u64 = 3720;
/// Counters are compared after so many packets.
const CHUNK: u64 = 500;
/// From so many on every kind has to be among them.
const ENOUGH: u64 = 100_000;
/// Disagreements of a kind are shown once. Looking for them ends with so many kinds, or chunks that have any.
const SHOWN: usize = 30;
const LOOKED_THROUGH: u32 = 60;
/// Checksums are computed in full in packets of so many bytes at most.
const LOOKED_AT: usize = 300;

/// What a program gives: its action, and the frame as it is then.
type Ran = (u32, Vec<u8>);

/// A program and its model.
pub(crate) struct Hook {
    pub(crate) run: fn(&Runner, u32, &[u8]) -> Ran,
    pub(crate) model: fn(&World, u32, &[u8]) -> Outcome,
}

#[test]
fn kernel_and_model_agree() {
    let hook = Hook { run: |runner, ingress, frame| runner.run(ingress, frame), model: model::run };
    let packets = number("LUNGATE_PACKETS", PACKETS);
    let mut coverage = Coverage::default();
    let generator = Generator::new();
    compare_all(
        &hook,
        &mut Runner::new(&lines()),
        packets,
        |rng| Some(generator.frame(rng)),
        |frame, outcome| {
            check_checksums(frame, outcome);
            coverage.add(frame, outcome);
        },
    );
    if packets >= ENOUGH {
        coverage.check(packets);
    }
}

/// A number that the environment may set.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
        Err(_) => default,
    }
}

/// Compares a program with its model on so many random packets; where a packet is none, there is one less.
pub(crate) fn compare_all(
    hook: &Hook,
    runner: &mut Runner,
    packets: u64,
    make: impl Fn(&mut Rng) -> Option<(u32, Vec<u8>)>,
    mut see: impl FnMut(&[u8], &Outcome),
) {
    let seed = number("LUNGATE_SEED", SEED);
    let mut differences = Differences::default();
    let mut looked_through = 0;
    for start in (0..packets).step_by(usize::try_from(CHUNK).unwrap()) {
        if start >= packets / 2 && start < packets / 2 + CHUNK {
            // The first look may say "perhaps" to anything.
            runner.filter(filter_for_all());
        }
        let frames: Vec<_> = (start..packets.min(start + CHUNK))
            .filter_map(|index| Some((index, make(&mut Rng::new(seed, index))?)))
            .collect();
        if compare(hook, runner, &frames, &mut see) {
            continue;
        }
        for (index, (ingress, frame)) in &frames {
            differences.look(hook, runner, *index, *ingress, frame);
        }
        assert!(!differences.0.is_empty(), "counts differ in the packets from {start} on, of seed {seed}");
        looked_through += 1;
        if differences.0.len() >= SHOWN || looked_through >= LOOKED_THROUGH {
            break;
        }
    }
    assert!(
        differences.0.is_empty(),
        "seed {seed}:\n{}",
        differences.0.values().cloned().collect::<String>()
    );
}

/// Whether all is the same for some frames.
fn compare(
    hook: &Hook,
    runner: &Runner,
    frames: &[(u64, (u32, Vec<u8>))],
    mut see: impl FnMut(&[u8], &Outcome),
) -> bool {
    let (mut reasons, mut traffic) = (runner.reasons(), runner.traffic());
    let mut are_equal = true;
    for (_, (ingress, frame)) in frames {
        let (action, out) = (hook.run)(runner, *ingress, frame);
        let expected = (hook.model)(&runner.world, *ingress, frame);
        are_equal &= action == expected.action && out == expected.frame;
        for reason in &expected.reasons {
            reasons[usize::try_from(reason.index()).unwrap()] += 1;
        }
        if let Some((counter, direction, bytes)) = expected.traffic {
            let sums = &mut traffic[usize::try_from(counter).unwrap()];
            let at = if direction == Direction::ToDevice { 0 } else { 2 };
            sums[at] += 1;
            sums[at + 1] += bytes;
        }
        see(frame, &expected);
    }
    are_equal && (runner.reasons(), runner.traffic()) == (reasons, traffic)
}

/// No checksum is wrong that was right before: the model's arithmetic is looked at as well.
fn check_checksums(frame: &[u8], outcome: &Outcome) {
    if frame.len() <= LOOKED_AT
        && matches!(outcome.action, TX | REDIRECT)
        && !outcome.reasons.contains(&Reason::Arp)
    {
        let mut before = faults(frame);
        if outcome.reasons.contains(&Reason::PortClosed) {
            before.retain(|fault| *fault != "TCP");
        }
        let after = faults(&outcome.frame);
        assert!(
            after.iter().all(|fault| before.contains(fault)),
            "{after:?}: {} became {}",
            hex(frame),
            hex(&outcome.frame)
        );
    }
}

/// A first look that lets everything through.
fn filter_for_all() -> Filter {
    // SAFETY: any bytes are a value of it, which is why it may be copied into a map.
    unsafe { std::mem::transmute::<[u8; size_of::<Filter>()], Filter>([0xff; size_of::<Filter>()]) }
}

/// Disagreements by their kind.
#[derive(Default)]
struct Differences(BTreeMap<String, String>);

impl Differences {
    fn look(&mut self, hook: &Hook, runner: &Runner, index: u64, ingress: u32, frame: &[u8]) {
        let differs = |frame: &[u8]| {
            let (kernel, model) = (
                runner.counted(|| (hook.run)(runner, ingress, frame)),
                (hook.model)(&runner.world, ingress, frame),
            );
            (kernel != model).then_some((kernel, model))
        };
        let Some((kernel, model)) = differs(frame) else { return };
        let kind = kind_of(&kernel, &model);
        if self.0.contains_key(&kind) {
            return;
        }
        let small = shrink(frame, |frame| {
            differs(frame).is_some_and(|(kernel, model)| kind_of(&kernel, &model) == kind)
        });
        let (kernel, model) = differs(&small).unwrap_or((kernel, model));
        let mut text = format!("packet {index} by interface {ingress}: {kind}\n  in     {}\n", hex(&small));
        for (who, outcome) in [("kernel", kernel), ("model", model)] {
            let Outcome { action, frame, reasons, traffic } = outcome;
            let out = if frame == small { "untouched".to_owned() } else { hex(&frame) };
            writeln!(text, "  {who:6} {out}\n         action {action}, {reasons:?}, {traffic:?}").unwrap();
        }
        self.0.insert(kind, text);
    }
}

fn kind_of(kernel: &Outcome, model: &Outcome) -> String {
    let of = |outcome: &Outcome| format!("action {} {:?}", outcome.action, outcome.reasons);
    let bytes = if kernel.frame == model.frame { "same bytes" } else { "other bytes" };
    format!("kernel {}, model {}, {bytes}", of(kernel), of(model))
}

/// The frame with as few bytes as still make the difference, and as many of them zero.
fn shrink(frame: &[u8], differs: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut small = frame.to_vec();
    let mut step = small.len() / 2;
    while step > 0 {
        while small.len() >= 14 + step && differs(&small[..small.len() - step]) {
            small.truncate(small.len() - step);
        }
        step /= 2;
    }
    for at in 0..small.len().min(200) {
        let old = std::mem::replace(&mut small[at], 0);
        if !differs(&small) {
            small[at] = old;
        }
    }
    small
}

/// What the packets have met.
#[derive(Default)]
struct Coverage {
    reasons: BTreeMap<&'static str, u64>,
    sent: BTreeMap<(bool, bool, bool), u64>,
    tags: BTreeMap<(usize, usize), u64>,
    split: u64,
}

impl Coverage {
    fn add(&mut self, frame: &[u8], outcome: &Outcome) {
        for reason in &outcome.reasons {
            *self.reasons.entry(reason.name()).or_default() += 1;
        }
        if outcome.action != TX && outcome.action != REDIRECT {
            return;
        }
        if let Some((_, direction, _)) = outcome.traffic {
            let (before, after) = (tags_of(frame), tags_of(&outcome.frame));
            let is_v6 = outcome.frame[12 + 4 * after] == 0x86;
            let kind = (outcome.action == TX, direction == Direction::ToDevice, is_v6);
            *self.sent.entry(kind).or_default() += 1;
            *self.tags.entry((before, after)).or_default() += 1;
            self.split += u64::from(frame.len() > 4096);
        }
    }

    /// Every reason, and every kind of success, was met often.
    fn check(&self, packets: u64) {
        eprintln!("{packets} packets: {:?}\nsent (back, to device, IPv6): {:?}", self.reasons, self.sent);
        eprintln!("tags before and after: {:?}; {} over several buffers", self.tags, self.split);
        let often = packets / 4000;
        for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::Confirm) {
            let met = self.reasons.get(reason.name()).copied().unwrap_or(0);
            assert!(met >= often, "{} was met {met} times only", reason.name());
        }
        let all: HashSet<_> = (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)).collect();
        for kind in all {
            let met = self.sent.get(&kind).copied().unwrap_or(0);
            assert!(met >= often, "sent (back, to device, IPv6) {kind:?}: {met} times only");
        }
        for pair in (0..9).map(|pair| (pair / 3, pair % 3)) {
            let met = self.tags.get(&pair).copied().unwrap_or(0);
            assert!(met >= often, "tags before and after {pair:?}: {met} times only");
        }
        assert!(self.split >= often, "over several buffers: {} only", self.split);
    }
}

/// How many tags a frame has.
fn tags_of(frame: &[u8]) -> usize {
    (0..2).take_while(|i| matches!(frame[12 + 4 * i..14 + 4 * i], [0x81, 0x00] | [0x88, 0xa8])).count()
}
