//! `GET`, `PUT` and `DELETE /maintenance`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::OperationSummary;

/// `PUT /maintenance`; no body is the same as `{}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MaintenanceRequest {
    /// What for, in one line of at most 200 characters: shown to whoever asks for a start. Once more
    /// while it lasts, none keeps the one of before, and an empty one takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Do not stop what runs; it is not started again either, however it ends.
    pub keep_running: bool,
    /// Stop without warning players; the world is saved all the same.
    pub now: bool,
}

/// Whether the workload is in maintenance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Whether it is: nothing starts it until that is over.
    pub active: bool,
    /// RFC 3339, since when.
    #[serde(default)]
    pub since: Option<String>,
    /// What for, as the operator said.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether the server is started when it is over, should it not run then: it was meant to run
    /// when maintenance began, and nobody has stopped it since.
    #[serde(default)]
    pub starts_afterwards: bool,
    /// The stop or start that was begun by this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationSummary>,
}
