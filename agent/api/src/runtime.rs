//! Installed runtimes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One installed version of a runtime or an addon.
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
    /// Whether it is the version that was chosen by an upgrade or a rollback:
    /// `/opt/zlh/runtimes/<id>/current` leads to it.
    pub active: bool,
    /// Whether a rollback goes back to it.
    pub previous: bool,
    /// Whether what is configured runs with it.
    pub in_use: bool,
    /// RFC 3339.
    pub installed_at: Option<String>,
}

/// `POST /runtimes/{id}/upgrade` and `POST /addons/{id}/upgrade`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpgradeRequest {
    /// To which version; the newest one that is offered when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// `GET /addons`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstalledAddons {
    /// By id.
    pub addons: Vec<InstalledRuntime>,
}

/// `GET /runtimes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstalledRuntimes {
    /// By id.
    pub runtimes: Vec<InstalledRuntime>,
}
