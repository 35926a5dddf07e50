//! Lists of keys: how agents learn of a new one.
//!
//! Agents are configured with the first list. The next one is `keys/2.json` on the artifact
//! server, signed by a key of the first; then `keys/3.json`, signed by a key of the second,
//! and so on. An agent follows them one by one from the last it knows, so that no list can be
//! skipped, replayed or put in by somebody who has none of the keys; a key that a list leaves
//! out is trusted no more.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::signature::verify;
use crate::{PublicKey, SignatureError};

/// A list of keys that may sign the catalog and the next list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyList {
    /// Its number; 2 is the first that is published.
    pub serial: u64,
    /// Whom to trust from now on.
    pub keys: Vec<PublicKey>,
}

/// Why a list of keys was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyListError {
    /// Signed by somebody who may not.
    #[error("it was signed by key {got}, and only {expected} may: sign it with a key of the list before")]
    OtherKey {
        /// Ids of the keys of the list before.
        expected: String,
        /// Id in the signature.
        got: String,
    },
    /// The signature is not one over these bytes.
    #[error("its signature is not one over these bytes: it was changed, or only half published")]
    Signature(#[source] SignatureError),
    /// Not a list of keys.
    #[error("it is no list of keys: {0}")]
    Malformed(String),
    /// Another list under this name.
    #[error("it says that it is list {found}, and is published as list {expected}")]
    Serial {
        /// Its place.
        expected: u64,
        /// What it says, or what its signature says.
        found: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: u32,
    serial: u64,
    keys: Vec<String>,
}

impl KeyList {
    /// Where the list of that number is, below the artifact server's URL.
    pub fn path(serial: u64) -> String {
        format!("keys/{serial}.json")
    }

    /// The content of its file; what is signed.
    pub fn to_json(&self) -> String {
        let keys = self.keys.iter().map(ToString::to_string).collect();
        let document = Document { schema: SCHEMA, serial: self.serial, keys };
        // Numbers and strings: there is nothing to fail on.
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }

    /// Reads list number `serial` without asking who signed it: for whoever publishes it.
    pub fn unchecked(bytes: &[u8], serial: u64) -> Result<Self, KeyListError> {
        Self::read(bytes, None, serial)
    }

    /// Reads list number `serial`, which a key of the list before must have signed.
    pub fn open(
        bytes: &[u8],
        signature: &str,
        before: &[PublicKey],
        serial: u64,
    ) -> Result<Self, KeyListError> {
        let (comment, _) = verify(bytes, signature, before).map_err(|error| match error {
            SignatureError::OtherKey { expected, got } => KeyListError::OtherKey { expected, got },
            error => KeyListError::Signature(error),
        })?;
        Self::read(bytes, Some(&comment), serial)
    }

    fn read(bytes: &[u8], comment: Option<&str>, serial: u64) -> Result<Self, KeyListError> {
        let malformed = |why: &dyn std::fmt::Display| KeyListError::Malformed(why.to_string());
        if bytes.len() > MAX_BYTES {
            return Err(malformed(&format_args!("it has more than {MAX_BYTES} bytes")));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        if document.schema != SCHEMA {
            return Err(malformed(&format_args!(
                "its schema is {}, this program reads {SCHEMA}",
                document.schema
            )));
        }
        let words = comment.unwrap_or_default().split_ascii_whitespace();
        let signed = words.filter_map(|word| word.strip_prefix("serial:")).next();
        let found = signed.map_or_else(|| document.serial.to_string(), str::to_owned);
        if document.serial != serial || found != serial.to_string() {
            let found = if document.serial == serial { found } else { document.serial.to_string() };
            return Err(KeyListError::Serial { expected: serial, found });
        }
        if document.keys.is_empty() || document.keys.len() > MAX_KEYS {
            return Err(malformed(&format_args!("a list has 1 to {MAX_KEYS} keys")));
        }
        let keys = document.keys.iter().map(|key| key.parse()).collect::<Result<_, SignatureError>>();
        Ok(Self { serial, keys: keys.map_err(|error| malformed(&error))? })
    }
}

const SCHEMA: u32 = 1;
const MAX_BYTES: usize = 64 << 10;
const MAX_KEYS: usize = 32;

#[cfg(all(test, feature = "sign"))]
mod tests {
    use super::*;
    use crate::SecretKey;

    #[allow(clippy::unwrap_used, reason = "a helper of tests is a test")]
    fn list(serial: u64, keys: &[&SecretKey]) -> KeyList {
        KeyList { serial, keys: keys.iter().map(|key| key.public().unwrap()).collect() }
    }

    #[test]
    fn a_list_is_signed_by_the_one_before_and_by_nobody_else() {
        let (old, new, stranger) =
            (SecretKey::generate().unwrap(), SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let text = list(2, &[&new]).to_json();
        let by = |key: &SecretKey, serial| key.sign(text.as_bytes(), serial).unwrap();
        let before = [old.public().unwrap()];
        let opened = KeyList::open(text.as_bytes(), &by(&old, 2), &before, 2).unwrap();
        assert_eq!(opened, list(2, &[&new]));
        for key in [&new, &stranger] {
            let error = KeyList::open(text.as_bytes(), &by(key, 2), &before, 2).unwrap_err();
            assert!(matches!(error, KeyListError::OtherKey { .. }), "{error}");
        }
        let changed = text.replace("\"serial\": 2", "\"serial\": 3");
        assert!(matches!(
            KeyList::open(changed.as_bytes(), &by(&old, 2), &before, 3),
            Err(KeyListError::Signature(_))
        ));
        // Published under another number, or signed as another.
        for (signed, place) in [(2, 3), (3, 2)] {
            let error = KeyList::open(text.as_bytes(), &by(&old, signed), &before, place).unwrap_err();
            assert!(matches!(error, KeyListError::Serial { .. }), "{signed} {place} {error}");
        }
    }

    #[test]
    fn what_is_signed_and_no_list_is_none() {
        let key = SecretKey::generate().unwrap();
        let public = key.public().unwrap();
        let catalog = r#"{"schema":1,"serial":2,"issued":"2026-01-02T03:04:05Z"}"#;
        let many =
            format!(r#"{{"schema":1,"serial":2,"keys":[{}]}}"#, vec![format!("\"{public}\""); 33].join(","));
        for text in [
            catalog,
            "{}",
            "[]",
            r#"{"schema":1,"serial":2,"keys":[]}"#,
            r#"{"schema":1,"serial":2,"keys":["x"]}"#,
            r#"{"schema":2,"serial":2,"keys":[]}"#,
            &many,
        ] {
            let signature = key.sign(text.as_bytes(), 2).unwrap();
            let error =
                KeyList::open(text.as_bytes(), &signature, std::slice::from_ref(&public), 2).unwrap_err();
            assert!(matches!(error, KeyListError::Malformed(_)), "{text}: {error}");
        }
    }
}
