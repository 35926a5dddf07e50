//! Finding a shim for a workload that lost its own: the one that answers again, or a new
//! one that adopts it.

use std::fmt;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use zlh_shim::connect::ConnectError;
use zlh_shim::handover;
use zlh_shim::process::{self, Generation, ProcessId};
use zlh_shim::proto;
use zlh_shim::record::ShimRecord;

use super::drain::Legacy;
use super::launcher::{Launcher, Order};
use super::shim_client::ShimClient;
use crate::errors::chain;

/// Shims lost within this time count against the next adoption.
const RECENT: Duration = Duration::from_secs(60);

/// Before the next adoption, after so many recent ones: a shim that always dies must not
/// be all that this machine does.
const PAUSES: [Duration; 7] = [
    Duration::ZERO,
    Duration::ZERO,
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
];

/// Why a workload has no shim that serves it. Display is for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Killed, and the terminal with it.
    NoTerminal,
    /// Killed, and no other could take its place so far.
    NotAdopted(String),
    /// Stopped by a signal.
    Frozen(i32),
    /// It lives and cannot be used.
    Unusable { pid: i32, why: String },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SIGNALS: &str = "it can be stopped, but takes no input and what it prints is lost";
        match self {
            Self::NoTerminal => {
                write!(
                    f,
                    "shim and agent were both killed, and the server's terminal with them; {SIGNALS}; restart the server at a quiet time"
                )
            }
            Self::NotAdopted(why) => {
                write!(
                    f,
                    "its shim was killed and no other could take its place ({why}); it can be stopped, but takes no input; it is tried again"
                )
            }
            Self::Frozen(pid) => {
                write!(
                    f,
                    "its shim is frozen; the server waits as soon as its terminal is full of output; continue the shim with `kill -CONT {pid}`, or stop the server"
                )
            }
            Self::Unusable { pid, why } => {
                write!(
                    f,
                    "its shim (pid {pid}) cannot be used: {why}; the server goes on and can be stopped, its console is not served; restart it at a quiet time"
                )
            }
        }
    }
}

/// What is known of a workload without a shim.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub instance: String,
    pub child: ProcessId,
    /// The shim it had, which may be frozen rather than gone.
    pub shim: Option<ProcessId>,
    pub run_dir: PathBuf,
    /// Terminal and memory, if this agent was connected when the shim died.
    pub legacy: Option<Legacy>,
    /// For a record that has to be written anew.
    pub last: proto::Status,
    /// Why its shim is not asked again, although it answers.
    pub distrust: Option<String>,
    /// What starts another shim.
    pub launcher: Launcher,
    /// How long its ladder takes at most when the container shuts down.
    pub shutdown: Duration,
}

impl Known {
    /// The shim's process, if it is there: frozen, not to be used, or just starting.
    pub(super) fn living_shim(&self) -> Option<ProcessId> {
        let recorded = ShimRecord::read(&self.run_dir).ok().filter(|record| {
            record.instance == self.instance
                && Generation::current().is_ok_and(|now| now == record.generation)
        });
        let shims = recorded.map(|record| record.shim).into_iter().chain(self.shim);
        shims.into_iter().find(ProcessId::is_alive)
    }

    /// Tries once: a shim that answers, or a new one.
    pub(super) async fn regain(&self, head: watch::Sender<u64>) -> Result<ShimClient, Trouble> {
        if let Some(shim) = self.living_shim().filter(is_frozen) {
            return Err(Trouble::Frozen(shim.pid));
        }
        // Whoever broke its word is not asked again, whatever answers in its place.
        let why = match &self.distrust {
            Some(why) => why.clone(),
            None => match ShimClient::connect(&self.run_dir, &self.instance, head.clone()).await {
                Ok(shim) => return Ok(shim),
                Err(error) => explain(&error),
            },
        };
        if let Some(shim) = self.living_shim() {
            return Err(match is_frozen(&shim) {
                true => Trouble::Frozen(shim.pid),
                false => Trouble::Unusable { pid: shim.pid, why },
            });
        }
        let Some(legacy) = &self.legacy else { return Err(Trouble::NoTerminal) };
        let known_head = *head.borrow();
        // A shim that is too slow is ended by the launcher.
        adopt(self, legacy, known_head).await.map_err(Trouble::NotAdopted)?;
        let connected = ShimClient::connect(&self.run_dir, &self.instance, head).await;
        connected.map_err(|error| Trouble::NotAdopted(chain(&error)))
    }
}

