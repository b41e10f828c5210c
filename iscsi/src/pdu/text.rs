//! `key=value` pairs, each ended by a zero byte (RFC 7143, 6.1).

/// The most bytes of text that one negotiation may bring, over all its PDUs: more than any real login
/// needs, little enough that a hostile one cannot fill memory.
pub const MAX_TEXT: usize = 64 * 1024;
/// The longest key (RFC 7143, 6.1).
const MAX_KEY: usize = 63;
/// The longest value (RFC 7143, 6.1).
const MAX_VALUE: usize = 255;
/// The longest value of the keys that carry binary data, in its encoded form.
const MAX_BINARY_VALUE: usize = 8 * 1024;

/// Pairs in the order in which they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<(String, String)>);

/// Why bytes are not text keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The last pair has no zero byte.
    #[error("text of {0} bytes does not end with a zero byte")]
    Unterminated(usize),
    /// A pair without `=`.
    #[error("text {0:?} is not key=value")]
    NotAPair(String),
    /// Not UTF-8, or a key with letters that keys do not have.
    #[error("text key {0:?} is not 1 to 63 letters, digits, '.', '-', '+', '@', '_' or '/'")]
    BadKey(String),
    /// A value longer than allowed.
    #[error(
        "the value of {key} has {length} bytes; at most {MAX_VALUE} (8192 for binary values) are allowed"
    )]
    LongValue {
        /// The key.
        key: String,
        /// Its value's length in bytes.
        length: usize,
    },
    /// The same key twice.
    #[error("text key {0} stands twice in one negotiation step")]
    Twice(String),
    /// More than [`MAX_TEXT`] bytes.
    #[error("more than {MAX_TEXT} bytes of text in one negotiation")]
    TooMuch,
}

impl Keys {
    /// No pairs.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Reads the text of one whole negotiation step (its continuation PDUs joined).
    pub fn parse(text: &[u8]) -> Result<Self, TextError> {
        if text.len() > MAX_TEXT {
            return Err(TextError::TooMuch);
        }
        let Some(body) = text.strip_suffix(&[0]) else {
            return if text.is_empty() { Ok(Self::new()) } else { Err(TextError::Unterminated(text.len())) };
        };
        let mut keys = Self::new();
        for pair in body.split(|&b| b == 0).filter(|pair| !pair.is_empty()) {
            let lossy = || String::from_utf8_lossy(pair).into_owned();
            let pair_text = std::str::from_utf8(pair).map_err(|_| TextError::BadKey(lossy()))?;
            let (key, value) = pair_text.split_once('=').ok_or_else(|| TextError::NotAPair(lossy()))?;
            let letter = |b: u8| b.is_ascii_alphanumeric() || b".-+@_/".contains(&b);
            if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(letter) {
                return Err(TextError::BadKey(key.to_owned()));
            }
            let binary = value.starts_with("0x") || value.starts_with("0b");
            if value.len() > if binary { MAX_BINARY_VALUE } else { MAX_VALUE } {
                return Err(TextError::LongValue { key: key.to_owned(), length: value.len() });
            }
            // A target lists itself again and again in SendTargets; nothing else may repeat.
            if keys.get(key).is_some() && !matches!(key, "TargetName" | "TargetAddress") {
                return Err(TextError::Twice(key.to_owned()));
            }
            keys.push(key, value);
        }
        Ok(keys)
    }

    /// The pairs as they stand on the wire, each with its zero byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(key, value)| [key, "=", value, "\0"].concat().into_bytes()).collect()
    }

    /// The value of a key; the first where it stands more than once.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// Adds a pair at the end.
    pub fn push(&mut self, key: &str, value: impl Into<String>) {
        self.0.push((key.to_owned(), value.into()));
    }

    /// Adds another's pairs at the end.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Gives a key another value where it stands; says whether it stood.
    pub fn replace(&mut self, key: &str, value: &str) -> bool {
        let mut found = false;
        for (_, old) in self.0.iter_mut().filter(|(k, _)| k == key) {
            value.clone_into(old);
            found = true;
        }
        found
    }

    /// Drops every pair that `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.0.retain(|(key, value)| keep(key, value));
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Keys {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_round_trip_in_order() {
        let text = b"InitiatorName=iqn.x:y\0SessionType=Normal\0AuthMethod=None\0";
        let keys = Keys::parse(text).unwrap();
        assert_eq!(keys.get("SessionType"), Some("Normal"));
        assert_eq!(keys.to_bytes(), text);
        assert!(Keys::parse(b"").unwrap().is_empty());
    }

    #[test]
    fn broken_text_is_named() {
        assert_eq!(Keys::parse(b"A=1"), Err(TextError::Unterminated(3)));
        assert_eq!(Keys::parse(b"A\0"), Err(TextError::NotAPair("A".into())));
        assert_eq!(Keys::parse(b"=1\0"), Err(TextError::BadKey("".into())));
        assert_eq!(Keys::parse(b"A=1\0A=2\0"), Err(TextError::Twice("A".into())));
        let long = [b"A=".as_slice(), &[b'x'; 256], b"\0"].concat();
        assert_eq!(Keys::parse(&long), Err(TextError::LongValue { key: "A".into(), length: 256 }));
        assert_eq!(Keys::parse(&vec![b'x'; MAX_TEXT + 1]), Err(TextError::TooMuch));
    }
}
