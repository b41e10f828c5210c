//! Status and sense data (SAM-5, 5.3; SPC-5, 4.4).

use std::fmt;

/// The status of a command (SAM-5, 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Status {
    Good,
    CheckCondition,
    ConditionMet,
    Busy,
    ReservationConflict,
    TaskSetFull,
    TaskAborted,
    /// None of the above.
    Other(u8),
}

impl From<u8> for Status {
    fn from(code: u8) -> Self {
        match code {
            0x00 => Self::Good,
            0x02 => Self::CheckCondition,
            0x04 => Self::ConditionMet,
            0x08 => Self::Busy,
            0x18 => Self::ReservationConflict,
            0x28 => Self::TaskSetFull,
            0x40 => Self::TaskAborted,
            other => Self::Other(other),
        }
    }
}

impl From<Status> for u8 {
    fn from(status: Status) -> Self {
        match status {
            Status::Good => 0x00,
            Status::CheckCondition => 0x02,
            Status::ConditionMet => 0x04,
            Status::Busy => 0x08,
            Status::ReservationConflict => 0x18,
            Status::TaskSetFull => 0x28,
            Status::TaskAborted => 0x40,
            Status::Other(code) => code,
        }
    }
}

/// The kind of a condition (SPC-5, 4.4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum SenseKey {
    NoSense = 0x0,
    RecoveredError = 0x1,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    BlankCheck = 0x8,
    VendorSpecific = 0x9,
    CopyAborted = 0xa,
    AbortedCommand = 0xb,
    VolumeOverflow = 0xd,
    Miscompare = 0xe,
    Completed = 0xf,
}

const SENSE_KEYS: [SenseKey; 15] = [
    SenseKey::NoSense,
    SenseKey::RecoveredError,
    SenseKey::NotReady,
    SenseKey::MediumError,
    SenseKey::HardwareError,
    SenseKey::IllegalRequest,
    SenseKey::UnitAttention,
    SenseKey::DataProtect,
    SenseKey::BlankCheck,
    SenseKey::VendorSpecific,
    SenseKey::CopyAborted,
    SenseKey::AbortedCommand,
    SenseKey::VolumeOverflow,
    SenseKey::Miscompare,
    SenseKey::Completed,
];

/// What a CHECK CONDITION says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The kind of condition.
    pub key: SenseKey,
    /// Additional sense code (high byte) and its qualifier (low byte).
    pub code: u16,
    /// The INFORMATION field: for medium errors the LBA at which it happened.
    pub information: Option<u64>,
}

impl Sense {
    /// INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPCODE: Self = Self::new(SenseKey::IllegalRequest, 0x2000);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: Self = Self::new(SenseKey::IllegalRequest, 0x2100);
    /// INVALID FIELD IN CDB.
    pub const INVALID_FIELD_IN_CDB: Self = Self::new(SenseKey::IllegalRequest, 0x2400);
    /// INVALID FIELD IN PARAMETER LIST.
    pub const INVALID_FIELD_IN_PARAMETERS: Self = Self::new(SenseKey::IllegalRequest, 0x2600);
    /// PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LIST_LENGTH: Self = Self::new(SenseKey::IllegalRequest, 0x1a00);
    /// LOGICAL UNIT NOT SUPPORTED.
    pub const LUN_NOT_SUPPORTED: Self = Self::new(SenseKey::IllegalRequest, 0x2500);
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub const SAVING_NOT_SUPPORTED: Self = Self::new(SenseKey::IllegalRequest, 0x3900);
    /// MISCOMPARE DURING VERIFY OPERATION.
    pub const MISCOMPARE: Self = Self::new(SenseKey::Miscompare, 0x1d00);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    pub const RESET_OCCURRED: Self = Self::new(SenseKey::UnitAttention, 0x2900);
    /// LOGICAL UNIT COMMUNICATION TIME-OUT.
    pub const COMMUNICATION_TIMEOUT: Self = Self::new(SenseKey::HardwareError, 0x0801);
    /// INTERNAL TARGET FAILURE.
    pub const INTERNAL_FAILURE: Self = Self::new(SenseKey::HardwareError, 0x4400);
    /// NOT ENOUGH/TOO MUCH DATA: fewer bytes came than the command needs.
    pub const DATA_MISSING: Self = Self::new(SenseKey::AbortedCommand, 0x0c0d);

