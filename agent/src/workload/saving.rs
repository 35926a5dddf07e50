//! Whether a server that was told to stop is really saving, and more time if it is.
//!
//! Looked at is what it does, never what it says: a plugin can print `Saving chunks` for
//! ever. Progress is
//! - the worlds being longer *and* taking more space than at the last look: a size alone can
//!   be set without writing, and space alone grows late on file systems that allocate when
//!   they write back, long after the server's last write, or
//! - files of the worlds being changed *while* the server's processes have bytes written
//!   ([`LEAST_WRITTEN`]): a region file that is rewritten in place does not grow, and a file
//!   that is merely touched writes nothing.
//!
//! Whoever looks also sees whether the shim keeps its word: a rung that it does not climb, and a
//! SIGKILL that does not come, are climbed and sent without it.
//!
//! Each sight of it puts the next rung of the ladder off by [`QUIET`] at most, so a server
//! that stops saving has that long left; the cap of the plan is kept by the ladder itself.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slog::{Logger, info};
use tokio::sync::mpsc;
use tokio::time::Instant;
use zlh_shim::process::{ProcessId, descendants};
use zlh_shim::spec::StopPlan;

use super::driver::Event;
use super::due::{Due, KILL_STAGE, TERM_STAGE};
use super::operations::Operations;
use super::orphan::Orphan;
use super::shim_client::{GONE_STAGE, HEARD, STOP_ANSWER, ShimClient, ShimError};
use crate::game::worlds::{self, Tally};

/// How long a server may seem idle between two sights of progress.
const QUIET: Duration = Duration::from_secs(15);

/// Between two looks at most.
const PACE: Duration = Duration::from_secs(1);

/// Bytes that count as written between two looks: less is what logs and clock files do, of
/// which each line dirties a page of 4 KiB anew whenever the one before was written back.
const LEAST_WRITTEN: u64 = 64 << 10;

/// Largest `/proc/PID/io` read.
const MAX_IO: u64 = 4096;

/// How late a rung may be.
const LATE: Duration = Duration::from_secs(1);

/// What a stop may take beyond its plan: leftovers are hunted, records are written.
pub(super) const AFTERMATH: Duration = Duration::from_secs(15);

/// What a stop has to be put off with.
#[derive(Debug, Clone)]
pub(super) enum Extend {
    Shim(ShimClient),
    Orphan(Orphan),
}

/// What to look at.
pub(super) struct Saving {
    pub root: PathBuf,
    pub process: ProcessId,
    pub extend: Extend,
    pub operations: Operations,
    /// The stop (or restart) this belongs to, to say that it saves.
    pub operation: Option<String>,
    /// Where to note what it was given.
    pub granted: Granted,
    /// Where to tell that the shim does not do what it took.
    pub overdue: Option<Overdue>,
    pub log: Logger,
}

/// The time that a server was given to save, whoever holds it.
#[derive(Debug, Clone, Default)]
pub(super) struct Granted(Arc<Mutex<Option<Instant>>>);

impl Granted {
    fn until(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default()
    }
}

/// Whom to tell, and of which connection.
#[derive(Debug)]
pub(super) struct Overdue {
    pub events: mpsc::Sender<Event>,
    pub connection: u64,
}

impl Saving {
    /// Looks until it is aborted or the ladder's keeper is gone. `gone`: since the stop was asked for.
    pub(super) async fn watch(self, plan: StopPlan, gone: Duration) {
        let quiet = quiet(&plan);
        let pause = (quiet / 8).min(PACE);
        // Whoever climbs counts from when it took the stop.
        self.extend.has_begun().await;
        let mut due = Due::of(&plan, Instant::now(), gone);
        if !gone.is_zero() {
            // It may have been given time to save a moment ago, by an agent that is gone.
            due.put_off(Instant::now() + quiet, 0);
        }
        let mut last = self.look().await;
        let mut said = false;
        let mut next = Instant::now();
        loop {
            // A walk through a huge world is not repeated without a rest.
            next += pause.max((last.took * 10).min(quiet / 2));
            loop {
                let check = due.next(self.extend.stage()) + LATE;
                tokio::time::sleep_until(next.min(check)).await;
                if self.is_overdue(&mut due).await {
                    return self.tell_overdue().await;
                }
                if Instant::now() >= next {
                    break;
                }
                // Not overdue after all, or by nothing that can be helped: then at the usual pace.
                tokio::time::sleep_until(next.min(Instant::now() + pause)).await;
            }
            let now = self.look().await;
            if progressed(&last.sample, &now.sample) {
                if !said {
                    said = true;
                    info!(self.log, "the server saves its world; it is given the time");
                }
                if let Some(operation) = &self.operation {
                    self.operations.phase(operation, "stopping: the server saves its world");
                }
                match self.extend.by(quiet).await {
                    Given::Yes => {
                        due.put_off(Instant::now() + quiet, self.extend.stage());
                        self.granted.until(due.cap.min(Instant::now() + quiet));
                    }
                    // It may have been taken late.
                    Given::Unknown => {
                        due.put_off(Instant::now() + STOP_ANSWER + quiet, self.extend.stage());
                        self.granted.until(due.cap.min(Instant::now() + quiet));
                    }
                    Given::No => {}
                    Given::Gone => return,
                }
            }
            last = now;
            next = Instant::now();
        }
    }

