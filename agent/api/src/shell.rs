//! `/shells`: login shells that outlive their viewers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /shells`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shells {
    /// Every session, by name.
    pub shells: Vec<Shell>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shell {
    /// Unique on this agent.
    pub name: String,
    /// Whom it runs as.
    pub user: String,
    /// Of the shell itself.
    pub pid: i32,
    /// RFC 3339.
    pub created_at: String,
    /// Who looks at it now.
    pub viewers: usize,
    /// Of its terminal: as wide as the narrowest viewer.
    pub columns: u16,
    /// As high as the lowest.
    pub rows: u16,
    /// When it ends by itself because nobody looks at it, RFC 3339; null while somebody does.
    pub closes_at: Option<String>,
}

/// `POST /shells`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NewShell {
    /// Lower-case letters, digits and `-`, at most 32; null or absent takes the next free `shell-N`.
    pub name: Option<String>,
    /// Of its terminal at first; 80 when absent.
    pub columns: Option<u16>,
    /// Of its terminal at first; 24 when absent.
    pub rows: Option<u16>,
}
