//! Changing the version of a game server.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::InstalledRuntime;

/// `GET /game/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GameVersion {
    /// Game id.
    pub game: String,
    /// Variant id.
    pub variant: String,
    /// The version that is configured.
    pub version: String,
    /// Whether it is in place.
    pub installed: bool,
    /// The runtime it runs with, for example `java 21.0.9`.
    pub runtime: Option<String>,
    /// What a rollback goes back to, newest first.
    pub copies: Vec<WorldCopy>,
    /// Unpacked servers of this variant, of every version; empty where a server is a single file.
    #[serde(default)]
    pub servers: Vec<InstalledRuntime>,
    /// A change that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<VersionChange>,
}

/// The server's folder as it was before a change of version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorldCopy {
    /// Its id.
    #[serde(default)]
    pub id: String,
    /// The version that ran with it.
    pub version: String,
    /// Where it is.
    pub path: String,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// A change that failed left it; no rollback goes back to it.
    pub failed: bool,
}

/// A change of version under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionChange {
    /// From this version.
    pub from: String,
    /// To that one.
    pub to: String,
    /// The operation.
    pub operation: String,
}

/// `POST /game/version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeVersion {
    /// The version to change to.
    pub version: String,
    /// Also to an older version, although an older server may destroy a newer world.
    pub force: bool,
}