    /// Whether a rung that is due was not climbed.
    async fn is_overdue(&self, due: &mut Due) -> bool {
        if self.overdue.is_none() {
            return false; // it is climbed by us
        }
        let stage = self.extend.stage();
        due.seen(stage);
        let late = |at: Instant| Instant::now().saturating_duration_since(at);
        if !self.process.is_alive() {
            // Its end has to be told in the end.
            if late(due.kill) <= AFTERMATH {
                return false;
            }
            self.extend.has_had_its_turn(GONE_STAGE).await;
            return !self.extend.has_told_the_end();
        }
        if stage < TERM_STAGE {
            let behind = || self.extend.stage() < TERM_STAGE && self.process.is_alive();
            if late(due.term) <= LATE {
                return false;
            }
            self.extend.has_had_its_turn(TERM_STAGE).await;
            return behind();
        }
        if late(due.kill) <= LATE || is_killed(self.process) {
            return false;
        }
        self.extend.has_had_its_turn(KILL_STAGE).await;
        !is_killed(self.process)
    }

    /// Not carried out: the driver does it without the shim.
    async fn tell_overdue(self) {
        let Some(Overdue { events, connection }) = self.overdue else { return };
        let distrust = Some("it took a stop and did not carry it out".to_owned());
        drop(events.send(Event::ShimStuck { connection, distrust }).await);
    }

    async fn look(&self) -> Look {
        let begun = Instant::now();
        let (root, process) = (self.root.clone(), self.process);
        let sample = tokio::task::spawn_blocking(move || Sample {
            worlds: worlds::tally(&root),
            written: written(process),
        });
        // A look that failed saw nothing.
        let sample = sample.await.unwrap_or_default();
        Look { sample, took: begun.elapsed() }
    }
}

impl Extend {
    /// How far whoever climbs is.
    fn stage(&self) -> u8 {
        match self {
            Self::Shim(shim) => shim.status().borrow().stop_stage,
            // It is climbed by us.
            Self::Orphan(_) => TERM_STAGE,
        }
    }

    /// Whether there is nothing more to be told.
    fn has_told_the_end(&self) -> bool {
        match self {
            Self::Shim(shim) => shim.status().borrow().exit.is_some(),
            Self::Orphan(_) => true,
        }
    }

    /// Waits, not for long, until a shim says that it has begun.
    async fn has_begun(&self) {
        if let Self::Shim(shim) = self {
            shim.says(1, STOP_ANSWER).await;
        }
    }

    /// After a time in which nothing ran a shim may not have had its turn yet: waits, not for long,
    /// until it has answered something and was heard.
    async fn has_had_its_turn(&self, stage: u8) {
        if let Self::Shim(shim) = self {
            let _ = tokio::time::timeout(LATE, shim.extend(Duration::ZERO)).await;
            shim.says(stage, if stage == GONE_STAGE { LATE } else { HEARD }).await;
        }
    }

    /// Puts the next rung off.
    async fn by(&self, time: Duration) -> Given {
        match self {
            Self::Shim(shim) => match tokio::time::timeout(STOP_ANSWER, shim.extend(time)).await {
                Ok(Ok(())) => Given::Yes,
                Ok(Err(ShimError::Gone)) => Given::Gone,
                Ok(Err(ShimError::Refused(_))) => Given::No,
                _ => Given::Unknown,
            },
            Self::Orphan(orphan) if orphan.extend(time) => Given::Yes,
            Self::Orphan(_) => Given::Gone,
        }
    }
}

/// What became of a request for more time.
enum Given {
    Yes,
    /// Refused: the ladder goes on as it was.
    No,
    /// There was no answer.
    Unknown,
    /// There is nobody left to ask.
    Gone,
}

