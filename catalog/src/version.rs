//! Versions as people write them, in one total order, and ranges of them.
//!
//! A version is cut into numbers and words; separators do not matter. Numbers
//! compare as numbers of any length, so 1.9 < 1.10 < 1.10.1. A word that announces a
//! release (`pre`, `rc`, `beta` …) sorts before the bare version; any other word after
//! it. Weekly snapshots (`24w14a`) sort before all releases, so that "newest" never
//! picks one. Versions that read the same are ordered by their text.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::name::{Shown, check_component};

/// Which of two versions is newer. A total order.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    is_snapshot(b)
        .cmp(&is_snapshot(a))
        .then_with(|| compare_tokens(&tokens(a), &tokens(b)))
        .then_with(|| a.cmp(b))
}

/// Versions that will do: conditions separated by spaces, all of which must hold.
///
/// A bound names a whole line. `21` and `=21` mean 21 and every 21.x; `<22` excludes
/// 22-rc1; `<=22` includes 22.9; `>22` starts with 23.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionRange {
    source: String,
    conditions: Vec<(Operator, String)>,
}

/// A range that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("version range {} is not understood: write for example `21`, `>=22` or `>=17 <22`", Shown(.range))]
pub struct RangeError {
    /// The range as it came.
    pub range: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operator {
    Line,
    AtLeast,
    Above,
    AtMost,
    Below,
}

impl VersionRange {
    /// Reads `text`.
    pub fn parse(text: impl Into<String>) -> Result<Self, RangeError> {
        let source = text.into();
        let refused = || RangeError { range: source.clone() };
        if source.len() > MAX_RANGE_BYTES {
            return Err(refused());
        }
        let mut conditions = Vec::new();
        for word in source.split_ascii_whitespace() {
            let (operator, bound) = OPERATORS
                .iter()
                .find_map(|(sign, operator)| Some((*operator, word.strip_prefix(sign)?)))
                .unwrap_or((Operator::Line, word));
            check_component("version", bound).map_err(|_| refused())?;
            conditions.push((operator, bound.to_owned()));
        }
        if conditions.is_empty() {
            return Err(refused());
        }
        Ok(Self { source, conditions })
    }

    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether `version` will do.
    pub fn matches(&self, version: &str) -> bool {
        self.conditions.iter().all(|(operator, bound)| {
            let newer = compare_versions(version, bound);
            match operator {
                Operator::Line => is_of_line(version, bound),
                Operator::AtLeast => newer.is_ge(),
                Operator::Above => newer.is_gt() && !is_of_line(version, bound),
                Operator::AtMost => newer.is_le() || is_of_line(version, bound),
                Operator::Below => newer.is_lt() && !announces(version, bound),
            }
        })
    }
}

/// A piece of a version. The order of the variants is the order at one position;
/// `End` stands for "nothing more".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Announcement(usize, &'a str),
    End,
    Word(&'a str),
    Number(&'a str),
}

impl Token<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::Announcement(..) => 0,
            Self::End => 1,
            Self::Word(_) => 2,
            Self::Number(_) => 3,
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            (Self::Word(a), Self::Word(b)) => a.cmp(b),
            (Self::Announcement(a, x), Self::Announcement(b, y)) => a.cmp(b).then_with(|| x.cmp(y)),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

fn tokens(version: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut rest = version;
    while let Some(first) = rest.chars().next() {
        let digit = first.is_ascii_digit();
        let separator = SEPARATORS.contains(&first);
        let end = rest
            .find(|c: char| c.is_ascii_digit() != digit || SEPARATORS.contains(&c) != separator)
            .unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        if separator {
            continue;
        }
        out.push(if digit {
            Token::Number(piece.trim_start_matches('0'))
        } else {
            match ANNOUNCEMENTS.iter().position(|word| piece.eq_ignore_ascii_case(word)) {
                Some(rank) => Token::Announcement(rank, piece),
                None => Token::Word(piece),
            }
        });
    }
    out
}

fn compare_tokens(a: &[Token<'_>], b: &[Token<'_>]) -> Ordering {
    (0..a.len().max(b.len()))
        .map(|at| a.get(at).unwrap_or(&Token::End).compare(b.get(at).unwrap_or(&Token::End)))
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Whether `version` is `line` or a release below it: 21.0.3 is of line 21, 21-ea is not.
fn is_of_line(version: &str, line: &str) -> bool {
    let (version, line) = (tokens(version), tokens(line));
    version.starts_with(&line) && !matches!(version.get(line.len()), Some(Token::Announcement(..)))
}

/// Whether `version` is a pre-release of `release`.
fn announces(version: &str, release: &str) -> bool {
    let (version, release) = (tokens(version), tokens(release));
    version.starts_with(&release) && matches!(version.get(release.len()), Some(Token::Announcement(..)))
}

/// Minecraft's weekly snapshots: year, `w`, week, letter.
pub fn is_snapshot(version: &str) -> bool {
    matches!(
        tokens(version).as_slice(),
        [Token::Number(_), Token::Word("w"), Token::Number(_), Token::Word(_), ..]
    )
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl FromStr for VersionRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for VersionRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        Self::parse(text)
    }
}

impl From<VersionRange> for String {
    fn from(range: VersionRange) -> Self {
        range.source
    }
}

const SEPARATORS: [char; 5] = ['.', '-', '_', '+', ' '];
/// Words for "not yet released", earliest first.
const ANNOUNCEMENTS: [&str; 9] =
    ["experimental", "snapshot", "dev", "ea", "alpha", "beta", "pre", "preview", "rc"];
const OPERATORS: [(&str, Operator); 5] = [
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    (">", Operator::Above),
    ("<", Operator::Below),
    ("=", Operator::Line),
];
const MAX_RANGE_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_sort_as_versions() {
        let sorted = [
            "23w51b",
            "24w3a",
            "24w14a",
            "1.9",
            "1.10",
            "1.10.1",
            "1.20.1",
            "1.20.1-47.3.9",
            "1.20.1-47.10.0",
            "1.20.5",
            "1.21-pre1",
            "1.21-pre2",
            "1.21-rc1",
            "1.21",
            "1.21.0",
            "1.21.7",
            "21-ea",
            "21",
            "21.0.3",
            "22.9.0",
            "22.10.0",
            "26.1",
        ];
        for (at, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                assert_eq!(compare_versions(a, b), at.cmp(&other), "{a} and {b}");
            }
        }
    }

