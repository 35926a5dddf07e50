//! Why a server died: evidence in, cause, culprit and remedy out.
//!
//! ```text
//!  exit status ─┐
//!  cgroup, disk ┤
//!  console ─────┼─► analyse ─► Analysis: class, cause, culprit, dependency, remedy, evidence
//!  reports ─────┤
//!  jars ────────┘
//! ```
//!
//! Nothing here knows a daemon: [`analyse`] is a function of its [`Evidence`]. Exit evidence
//! comes before text; only text of this run counts; text that a player can write never
//! decides. Time and memory are linear in the (bounded) input, whatever it is.
//!
//! What is read from disk for it, all of it blocking and bounded:
//!
//! ```text
//!  became ready ─► AddonIndex::rescan, Snapshot::take, both kept ("last good")
//!  ended ───────► AddonIndex::rescan (only what changed), gather, analyse;
//!                 Snapshot::take again, and what the diff to the last good one says
//! ```

mod addons;
mod analysis;
mod blame;
mod cause;
pub mod changes;
mod culprit;
mod decide;
mod evidence;
mod finding;
mod fingerprint;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gather;
mod known;
mod line;
mod log;
mod lookup;
mod platform;
mod redact;
mod rules;
mod tell;
mod text;
mod trace;
mod words;

pub use addons::{AddonIndex, JarNote, Limits, Scan};
pub use analysis::{
    Action, Analysis, Contributing, Culprit, Dependency, EvidenceLine, Java, Place, RemedyStep, Source,
};
pub use cause::{Cause, Class};
pub use evidence::{Disk, Evidence, Exit, Facts, Text};
pub use lookup::{AddonInfo, AddonLoader, AddonLookup, AddonNeed, AddonSide, NeedKind};

/// Names the cause of an end.
///
/// Without exit evidence (a log from anywhere) the class is `nonzero_exit` for a fatal cause
/// and `unexpected_exit` for one that was killed, terminated or fell silent.
#[must_use]
pub fn analyse(evidence: &Evidence<'_>) -> Analysis {
    decide::decide(evidence)
}
