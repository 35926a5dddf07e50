//! Launch plans: how a version is installed and run, as data.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Id, RelPath, StopProtocol, Template};

/// How one version is installed, started, watched, saved and stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// What to do with the fetched files, in order.
    #[serde(default)]
    pub install: Vec<InstallStep>,
    /// The command. The first element must resolve to an absolute path.
    pub argv: Vec<Template>,
    /// Environment beside the built-in one (`PATH HOME USER LOGNAME LANG TERM ZLH_INSTANCE`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Template>,
    /// Working directory, below the game root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<RelPath>,
    /// Files written before every start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileRule>,
    /// When it counts as ready.
    pub readiness: Readiness,
    /// How it is asked to stop.
    pub stop: StopProtocol,
    /// How it is made to write the world to disk, where it can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<SaveProtocol>,
}

/// One step of an installation. Steps run on staged files; nothing is visible before all passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum InstallStep {
    /// Put a verified file into the game root.
    Place {
        /// [`crate::Artifact::name`].
        file: Id,
        /// Where, below the game root.
        to: RelPath,
    },
    /// Unpack a verified archive into the server tree of this version (`{server}` in templates).
    Unpack {
        /// [`crate::Artifact::name`].
        file: Id,
        /// Leading path components of every entry to drop.
        #[serde(default)]
        strip_components: u8,
    },
    /// Run an installer in the game root, as the unprivileged user.
    Run {
        /// The command.
        argv: Vec<Template>,
        /// Files below the game root that must exist afterwards.
        produces: Vec<Template>,
        /// Longest time it may take, seconds.
        timeout_s: u64,
    },
}

/// A file the agent writes or edits before a start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileRule {
    /// Below the game root.
    pub path: RelPath,
    /// How it is edited.
    pub format: FileFormat,
    /// Keys to set. Other keys and comments of an existing file stay.
    pub set: BTreeMap<String, Template>,
    /// Write only if the operator accepted the EULA.
    #[serde(default)]
    pub needs_eula: bool,
    /// Keys that are set only when the file does not have them yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub default: BTreeMap<String, Template>,
}

/// How a [`FileRule`] edits its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Java properties.
    Properties,
    /// A JSON object; values that read as a number or a boolean are written as such.
    Json,
}

/// When a workload counts as ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    /// How it is asked.
    pub probe: Probe,
    /// How long a start may take before it is an error, seconds.
    #[serde(default = "default_readiness_timeout_s")]
    pub timeout_s: u64,
}

impl Readiness {
    /// How long a start may take before it is an error.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

fn default_readiness_timeout_s() -> u64 {
    60
}

/// A readiness probe. A console line is never proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// The Server List Ping of Minecraft, answered completely, on the workload's port.
    MinecraftPing,
    /// The port accepts a TCP connection.
    TcpConnect,
}

/// How a workload is made to write its world to disk while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaveProtocol {
    /// Stops automatic saving.
    pub off: String,
    /// Writes everything now.
    pub flush: String,
    /// Message (after the log prefix) that says the flush is complete.
    pub flushed: String,
    /// Resumes automatic saving.
    pub on: String,
}
