//! Packages as numbers: eight bytes each instead of a path.
//!
//! The hash is fixed (FNV-1a, 64 bit), because it is kept over restarts. Two packages with
//! the same number would only blur whose they are.

use serde::{Deserialize, Serialize};

/// A set of packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Packages {
    sorted: Vec<u64>,
}

impl Packages {
    pub(super) fn contains(&self, package: u64) -> bool {
        self.sorted.binary_search(&package).is_ok()
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Adds the packages of names that come in any order, mostly side by side.
    pub(super) fn collect() -> Collector {
        Collector::default()
    }
}

/// Packages while a jar is read.
#[derive(Debug, Default)]
pub(super) struct Collector {
    seen: Vec<u64>,
    sorted: usize,
}

impl Collector {
    /// Takes an entry's name, if it is a class in a package.
    pub(super) fn add(&mut self, name: &[u8]) {
        let Some(path) = name.strip_suffix(b".class") else { return };
        let Some(slash) = path.iter().rposition(|&byte| byte == b'/') else { return };
        if path.starts_with(b"META-INF/") {
            return;
        }
        let hash = hash(path[..slash].iter().copied());
        if self.seen.last() != Some(&hash) {
            self.seen.push(hash);
            // Hostile orders are folded now and then.
            if self.seen.len() >= 2 * self.sorted + 4_096 {
                self.fold();
            }
        }
    }

    fn fold(&mut self) {
        self.seen.sort_unstable();
        self.seen.dedup();
        self.sorted = self.seen.len();
    }

    /// At most `max` packages, and whether there were more.
    pub(super) fn finish(mut self, max: usize) -> (Packages, bool) {
        self.fold();
        let more = self.seen.len() > max;
        self.seen.truncate(max);
        self.seen.shrink_to_fit();
        (Packages { sorted: self.seen }, more)
    }
}

/// The number of a class's package, given with dots or slashes; none without a package.
pub(super) fn package_of(class: &str) -> Option<u64> {
    // Module and loader prefixes, array marks: `java.base/a.B` is for the caller to strip.
    let class = class.trim_start_matches(['[', 'L']).trim_end_matches(';');
    // A hidden class: `a.B$$Lambda/0x000…`, `a.B$$Lambda$12/0x…@1f`.
    let class = class.split_once("$$").map_or(class, |(host, _)| host);
    let end = class.rfind(['.', '/'])?;
    let bytes = class.as_bytes()[..end].iter().map(|&byte| if byte == b'.' { b'/' } else { byte });
    Some(hash(bytes))
}

fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
