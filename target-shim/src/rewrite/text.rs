//! Text that spans several PDUs: pairs pass as soon as they are whole, so that each PDU still goes on by itself
//! and the exchange between host and target stays in step.

use lungate_iscsi::pdu::text::{Keys, MAX_TEXT};

use super::Violation;

/// A number as keys have it, decimal or hexadecimal (RFC 7143, 6.1).
pub(super) fn number(value: &str) -> Option<usize> {
    match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    }
}

/// The part of one direction's text that waits for its end.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    rest: Vec<u8>,
    total: usize,
}

impl Joiner {
    /// The pairs that are whole with this PDU; with the last one of a step, all that is left.
    pub(super) fn join(&mut self, data: &[u8], is_last: bool) -> Result<Keys, Violation> {
        self.total += data.len();
        if self.total > MAX_TEXT {
            return Err(Violation::Protocol(format!("more than {MAX_TEXT} bytes of text in one step")));
        }
        self.rest.extend_from_slice(data);
        let whole = if is_last {
            self.total = 0;
            self.rest.len()
        } else {
            self.rest.iter().rposition(|&b| b == 0).map_or(0, |end| end + 1)
        };
        let text: Vec<u8> = self.rest.drain(..whole).collect();
        Keys::parse(&text).map_err(|error| Violation::Protocol(error.to_string()))
    }
}
