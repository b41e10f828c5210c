//! Operational keys (RFC 7143, 13): what each side offers, and the result that both compute alike.

use crate::pdu::stream::Digests;
use crate::pdu::text::Keys;

/// The values that this side would like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Digests: offered first where true, accepted in any case.
    pub digests: Digests,
    /// The longest data segment to be sent to this side, in bytes.
    pub max_recv_segment: u32,
    /// The longest burst of solicited data, in bytes.
    pub max_burst: u32,
    /// The longest burst of unsolicited data, in bytes.
    pub first_burst: u32,
    /// Whether every write waits for an R2T.
    pub initial_r2t: bool,
    /// Whether a command may bring data along.
    pub immediate_data: bool,
    /// R2Ts outstanding for one task.
    pub max_outstanding_r2t: u16,
}

impl Default for Offer {
    /// Long segments and bursts, unsolicited data welcome, no digests.
    fn default() -> Self {
        Self {
            digests: Digests::default(),
            max_recv_segment: 256 * 1024,
            max_burst: 1024 * 1024,
            first_burst: 256 * 1024,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: 8,
        }
    }
}

/// What holds after login. Lengths in bytes, times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Digests in use, both directions.
    pub digests: Digests,
    /// The longest data segment that the peer takes.
    pub max_send_segment: u32,
    /// The longest data segment that this side takes.
    pub max_recv_segment: u32,
    /// MaxBurstLength.
    pub max_burst: u32,
    /// FirstBurstLength, at most MaxBurstLength.
    pub first_burst: u32,
    /// InitialR2T.
    pub initial_r2t: bool,
    /// ImmediateData.
    pub immediate_data: bool,
    /// MaxOutstandingR2T.
    pub max_outstanding_r2t: u16,
    /// DefaultTime2Wait.
    pub time2wait: u16,
    /// DefaultTime2Retain.
    pub time2retain: u16,
}

impl Params {
    /// What holds where a key is never mentioned: the RFC's defaults, and this side's own declaration.
    fn defaults(offer: &Offer) -> Self {
        Self {
            digests: Digests::default(),
            max_send_segment: 8192,
            max_recv_segment: offer.max_recv_segment,
            max_burst: 262_144,
            first_burst: 65_536,
            initial_r2t: true,
            immediate_data: true,
            max_outstanding_r2t: 1,
            time2wait: 2,
            time2retain: 20,
        }
    }
}

/// A value that its key does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}={value}: {rule}")]
pub struct KeyError {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// What the key allows.
    pub rule: String,
}

/// A negotiation in progress.
#[derive(Clone, Debug)]
pub struct Negotiation {
    offer: Offer,
    params: Params,
}

impl Negotiation {
    /// Starts from this side's wishes.
    pub fn new(offer: Offer) -> Self {
        Self { params: Params::defaults(&offer), offer }
    }

    /// The keys that an initiator opens with, those for a normal session among them where asked.
    pub fn open(&self, normal: bool) -> Keys {
        let offer = &self.offer;
        let digest = |wanted| if wanted { "CRC32C,None" } else { "None" };
        let mut keys = Keys::new();
        keys.push("HeaderDigest", digest(offer.digests.header));
        keys.push("DataDigest", digest(offer.digests.data));
        keys.push("MaxRecvDataSegmentLength", offer.max_recv_segment.to_string());
        keys.push("DefaultTime2Wait", "0");
        keys.push("DefaultTime2Retain", "0");
        keys.push("ErrorRecoveryLevel", "0");
        if normal {
            keys.push("InitialR2T", yes_no(offer.initial_r2t));
            keys.push("ImmediateData", yes_no(offer.immediate_data));
            keys.push("MaxBurstLength", offer.max_burst.to_string());
            keys.push("FirstBurstLength", offer.first_burst.to_string());
            keys.push("MaxConnections", "1");
            keys.push("MaxOutstandingR2T", offer.max_outstanding_r2t.to_string());
            keys.push("DataPDUInOrder", "Yes");
            keys.push("DataSequenceInOrder", "Yes");
        }
        keys
    }

