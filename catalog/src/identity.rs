//! What volumes and extents call themselves, derived from the volume's UUID so that it stays for life.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How a disk names itself: the unit serial number (VPD 80) and the NAA designator (VPD 83).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The product serial number: 32 lower-case hexadecimal digits.
    pub serial: String,
    /// The world-wide name.
    pub naa: Naa,
}

/// An NAA locally assigned designator: 8 bytes, the first four bits 3 (SPC-5, 7.7.6.6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Naa([u8; 8]);

impl Identity {
    /// The identity of a volume.
    pub fn of_volume(volume: Uuid) -> Self {
        Self::from_uuid(volume)
    }

    /// The identity of the extent that `port` means; the same wherever its data lies.
    pub fn of_extent(volume: Uuid, port: u16) -> Self {
        Self::from_uuid(Uuid::new_v5(&volume, format!("extent:{port}").as_bytes()))
    }

    fn from_uuid(uuid: Uuid) -> Self {
        // The 60 bits after the type come from a hash: a version 4 UUID's own bits are not all random.
        let hash = Uuid::new_v5(&uuid, b"naa");
        let mut naa = [0; 8];
        naa.copy_from_slice(&hash.as_bytes()[8..]);
        naa[0] = 0x30 | (naa[0] & 0x0f);
        Self { serial: uuid.simple().to_string(), naa: Naa(naa) }
    }
}

impl Naa {
    /// The designator as it stands in VPD 83: 8 bytes, most significant first.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

/// A text that is not an NAA locally assigned designator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is not an NAA designator: 16 hexadecimal digits are needed, the first of them 3")]
pub struct NotAnNaa(String);

impl FromStr for Naa {
    type Err = NotAnNaa;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 16 && text.starts_with('3') && text.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        value.map(|value| Self(value.to_be_bytes())).ok_or_else(|| NotAnNaa(text.to_owned()))
    }
}

impl TryFrom<String> for Naa {
    type Error = NotAnNaa;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Naa> for String {
    fn from(naa: Naa) -> Self {
        naa.to_string()
    }
}

impl fmt::Display for Naa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}
