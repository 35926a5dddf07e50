//! The document itself: closed types, so that what parsed is already half valid.
//!
//! Unknown fields are ignored (an older agent reads a newer catalog), unknown
//! enum values are not. A missing hash or size is a parse error, never "skip".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Id, LaunchPlan, RelPath, Release, Sha256, StopOverride, VersionRange};

/// The whole catalog. Obtained from [`crate::open_signed`] or [`Catalog::parse`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// Version of this format; 1.
    pub schema: u32,
    /// Rises with every publication.
    pub serial: u64,
    /// When it was published.
    pub issued: jiff::Timestamp,
    /// After this instant it should no longer be used for new installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<jiff::Timestamp>,
    /// Game servers.
    #[serde(default)]
    pub games: Vec<Game>,
    /// Runtimes: what game servers and workspaces run on.
    #[serde(default)]
    pub runtimes: Vec<Runtime>,
    /// Tools of a workspace, code-server above all. They are installed as runtimes are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addons: Vec<Runtime>,
    /// The agent's own releases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<AgentRelease>,
}

/// A game.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Game {
    /// For example `minecraft`.
    pub id: Id,
    /// Name for people; the id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Server software that can host it.
    pub variants: Vec<Variant>,
}

/// Server software for a game.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// For example `paper`.
    pub id: Id,
    /// Name for people; the id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What can be installed.
    pub versions: Vec<GameVersion>,
}

/// One installable version of a variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GameVersion {
    /// For example `1.21.7`.
    pub version: String,
    /// Files to fetch, referred to by launch plans through [`Artifact::name`].
    pub files: Vec<Artifact>,
    /// The runtime it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<Requirement>,
    /// How it is installed and run; a built-in plan of the same variant id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<LaunchPlan>,
    /// What it changes in the way its plan is stopped: a big modpack needs longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopOverride>,
    /// Whether it fetches further, unpinned files by itself.
    #[serde(default)]
    pub fetches_upstream: bool,
    /// Whom it is meant for, and whether it still is.
    #[serde(flatten)]
    pub release: Release,
}

/// One file on the artifact server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// How launch plans refer to it; unique in its entry. `server` by default.
    #[serde(default = "default_artifact_name")]
    pub name: Id,
    /// Path below the artifact server's base URL.
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    /// Of the whole file.
    pub sha256: Sha256,
    /// What it is.
    pub media_type: MediaType,
    /// Of an archive: the hash of the tree that comes out of it, as its publisher saw it.
    /// What is unpacked has to be that tree, entry by entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree_sha256: Option<Sha256>,
}

fn default_artifact_name() -> Id {
    Id::new("server").unwrap_or_else(|_| unreachable!("a literal id"))
}

/// What a file is, and so how it is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MediaType {
    /// A plain file that is placed as it is.
    #[serde(rename = "application/octet-stream")]
    File,
    /// A Java archive, placed as it is.
    #[serde(rename = "application/java-archive")]
    Jar,
    /// A gzip-compressed tar archive.
    #[serde(rename = "application/x-tar+gzip")]
    TarGz,
    /// A zstd-compressed tar archive.
    #[serde(rename = "application/x-tar+zstd")]
    TarZst,
    /// An xz-compressed tar archive.
    #[serde(rename = "application/x-tar+xz")]
    TarXz,
    /// A zip archive that is unpacked. One that is placed as it is, is a [`MediaType::File`].
    #[serde(rename = "application/zip")]
    Zip,
}

impl MediaType {
    /// Whether it is unpacked instead of placed.
    pub fn is_archive(self) -> bool {
        match self {
            Self::TarGz | Self::TarZst | Self::TarXz | Self::Zip => true,
            Self::File | Self::Jar => false,
        }
    }
}

/// A runtime and the versions of it that will do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requirement {
    /// Runtime id, for example `java`.
    pub runtime: Id,
    /// For example `>=22` or `21`.
    pub version: VersionRange,
}

/// A runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    /// For example `node`.
    pub id: Id,
    /// Name for people; the id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What can be installed.
    pub versions: Vec<RuntimeVersion>,
}

/// One installable version of a runtime: exactly one archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeVersion {
    /// For example `22.23.3`.
    pub version: String,
    /// The archive.
    pub archive: Artifact,
    /// Leading path components of every entry to drop; Java archives carry one.
    #[serde(default)]
    pub strip_components: u8,
    /// What launch plans may call: name to path inside the tree. Each must exist and be
    /// executable after extraction.
    pub executables: BTreeMap<Id, RelPath>,
    /// Whom it is meant for, and whether it still is.
    #[serde(flatten)]
    pub release: Release,
}

/// A release of the agent itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentRelease {
    /// For example `1.4.0`.
    pub version: String,
    /// The static binary for Linux on x86-64.
    pub binary: Artifact,
    /// Whom it is meant for, and whether it still is.
    #[serde(flatten)]
    pub release: Release,
}