struct Look {
    sample: Sample,
    took: Duration,
}

/// One look.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    worlds: Tally,
    /// Bytes the processes had written to disks; none where that may not be read.
    written: Option<u64>,
}

fn progressed(before: &Sample, after: &Sample) -> bool {
    let written = match (before.written, after.written) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => 0,
    };
    let changed = after.worlds.changes != before.worlds.changes;
    let grown = after.worlds.blocks > before.worlds.blocks && after.worlds.bytes > before.worlds.bytes;
    grown || changed && written >= LEAST_WRITTEN
}

/// Gone, or about to be: whoever sleeps in the kernel dies when it wakes up.
fn is_killed(process: ProcessId) -> bool {
    if !process.is_alive() {
        return true;
    }
    let status =
        zlh_shim::durable::read_bounded(&PathBuf::from(format!("/proc/{}/status", process.pid)), MAX_IO);
    let Ok(status) = status else { return true };
    let status = String::from_utf8_lossy(&status);
    // Its memory is gone, or going: nothing of it runs any more.
    let ends = !status.lines().any(|line| line.starts_with("VmSize:"));
    ends || status.lines().any(|line| {
        let pending = line.strip_prefix("ShdPnd:").or_else(|| line.strip_prefix("SigPnd:"));
        pending.is_some_and(|set| u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & (1 << 8) != 0))
    })
}

/// A plan that grants less than [`QUIET`] is not made longer by more than it grants.
pub(super) fn quiet(plan: &StopPlan) -> Duration {
    let granted = Duration::from_millis(plan.grace_ms.max(plan.term_ms));
    QUIET.min(granted).max(Duration::from_millis(100))
}

/// `write_bytes` of the process and its descendants. What goes to a terminal is not in it.
fn written(process: ProcessId) -> Option<u64> {
    let own = written_by(process.pid)?;
    let others = descendants(process.pid).into_iter().filter_map(|child| written_by(child.pid));
    Some(others.fold(own, u64::saturating_add))
}

fn written_by(pid: i32) -> Option<u64> {
    let path = PathBuf::from(format!("/proc/{pid}/io"));
    let bytes = zlh_shim::durable::read_bounded(&path, MAX_IO).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(bytes: u64, blocks: u64, changes: u64, written: Option<u64>) -> Sample {
        Sample { worlds: Tally { files: 1, bytes, blocks, changes }, written }
    }

    #[test]
    fn only_bytes_are_progress() {
        let before = sample(9000, 100, 7, Some(50_000));
        for (after, expected, what) in [
            (before, false, "nothing"),
            (sample(13_096, 108, 8, Some(50_000)), true, "a file grew"),
            (sample(13_096, 108, 8, None), true, "a file grew, and nothing is known of the processes"),
            (sample(9000, 92, 8, Some(50_000)), false, "a file was deleted"),
            (sample(9000, 100, 8, Some(50_000)), false, "a file was touched"),
            (sample(9000, 108, 8, Some(50_000)), false, "it was touched while earlier bytes got their space"),
            (sample(1 << 40, 100, 8, Some(50_000)), false, "a size was set and nothing written"),
            (sample(9000, 100, 8, Some(66_384)), false, "a file was touched and logs written"),
            (sample(9000, 100, 8, None), false, "a file was touched, and nothing is known of the processes"),
            (sample(9000, 100, 8, Some(115_536)), true, "a file was written in place"),
            (sample(9000, 116, 8, Some(115_536)), true, "a hole in a file was filled"),
            (sample(9000, 100, 7, Some(90_000_000)), false, "something else was written"),
            (sample(9000, 100, 8, Some(0)), false, "a child is gone, and its count with it"),
        ] {
            assert_eq!(progressed(&before, &after), expected, "{what}");
        }
    }

    #[test]
    fn a_short_plan_stays_short() {
        let plan = |grace_ms, term_ms| StopPlan { grace_ms, term_ms, ..StopPlan::default() };
        assert_eq!(quiet(&plan(90_000, 20_000)), QUIET);
        assert_eq!(quiet(&plan(2000, 1000)), Duration::from_secs(2));
        assert_eq!(quiet(&plan(0, 0)), Duration::from_millis(100));
    }

    #[test]
    fn what_this_process_writes_is_counted() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(written(me).is_some(), "the own figures can be read");
        assert_eq!(written(ProcessId { pid: i32::MAX, start_ticks: 0 }), None);
    }
}
