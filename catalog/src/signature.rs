//! Minisign signatures over the catalog's bytes.
//!
//! Nothing is parsed before a configured key has signed exactly these bytes. Refused:
//! no configured key, a signature by another key, the legacy form that is not
//! prehashed, and a trusted comment whose serial is not the catalog's.

use std::fmt;
use std::str::FromStr;

use minisign_verify::Signature;
use thiserror::Error;

use crate::name::Shown;
use crate::{Catalog, CatalogError};

/// A minisign public key: the base64 line, with or without the comment line before it.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: minisign_verify::PublicKey,
    line: String,
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// Nobody said whom to trust.
    #[error("no catalog key is configured: put the public key of the artifact server into `catalog_keys`")]
    NoKey,
    /// Not a public key.
    #[error("{} is not a minisign public key: it is the second line of a `.pub` file", Shown(.0))]
    BadKey(String),
    /// Not a signature file.
    #[error("the catalog's signature is not a minisign file: sign the catalog again")]
    BadSignature,
    /// Signed by somebody else.
    #[error("the catalog was signed by key {got}, expected {expected}: check `catalog_keys`")]
    OtherKey {
        /// Ids of the configured keys.
        expected: String,
        /// Id in the signature.
        got: String,
    },
    /// The bytes are not those that were signed.
    #[error("the catalog does not match its signature by key {key}: it was changed, or only half published")]
    Mismatch {
        /// Id of the key.
        key: String,
    },
    /// A signature over the plain bytes.
    #[error("the catalog's signature has minisign's legacy form: sign it again with a current minisign")]
    Legacy,
    /// The signature belongs to another edition.
    #[error("the signature is for catalog serial {signed}, the catalog says {found}")]
    OtherSerial {
        /// In the trusted comment.
        signed: String,
        /// In the document.
        found: u64,
    },
}

/// Verifies `signature` over `bytes` with one of `keys`, then parses and validates.
pub fn open_signed(bytes: &[u8], signature: &str, keys: &[PublicKey]) -> Result<Catalog, CatalogError> {
    open_signed_by(bytes, signature, keys).map(|(catalog, _)| catalog)
}

/// As [`open_signed`], with the one of `keys` that signed it.
pub fn open_signed_by<'k>(
    bytes: &[u8],
    signature: &str,
    keys: &'k [PublicKey],
) -> Result<(Catalog, &'k PublicKey), CatalogError> {
    let (comment, key) = verify(bytes, signature, keys)?;
    let catalog = Catalog::parse(bytes)?;
    match comment.split_ascii_whitespace().find_map(|word| word.strip_prefix("serial:")) {
        Some(signed) if signed != catalog.serial.to_string() => {
            Err(SignatureError::OtherSerial { signed: signed.to_owned(), found: catalog.serial }.into())
        }
        _ => Ok((catalog, key)),
    }
}

impl PublicKey {
    /// The key's id as minisign prints it.
    pub fn id(&self) -> String {
        key_id(&self.line).unwrap_or_default()
    }
}

/// Returns the trusted comment, and the key.
pub(crate) fn verify<'k>(
    bytes: &[u8],
    text: &str,
    keys: &'k [PublicKey],
) -> Result<(String, &'k PublicKey), SignatureError> {
    if keys.is_empty() {
        return Err(SignatureError::NoKey);
    }
    if text.len() > MAX_SIGNATURE_BYTES {
        return Err(SignatureError::BadSignature);
    }
    let signature = Signature::decode(text).map_err(|_| SignatureError::BadSignature)?;
    let got = text.lines().nth(1).and_then(key_id).ok_or(SignatureError::BadSignature)?;
    let Some(key) = keys.iter().find(|key| key.id() == got) else {
        let expected = keys.iter().map(PublicKey::id).collect::<Vec<_>>().join(" or ");
        return Err(SignatureError::OtherKey { expected, got });
    };
    match key.key.verify(bytes, &signature, false) {
        Ok(()) => Ok((signature.trusted_comment().to_owned(), key)),
        Err(minisign_verify::Error::UnexpectedAlgorithm) => Err(SignatureError::Legacy),
        Err(_) => Err(SignatureError::Mismatch { key: got }),
    }
}

