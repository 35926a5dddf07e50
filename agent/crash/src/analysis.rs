//! What an analysis says: the output.

use serde::{Deserialize, Serialize};

use crate::{Cause, Class};

/// What ended a server, who is at fault, and what to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// Nothing is wrong: running, stopped as asked, or nothing to be seen.
    pub healthy: bool,
    /// Null when healthy.
    pub classification: Option<Class>,
    /// Null when healthy.
    pub cause: Option<Cause>,
    /// Whether the evidence leaves no doubt.
    pub certain: bool,
    /// Whether a restart can only repeat it.
    pub restart_useless: bool,
    /// One line without jargon.
    pub title: String,
    /// What happened, in a sentence or two.
    pub explanation: String,
    /// What to do, in order.
    pub remedy: Vec<RemedyStep>,
    /// Who is at fault, best evidence first. Two equally good names: both, and not certain.
    pub culprit: Vec<Culprit>,
    /// What is missing or has the wrong version.
    pub dependency: Vec<Dependency>,
    /// Java versions, where they matter.
    pub java: Option<Java>,
    /// Where in the world.
    pub place: Option<Place>,
    /// What it was concluded from.
    pub evidence: Vec<EvidenceLine>,
    /// What else was found, and did not decide.
    pub contributing: Vec<Contributing>,
    /// The same for every crash of the same kind (hex); empty when healthy.
    pub fingerprint: String,
}

/// A step of the remedy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemedyStep {
    /// An imperative that names the thing.
    pub text: String,
    /// What the agent could do itself, if it is asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
}

/// Something the agent can do itself. Never done unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "id", rename_all = "snake_case")]
pub enum Action {
    /// Put the server's own files in place again, verified.
    ReinstallServer,
    /// Run with another Java.
    SwitchJava {
        /// Major version.
        version: u32,
    },
    /// Accept Mojang's EULA on the operator's behalf.
    AcceptEula,
    /// Rename a mod or plugin so that it is not loaded.
    DisableAddon {
        /// Relative to the server folder.
        file: String,
    },
    /// Put one region file back from a backup.
    RestoreRegion {
        /// Relative to the server folder.
        file: String,
    },
    /// End a process of an earlier run that still holds the port.
    FreePort {
        /// The port.
        port: u16,
    },
}

/// Who is at fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Culprit {
    /// Mod or plugin id.
    pub id: String,
    /// Name for people, where it differs.
    pub name: Option<String>,
    /// Its file, relative to the server folder where known.
    pub file: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Why it is named.
    pub why: String,
}

/// Something that is missing or has the wrong version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Its id.
    pub id: String,
    /// The wanted version or range, as the loader says it.
    pub wanted: Option<String>,
    /// What is there instead; null when it is missing.
    pub installed: Option<String>,
    /// Who wants it.
    pub requested_by: Option<String>,
}

/// Java versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Java {
    /// Major version needed (at least, or at most when it is too new).
    pub need: Option<u32>,
    /// Major version in use.
    pub have: Option<u32>,
}

/// Somewhere in the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// For example `minecraft:overworld`.
    pub dimension: Option<String>,
    /// Block coordinates.
    pub block: Option<[i32; 3]>,
    /// Chunk coordinates.
    pub chunk: Option<[i32; 2]>,
    /// The entity or block, for example `minecraft:creeper`.
    pub what: Option<String>,
}

/// Where a line of evidence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The console of this run.
    Console,
    /// A crash report.
    Report,
    /// The JVM's own fatal error log.
    HsErr,
    /// Counters of the control group.
    Cgroup,
    /// The exit status.
    Exit,
    /// The state of the disk.
    Disk,
}

/// A line of evidence, redacted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceLine {
    /// Where it stands.
    pub source: Source,
    /// The file's name; null for counters.
    pub file: Option<String>,
    /// Its number there, from 1; null for counters.
    pub line: Option<u64>,
    /// The text.
    pub text: String,
}

/// Something that was found and did not decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contributing {
    /// What.
    pub cause: Cause,
    /// One line.
    pub title: String,
}
