//! What is known of an end: the input of an analysis.

use std::time::Duration;

use crate::AddonLookup;

/// What is known of an end. Everything is optional: a pasted log has nothing else.
#[derive(Debug, Clone, Default)]
pub struct Evidence<'a> {
    /// How it ended; none for a log from anywhere.
    pub exit: Option<Exit>,
    /// The console of this run, raw bytes: its head, and its tail where there is a gap
    /// between them (300 and 2,000 lines, 1 MiB at most).
    pub console: Vec<Text<'a>>,
    /// Crash reports written by this run, newest first, cut at 512 KiB from the head.
    pub reports: Vec<Text<'a>>,
    /// `hs_err_pid<pid>.log` of exactly this process, cut at 64 KiB from the head.
    pub hs_err: Option<Text<'a>>,
    /// The disk after the exit.
    pub disk: Option<Disk>,
    /// The mods and plugins on disk.
    pub addons: Option<&'a dyn AddonLookup>,
    /// What the remedy can name.
    pub facts: Facts,
}

/// How it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// Null when a signal ended it, or nobody saw it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Somebody asked for it: no crash, whatever the log says.
    pub requested: bool,
    /// Processes of its own control group that the kernel killed for memory during this run.
    pub oom_kills: u64,
    /// How long it lived.
    pub uptime: Option<Duration>,
    /// Whether it had ever accepted users.
    pub reached_ready: Option<bool>,
}

/// A text, with the name to cite it by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text<'a> {
    /// A file's name relative to the server folder, or `console`.
    pub name: &'a str,
    /// Its bytes, in whatever encoding.
    pub bytes: &'a [u8],
    /// Number of its first line within the whole (1 for a head).
    pub first_line: u64,
}

/// The disk after the exit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that the server's user can still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Files that can still be made; none where that is not counted.
    pub free_inodes: Option<u64>,
}

/// What the agent knows beside the evidence, for the remedy's words and actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Version of the game, for example `1.21.7`.
    pub game_version: Option<String>,
    /// `paper`, `fabric`, …
    pub variant: Option<String>,
    /// Major version of the Java it was started with.
    pub java_have: Option<u32>,
    /// The heap it was given, bytes.
    pub heap_bytes: Option<u64>,
    /// The container's memory limit, bytes.
    pub memory_limit_bytes: Option<u64>,
    /// The port it was to listen on.
    pub port: Option<u16>,
    /// Who listens there now: program and pid.
    pub port_owner: Option<String>,
    /// Who has the world open: program and pid.
    pub world_owner: Option<String>,
}
