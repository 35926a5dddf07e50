//! File descriptors: every connection, shim, file and watcher takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as the agent could ever use: 512 connections, 200 viewers' files, and room.
const WANTED: u64 = 4096;

/// Raises the soft limit as far as the hard one allows. What the workload may have is in its
/// launch plan.
pub(crate) fn raise() {
    let now = getrlimit(Resource::Nofile);
    let Some(soft) = now.current.filter(|soft| *soft < WANTED) else { return };
    let wanted = now.maximum.map_or(WANTED, |hard| hard.min(WANTED)).max(soft);
    // Refused: then there are as many as before.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum });
}

/// How many may be open at once.
pub(crate) fn limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |soft| usize::try_from(soft).unwrap_or(usize::MAX))
}