/// The id inside a base64 line of a key or signature: bytes 2 to 9, little endian,
/// written as minisign writes it.
fn key_id(line: &str) -> Option<String> {
    let mut head = Vec::with_capacity(12);
    for four in line.as_bytes().get(..16)?.chunks_exact(4) {
        let bits = four.iter().try_fold(0_u32, |bits, byte| Some(bits << 6 | base64_value(*byte)?))?;
        head.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
    let id: [u8; 8] = head.get(2..10)?.try_into().ok()?;
    Some(format!("{:016X}", u64::from_le_bytes(id)))
}

fn base64_value(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

impl FromStr for PublicKey {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let refused = || SignatureError::BadKey(text.trim().to_owned());
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut line = lines.next().ok_or_else(refused)?;
        if line.starts_with("untrusted comment:") {
            line = lines.next().ok_or_else(refused)?;
        }
        if lines.next().is_some() {
            return Err(refused());
        }
        let key = minisign_verify::PublicKey::from_base64(line).map_err(|_| refused())?;
        Ok(Self { key, line: line.to_owned() })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

const MAX_SIGNATURE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    // A throw-away key, and its signature over `test`.
    const KEY: &str = "RWQazqlWxKatt6ZIdUPIkp6j4alLgDv6vWiheyaV0fVnKHcotmIZj9nI";
    const SIGNATURE: &str = "untrusted comment: zlh catalog\n\
        RUQazqlWxKattzpEs4jb19sjU1ad25u+cSARl7KPRqpkeDMnGXuX6ObTkZzeYK6nN74t0XSP1rVjjnQk4wbqmNJN2II1WpA12w4=\n\
        trusted comment: serial:7\n\
        RVnbSKYs96ygk4//jnePaIYFiUBUKgRaERf6720kWsWJRN09OW0RIN1imhBETjOYjklaBVgZelqygpnL+21zBQ==\n";

    #[test]
    fn a_key_reads_with_or_without_its_comment() {
        let bare: PublicKey = KEY.parse().unwrap();
        let file: PublicKey = format!("untrusted comment: minisign public key\n{KEY}\n").parse().unwrap();
        assert_eq!(bare, file);
        assert_eq!(bare.to_string(), KEY);
        assert_eq!(bare.id(), "B7ADA6C456A9CE1A");
    }

    #[test]
    fn what_is_no_key() {
        for bad in [
            "",
            "\n",
            "RWQ",
            "untrusted comment: x",
            &format!("{KEY}\n{KEY}"),
            &KEY[1..],
            &KEY.replace('R', "S"),
        ] {
            assert!(matches!(bad.parse::<PublicKey>(), Err(SignatureError::BadKey(_))), "{bad:?}");
        }
    }

    #[test]
    fn no_key_is_a_refusal_with_a_remedy() {
        let error = open_signed(b"{}", SIGNATURE, &[]).unwrap_err();
        assert!(error.to_string().contains("`catalog_keys`"), "{error}");
    }

    #[test]
    fn only_the_signed_bytes_pass() {
        let keys = [KEY.parse().unwrap()];
        assert_eq!(verify(b"test", SIGNATURE, &keys), Ok(("serial:7".to_owned(), &keys[0])));
        let mismatch = Err(SignatureError::Mismatch { key: "B7ADA6C456A9CE1A".to_owned() });
        assert_eq!(verify(b"Test", SIGNATURE, &keys), mismatch);
        assert_eq!(verify(b"test", &SIGNATURE.replace("serial:7", "serial:8"), &keys), mismatch);
    }

    #[test]
    fn legacy_and_broken_signatures_are_refused() {
        let keys = [KEY.parse().unwrap()];
        // The algorithm's name is in the first two bytes.
        assert_eq!(verify(b"test", &SIGNATURE.replace("RUQa", "RWQa"), &keys), Err(SignatureError::Legacy));
        for bad in ["", "x", "a\nb\nc\nd", &SIGNATURE.replace("trusted comment: s", "s"), &"x".repeat(5000)] {
            assert_eq!(verify(b"test", bad, &keys), Err(SignatureError::BadSignature), "{bad:?}");
        }
    }

    #[test]
    fn another_key_is_named_beside_the_expected_one() {
        let other = KEY.replacen("RWQazqlW", "RWQazqlX", 1);
        let text = verify(b"test", SIGNATURE, &[other.parse().unwrap()]).unwrap_err().to_string();
        assert!(text.contains("signed by key B7ADA6C456A9CE1A"), "{text}");
        assert!(text.contains("expected B7ADA6C457A9CE1A"), "{text}");
    }
}
