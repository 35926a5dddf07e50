//! Making keys and signatures, for the tools that publish. Not part of the agent.

use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use minisign::{KeyPair, SecretKeyBox};
use thiserror::Error;

use crate::PublicKey;

/// A minisign secret key without a password. Its `Display` is the content of its file.
#[derive(Clone)]
pub struct SecretKey(minisign::SecretKey);

/// A key that cannot be made, read or used.
#[derive(Debug, Error)]
pub enum SigningError {
    /// The text is no secret key, or one with a password.
    #[error("this is not a minisign secret key without a password: make one with `minisign -G -W`")]
    BadKey(#[source] minisign::PError),
    /// The operation itself failed.
    #[error("minisign failed")]
    Failed(#[source] minisign::PError),
}

impl SecretKey {
    /// Makes a new key from the system's randomness.
    pub fn generate() -> Result<Self, SigningError> {
        KeyPair::generate_unencrypted_keypair().map(|pair| Self(pair.sk)).map_err(SigningError::Failed)
    }

    /// Its public half.
    pub fn public(&self) -> Result<PublicKey, SigningError> {
        let public = minisign::PublicKey::from_secret_key(&self.0).map_err(SigningError::Failed)?;
        let unreadable = |error| minisign::PError::new(minisign::ErrorKind::Misc, error);
        public.to_base64().parse().map_err(|error| SigningError::Failed(unreadable(error)))
    }

    /// Signs a catalog's bytes; the result is the content of `catalog.json.minisig`.
    /// `serial` is the catalog's, and goes into the trusted comment.
    pub fn sign(&self, bytes: &[u8], serial: u64) -> Result<String, SigningError> {
        let trusted = format!("serial:{serial}");
        minisign::sign(None, &self.0, Cursor::new(bytes), Some(&trusted), Some("zlh catalog"))
            .map(|signature| signature.into_string())
            .map_err(SigningError::Failed)
    }
}

impl FromStr for SecretKey {
    type Err = SigningError;

    fn from_str(text: &str) -> Result<Self, SigningError> {
        SecretKeyBox::from_string(text)
            .and_then(SecretKeyBox::into_unencrypted_secret_key)
            .map(Self)
            .map_err(SigningError::BadKey)
    }
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_box(Some("zlh catalog secret key")).map_err(|_| fmt::Error)?;
        f.write_str(&text.into_string())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CatalogError, SignatureError, open_signed};

    const EMPTY: &str = r#"{"schema":1,"serial":7,"issued":"2026-01-02T03:04:05Z"}"#;

    #[test]
    fn a_signed_catalog_opens_and_a_changed_one_does_not() {
        let secret = SecretKey::generate().unwrap();
        let keys = [secret.public().unwrap()];
        let signature = secret.sign(EMPTY.as_bytes(), 7).unwrap();
        assert_eq!(open_signed(EMPTY.as_bytes(), &signature, &keys).unwrap().serial, 7);

        let changed = EMPTY.replace('7', "8");
        let error = open_signed(changed.as_bytes(), &signature, &keys).unwrap_err();
        assert!(matches!(error, CatalogError::Signature(SignatureError::Mismatch { .. })), "{error:?}");

        let edited = signature.replace("serial:7", "serial:9");
        assert!(open_signed(EMPTY.as_bytes(), &edited, &keys).is_err(), "the comment is signed too");

        let other = SecretKey::generate().unwrap().public().unwrap();
        let error = open_signed(EMPTY.as_bytes(), &signature, &[other]).unwrap_err();
        assert!(matches!(error, CatalogError::Signature(SignatureError::OtherKey { .. })), "{error:?}");
    }

    #[test]
    fn a_signature_belongs_to_one_serial() {
        let secret = SecretKey::generate().unwrap();
        let signature = secret.sign(EMPTY.as_bytes(), 6).unwrap();
        let error = open_signed(EMPTY.as_bytes(), &signature, &[secret.public().unwrap()]).unwrap_err();
        assert_eq!(error.to_string(), "the signature is for catalog serial 6, the catalog says 7");
    }

    #[test]
    fn the_key_file_reads_back_and_stays_out_of_debug_output() {
        let secret = SecretKey::generate().unwrap();
        let file = secret.to_string();
        let read: SecretKey = file.parse().unwrap();
        assert_eq!(read.public().unwrap(), secret.public().unwrap());
        assert!(!format!("{secret:?}").contains(file.lines().nth(1).unwrap()));
        assert!("untrusted comment: x\nabc\n".parse::<SecretKey>().is_err());
    }
}
