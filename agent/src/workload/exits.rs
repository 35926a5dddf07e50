//! From the shim's exit record to the deployed crash fields and the machine's view.

use std::time::Duration;

use zlh_api::CrashRecord;
use zlh_shim::record::{Exit, ExitRecord};

use super::machine::Ended;
use crate::console::Console;
use crate::crash::{LOG_TAIL_LINES, id_of};

/// Longest of them, bytes.
const TAIL_WIDTH: usize = 1000;

/// How far back that is looked for, bytes.
const STOPPED_WINDOW: u64 = 256 << 10;

/// What a server says when it was stopped from inside.
const STOPPED_INSIDE: &str = "Stopping the server";

/// An exit, looked at.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// For the machine.
    pub ended: Ended,
    /// For people.
    pub crash: CrashRecord,
    /// A player or console user stopped it: it is not wanted any more.
    pub stopped_inside: bool,
}

/// Looks at an exit. `was_ready`/`ready_for`: whether and how long it accepted users.
pub(crate) async fn judge(
    record: &ExitRecord,
    console: &Console,
    was_ready: bool,
    ready_for: Duration,
) -> Verdict {
    let tail = console.tail_lines(record.console_start, LOG_TAIL_LINES, TAIL_WIDTH).await.unwrap_or_default();
    let uptime = Duration::from_millis(record.uptime_ms);
    let clean = matches!(record.exit, Exit::Exited { code: 0 } | Exit::Lost { .. });
    let stopped_inside = record.stop.is_none() && clean && {
        // Plugins may say much after it.
        let end = console.tail_text(record.console_start, STOPPED_WINDOW).await.unwrap_or_default();
        end.lines().any(says_stopped)
    };
    let intended = record.stop.is_some() || stopped_inside;
    let never_ran = match &record.exit {
        Exit::ExecFailed { step, errno } => Some(never_ran(step, *errno)),
        _ => None,
    };
    let ended = Ended { intended, never_ran, uptime, ready_for };
    Verdict { ended, crash: crash_record(record, tail, was_ready), stopped_inside }
}

/// An end in words, for logs.
pub(crate) fn words(exit: &Exit) -> String {
    match exit {
        Exit::Exited { code } => format!("exit code {code}"),
        Exit::Killed { signal, .. } => signal_name(*signal).unwrap_or_else(|| format!("signal {signal}")),
        Exit::ExecFailed { step, errno } => never_ran(step, *errno),
        Exit::Lost { reason } => format!("unknown: {reason}"),
    }
}

fn never_ran(step: &str, errno: i32) -> String {
    let why = std::io::Error::from_raw_os_error(errno);
    if errno == 0 {
        format!("the server could not be started: {step}")
    } else {
        format!("the server could not be started: {step}: {why}")
    }
}

fn crash_record(record: &ExitRecord, log_tail: Vec<String>, was_ready: bool) -> CrashRecord {
    let (exit_code, signal, lost) = match &record.exit {
        Exit::Exited { code } => (Some(*code), 0, None),
        Exit::Killed { signal, .. } => (None, *signal, None),
        Exit::ExecFailed { step, errno } => (None, 0, Some(never_ran(step, *errno))),
        Exit::Lost { reason } => (None, 0, Some(reason.clone())),
    };
    let killed_for_memory = signal == nix::libc::SIGKILL && record.oom.is_some_and(|o| o.after > o.before);
    let classification = match exit_code {
        _ if killed_for_memory => "oom",
        Some(code) if code != 0 => "nonzero_exit",
        _ => "unexpected_exit",
    };
    let time = i64::try_from(record.ended_unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    CrashRecord {
        time: crate::clock::rfc3339(time),
        exit_code,
        signal,
        signal_name: signal_name(signal),
        lost,
        uptime_seconds: record.uptime_ms / 1000,
        was_ready,
        classification: classification.to_owned(),
        log_tail,
        id: id_of(record.ended_unix_ms, &record.instance),
        ..CrashRecord::default()
    }
}

/// `SIGKILL` for 9; a real-time signal has a number only.
fn signal_name(signal: i32) -> Option<String> {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => Some(known.as_str().to_owned()),
        Err(_) if signal > 0 => Some(format!("signal {signal}")),
        Err(_) => None,
    }
}

/// The server's own whole line, after its log prefix; a chat line only quotes it.
fn says_stopped(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[')
        && line
            .split_once("]: ")
            .is_some_and(|(prefix, message)| message == STOPPED_INSIDE && !prefix.contains(['<', '>']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_whole_line_counts() {
        for line in [
            "[12:00:05] [Server thread/INFO]: Stopping the server",
            "[12:00:05 INFO]: Stopping the server",
            "[05Jul2022 23:44:28.958] [Server thread/INFO] [net.minecraft.server.MinecraftServer/]: Stopping the server",
        ] {
            assert!(says_stopped(line), "{line}");
        }
        for line in [
            "Stopping the server",
            "[12:00:05] [Async Chat Thread/INFO]: <bob> Stopping the server",
            "[12:00:05 INFO]: [bob]: Stopping the server",
            "[12:00:05 INFO]: [Server] Stopping the server",
            "[12:00:05 INFO]: bob: Stopping the server",
            "[12:00:05 INFO]: Stopping the server now",
            "> say [x]: Stopping the server",
        ] {
            assert!(!says_stopped(line), "{line}");
        }
    }

    #[test]
    fn signals_have_their_names() {
        assert_eq!(signal_name(9).as_deref(), Some("SIGKILL"));
        assert_eq!(signal_name(40).as_deref(), Some("signal 40"));
        assert_eq!(signal_name(0), None);
    }
}
