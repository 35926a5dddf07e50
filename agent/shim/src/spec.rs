//! `spec.json`: what the shim is to run, written by the agent before it spawns one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::{self, ReadError};
use crate::files;

/// Schema of the file.
pub const SCHEMA: u32 = 1;

/// A workload to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Identity of this run, random.
    pub instance: String,
    /// Command; the first element is an absolute path. No shell is involved.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub workdir: PathBuf,
    /// Whom it runs as; none keeps the caller.
    pub user: Option<UserIds>,
    /// Terminal size when it starts.
    pub size: Size,
    /// A shell gets the terminal as its controlling one; a game does not (it would die with the shim).
    pub controlling_terminal: bool,
    /// Programs with a set-user-id bit work, as a shell's user expects of `sudo`.
    #[serde(default)]
    pub new_privileges: bool,
    /// Added to the inherited OOM score of the workload.
    pub oom_score_adj: i32,
    /// Highest number of open files.
    pub max_open_files: u64,
    /// How to stop it when nobody is there to ask.
    pub stop: StopPlan,
    /// How long that may take when the container shuts down, milliseconds: whoever shuts it
    /// down does not wait for ever.
    #[serde(default)]
    pub shutdown_ms: Option<u64>,
    /// Bounds of the console log.
    pub console: ConsoleLimits,
}

/// Numbers of a user: names are resolved by the agent, never through NSS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Terminal size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// The stop ladder's rungs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPlan {
    /// Typed into the terminal first; none begins with SIGTERM.
    pub command: Option<String>,
    /// Time after the command before SIGTERM, milliseconds.
    pub grace_ms: u64,
    /// Time after SIGTERM before SIGKILL, milliseconds.
    pub term_ms: u64,
    /// SIGTERM comes this long after the request at the latest, however long saving takes,
    /// milliseconds; [`crate::ladder::DEFAULT_CAP`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_ms: Option<u64>,
    /// What is typed before the command, for those who are in the game.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warn: Vec<Warning>,
}

/// One line typed some time before the stop command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// How long before the command, milliseconds.
    pub before_ms: u64,
    /// The line.
    pub command: String,
}

/// Bounds of the console log on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleLimits {
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Segments kept.
    pub segments: usize,
}

impl Default for ConsoleLimits {
    fn default() -> Self {
        Self { segment_bytes: 1 << 20, segments: 64 }
    }
}

impl StopPlan {
    /// The same rungs in at most `limit_ms`, without warnings and whatever is being saved. Most
    /// of it is left to the command: SIGTERM adds little to what a server that saves is doing
    /// already.
    #[must_use]
    pub fn within(self, limit_ms: u64) -> Self {
        let term_ms = self.term_ms.min(limit_ms / 8);
        let grace_ms = self.grace_ms.min(limit_ms - term_ms);
        Self { command: self.command, grace_ms, term_ms, cap_ms: Some(limit_ms - term_ms), warn: Vec::new() }
    }
}

impl Spec {
    /// How to stop it when the container shuts down.
    pub fn shutdown_plan(&self) -> StopPlan {
        let plan = self.stop.clone();
        self.shutdown_ms.map_or(plan.clone(), |limit| plan.within(limit))
    }

    /// Writes `spec.json`.
    pub fn write(&self, run_dir: &Path) -> std::io::Result<()> {
        durable::write_record(&run_dir.join(files::SPEC), SCHEMA, self)
    }

    /// Reads `spec.json`.
    pub fn read(run_dir: &Path) -> Result<Self, ReadError> {
        durable::read_record(&run_dir.join(files::SPEC), SCHEMA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_takes_the_same_rungs_in_less_time() {
        let warn = vec![Warning { before_ms: 10_000, command: "say soon".to_owned() }];
        let command = Some("stop".to_owned());
        let plan = StopPlan { command, grace_ms: 90_000, term_ms: 20_000, cap_ms: None, warn };
        let short = plan.clone().within(45_000);
        assert_eq!((short.grace_ms, short.term_ms), (39_375, 5_625));
        assert_eq!(short.command, plan.command);
        assert_eq!((short.cap_ms, short.warn), (Some(39_375), vec![]), "no warning, no more time");
        let same = plan.clone().within(u64::MAX);
        assert_eq!((same.grace_ms, same.term_ms), (plan.grace_ms, plan.term_ms));
        let nothing = plan.within(0);
        assert_eq!((nothing.grace_ms, nothing.term_ms), (0, 0));
    }
}
