//! The wire of `zlh-agent` as data: request and response types, error codes,
//! and (feature `client`) a typed client. No logic of the agent lives here.
//!
//! Field names are those of the deployed contract where there is one; they are
//! camelCase in responses and snake_case in the stored payload, because that is
//! what the deployed callers send and read.

mod config;
mod console;
mod crash;
mod history;
mod maintenance;
mod operation;
mod problem;
mod runtime;
mod shell;
mod status;
mod update;
mod version;

#[cfg(feature = "client")]
pub mod client;

pub use config::{Config, ContainerType, MASK};
pub use console::{
    CONSOLE_PROTOCOL, CommandChannel, CommandOutput, ConsoleControl, ConsoleCrash, ConsoleEvent,
};
pub use crash::{
    CrashAction, CrashActionId, CrashChange, CrashContributing, CrashCulprit, CrashDependency, CrashEvidence,
    CrashJava, CrashPlace, CrashRecord, CrashRemedy, Crashes,
};
pub use history::{
    History, HistoryEvent, HistoryExit, HistoryKind, HistoryOperation, HistorySegment, HistoryState,
    HistorySummary, HistoryWindow, JournalState,
};
pub use maintenance::{Maintenance, MaintenanceRequest};
pub use operation::{Operation, OperationKind, OperationState, OperationSummary, Operations, Progress};
pub use problem::{ErrorCode, Problem};
pub use runtime::{InstalledAddons, InstalledRuntime, InstalledRuntimes, UpgradeRequest};
pub use shell::{NewShell, Shell, Shells};
pub use status::{
    Accepted, Artifacts, CommandRequest, Players, Ready, Resources, RestartBudget, State, Status, Version,
};
pub use update::{UpdateMode, UpdateRequest, UpdateState, UpdateStatus};
pub use version::{ChangeVersion, GameVersion, VersionChange, WorldCopy};

/// The port an agent listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 18888;

/// Response header of `POST /console/command`: the console log offset (bytes)
/// at which output caused by the command can begin.
pub const CONSOLE_OFFSET_HEADER: &str = "zlh-console-offset";

/// Response header of `GET /console/log`: the offset (bytes) to ask for next.
pub const CONSOLE_NEXT_HEADER: &str = "zlh-console-next";
