//! The LUN field of a PDU (SAM-5, 4.7; RFC 7143, 11.2.1.7).

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Eight bytes as they stand in bytes 8 to 15 of a header.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct LunField(pub [u8; 8]);

/// The largest number that single-level flat space addressing can name (SAM-5, 4.7.7.3).
pub const MAX_FLAT: u16 = 0x3fff;

impl LunField {
    /// LUN 0.
    pub const ZERO: Self = Self([0; 8]);

    /// The form that initiators in use give a number: peripheral below 256, flat from there on. `None`
    /// above [`MAX_FLAT`].
    pub const fn from_number(lun: u16) -> Option<Self> {
        let [high, low] = lun.to_be_bytes();
        match lun {
            0..=0xff => Some(Self([0, low, 0, 0, 0, 0, 0, 0])),
            0x100..=MAX_FLAT => Some(Self([0x40 | high, low, 0, 0, 0, 0, 0, 0])),
            _ => None,
        }
    }

    /// The number of a single-level LUN on the target itself: peripheral (bus 0), flat or extended flat
    /// (SAM-5, 4.7.7); `None` for other formats and for deeper levels.
    pub fn number(self) -> Option<u32> {
        let [first, second, rest @ ..] = self.0;
        let tail_is_zero = |bytes: &[u8]| bytes.iter().all(|&b| b == 0);
        match first >> 6 {
            0b00 if first == 0 && tail_is_zero(&rest) => Some(u32::from(second)),
            0b01 if tail_is_zero(&rest) => Some(u32::from(u16::from_be_bytes([first & 0x3f, second]))),
            // Extended logical unit addressing, well-formed lengths of 2 and 4 bytes, flat method 2.
            0b11 if first == 0xd2 && tail_is_zero(&rest[2..]) => {
                Some(u32::from_be_bytes([0, second, rest[0], rest[1]]))
            }
            _ => None,
        }
    }

    /// Whether this is the well-known logical unit REPORT LUNS (SAM-5, 4.7.7.5.3; SPC-5, 8.2).
    pub fn is_report_luns(self) -> bool {
        self.0 == [0xc1, 0x01, 0, 0, 0, 0, 0, 0]
    }
}

impl fmt::Debug for LunField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LUN {:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Display for LunField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) => write!(f, "{number}"),
            None => write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_every_form() {
        for lun in [0, 1, 5, 255, 256, 300, MAX_FLAT] {
            assert_eq!(LunField::from_number(lun).unwrap().number(), Some(u32::from(lun)), "{lun}");
        }
        assert_eq!(LunField::from_number(300), Some(LunField([0x41, 0x2c, 0, 0, 0, 0, 0, 0])));
        assert_eq!(LunField::from_number(MAX_FLAT + 1), None);
        assert_eq!(LunField([0x40, 5, 0, 0, 0, 0, 0, 0]).number(), Some(5));
        assert_eq!(LunField([0xd2, 0, 1, 0, 0, 0, 0, 0]).number(), Some(256));
        assert_eq!(LunField([0x00, 5, 0, 1, 0, 0, 0, 0]).number(), None);
        assert_eq!(LunField([0x01, 5, 0, 0, 0, 0, 0, 0]).number(), None);
        assert!(LunField([0xc1, 1, 0, 0, 0, 0, 0, 0]).is_report_luns());
    }
}