/// Stopped by a signal, not by a debugger.
pub(super) fn is_frozen(process: &ProcessId) -> bool {
    process::stat(process.pid).is_ok_and(|stat| stat.start_ticks == process.start_ticks && stat.state == b'T')
}

async fn adopt(known: &Known, legacy: &Legacy, head: u64) -> Result<(), String> {
    repair_record(known).map_err(|error| format!("its record cannot be written: {error}"))?;
    let flight = legacy.flight.as_ref().map(|fd| fd.as_fd());
    let socket = handover::pack(legacy.master.as_fd(), flight)
        .map_err(|error| format!("the terminal cannot be handed over: {error}"))?;
    let head = head.to_string();
    let arguments: &[&str] = &["--adopt", &head];
    let order = Order { run_dir: &known.run_dir, arguments, stdin: Some(socket), shutdown: known.shutdown };
    known.launcher.launch(order).await.map_err(|error| chain(&error))
}

/// The new shim takes the workload's identity from the record. One that is damaged, or that
/// names another run, is replaced by what this agent knows from having been connected.
fn repair_record(known: &Known) -> std::io::Result<()> {
    let whole = |record: ShimRecord| record.instance == known.instance && record.child == Some(known.child);
    if ShimRecord::read(&known.run_dir).is_ok_and(whole) || known.child.pid <= 0 {
        return Ok(());
    }
    let nobody = ProcessId { pid: 0, start_ticks: 0 };
    let adopted = known.last.adopted;
    ShimRecord {
        instance: known.instance.clone(),
        shim: known.shim.unwrap_or(nobody),
        child: Some(known.child),
        generation: Generation::current()?,
        version: crate::version().to_owned(),
        protocol: proto::VERSIONS,
        started_unix_ms: known.last.started_unix_ms,
        started_boot_ms: known.last.started_boot_ms,
        console_start: known.last.log_run_start,
        oom_before: None,
        adoptions: adopted.map_or(0, |adopted| adopted.times),
        lost_bytes: adopted.map_or(0, |adopted| adopted.lost_bytes),
    }
    .write(&known.run_dir)
}

/// In words that say what to do.
pub(super) fn explain(error: &ConnectError) -> String {
    match error {
        ConnectError::Refused(refusal) if refusal.code == "version" => {
            let (low, high) = proto::VERSIONS;
            format!("{refusal}, and this agent {low} to {high}; go back to the agent version that started it")
        }
        other => chain(other),
    }
}

/// How often shims were lost lately.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Instant>);

impl Losses {
    /// One more; answers how long to wait before another is started.
    pub(super) fn count(&mut self, now: Instant) -> Duration {
        self.0.retain(|at| now.saturating_duration_since(*at) < RECENT);
        let pause = pause(self.0.len());
        if self.0.len() < PAUSES.len() {
            self.0.push(now);
        }
        pause
    }
}

/// Before the next try, after so many.
pub(super) fn pause(tries: usize) -> Duration {
    PAUSES[tries.min(PAUSES.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_that_always_dies_is_started_ever_more_seldom() {
        let mut losses = Losses::default();
        let start = Instant::now();
        let pauses: Vec<u64> = (0..10).map(|_| losses.count(start).as_secs()).collect();
        assert_eq!(pauses, [0, 0, 0, 1, 2, 5, 15, 15, 15, 15]);
        assert_eq!(losses.count(start + RECENT), Duration::ZERO, "forgiven after a quiet minute");
    }

    #[test]
    fn a_version_that_does_not_match_comes_with_the_remedy() {
        let refusal = proto::Refusal {
            code: "version".to_owned(),
            message: "this shim speaks protocol 7 to 9".to_owned(),
        };
        let why = explain(&ConnectError::Refused(refusal));
        assert!(why.starts_with("this shim speaks protocol 7 to 9, and this agent 1 to "), "{why}");
        let text = Trouble::Unusable { pid: 5, why: "it is odd".to_owned() }.to_string();
        assert!(text.contains("restart it at a quiet time"), "{text}");
    }
}
