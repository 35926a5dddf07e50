//! `GET /history`: what became of the workload over the last day, week and month.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{OperationKind, OperationState};

/// A stretch of time that ends now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum HistoryWindow {
    /// 24 hours.
    #[default]
    #[serde(rename = "24h")]
    Day,
    /// 7 days.
    #[serde(rename = "7d")]
    Week,
    /// 30 days.
    #[serde(rename = "30d")]
    Month,
}

impl HistoryWindow {
    /// Every window, the shortest first.
    pub const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// As it is written in a query and on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    /// Its length, seconds.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
        }
    }
}

/// `GET /history`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// RFC 3339, the end of every window.
    pub now: String,
    /// The window of `segments` and `events`.
    pub window: HistoryWindow,
    /// RFC 3339, the beginning of that window.
    pub from: String,
    /// One for each window, the shortest first.
    pub summaries: Vec<HistorySummary>,
    /// The window without gaps, oldest first; it begins with the journal if that is younger.
    pub segments: Vec<HistorySegment>,
    /// Whether short segments were drawn together (the worst of them shows), because there
    /// were too many.
    pub coarse: bool,
    /// What happened in the window, oldest first.
    pub events: Vec<HistoryEvent>,
    /// What to pass as `before` for the events before these; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<u64>,
    /// What all of this was read from.
    pub journal: JournalState,
}

/// One window in numbers. The four kinds of seconds add up to the part of the window that
/// the journal covers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistorySummary {
    /// Which one.
    pub window: HistoryWindow,
    /// `ready / (ready + unintended)`, rounded down to three decimals; null when the server
    /// was never meant to be ready, or nothing is known.
    pub uptime_percent: Option<f64>,
    /// Seconds it accepted users.
    pub ready_seconds: u64,
    /// Seconds it did not because somebody wanted it so: from the stop until it is ready
    /// again, as far as nothing goes wrong in between, and all of a maintenance.
    pub intended_seconds: u64,
    /// Seconds it did not and nobody wanted it so.
    pub unintended_seconds: u64,
    /// Seconds of which nothing is known.
    pub unknown_seconds: u64,
    /// Processes started.
    pub starts: u64,
    /// Ends that nobody asked for.
    pub crashes: u64,
    /// Longest stretch of unintended seconds.
    pub longest_outage_seconds: u64,
    /// Ready seconds for each crash; null without one.
    pub mean_seconds_between_crashes: Option<u64>,
}

/// What the workload was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HistoryState {
    /// It accepted users.
    Ready,
    /// It was on its way.
    Starting,
    /// Its process ran and did not answer.
    Silent,
    /// It had been asked to end.
    Stopping,
    /// It was meant to be down.
    Stopped,
    /// It was down and nobody wanted it so.
    Down,
    /// Nothing is known, or a newer agent knows a word for it that this reader does not.
    #[serde(other)]
    Unknown,
}

/// A stretch of one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistorySegment {
    /// The state.
    pub state: HistoryState,
    /// Whether it counts as wanted; of a start, whether it follows a stop.
    pub intended: bool,
    /// RFC 3339.
    pub from: String,
    /// RFC 3339.
    pub to: String,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HistoryKind {
    /// An agent began; `detail` is its version.
    AgentStarted,
    /// An agent ended in order; what ran went on.
    AgentLeft,
    /// A start was begun; `detail` is why: `operation`, `boot` or `backoff`.
    Start,
    /// An agent found it running.
    Found,
    /// It accepts users.
    Ready,
    /// It does not answer any more; `detail` says why.
    Silent,
    /// It answers again.
    Answers,
    /// It was not ready in time and was left running.
    NotReady,
    /// A stop was asked for.
    Stop,
    /// Maintenance began, or has another reason; `detail` is that.
    Maintenance,
    /// It is over.
    MaintenanceOver,
    /// It ended as somebody wanted; `detail` is who: `operation`, `inside` or `outside`.
    Exit,
    /// It ended and nobody wanted it so; `detail` says why in a line, once that is known.
    Crash,
    /// What a crash leads to: a restart after `seconds`.
    Restart,
    /// The agent gave up; `detail` says why.
    GaveUp,
    /// A start that nobody asked for came to nothing: `detail` says why, and it is tried again
    /// after `seconds`.
    StartFailed,
    /// The container was restarted under it.
    Swept,
    /// An operation began.
    OperationBegan,
    /// An operation ended.
    OperationEnded,
    /// Files were put in place; `detail` is which.
    Installed,
    /// Somebody typed a line into the console: `who` and, in `detail`, what; `count` lines
    /// before it were too many to be kept here, and stand in the agent's log.
    Command,
    /// Something of the supervision was lost; `detail` says what.
    Degraded,
    /// It is whole again.
    Recovered,
    /// `count` entries could not be kept.
    Gap,
    /// A newer agent's event; `detail` may tell it: what a reader takes a word for that it does not know.
    #[serde(other)]
    Unknown,
}

/// One event. Only the fields that belong to its kind are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEvent {
    /// Ascending; the order of events.
    pub seq: u64,
    /// RFC 3339, measured back from now: a clock that was set in between does not move it.
    pub time: String,
    /// RFC 3339, what the clock said then, where that differs by more than a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
    /// What happened.
    pub kind: HistoryKind,
    /// The run it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// For people; see [`HistoryKind`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Of a crash: the cause, as in `GET /crashes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Of a command: who typed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The operation it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<HistoryOperation>,
    /// How the process ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<HistoryExit>,
    /// Of a start: which attempt since somebody acted. Of a restart: which crash on the
    /// ladder. Of a gap: how many entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Of a restart and a failed start: the pause. Of readiness: the time since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// The operation of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryOperation {
    /// As in `/operations/{id}`.
    pub id: String,
    /// What it does.
    #[serde(rename = "type")]
    pub kind: OperationKind,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<OperationState>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryExit {
    /// Null on a signal, and when nobody saw it.
    pub code: Option<i32>,
    /// 0 when none.
    pub signal: i32,
    /// For example `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_name: Option<String>,
    /// Seconds the process lived.
    pub uptime_seconds: u64,
    /// Whether it had accepted users.
    pub was_ready: bool,
    /// Whether the kernel killed it for memory.
    pub out_of_memory: bool,
    /// Why the status is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// RFC 3339, when the agent learnt of it, where that was later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

/// The journal behind a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JournalState {
    /// RFC 3339, its first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Entries read.
    pub entries: u64,
    /// Entries that wait for the disk.
    pub pending: u64,
    /// Lines that could not be read and were skipped.
    pub damaged: u64,
    /// Entries that were lost because neither disk nor memory had room.
    pub lost: u64,
}
