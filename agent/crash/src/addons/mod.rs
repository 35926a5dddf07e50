//! The mods and plugins on disk: ids, names, versions, needs, sides, and whose packages
//! are whose.
//!
//! ```text
//!  mods/*.jar ──┐ stamp differs  ┌─ manifests (nine kinds) ─┐
//!               ├──────────────► jar ─ class packages ──────┼─► AddonIndex ─► AddonLookup
//!  plugins/*.jar┘                └─ jars within, one level ─┘
//! ```
//!
//! Everything read here belongs to a tenant: nothing is followed, extracted or trusted, a
//! jar costs bounded time and memory, and whatever is wrong with one is a note about that
//! jar, never an error of the index.

mod index;
mod jar;
mod limits;
mod manifest;
mod packages;
mod scan;
pub(crate) mod text;
mod zip;

pub use index::{AddonIndex, JarNote};
pub use limits::Limits;
pub use scan::Scan;

use text::clean;

/// For the fuzz targets: the first byte chooses the kind of manifest.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_manifest(data: &[u8]) {
    if let [kind, text @ ..] = data {
        let (kind, _) = manifest::Kind::ALL[usize::from(*kind) % manifest::Kind::ALL.len()];
        let parsed = kind.parse(text, Some("1"));
        for addon in &parsed.addons {
            assert!(!addon.id.is_empty() && !addon.id.contains(char::is_control));
        }
    }
}

/// For the fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_jar(data: &[u8]) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let jar = jar::Jar::read(zip::Source::Bytes(data), "mods/x.jar", &Limits::default(), deadline);
    assert!(jar.weight() < 8 << 20);
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