    #[test]
    fn numbers_of_any_length_compare() {
        let (small, big) = (format!("1.{}", "9".repeat(40)), format!("1.1{}", "0".repeat(40)));
        assert_eq!(compare_versions(&small, &big), Ordering::Less);
        assert_eq!(compare_versions("1.01", "1.2"), Ordering::Less);
    }

    #[test]
    fn ranges() {
        let table: [(&str, &[&str], &[&str]); 9] = [
            (">=22", &["22", "22.23.3", "24.1.0", "100"], &["21.9", "9", "22-rc1", "24w14a"]),
            ("21", &["21", "21.0.3", "21.1"], &["22", "20", "210", "2.1", "21-ea"]),
            (">=17 <22", &["17", "17.0.2", "21.9.9"], &["22", "22.1", "22-ea", "16.9"]),
            ("1.21.7", &["1.21.7", "1.21.7.1"], &["1.21.70", "1.21", "1.21.8", "1.21.7-pre1"]),
            ("<=22", &["22", "22.9", "21"], &["23"]),
            (">22", &["23", "100.1"], &["22.9", "22"]),
            ("=21", &["21.3"], &["22"]),
            ("<22", &["21.9", "8"], &["22", "22-rc1", "22.1"]),
            ("  >=8   <18 ", &["8", "17.0.1"], &["18"]),
        ];
        for (range, yes, no) in table {
            let range = VersionRange::parse(range).unwrap();
            for version in yes {
                assert!(range.matches(version), "{range} should take {version}");
            }
            for version in no {
                assert!(!range.matches(version), "{range} should not take {version}");
            }
        }
    }

    #[test]
    fn ranges_that_are_refused() {
        for bad in ["", "  ", ">=", ">= 22", "^22", "~1", "22 ||23", ">=../x", "*", &"1 ".repeat(200)] {
            assert!(VersionRange::parse(bad).is_err(), "{bad:?}");
        }
    }

    fn version() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9]{1,3}(\\.[0-9]{1,2}){0,3}",
            "[0-9]{1,2}\\.[0-9]{1,2}-(pre|rc|beta|alpha|x)[0-9]{0,2}",
            "[0-9]{2}w[0-9]{2}[a-c]",
            "[0-9a-z.+_-]{0,8}",
            "\\PC{0,8}",
        ]
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in version(), b in version(), c in version()) {
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
            prop_assert_eq!(compare_versions(&a, &b).is_eq(), a == b);
            let mut all = [a, b, c];
            all.sort_by(|a, b| compare_versions(a, b));
            prop_assert!(compare_versions(&all[0], &all[2]).is_le());
        }

        #[test]
        fn reading_a_range_never_panics(text in "[<>=0-9a-z. -]{0,20}|\\PC{0,20}", version in version()) {
            if let Ok(range) = VersionRange::parse(text) {
                let _ = range.matches(&version);
            }
        }
    }
}
