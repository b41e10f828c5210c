//! Large packets whose checksums the kernel has yet to finish, as they come from a tunnel's near end: many segments in
//! one, cut up when they leave.

use lungate_gateway_common::verdict::Reason;

use crate::ends::{BOTH, DEVICE, Ends, HOST, both_lines};
use crate::frame::{Frame, faults, sum};
use crate::live::{Tap, Tun};
use crate::network::{D0, H0, Wire, shell};
use crate::runner::{Runner, hex};

const PAYLOAD: usize = 32 * 1024;
const SEGMENT: u16 = 1428;

/// The packet with the sum of the pseudo-header alone in the place of its checksum (`CHECKSUM_PARTIAL`).
fn unfinished(frame: &Frame) -> Vec<u8> {
    let mut packet = frame.packet();
    let (header, addresses) = if frame.source.is_ipv4() { (20, 12..20) } else { (40, 8..40) };
    let length = u32::try_from(packet.len() - header).unwrap().to_be_bytes();
    let pseudo = sum(&[&packet[addresses], &length, &[0, 0, 0, 6]].concat());
    packet[header + 16..header + 18].copy_from_slice(&pseudo.to_be_bytes());
    packet
}

/// Sends a payload through the tunnel and looks at every segment that comes out.
fn check(
    tun: &mut Tun,
    tap: &Tap,
    (before, after): (Frame, Frame),
    egress: u32,
    last: u8,
    segment: Option<u16>,
) {
    let whole = segment.map_or(100, |_| PAYLOAD);
    let payload: Vec<u8> = (0..whole).map(|i| (i * 7 % 251).to_be_bytes()[7]).collect();
    let before = Frame { payload: payload.clone(), ..before };
    tun.send(&unfinished(&before), segment);
    let header = if before.source.is_ipv4() { 40 } else { 60 };
    let (wire, mut seen) = (Wire::of(egress), 0);
    while seen < whole {
        let size = usize::from(segment.unwrap_or(u16::MAX)).min(whole - seen);
        let is_ours = |frame: &[u8]| frame[..6] == wire.link(last) && frame[6..12] == wire.link(1);
        let frame = tap.receive(is_ours).unwrap_or_else(|| panic!("nothing came behind byte {seen}"));
        assert_eq!(faults(&frame), Vec::<&str>::new(), "behind byte {seen}: {}", hex(&frame));
        let mut expected = Frame { payload: payload[seen..seen + size].to_vec(), ..after.clone() };
        expected.link = (wire.link(last), wire.link(1));
        expected.hops = 63;
        expected.sequence = after.sequence + u32::try_from(seen).unwrap();
        let mut expected = expected.bytes();
        if before.source.is_ipv4() {
            // The kernel numbers the segments of one packet.
            expected[18..20].copy_from_slice(&frame[18..20]);
            expected[24..26].copy_from_slice(&frame[24..26]);
        }
        assert_eq!(hex(&frame), hex(&expected), "behind byte {seen}, {header} bytes of headers");
        seen += size;
    }
}

/// A tunnel, and the far ends of the interfaces of hosts and devices, by which everything leaves in finished frames.
fn network(mtu: usize) -> (Runner, Tun, Tap, Tap) {
    let mut runner = Runner::new(&both_lines());
    let tun = Tun::new(&mut runner, "u0");
    shell(&format!(
        "for i in h0 d0; do ethtool -K $i tx off tso off gso off; ip link set ${{i}}p mtu {mtu}; ip link set $i mtu {mtu}; done"
    ));
    (runner, tun, Tap::new("h0p"), Tap::new("d0p"))
}

/// The reasons that were counted.
fn counted(runner: &Runner) -> Vec<&'static str> {
    let counts = Reason::ALL.into_iter().zip(runner.reasons());
    counts.filter(|(_, count)| *count > 0).map(|(reason, _)| reason.name()).collect()
}

fn both_ways(segment: Option<u16>, mtu: usize) {
    let (runner, mut tun, hosts, devices) = network(mtu);
    for ends in BOTH {
        let Ends { host, device, .. } = ends;
        check(&mut tun, &devices, ends.to_device(), D0, DEVICE, segment);
        assert_eq!(counted(&runner), Vec::<&str>::new(), "between {host} and {device}");
        check(&mut tun, &hosts, ends.to_host(), H0, HOST, segment);
        assert_eq!(counted(&runner), Vec::<&str>::new(), "between {host} and {device}");
        let length = segment.map_or(100, |_| PAYLOAD) + if ends.is_v4() { 40 } else { 60 };
        let traffic = runner.traffic()[usize::from(!ends.is_v4())];
        assert_eq!(traffic, [1, length as u64, 1, length as u64], "between {host} and {device}");
    }
}

#[test]
fn many_segments_in_one() {
    both_ways(Some(SEGMENT), 1500);
}

/// Where all of them together would fit as well, they are cut up all the same.
#[test]
fn many_segments_in_one_to_a_wide_link() {
    both_ways(Some(SEGMENT), 65535);
}

#[test]
fn one_segment_with_an_unfinished_checksum() {
    both_ways(None, 1500);
}
