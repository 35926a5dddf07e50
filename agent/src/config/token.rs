//! The agent's bearer token, kept only as its SHA-256.
//!
//! Comparing two digests takes the same time whatever the lengths of what was
//! digested, and a digest in a core dump or a debug print opens nothing.

use std::fmt;
use std::hint::black_box;

use sha2::{Digest, Sha256};

/// What a presented token is compared with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    /// Takes a configured token.
    ///
    /// # Errors
    /// What is wrong with it, never the token itself.
    pub(crate) fn new(token: &str) -> Result<Self, TokenError> {
        if token.len() < MIN_LENGTH {
            return Err(TokenError::Short(token.len()));
        }
        if token.len() > MAX_LENGTH {
            return Err(TokenError::Long);
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Characters);
        }
        Ok(Self(digest(token)))
    }

    /// Whether `presented` is the token, in constant time.
    pub(crate) fn matches(&self, presented: &str) -> bool {
        let other = digest(presented);
        let difference = self.0.iter().zip(other).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        black_box(difference) == 0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(zlh_api::MASK)
    }
}

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Too easily guessed.
    #[error("has {0} characters, at least {MIN_LENGTH} are needed; `openssl rand -hex 32` makes a good one")]
    Short(usize),
    /// Would not fit a header comfortably.
    #[error("has more than {MAX_LENGTH} characters; `openssl rand -hex 32` makes a good one")]
    Long,
    /// Would not survive in a header.
    #[error(
        "holds spaces or characters that are not printable ASCII; `openssl rand -hex 32` makes a good one"
    )]
    Characters,
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Shortest token that is taken, in characters.
pub(crate) const MIN_LENGTH: usize = 16;
/// Longest token that is taken, in characters.
pub(crate) const MAX_LENGTH: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_matches() {
        let token = TokenHash::new("0123456789abcdef").unwrap();
        assert!(token.matches("0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", &"0".repeat(100_000)] {
            assert!(!token.matches(other));
        }
    }

    #[test]
    fn weak_tokens_are_refused_without_being_repeated() {
        for (token, reason) in [
            ("short-secret", "12 characters"),
            ("0123456789 abcdef", "spaces"),
            ("0123456789\u{e9}abcdef", "printable ASCII"),
        ] {
            let error = TokenHash::new(token).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains(token), "{error}");
        }
        assert_eq!(TokenHash::new(&"a".repeat(513)).unwrap_err(), TokenError::Long);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", TokenHash::new("0123456789abcdef").unwrap()), "********");
    }
}