    /// Takes the peer's answers to [`Negotiation::open`], its declarations included.
    pub fn settle(&mut self, answers: &Keys) -> Result<(), KeyError> {
        for (key, value) in answers.iter().filter(|(_, value)| !is_refusal(value)) {
            self.apply(key, value)?;
        }
        Ok(())
    }

    /// Takes what an initiator offers and says what to answer.
    pub fn answer(&mut self, offered: &Keys) -> Result<Keys, KeyError> {
        let mut answers = Keys::new();
        for (key, value) in offered.iter() {
            let result = match key {
                "MaxRecvDataSegmentLength" => {
                    self.apply(key, value)?;
                    continue;
                }
                "HeaderDigest" | "DataDigest" => {
                    let choice = value.split(',').find(|choice| matches!(*choice, "CRC32C" | "None"));
                    choice.unwrap_or("Reject").to_owned()
                }
                "InitialR2T" => yes_no(boolean(key, value)? || self.offer.initial_r2t).to_owned(),
                "ImmediateData" => yes_no(boolean(key, value)? && self.offer.immediate_data).to_owned(),
                "MaxBurstLength" => number(key, value)?.min(self.offer.max_burst).to_string(),
                "FirstBurstLength" => number(key, value)?.min(self.offer.first_burst).to_string(),
                "MaxOutstandingR2T" => {
                    number(key, value)?.min(u32::from(self.offer.max_outstanding_r2t)).to_string()
                }
                // The larger of both offers; this side offers 0.
                "DefaultTime2Wait" => number(key, value)?.to_string(),
                "DefaultTime2Retain" | "ErrorRecoveryLevel" => "0".to_owned(),
                "MaxConnections" => "1".to_owned(),
                "DataPDUInOrder" | "DataSequenceInOrder" => "Yes".to_owned(),
                "IFMarker" | "OFMarker" => "No".to_owned(),
                "IFMarkInt" | "OFMarkInt" => "Irrelevant".to_owned(),
                "TaskReporting" => "RFC3720".to_owned(),
                // Declarations, taken elsewhere.
                "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType" | "AuthMethod" => continue,
                _ => "NotUnderstood".to_owned(),
            };
            if !is_refusal(&result) {
                self.apply(key, &result)?;
            }
            answers.push(key, result);
        }
        Ok(answers)
    }

    /// The result, with FirstBurstLength held to MaxBurstLength (RFC 7143, 13.14).
    pub fn finish(mut self) -> Params {
        self.params.first_burst = self.params.first_burst.min(self.params.max_burst);
        self.params
    }

    fn apply(&mut self, key: &str, value: &str) -> Result<(), KeyError> {
        let params = &mut self.params;
        match key {
            "HeaderDigest" => params.digests.header = digest(key, value)?,
            "DataDigest" => params.digests.data = digest(key, value)?,
            "MaxRecvDataSegmentLength" => params.max_send_segment = number(key, value)?,
            "InitialR2T" => params.initial_r2t = boolean(key, value)?,
            "ImmediateData" => params.immediate_data = boolean(key, value)?,
            "MaxBurstLength" => params.max_burst = number(key, value)?,
            "FirstBurstLength" => params.first_burst = number(key, value)?,
            "MaxOutstandingR2T" => params.max_outstanding_r2t = small(key, value)?,
            "DefaultTime2Wait" => params.time2wait = small(key, value)?,
            "DefaultTime2Retain" => params.time2retain = small(key, value)?,
            _ => {}
        }
        Ok(())
    }
}

fn is_refusal(value: &str) -> bool {
    matches!(value, "Reject" | "Irrelevant" | "NotUnderstood")
}

