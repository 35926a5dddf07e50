//! Errors as RFC 9457 problem details, with a stable code.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::OperationSummary;

/// Stable, machine-readable reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The body is not JSON, or not of the expected form.
    BadJson,
    /// A field is missing, unknown to the catalog, or not allowed.
    InvalidConfig,
    /// The command is empty, too long, or holds control characters.
    InvalidCommand,
    /// A query parameter or header is not of the expected form.
    InvalidRequest,
    /// The body exceeds the limit.
    BodyTooLarge,
    /// No (valid) credentials.
    Unauthorized,
    /// A policy refuses this caller or this call.
    Forbidden,
    /// No such route, operation or record.
    NotFound,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// Another mutating operation is running.
    OperationInProgress,
    /// Nothing was configured yet: send `POST /config` first.
    NotConfigured,
    /// The workload is not running.
    NotRunning,
    /// The call does not fit the state the workload is in.
    WrongState,
    /// The workload is in maintenance: nothing is started.
    Maintenance,
    /// The server does not take console input right now.
    StdinBusy,
    /// The server does not answer.
    NotReady,
    /// Too many connections or requests.
    Busy,
    /// Too many wrong tokens; wait as `Retry-After` says.
    TooManyAttempts,
    /// Too many requests from one caller; wait as `Retry-After` says.
    TooManyRequests,
    /// A fault of the agent or its machine.
    Internal,
    /// A newer agent's reason: what a reader takes a word for that it does not know. `status` and
    /// `detail` still say what it means.
    #[serde(other)]
    Unknown,
}

/// `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// Always `about:blank`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status's words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub error: ErrorCode,
    /// What happened, naming the thing, and the remedy.
    pub detail: String,
    /// The operation in the way, on a 409.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationSummary>,
}

impl ErrorCode {
    /// The HTTP status that goes with the code.
    pub fn status(self) -> u16 {
        match self {
            Self::BadJson | Self::InvalidConfig | Self::InvalidCommand | Self::InvalidRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::OperationInProgress
            | Self::NotConfigured
            | Self::NotRunning
            | Self::WrongState
            | Self::Maintenance => 409,
            Self::BodyTooLarge => 413,
            Self::TooManyAttempts | Self::TooManyRequests => 429,
            Self::Internal | Self::Unknown => 500,
            Self::StdinBusy | Self::NotReady | Self::Busy => 503,
        }
    }
}

impl Problem {
    /// A problem with the code's own status.
    pub fn new(error: ErrorCode, detail: impl Into<String>) -> Self {
        let status = error.status();
        Self {
            kind: "about:blank".to_owned(),
            title: title(status).to_owned(),
            status,
            error,
            detail: detail.into(),
            operation: None,
        }
    }

    /// Names the operation that is in the way.
    #[must_use]
    pub fn with_operation(mut self, operation: OperationSummary) -> Self {
        self.operation = Some(operation);
        self
    }
}

fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
