//! What the fake game did and when, as JSON lines for the test to read.
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC`, which every process of a machine
//! shares: a test subtracts its own reading without a clock of its own in between.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: u64,
    /// The process it happened in.
    pub pid: u32,
    /// What happened.
    pub what: What,
    /// A detail, for example the console line or the signal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The process runs.
    Started,
    /// The console said `Done`.
    Done,
    /// The port is open: from here on a ping is answered (or not) as told.
    Listening,
    /// A ping was answered completely for the first time.
    FirstPing,
    /// A console line arrived.
    Command,
    /// A signal arrived.
    Signal,
    /// A save began.
    SaveBegan,
    /// A save is complete on disk.
    SaveEnded,
    /// The first line of a flood is about to be written.
    FloodBegan,
    /// The last line of a flood was taken by the terminal.
    FloodEnded,
    /// A process was started; `detail` is its pid.
    Child,
    /// The process is about to end as it was told.
    Ending,
}

/// Appends events to a file, or to nothing.
#[derive(Debug, Clone, Default)]
pub struct Events(Option<Arc<Mutex<File>>>);

impl Events {
    /// Appends to `path`; `None` discards.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(Some(Arc::new(Mutex::new(file)))))
    }

    /// Records one event. A full disk loses it: the game has to go on.
    pub fn record(&self, what: What, detail: impl Into<String>) {
        let Some(file) = &self.0 else { return };
        let event = Event { at_ns: monotonic_ns(), pid: std::process::id(), what, detail: detail.into() };
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
    }
}

/// Reads an event file; a line that is being written is left out.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).map_err(io::Error::other)).collect()
}

/// `CLOCK_MONOTONIC`, nanoseconds.
pub fn monotonic_ns() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_back_and_a_half_written_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        assert_eq!(read(&path).unwrap(), []);
        let events = Events::open(Some(&path)).unwrap();
        events.record(What::Started, "");
        events.record(What::Command, "say hi");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at_ns\":1").unwrap();
        let seen = read(&path).unwrap();
        assert_eq!(seen.iter().map(|event| event.what).collect::<Vec<_>>(), [What::Started, What::Command]);
        assert_eq!(seen[1].detail, "say hi");
        assert!(seen[0].at_ns <= seen[1].at_ns);
    }
}
