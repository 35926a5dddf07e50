//! Long work: everything that outlives its request is an operation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Fetch, verify and place a server with its runtime.
    Install,
    /// Start a workload and wait until it accepts users.
    Start,
    /// Stop a workload.
    Stop,
    /// Stop, then start.
    Restart,
    /// Do what a crash's remedy says, or put a runtime right.
    Repair,
    /// Compare a runtime with what was installed.
    Verify,
    /// Remove runtimes.
    Remove,
    /// Change to another version: of a server, a runtime, an addon.
    Upgrade,
    /// Go back to the version before.
    Rollback,
    /// Update the agent itself.
    Update,
    /// A newer agent's operation: what a reader takes a word for that it does not know.
    #[serde(other)]
    Unknown,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// In progress.
    Running,
    /// Ended as asked.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Ended early because something with precedence (a stop) took its place.
    Cancelled,
}

/// How far an operation is, where that can be counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What is counted: `bytes` or `steps`.
    pub unit: String,
    /// Units per second since this phase began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

/// One mutating call and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Unique on this agent, ascending.
    pub id: String,
    /// What it does.
    #[serde(rename = "type")]
    pub kind: OperationKind,
    /// Where it stands.
    pub state: OperationState,
    /// What it is doing, for people.
    pub phase: String,
    /// How far it is, where that can be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Why it failed, with the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a 409 says of the operation that is in the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationSummary {
    /// See [`Operation::id`].
    pub id: String,
    /// See [`Operation::kind`].
    #[serde(rename = "type")]
    pub kind: OperationKind,
    /// RFC 3339.
    pub started_at: String,
}

impl From<&Operation> for OperationSummary {
    fn from(operation: &Operation) -> Self {
        Self { id: operation.id.clone(), kind: operation.kind, started_at: operation.started_at.clone() }
    }
}

/// `GET /operations`: newest first, bounded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operations {
    /// Newest first.
    pub operations: Vec<Operation>,
}
