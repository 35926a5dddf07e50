//! What the driver's tasks report, and what follows from it.

use std::time::Duration;

use slog::{info, warn};
use tokio::sync::{mpsc, watch};
use zlh_shim::process::ProcessId;
use zlh_shim::proto;
use zlh_shim::record::{ExitRecord, ShimRecord, StopStage};

use super::boot::{lost, record_from_status};
use super::driver::{Driver, Event, Holder, Run};
use super::exits;
use super::machine::{Observation, Phase};
use super::orphan::End;
use super::regain::is_frozen;
use super::saving::Granted;
use super::shim_client::ShimClient;
use super::stored::BootTime;
use crate::clock;
use crate::errors::chain;
use crate::game::plan::Installed;
use crate::game::probe::Seen;
use crate::install::InstallError;

impl Driver {
    pub(super) async fn hear(&mut self, event: Event) {
        match event {
            Event::InstallStep { operation, step } => {
                if self.is_current(&operation) {
                    self.install_step = step;
                }
            }
            Event::InstallEnded { operation, result } => {
                if self.is_current(&operation) || matches!(self.machine.phase(), Phase::Installing { .. }) {
                    self.install_ended(result);
                }
            }
            Event::Spawned { instance, result } => self.spawned(instance, result).await,
            Event::TooLate { instance } => self.start_came_too_late(&instance),
            // What is published after every event tells it.
            Event::Checked => {}
            // Once nobody trusts the shim, the end is told by whoever follows the run instead.
            Event::Shim { connection, status } if self.is_attached(connection) => {
                let Some(run) = &mut self.run else { return };
                run.last = status.clone();
                run.hold();
                if status.exit.is_some() {
                    self.exited(&status).await;
                }
            }
            Event::Shim { .. } => {}
            Event::ShimGone { connection } => {
                if self.is_attached(connection) {
                    self.shim_gone(None).await;
                }
            }
            Event::ShimStuck { connection, distrust } => {
                if self.is_attached(connection) {
                    warn!(self.context.log, "the shim does not do its work; going on without it");
                    self.shim_gone(distrust).await;
                }
            }
            Event::Orphaned { instance, trouble } => {
                if let Some(run) = self.run.as_mut().filter(|run| run.instance == instance) {
                    warn!(self.context.log, "the server runs without a shim"; "why" => %trouble);
                    run.trouble = Some(trouble);
                }
            }
            Event::OrphanEnded { instance, end } => {
                if self.run.as_ref().is_some_and(|run| run.instance == instance) {
                    self.orphan_ended(end).await;
                }
            }
            Event::Regained { instance, shim } => {
                if let Some(run) = self.run.take_if(|run| run.instance == instance) {
                    let adoptions = shim.status().borrow().adopted.map_or(0, |adopted| adopted.times);
                    info!(self.context.log, "the server has a shim again"; "adoptions" => adoptions);
                    self.note_recovered();
                    self.attach(shim, run.ready_since);
                }
            }
            Event::Explained { instance, record } => self.explained(&instance, *record),
            Event::Tended(result) => self.tended(result),
            Event::Probe { instance, seen } => {
                if self.run.as_ref().is_some_and(|run| run.instance == instance) {
                    self.probed(seen);
                }
            }
        }
    }

    /// Whether news are of the connection that holds the run, and not of one before it.
    fn is_attached(&self, connection: u64) -> bool {
        self.run.as_ref().and_then(Run::shim).is_some_and(|shim| shim.id() == connection)
    }

    fn is_current(&self, operation: &str) -> bool {
        self.operation.as_ref().is_some_and(|current| current.id == operation)
    }

    fn install_ended(&mut self, result: Option<Result<Box<Installed>, InstallError>>) {
        self.install_step.clear();
        self.cancel_install = None;
        match result {
            None => self.observe(Observation::InstallCancelled),
            Some(Err(error)) => {
                let reason = chain(&error);
                warn!(self.context.log, "installation failed"; "error" => &reason);
                self.observe(Observation::InstallFailed(reason));
            }
            Some(Ok(installed)) => {
                let what = format!("{}/{} {}", installed.game, installed.variant, installed.version);
                info!(self.context.log, "installed"; "what" => &what);
                self.note_installed(what);
                self.installed = Some(*installed);
                self.observe(Observation::Installed);
            }
        }
    }

