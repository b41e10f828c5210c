//! Access lists in both families, and lists of several mappings side by side.

use lungate_gateway_common::verdict::Reason;

use crate::frame::Frame;
use crate::runner::{Line, Runner, line};

/// A mapping, a host's address, and whether it may.
type Row = (usize, &'static str, bool);

const LINES: [Line; 4] = [
    Line { allow: &["fd01::/64", "fd07::8/125"], ..line("[fd09::1]:1", "[fd02::11]:1") },
    Line { allow: &["fd01::2/128"], ..line("[fd09::1]:2", "[fd02::11]:2") },
    Line { allow: &["10.1.0.0/24"], ..line("10.9.0.1:3", "10.2.0.11:3") },
    Line { allow: &["0.0.0.0/0"], ..line("10.9.0.1:4", "10.2.0.11:4") },
];

const ROWS: [Row; 12] = [
    (0, "fd01::2", true),
    (0, "fd01::ffff:0:0:1", true),
    (0, "fd01:0:0:1::2", false),
    (0, "fd07::f", true),
    (0, "fd07::10", false),
    (0, "fd08::1", false),
    (1, "fd01::2", true),
    (1, "fd01::3", false),
    (2, "10.1.0.255", true),
    (2, "10.1.1.0", false),
    (3, "10.1.1.0", true),
    (3, "203.0.113.9", true),
];

#[test]
fn a_list_is_its_mappings_own() {
    let runner = Runner::new(&LINES);
    for (mapping, host, may) in ROWS {
        let host = if host.contains(':') { format!("[{host}]:40000") } else { format!("{host}:40000") };
        let line = &LINES[mapping];
        for frame in [Frame::new(&host, line.vip), Frame::new(line.device, &host)] {
            let what = format!("{} to {}", frame.source, frame.destination);
            if may {
                let before = runner.reason(Reason::Refused);
                runner.run(&frame.bytes());
                assert_eq!(runner.reason(Reason::Refused), before, "{what} was refused");
            } else {
                runner.expect_stopped(&what, &frame.bytes(), Reason::Refused);
            }
        }
    }
}
