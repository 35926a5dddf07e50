//! `GET /status` and its smaller siblings.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::CrashRecord;
use crate::{Config, OperationKind, OperationSummary};

/// The states of a workload, in the deployed words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing runs and nothing is meant to.
    Idle,
    /// Artifacts are being fetched, verified and placed.
    Installing,
    /// The process runs (or is about to) and does not accept users yet.
    Starting,
    /// The workload accepts users, or did a moment ago.
    Running,
    /// A stop was asked for and has not ended yet.
    Stopping,
    /// Ended unexpectedly; a restart is planned.
    Crashed,
    /// Something is wrong that a person has to look at; `error` says what.
    Error,
}

impl State {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Installing => "installing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Crashed => "crashed",
            Self::Error => "error",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The workload's state.
    pub state: State,
    /// Whether the workload's process exists.
    pub process_running: bool,
    /// Whether the workload accepts users.
    pub ready: bool,
    /// How readiness is known, for example `minecraft_ping`.
    pub ready_source: String,
    /// Why it is not ready; empty when fine.
    pub ready_error: String,
    /// RFC 3339, the last time readiness passed.
    pub last_ready_at: Option<String>,
    /// The install step shown to users; empty when idle.
    pub install_step: String,
    /// Crashes on the restart ladder.
    pub crash_count: u32,
    /// Crashes since the workload was configured.
    #[serde(default)]
    pub crashes_total: u32,
    /// RFC 3339.
    pub last_crash_time: Option<String>,
    /// Null when it died by a signal, or was lost.
    pub last_crash_exit_code: Option<i32>,
    /// Signal number, 0 when none.
    pub last_crash_signal: i32,
    /// Signal name, for example `SIGKILL`.
    #[serde(default)]
    pub last_crash_signal_name: Option<String>,
    /// Seconds the process lived.
    pub last_crash_uptime_seconds: Option<u64>,
    /// The last lines before the crash, without escape sequences.
    pub last_crash_log_tail: Vec<String>,
    /// One of the deployed classifications, null without a crash.
    #[serde(default)]
    pub last_crash_classification: Option<String>,
    /// The whole record of the last crash.
    #[serde(default)]
    pub last_crash: Option<CrashRecord>,
    /// What is wrong, with the remedy.
    pub error: Option<String>,
    /// The stored payload, secrets masked.
    pub config: Option<Config>,
    /// Unix seconds.
    pub timestamp: u64,
    /// Whether a mutating operation runs.
    #[serde(default)]
    pub operation_in_progress: bool,
    /// Its type, empty when none.
    #[serde(default)]
    pub operation_type: Option<OperationKind>,
    /// Whether the workload is in maintenance: nothing starts it until that is over.
    #[serde(default)]
    pub maintenance: bool,
    /// RFC 3339, when maintenance began.
    #[serde(default)]
    pub maintenance_since: Option<String>,
    /// What for, as the operator said.
    #[serde(default)]
    pub maintenance_reason: Option<String>,
    /// RFC 3339.
    #[serde(default)]
    pub operation_started_at: Option<String>,
    /// What the running operation is doing, for people.
    #[serde(default)]
    pub operation_message: Option<String>,
    /// RFC 3339, when a crashed workload starts again.
    #[serde(default)]
    pub next_restart_at: Option<String>,
    /// How many more crashes are put up with.
    #[serde(default)]
    pub restart_budget: Option<RestartBudget>,
    /// The workload's process id.
    #[serde(default)]
    pub pid: Option<i32>,
    /// RFC 3339, when that process started.
    #[serde(default)]
    pub started_at: Option<String>,
    /// The port players join, where the workload has one.
    #[serde(default)]
    pub port: Option<u16>,
    /// What the workload uses.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// Where artifacts come from, and whether they were verified.
    #[serde(default)]
    pub artifacts: Option<Artifacts>,
    /// Things that work, but not as the operator may think.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The agent's own version.
    #[serde(default)]
    pub agent_version: String,
    /// Rises with every change of state.
    #[serde(default)]
    pub generation: u64,
}

/// What the workload's processes use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Resident memory of the workload's processes, bytes.
    pub memory_bytes: u64,
    /// CPU time of the workload's processes since start, milliseconds.
    pub cpu_millis: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes free on the file system that holds the workload.
    pub disk_free_bytes: u64,
    /// Bytes of that file system.
    pub disk_total_bytes: u64,
}

/// Where artifacts come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifacts {
    /// What was installed, for example `minecraft/paper 1.21.7`.
    pub installed: String,
    /// Serial of the signed catalog it came from.
    pub catalog_serial: u64,
    /// Whether the server fetches further files by itself when it starts.
    pub fetches_upstream: bool,
}

/// How many more crashes are put up with before `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartBudget {
    /// Automatic restarts left on the ladder.
    pub remaining: u32,
    /// Automatic restarts in all.
    pub limit: u32,
}

/// `GET /ready`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Whether the workload accepts users.
    pub ready: bool,
    /// The workload's state.
    pub state: State,
    /// How readiness is known.
    pub ready_source: String,
    /// Why it is not ready; empty when it is.
    pub reason: String,
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// With a leading `v`.
    pub version: String,
    /// Source revision the binary was built from.
    #[serde(default)]
    pub commit: String,
    /// Target triple.
    #[serde(default)]
    pub target: String,
}

/// 202 of `POST /config`, `/start` and `/restart`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// Always true.
    pub ok: bool,
    /// The state the workload is in, or goes to.
    pub state: State,
    /// The operation that was begun; null when everything was already so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationSummary>,
}

/// `GET /game/players`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Players {
    /// Players online.
    pub online: u32,
    /// Players at most.
    pub max: u32,
    /// The names the server tells (a sample on large servers).
    pub players: Vec<String>,
}

/// `POST /console/command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandRequest {
    /// One line, no control characters. Deployed callers also send `cmd`.
    #[serde(alias = "cmd")]
    pub command: String,
}
