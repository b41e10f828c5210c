//! The catalog as text: JSON in, JSON out, and errors that name the place.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::model::Catalog;
use crate::validate::Violations;

/// Why a text is not a catalog.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of the document's shape.
    #[error("{path}: {source}")]
    Shape {
        /// The place in the document, as in `volumes.vol0.extents[2].port`.
        path: String,
        /// What is wrong there, with line and column.
        source: serde_json::Error,
    },
    /// Of the right shape, but it breaks rules.
    #[error(transparent)]
    Rules(#[from] Violations),
}

impl Catalog {
    /// Reads and validates a whole document.
    pub fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let catalog: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| DocumentError::Shape { path: e.path().to_string(), source: e.into_inner() })?;
        json.end().map_err(|source| DocumentError::Shape { path: "end of document".to_owned(), source })?;
        catalog.validate()?;
        Ok(catalog)
    }

    /// The document, indented, with a final newline.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

/// Reads a map whose keys may stand only once; JSON itself would let the last one win.
pub(crate) fn unique_keys<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct UniqueKeys<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueKeys<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, V>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format!("the name {key:?} stands twice")));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(UniqueKeys(PhantomData))
}
