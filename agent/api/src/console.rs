//! `zlh.console.v1`: the control messages beside the bytes, and what a command answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{CrashRecord, ErrorCode, State};

/// WebSocket subprotocol of the console with offsets.
pub const CONSOLE_PROTOCOL: &str = "zlh.console.v1";

/// What the agent says in text frames. Binary frames between them are bytes of the log,
/// one after the other from the offset that was told last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ConsoleEvent {
    /// First of all: the offset of the first byte that follows, and the end of the log now.
    Offset {
        /// Of the next byte.
        offset: u64,
        /// The end of the log when the viewer came.
        head: u64,
    },
    /// Everything that was there when the viewer came has been sent.
    Live {
        /// Of the next byte.
        offset: u64,
    },
    /// Bytes that are no longer kept; the next byte is at `to`.
    Dropped {
        /// First byte that is missing.
        from: u64,
        /// First byte behind them.
        to: u64,
    },
    /// A process runs at the other end.
    Started {
        /// Its pid.
        pid: i32,
    },
    /// It has ended; all that it printed has been sent.
    Exit {
        /// Of the next byte.
        offset: u64,
        /// What the workload does now.
        state: State,
        /// How it crashed; null when somebody wanted it to end.
        crash: Option<Box<ConsoleCrash>>,
    },
    /// A shell's screen as it is at this offset, to be shown before the bytes that follow.
    Screen {
        /// Of the next byte.
        offset: u64,
        /// What a terminal of the size that was told has to be sent; UTF-8 with escape sequences.
        data: String,
    },
    /// A shell has ended; nothing follows.
    Closed {
        /// End of its log.
        offset: u64,
        /// How, for people.
        reason: String,
    },
    /// Size of the terminal: first, as the answer to a resize, and when a shell's changes.
    Size {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// What was sent was not taken.
    Refused {
        /// Why, for programs.
        error: ErrorCode,
        /// Why, for people.
        detail: String,
    },
    /// A newer agent's message.
    #[serde(other)]
    Unknown,
}

/// A crash in the words of an exit notice; `GET /crashes/{id}` tells all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsoleCrash {
    /// As in `GET /crashes`.
    pub id: String,
    /// Null when it died by a signal, or was lost.
    pub exit_code: Option<i32>,
    /// Signal number, 0 when none.
    pub signal: i32,
    /// One of the deployed classifications.
    pub classification: String,
}

impl From<&CrashRecord> for ConsoleCrash {
    fn from(crash: &CrashRecord) -> Self {
        Self {
            id: crash.id.clone(),
            exit_code: crash.exit_code,
            signal: crash.signal,
            classification: crash.classification.clone(),
        }
    }
}

/// What a viewer says in text frames. Binary frames are bytes for the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ConsoleControl {
    /// The viewer's window; answered with the terminal's size.
    Resize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// All bytes before `offset` were dealt with: with `?window=` the agent sends on.
    Ack {
        /// First byte not dealt with.
        offset: u64,
    },
}

/// How a command reached the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandChannel {
    /// Typed into its console: the lines are what it printed from then on, whoever caused them.
    #[default]
    Console,
    /// By RCON, which the server has enabled: the lines are the answer, and nothing else.
    Rcon,
}

/// `POST /console/command?wait=`: what followed the command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandOutput {
    /// Where in the console log what it caused can begin.
    pub offset: u64,
    /// Where to read on.
    pub next: u64,
    /// Lines without escape sequences, without the command's own echo.
    pub lines: Vec<String>,
    /// Whether there was more.
    pub truncated: bool,
    /// How the command reached the server.
    #[serde(default)]
    pub channel: CommandChannel,
}
