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
pub(crate) mod text;
mod zip;

pub use index::{AddonIndex, JarNote, Scan};
pub use limits::Limits;

use text::clean;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
