//! Installed runtimes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One installed version of a runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstalledRuntime {
    /// For example `java`.
    pub id: String,
    /// For example `21.0.9`.
    pub version: String,
    /// Where it is.
    pub path: String,
    /// SHA-256 of the archive it came from.
    pub sha256: String,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether `/opt/zlh/runtimes/<id>/<version>` leads to it; another archive of the same
    /// version may have taken its place.
    pub current: bool,
    /// Whether what is configured runs with it.
    pub in_use: bool,
    /// RFC 3339.
    pub installed_at: Option<String>,
}

/// `GET /runtimes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstalledRuntimes {
    /// By id.
    pub runtimes: Vec<InstalledRuntime>,
}