    /// A condition without an INFORMATION field.
    pub const fn new(key: SenseKey, code: u16) -> Self {
        Self { key, code, information: None }
    }

    /// The same condition, at an LBA.
    pub const fn at(self, lba: u64) -> Self {
        Self { information: Some(lba), ..self }
    }

    /// Reads fixed (70h, 71h) or descriptor (72h, 73h) format; `None` where it is neither or too short.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let key = |byte: u8| SENSE_KEYS.into_iter().find(|key| *key as u8 == byte & 0x0f);
        match data.first()? & 0x7f {
            0x70 | 0x71 => {
                let fixed = data.get(..14)?;
                let information = u32::from_be_bytes([fixed[3], fixed[4], fixed[5], fixed[6]]);
                Some(Self {
                    key: key(fixed[2])?,
                    code: u16::from_be_bytes([fixed[12], fixed[13]]),
                    information: (fixed[0] & 0x80 != 0).then_some(u64::from(information)),
                })
            }
            0x72 | 0x73 => {
                let head = data.get(..8)?;
                Some(Self {
                    key: key(head[1])?,
                    code: u16::from_be_bytes([head[2], head[3]]),
                    information: information_descriptor(&data[8..]),
                })
            }
            _ => None,
        }
    }

    /// Current sense in fixed format, 18 bytes; in descriptor format, 20 bytes, where the LBA needs more than
    /// the 32 bits that the fixed format has for it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let [asc, ascq] = self.code.to_be_bytes();
        match self.information.map(u32::try_from) {
            Some(Err(_)) => self.to_descriptor(asc, ascq),
            Some(Ok(lba)) => self.to_fixed(0xf0, lba, asc, ascq),
            None => self.to_fixed(0x70, 0, asc, ascq),
        }
    }

    fn to_fixed(self, response: u8, information: u32, asc: u8, ascq: u8) -> Vec<u8> {
        let mut data = vec![0; 18];
        data[0] = response;
        data[2] = self.key as u8;
        data[3..7].copy_from_slice(&information.to_be_bytes());
        data[7] = 10;
        (data[12], data[13]) = (asc, ascq);
        data
    }

    fn to_descriptor(self, asc: u8, ascq: u8) -> Vec<u8> {
        let mut data = vec![0x72, self.key as u8, asc, ascq, 0, 0, 0, 12, 0, 10, 0x80, 0];
        data.extend_from_slice(&self.information.unwrap_or(0).to_be_bytes());
        data
    }
}

/// The INFORMATION descriptor (type 0) among descriptors, where its VALID bit is set.
fn information_descriptor(mut descriptors: &[u8]) -> Option<u64> {
    while let [kind, length, rest @ ..] = descriptors {
        let body = rest.get(..usize::from(*length))?;
        if *kind == 0 && body.first()? & 0x80 != 0 {
            return Some(u64::from_be_bytes(body.get(2..10)?.try_into().ok()?));
        }
        descriptors = rest.get(usize::from(*length)..)?;
    }
    None
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, code {:04x}", self.key, self.code)?;
        self.information.map_or(Ok(()), |lba| write!(f, ", at LBA {lba}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sense_round_trips_in_both_formats() {
        for sense in [Sense::LBA_OUT_OF_RANGE, Sense::MISCOMPARE.at(7), Sense::MISCOMPARE.at(1 << 40)] {
            let data = sense.to_bytes();
            assert_eq!(Sense::parse(&data), Some(sense));
            for cut in 0..8 {
                assert_eq!(Sense::parse(&data[..cut]), None, "cut at {cut}");
            }
        }
    }
}
