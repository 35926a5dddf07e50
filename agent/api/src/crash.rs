//! Crashes: what ended a server, who is at fault, and what to do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One unexpected exit. The deployed fields come first; the rest is filled in within a
/// second, and amended until five seconds after the exit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashRecord {
    /// RFC 3339.
    pub time: String,
    /// Null when it died by a signal, or was lost.
    pub exit_code: Option<i32>,
    /// Signal number, 0 when none.
    pub signal: i32,
    /// Signal name.
    pub signal_name: Option<String>,
    /// Why the exit is not known exactly (`lost`), null when it is.
    #[serde(default)]
    pub lost: Option<String>,
    /// Seconds the process lived.
    pub uptime_seconds: u64,
    /// Whether it had ever accepted users.
    pub was_ready: bool,
    /// One of the deployed classifications.
    pub classification: String,
    /// The last lines, at most 200, without escape sequences.
    pub log_tail: Vec<String>,
    /// Unique on this agent; empty in records that older agents wrote.
    #[serde(default)]
    pub id: String,
    /// Which server it was: game, variant and world, as in `minecraft/paper/world`; empty
    /// before it is explained. A crash's actions are for this server only.
    #[serde(default)]
    pub server: String,
    /// Whether the evidence has been looked at; before that only the exit is known.
    #[serde(default)]
    pub explained: bool,
    /// The cause, finer than the classification; null while it is looked for.
    #[serde(default)]
    pub cause: Option<String>,
    /// Whether the evidence leaves no doubt.
    #[serde(default)]
    pub certain: bool,
    /// Whether a restart can only repeat it.
    #[serde(default)]
    pub restart_useless: bool,
    /// One line without jargon.
    #[serde(default)]
    pub title: String,
    /// What happened, in a sentence or two.
    #[serde(default)]
    pub explanation: String,
    /// What to do, in order.
    #[serde(default)]
    pub remedy: Vec<CrashRemedy>,
    /// Who is at fault, best evidence first.
    #[serde(default)]
    pub culprit: Vec<CrashCulprit>,
    /// What is missing or has the wrong version.
    #[serde(default)]
    pub dependency: Vec<CrashDependency>,
    /// Java versions, where they matter.
    #[serde(default)]
    pub java: Option<CrashJava>,
    /// Where in the world.
    #[serde(default)]
    pub place: Option<CrashPlace>,
    /// What it was concluded from.
    #[serde(default)]
    pub evidence: Vec<CrashEvidence>,
    /// What else was found, and did not decide.
    #[serde(default)]
    pub contributing: Vec<CrashContributing>,
    /// The same for every crash of the same kind (hex).
    #[serde(default)]
    pub fingerprint: String,
    /// How many kept crashes before this one have the same fingerprint.
    #[serde(default)]
    pub seen_before: u32,
    /// What was added, updated or removed since the server was ready last.
    #[serde(default)]
    pub changed_since_last_good: Vec<CrashChange>,
}

/// A step of the remedy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashRemedy {
    /// An imperative that names the thing.
    pub text: String,
    /// What the agent does itself if it is asked to:
    /// `POST /crashes/{id}/actions/{action.id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<CrashAction>,
}

/// Something the agent can do itself. Never done unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashAction {
    /// Which.
    pub id: CrashActionId,
    /// Whether this agent can do it; otherwise the step is a person's.
    pub available: bool,
    /// The Java version to switch to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The file it is about, relative to the server folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The port it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What the agent can do about a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CrashActionId {
    /// Put the server's own files in place again, verified, and start it.
    ReinstallServer,
    /// Install another Java, and start with it from now on (`java_version` of the payload).
    SwitchJava,
    /// Accept Mojang's EULA on the caller's behalf, and start it.
    AcceptEula,
    /// Rename a mod or plugin so that it is not loaded.
    DisableAddon,
    /// Put one region file back from a backup.
    RestoreRegion,
    /// End a process of an earlier run that still holds the port.
    FreePort,
    /// A newer agent's remedy: what a reader takes a word for that it does not know.
    #[serde(other)]
    Unknown,
}

/// Who is at fault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashCulprit {
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashDependency {
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CrashJava {
    /// Major version needed.
    pub need: Option<u32>,
    /// Major version in use.
    pub have: Option<u32>,
}

/// Somewhere in the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashPlace {
    /// For example `minecraft:overworld`.
    pub dimension: Option<String>,
    /// Block coordinates: x, y, z.
    pub block: Option<Vec<i32>>,
    /// Chunk coordinates: x, z.
    pub chunk: Option<Vec<i32>>,
    /// The entity or block.
    pub what: Option<String>,
}

/// A line of evidence, redacted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashEvidence {
    /// `console`, `report`, `hs_err`, `cgroup`, `exit` or `disk`.
    pub source: String,
    /// The file's name; null for counters.
    pub file: Option<String>,
    /// Its number there, from 1; null for counters.
    pub line: Option<u64>,
    /// The text.
    pub text: String,
}

/// Something that was found and did not decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashContributing {
    /// What.
    pub cause: String,
    /// One line.
    pub title: String,
}

/// Something that is different since the server was ready last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashChange {
    /// The file, relative to the server folder; for a version or an argument its name.
    pub path: String,
    /// `added`, `updated` or `removed`.
    pub kind: String,
    /// RFC 3339, where it is known.
    pub when: Option<String>,
    /// Id of the mod or plugin.
    pub name: Option<String>,
    /// The version that was there.
    pub before: Option<String>,
    /// The one that is there now.
    pub after: Option<String>,
}

/// `GET /crashes`: newest first, at most 50.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Crashes {
    /// Newest first.
    pub crashes: Vec<CrashRecord>,
}
