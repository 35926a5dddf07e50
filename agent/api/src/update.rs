//! The agent's own updates.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an agent does about a newer version of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpdateMode {
    /// Looks, and says so.
    Notify,
    /// Looks, and installs it.
    Auto,
    /// Does not look.
    Off,
}

impl fmt::Display for UpdateMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Notify => "notify",
            Self::Auto => "auto",
            Self::Off => "off",
        })
    }
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Nothing is being done.
    Idle,
    /// The catalog is read.
    Checking,
    /// A version is fetched, verified and tried.
    Preparing,
    /// The new version takes over.
    Switching,
    /// The last update succeeded.
    Succeeded,
    /// The last update failed, and the version before it runs.
    Failed,
}

/// `GET /agent/update/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStatus {
    /// The version that runs.
    pub current: String,
    /// The newest one that is offered to this container, as far as is known.
    pub latest: Option<String>,
    /// Whether that is newer.
    pub update_available: bool,
    /// Where an update stands.
    pub update_status: UpdateState,
    /// What is done about a newer version.
    pub mode: UpdateMode,
    /// The channel that decides what is offered.
    pub channel: String,
    /// When the catalog was last looked at, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<String>,
    /// When the last update ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The version before the last update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Why the last look or update failed, with the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST /agent/update`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateRequest {
    /// Which version; the newest one that is offered when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Also an older version than the one that runs, and the one that runs.
    pub force: bool,
}
