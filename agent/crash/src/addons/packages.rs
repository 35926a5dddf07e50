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

/// The number of a class's package, given with dots or slashes, as a frame or a descriptor
/// has it; none without a package.
pub(super) fn package_of(class: &str) -> Option<u64> {
    let class = class.trim_start_matches('[');
    // A descriptor: `La/b/C;`
    let class = class.strip_suffix(';').and_then(|class| class.strip_prefix('L')).unwrap_or(class);
    // A hidden class: `a.B$$Lambda/0x000…`, `a.B$$Lambda$12/0x…@1f`, `a.B/0x…`.
    let class = class.split_once("$$").map_or(class, |(host, _)| host);
    let class = match class.rsplit_once('/') {
        Some((host, address)) if address.starts_with("0x") => host,
        // Behind a loader or a module: `a.jar//a.B`, `java.base/a.B`, `LAYER/m@1/a.B`.
        Some((_, class)) if class.contains('.') => class,
        _ => class,
    };
    let end = class.rfind(['.', '/'])?;
    let bytes = class.as_bytes()[..end].iter().map(|&byte| if byte == b'.' { b'/' } else { byte });
    Some(hash(bytes))
}

fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_in_all_the_ways_it_is_written() {
        let expected = Some(hash(b"a/b".iter().copied()));
        for class in [
            "a.b.C",
            "a/b/C",
            "a.b.C$1",
            "[La/b/C;",
            "La/b/C;",
            "x.jar//a.b.C",
            "java.base@17/a.b.C",
            "TRANSFORMER/mod@1.0/a.b.C",
            "a.b.C$$Lambda/0x00007f@1f",
            "a.b.C$$Lambda$14/123",
            "a.b.C/0x0000001",
            "app//a.b.C$$Lambda/0x0",
            "a.b.Launcher",
        ] {
            assert_eq!(package_of(class), expected, "{class}");
        }
        for none in ["", "C", "[I", ";", "$$", "L;"] {
            assert_eq!(package_of(none), None, "{none}");
        }
    }
}
