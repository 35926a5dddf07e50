//! Names that came from outside: validated once, when they are made, so that a
//! value of these types can be put into a path, a URL or a message as it is.
//!
//! Refused rather than repaired: `..`, absolute paths, empty components, a leading
//! `-` (it would read as an option), control and bidirectional characters,
//! backslashes, over-long values. The error names the value and the rule.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A short machine name: `[a-z0-9][a-z0-9._-]{0,63}` without `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// A relative path: UTF-8, `/` between components, at most 255 bytes a component and
/// 1,024 in all; no component is empty, `.`, `..` or starts with `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

/// A SHA-256, written as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

/// A value that broke the rule of its field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {} is not allowed: {rule}", Shown(.value))]
pub struct NameError {
    /// What the value is for, for example `version`.
    pub field: String,
    /// The value as it came, cut to its first bytes.
    pub value: String,
    /// What it has to be.
    pub rule: &'static str,
}

impl Id {
    /// Checks and wraps `text`.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let mut bytes = text.bytes();
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = bytes.next().is_some_and(lower)
            && bytes.all(|byte| lower(byte) || b"._-".contains(&byte))
            && text.len() <= MAX_NAME_BYTES
            && !text.contains("..");
        if good { Ok(Self(text)) } else { Err(NameError::new("name", &text, ID_RULE)) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RelPath {
    /// Checks and wraps `text`.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        match broken_path_rule(&text) {
            None => Ok(Self(text)),
            Some(rule) => Err(NameError::new("path", &text, rule)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, in order; at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl Sha256 {
    /// Wraps a computed digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve digits: enough to tell trees of one version apart.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl NameError {
    fn new(field: &str, value: &str, rule: &'static str) -> Self {
        // One character more than is shown, so that the message shows that it was cut.
        Self { field: field.to_owned(), value: cut(value, MAX_SHOWN_BYTES + 4).to_owned(), rule }
    }
}

/// At most `bytes` of a text, on a character boundary.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Checks a value that a caller supplied for a single path component, such as
/// `version` or `world`: `[A-Za-z0-9][A-Za-z0-9._+-]{0,63}` without `..`.
pub fn check_component(field: &str, value: &str) -> Result<(), NameError> {
    let mut bytes = value.bytes();
    let good = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
        && value.len() <= MAX_NAME_BYTES
        && !value.contains("..");
    if good { Ok(()) } else { Err(NameError::new(field, value, COMPONENT_RULE)) }
}

/// Whether a character has no business in a name: it moves the cursor, ends a line,
/// or reorders what a reader sees.
pub fn is_deceptive(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

fn broken_path_rule(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it must not be empty");
    }
    if text.len() > MAX_PATH_BYTES {
        return Some("it must be at most 1,024 bytes");
    }
    if text.starts_with('/') {
        return Some("it must be relative");
    }
    if text.contains('\\') || text.chars().any(is_deceptive) {
        return Some("it must not contain backslashes, control or direction characters");
    }
    for component in text.split('/') {
        match component {
            "" => return Some("it must not contain `//` or end in `/`"),
            "." | ".." => return Some("it must not contain `.` or `..` as a component"),
            _ if component.starts_with('-') => return Some("no component may start with `-`"),
            _ if component.len() > MAX_COMPONENT_BYTES => {
                return Some("no component may be longer than 255 bytes");
            }
            _ => {}
        }
    }
    None
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sha256 {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::new("sha256", text, SHA256_RULE);
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(refused()),
        };
        if text.len() != 64 {
            return Err(refused());
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(out))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(sha256: Sha256) -> Self {
        sha256.to_string()
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // Sound for map look-ups: equality, order and hash are those of the text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

text_newtype!(Id);
text_newtype!(RelPath);

/// A foreign value for a message: between backquotes, cut to 80 bytes, escaped so that it
/// stays on its line and shows what it is.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        let shown = cut(self.0, MAX_SHOWN_BYTES);
        for c in shown.chars() {
            if is_deceptive(c) { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        f.write_str(if shown.len() < self.0.len() { "…`" } else { "`" })
    }
}

const MAX_NAME_BYTES: usize = 64;
const MAX_COMPONENT_BYTES: usize = 255;
const MAX_PATH_BYTES: usize = 1024;
const MAX_SHOWN_BYTES: usize = 80;
const ID_RULE: &str =
    "it must be 1 to 64 of `a-z 0-9 . _ -`, start with a letter or digit and not contain `..`";
const COMPONENT_RULE: &str =
    "it must be 1 to 64 of `A-Z a-z 0-9 . _ + -`, start with a letter or digit and not contain `..`";
const SHA256_RULE: &str = "it must be 64 lowercase hexadecimal digits";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_that_hold_and_ids_that_do_not() {
        for good in ["paper", "7d2d", "flying-squid", "a.b_c", &"a".repeat(64)] {
            assert_eq!(Id::new(good).unwrap().as_str(), good);
        }
        for bad in
            ["", "-a", ".a", "Paper", "a b", "a..b", "a/b", "é", "a\0", "a\n", &"a".repeat(65), "../../x"]
        {
            assert!(Id::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_that_hold_and_paths_that_do_not() {
        for good in ["a", "a/b.c", ".hidden", "a b/ü", "...", &"x".repeat(255)] {
            assert!(RelPath::new(good).is_ok(), "{good:?}");
        }
        let (long, deep) = ("x".repeat(256), "ab/".repeat(400) + "c");
        for bad in [
            "",
            ".",
            "..",
            "/",
            "/etc",
            "a/",
            "a//b",
            "./a",
            "a/.",
            "../x",
            "a/../../x",
            "a\\b",
            "C:\\x",
            "-rf",
            "a/-b",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a\u{85}",
            "a\u{202e}b",
            &long,
            &deep,
        ] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_names_field_value_and_rule_on_one_line() {
        let text = check_component("world", "../../x\n\u{1b}[31m").unwrap_err().to_string();
        assert!(
            text.starts_with("world `../../x\\n\\u{1b}[31m` is not allowed: it must be 1 to 64"),
            "{text}"
        );
        let long = check_component("version", &"ü".repeat(500)).unwrap_err();
        assert!(long.to_string().len() < 300, "a hostile value must not flood the log");
    }

    #[test]
    fn components() {
        for good in ["world", "1.21.7", "1.20.1-47.4.0", "0.16+build.3", "26.1"] {
            assert_eq!(check_component("version", good), Ok(()));
        }
        for bad in ["", ".", "..", "-x", "a/b", "a b", "a\\b", "1..2", "+1", "ä", &"1".repeat(65)] {
            assert!(check_component("version", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_hash_is_64_lowercase_digits() {
        let text = "00ff".repeat(16);
        let sha: Sha256 = text.parse().unwrap();
        assert_eq!((sha.as_bytes()[0], sha.as_bytes()[1], sha.to_string()), (0, 255, text.clone()));
        assert_eq!(sha.short(), "00ff00ff00ff");
        for bad in [
            "",
            "00",
            &text.to_uppercase(),
            &text[1..],
            &format!("{text}0"),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_passes_stays_inside(text in ".{0,80}|[a/.-]{0,12}") {
            let _ = Id::new(text.clone());
            let _ = check_component("version", &text);
            let _ = text.parse::<Sha256>();
            match RelPath::new(text.clone()) {
                Ok(path) => {
                    use std::path::Component;
                    let all_normal = std::path::Path::new(path.as_str())
                        .components()
                        .all(|part| matches!(part, Component::Normal(_)));
                    prop_assert!(all_normal);
                    prop_assert_eq!(path.components().collect::<Vec<_>>().join("/"), text);
                }
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }
    }
}
