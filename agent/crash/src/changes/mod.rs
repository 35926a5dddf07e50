//! What changed in a server folder since its server last became ready.
//!
//! ```text
//!  became ready ─► Snapshot::take ─► kept ("last good") ──┐
//!  crashed      ─► Snapshot::take ────────────────────────┴─► Snapshot::diff ─► Changes
//! ```
//!
//! Looked at is what decides how a server starts: its mods and plugins, its jars, its
//! configuration, data packs and scripts, and facts that the caller knows (version of the
//! game, of Java, arguments). Worlds, logs, player data and what servers rewrite by
//! themselves are not. Content counts, not time: a file that was saved again unchanged has
//! not changed. Kept of a file are path, size, times and a hash, never its content.
//!
//! The tree belongs to a tenant: nothing is followed, and names, files, bytes and time
//! have ceilings. What a ceiling cut off is never taken for removed.

mod content;
mod diff;
mod snapshot;
mod walk;

pub use diff::{Change, ChangeKind, ChangeWhat, Changes, MAX_CHANGES};
pub use snapshot::{Snapshot, SnapshotLimits};

#[cfg(test)]
mod tests;