    async fn spawned(&mut self, instance: String, result: Result<ShimClient, String>) {
        if self.starting.as_ref() != Some(&instance) {
            return;
        }
        self.starting = None;
        match result {
            Ok(shim) => self.attach(shim, None),
            // It may have been started and lost sight of.
            Err(reason) => {
                warn!(self.context.log, "the server could not be started"; "error" => &reason);
                if !self.take_over_in_time(&instance, &reason).await {
                    return self.observe(Observation::SpawnFailed(reason));
                }
            }
        }
        self.observe(Observation::Spawned);
    }

    /// Takes over a run: its shim's news become events.
    pub(super) fn attach(&mut self, shim: ShimClient, ready_since: Option<BootTime>) {
        let instance = shim.instance().to_owned();
        let mut status = shim.status();
        let events = self.events_in.clone();
        let connection = shim.id();
        if let Some(process) = shim.shim() {
            tokio::spawn(watch_over(process, status.clone(), connection, events.clone()));
        }
        tokio::spawn(async move {
            let mut sequence = None;
            loop {
                let now = status.borrow_and_update().clone();
                if sequence != Some(now.sequence) {
                    sequence = Some(now.sequence);
                    let event = Event::Shim { connection, status: now };
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                if status.changed().await.is_err() {
                    drop(events.send(Event::ShimGone { connection }).await);
                    return;
                }
            }
        });
        self.shim_slot.send_replace(Some(shim.clone()));
        let last = shim.status().borrow().clone();
        let mut run =
            Run { instance, holder: Holder::Shim(shim), ready_since, last, living: None, trouble: None };
        run.hold();
        self.run = Some(run);
        // A stop that was asked for while nobody could hear it.
        if matches!(self.machine.phase(), Phase::Stopping { .. }) || self.shutdown.has_begun() {
            self.go_on_stopping();
        }
        self.check_launcher();
    }

    /// Looks, beside everything else, whether a stop of our own unit would end the workload.
    pub(super) fn check_launcher(&self) {
        let (launcher, events) = (self.context.launcher.clone(), self.events_in.clone());
        let shim =
            self.run.as_ref().and_then(|_| ShimRecord::read(&self.context.run_dir).ok()).map(|r| r.shim);
        tokio::spawn(async move {
            launcher.check(shim).await;
            drop(events.send(Event::Checked).await);
        });
    }

    fn probed(&mut self, seen: Seen) {
        let before = self.machine.phase().clone();
        match seen {
            Seen::Answers => {
                self.silent.clear();
                let starting = !matches!(self.machine.phase(), Phase::Running { .. });
                if let Some(run) = &mut self.run
                    && run.ready_since.is_none()
                {
                    run.ready_since = BootTime::after(Duration::ZERO);
                    self.memory.ready = run.ready_since.clone().map(|at| (run.instance.clone(), at));
                }
                self.memory.last_ready_at = Some(crate::clock::now_rfc3339());
                self.observe(Observation::Answers);
                self.remember();
                if starting {
                    info!(self.context.log, "ready");
                    self.remember_good();
                }
            }
            Seen::Occupied(somebody) => self.occupied = somebody,
            Seen::Silent(why) => {
                self.silent.clone_from(&why);
                if self.machine.ready() {
                    warn!(self.context.log, "the server does not answer any more"; "why" => &why);
                }
                self.observe(Observation::Silent(why));
            }
        }
        self.note_probe(&before);
    }

    /// The main process has ended and the shim has recorded it.
    async fn exited(&mut self, status: &proto::Status) {
        let Some(shim) = self.run.as_ref().and_then(Run::shim).cloned() else { return };
        let Some(run) = self.run.take() else { return };
        let record = self.exit_record(&run.instance, status);
        self.before = Some(shim.clone());
        self.count_exit(&record, run.ready_since.as_ref()).await;
        let _ = zlh_shim::faults::point("exit.counted");
        // What is counted and remembered need not be kept by the shim any longer. A start may
        // have begun already: it was given the shim to wait for.
        tokio::spawn(async move { drop(shim.acknowledge().await) });
    }

    /// It ended without a shim.
    async fn orphan_ended(&mut self, end: End) {
        let Some(run) = self.run.take() else { return };
        let record = match end {
            End::Recorded(record) => *record,
            End::Seen(exit) => {
                let stopping =
                    matches!(self.machine.phase(), Phase::Stopping { .. }) || self.shutdown.has_begun();
                let record = ExitRecord {
                    exit,
                    stop: stopping.then_some(StopStage::Term),
                    console_end: self.console.head(),
                    ..lost(&run.instance, &run.last, "")
                };
                // An agent that is killed now leaves what was seen to the next one.
                let _ = record.write(&self.context.run_dir, None);
                record
            }
        };
        self.count_exit(&record, run.ready_since.as_ref()).await;
    }

    /// The record on disk, or what the shim told if the disk had no room for it.
    fn exit_record(&self, instance: &str, status: &proto::Status) -> ExitRecord {
        ExitRecord::read(&self.context.run_dir, instance)
            .unwrap_or_else(|_| record_from_status(instance, status))
    }

    /// Judges an exit, counts it, and tells the machine.
    pub(super) async fn count_exit(&mut self, record: &ExitRecord, ready_since: Option<&BootTime>) {
        self.leave_run();
        let ready_for = ready_since.and_then(|at| at.until(record.ended_boot_ms)).unwrap_or_default();
        let verdict = exits::judge(record, &self.console, ready_since.is_some(), ready_for).await;
        self.memory.counted = Some(record.instance.clone());
        self.note_exit(record, &verdict, ready_since.is_some());
        let stopping = matches!(self.machine.phase(), Phase::Stopping { .. });
        let what = exits::words(&record.exit);
        if stopping || verdict.ended.intended {
            info!(self.context.log, "the server has ended"; "exit" => what, "uptime_ms" => record.uptime_ms);
        } else {
            warn!(self.context.log, "the server has ended unexpectedly"; "exit" => what, "uptime_ms" => record.uptime_ms);
            self.explain(record, verdict.crash.clone());
            self.memory.last_crash = Some(verdict.crash);
        }
        let total = self.machine.policy().total;
        self.observe(Observation::Exited(verdict.ended));
        self.note_decision(total);
        // A shim that was told to stop by somebody else (a container that shuts down) takes
        // nothing back: what was wanted is started again at the next boot. Nor does a server that
        // only says what our own stop made it do.
        if verdict.stopped_inside && !stopping {
            self.memory.wanted = false;
        }
        self.remember();
    }

    /// Forgets everything that belonged to the run that ended.
    fn leave_run(&mut self) {
        self.run = None;
        self.memory.stopping = None;
        self.stop_begun = None;
        self.granted = Granted::default();
        self.answers_due = None;
        self.silent.clear();
        self.shim_slot.send_replace(None);
        self.occupied = false;
        for task in [self.prober.take(), self.saving.take()].into_iter().flatten() {
            task.abort();
        }
    }
}

/// Looks whether the shim was stopped by a signal: it would not know to tell. Ends with the
/// connection.
async fn watch_over(
    shim: ProcessId,
    status: watch::Receiver<proto::Status>,
    connection: u64,
    events: mpsc::Sender<Event>,
) {
    let mut looks = 0;
    // The connection is gone when nobody can publish a status any more.
    while status.has_changed().is_ok() {
        // Nobody waits for this: a stop does not trust a shim that does not answer.
        match looks {
            0 => clock::beat().await,
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
        looks = if is_frozen(&shim) { looks + 1 } else { 0 };
        if looks == FROZEN_LOOKS {
            drop(events.send(Event::ShimStuck { connection, distrust: None }).await);
            return;
        }
    }
}

/// Between two looks once it was found stopped.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Looks in a row that find it stopped: a moment is nobody's trouble.
const FROZEN_LOOKS: u32 = 3;
