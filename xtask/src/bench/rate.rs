//! Packets per second from a generator at a host to a receiver at a device, through the gateway and through what
//! would be used in its place.

use anyhow::{Context, Result, ensure};
use lungate_gateway_common::sample::{End, Plan};

use super::lane::{Lane, Stream, portal};
use super::report::{Goal, Row, Run};
use crate::bpf::Objects;
use crate::workspace::Binaries;

/// Rounds; an odd number, so that one of them is the median.
const ROUNDS: usize = 15;
/// Frames of the first run, which says how many the others take.
const FIRST: u32 = 200_000;
/// How long a run takes, in seconds.
const SECONDS: f64 = 0.5;
/// The gateway against nftables with conntrack, and against the least that a program can do.
const OVER_DNAT: f64 = 4.0;
const OF_REDIRECT: f64 = 0.75;

/// The table: one mapping, as nftables has one rule.
const PLAN: Plan = Plan { mappings: 1, volumes: 1, devices: 1, hosts: 1 };

/// What stands between the host and the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `lungate`.
    Gateway,
    /// A program that redirects everything, untouched.
    Redirect,
    /// nftables: DNAT with conntrack. It takes up a connection in the middle (`nf_conntrack_tcp_loose`), and the
    /// same segment again is a retransmission within the window.
    Dnat,
    /// nftables: address and port written into each packet, without conntrack.
    Stateless,
    /// The kernel's forwarding, straight to the device.
    Forwarding,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "lungate",
            Self::Redirect => "empty XDP redirect",
            Self::Dnat => "nftables DNAT with conntrack",
            Self::Stateless => "nftables stateless rewriting",
            Self::Forwarding => "kernel forwarding",
        }
    }

    /// What the gateway is to reach over it.
    const fn goal(self) -> Goal {
        match self {
            Self::Redirect => Goal::RatioAtLeast(OF_REDIRECT),
            Self::Dnat => Goal::RatioAtLeast(OVER_DNAT),
            _ => Goal::None,
        }
    }

    /// Where the host's frames go.
    fn destination(self) -> End {
        match self {
            Self::Redirect | Self::Forwarding => PLAN.device(0),
            _ => PLAN.vip(0),
        }
    }

    fn make(self, objects: &Objects, binaries: &Binaries) -> Result<Lane> {
        let mut lane = Lane::new(&objects.bench, self.destination())?;
        let (vip, device) = (portal(PLAN.vip(0)), portal(PLAN.device(0)));
        let nft = |chain: &str, rule: &str| {
            let (address, port) = (vip.ip(), vip.port());
            let script = format!(
                "nft add table bench
                 nft 'add chain bench in {{ {chain}; }}'
                 nft add rule bench in ip daddr {address} tcp dport {port} {rule}"
            );
            lane.gateway.shell(&script).map(|_| ())
        };
        match self {
            Self::Gateway => lane.load(&binaries.gateway, &PLAN).map(|_| ())?,
            Self::Redirect => lane.redirect()?,
            Self::Dnat => nft("type nat hook prerouting priority dstnat", &format!("dnat to {device}"))?,
            Self::Stateless => nft(
                "type filter hook prerouting priority raw",
                &format!("notrack ip daddr set {} tcp dport set {}", device.ip(), device.port()),
            )?,
            Self::Forwarding => {}
        }
        Ok(lane)
    }
}

/// Measures the rows with targets, and all others where `full` is set.
pub(super) fn rows(objects: &Objects, binaries: &Binaries, full: bool, found: &mut Vec<Row>) -> Result<()> {
    let mut ways = vec![Way::Gateway, Way::Dnat, Way::Redirect];
    if full {
        ways.extend([Way::Stateless, Way::Forwarding]);
    }
    let mut lanes = Vec::new();
    for way in ways {
        let lane = way.make(objects, binaries).with_context(|| format!("cannot set up {}", way.name()))?;
        let frames = calibrate(&lane).with_context(|| format!("nothing gets through {}", way.name()))?;
        lanes.push((way, lane, frames, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, lane, frames, streams) in &mut lanes {
            streams.push(lane.stream(*frames)?);
        }
    }
    let Some((_, gateway)) = lanes.split_first().map(|(first, _)| (first.0, first.3.clone())) else {
        return Ok(());
    };
    for (way, _, _, streams) in &lanes {
        let lost = streams.iter().map(|stream| stream.lost).fold(0.0, f64::max);
        eprintln!("  {}: at most {:.1} % of a run's packets were lost", way.name(), lost * 100.0);
    }
    for (way, _, _, streams) in &lanes[1..] {
        let runs: Vec<Run> = gateway
            .iter()
            .zip(streams)
            .map(|(gateway, other): (&Stream, &Stream)| (gateway.per_second, other.per_second))
            .collect();
        let name = format!("packets per second (over: {})", way.name());
        let row = Row::new(name, "1/s", &runs, way.goal());
        row.iter().for_each(super::say);
        found.extend(row);
    }
    Ok(())
}

/// The frames that take about [`SECONDS`].
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "that many fit 32 bits")]
fn calibrate(lane: &Lane) -> Result<u32> {
    let Stream { per_second, lost } = lane.stream(FIRST)?;
    ensure!(lost < 1.0, "the device has got none of {FIRST} packets");
    Ok((per_second / (1.0 - lost) * SECONDS) as u32)
}