fn yes_no(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

fn error(key: &str, value: &str, rule: impl Into<String>) -> KeyError {
    KeyError { key: key.to_owned(), value: value.to_owned(), rule: rule.into() }
}

fn boolean(key: &str, value: &str) -> Result<bool, KeyError> {
    match value {
        "Yes" => Ok(true),
        "No" => Ok(false),
        _ => Err(error(key, value, "Yes or No is needed")),
    }
}

fn digest(key: &str, value: &str) -> Result<bool, KeyError> {
    match value {
        "CRC32C" => Ok(true),
        "None" => Ok(false),
        _ => Err(error(key, value, "CRC32C or None is needed")),
    }
}

/// A number within its key's range, decimal or hexadecimal (RFC 7143, 6.1 and 13).
fn number(key: &str, value: &str) -> Result<u32, KeyError> {
    let (low, high) = match key {
        "MaxRecvDataSegmentLength" | "MaxBurstLength" | "FirstBurstLength" => (512, (1 << 24) - 1),
        "MaxOutstandingR2T" | "MaxConnections" => (1, 65_535),
        "DefaultTime2Wait" | "DefaultTime2Retain" => (0, 3600),
        "ErrorRecoveryLevel" => (0, 2),
        _ => (0, u32::MAX),
    };
    let parsed = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed
        .ok()
        .filter(|number| (low..=high).contains(number))
        .ok_or_else(|| error(key, value, format!("a number from {low} to {high} is needed")))
}

fn small(key: &str, value: &str) -> Result<u16, KeyError> {
    number(key, value)?.try_into().map_err(|_| error(key, value, "a number below 65536 is needed"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn offers()(
            header: bool, data: bool, initial_r2t: bool, immediate_data: bool,
            max_recv_segment in 512_u32..1 << 24, max_burst in 512_u32..1 << 24, first_burst in 512_u32..1 << 24,
            max_outstanding_r2t in 1_u16..,
        ) -> Offer {
            let digests = Digests { header, data };
            Offer { digests, max_recv_segment, max_burst, first_burst, initial_r2t, immediate_data, max_outstanding_r2t }
        }
    }

    proptest! {
        #[test]
        fn both_sides_compute_the_same(initiator in offers(), target in offers()) {
            let mut one = Negotiation::new(initiator.clone());
            let mut other = Negotiation::new(target.clone());
            let mut answers = other.answer(&one.open(true)).unwrap();
            answers.push("MaxRecvDataSegmentLength", target.max_recv_segment.to_string());
            one.settle(&answers).unwrap();
            let (one, other) = (one.finish(), other.finish());
            prop_assert_eq!(one.max_send_segment, target.max_recv_segment);
            prop_assert_eq!(other.max_send_segment, initiator.max_recv_segment);
            let common = |p: Params| Params { max_send_segment: 0, max_recv_segment: 0, ..p };
            prop_assert_eq!(one.time2wait, 0);
            prop_assert_eq!(common(one), common(other));
        }
    }

    #[test]
    fn values_outside_a_keys_range_are_named() {
        let refused = |key: &str, value: &str| {
            let keys = Keys::from_iter([(key, value)]);
            Negotiation::new(Offer::default()).answer(&keys).unwrap_err().to_string()
        };
        assert_eq!(
            refused("MaxBurstLength", "511"),
            "MaxBurstLength=511: a number from 512 to 16777215 is needed"
        );
        assert!(refused("InitialR2T", "Perhaps").contains("Yes or No"));
        assert!(refused("MaxRecvDataSegmentLength", "-1").contains("512"));
    }

    #[test]
    fn unknown_keys_are_not_understood() {
        let keys = Keys::from_iter([("X-com.example.Colour", "red"), ("HeaderDigest", "SHA3")]);
        let answers = Negotiation::new(Offer::default()).answer(&keys).unwrap();
        assert_eq!(answers.get("X-com.example.Colour"), Some("NotUnderstood"));
        assert_eq!(answers.get("HeaderDigest"), Some("Reject"));
    }
}
