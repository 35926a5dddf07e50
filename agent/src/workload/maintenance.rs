//! Maintenance: what runs is stopped, or kept, and nothing is started until somebody ends it.
//!
//! It is a gate, not a state: what was wanted stays wanted, a restart after a crash stays planned,
//! and both are done when it is over. Its record is a file of its own, so that no other record that
//! is lost or damaged ends it; one that is damaged itself still holds.

use serde::{Deserialize, Serialize};
use slog::{info, warn};
use zlh_api::{ErrorCode, OperationKind, Problem};
use zlh_shim::process::carriers;
use zlh_shim::spec::Spec;

use super::driver::Driver;
use super::handle::{Outcome, Repair, Verb};
use super::machine::{Command, Phase, Refusal};
use super::orphan::clear_slot;
use crate::errors::chain;

/// `state/maintenance.json`, as long as it lasts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maintenance {
    /// RFC 3339, to show; none when the record was damaged.
    pub since: Option<String>,
    /// What the operator said.
    pub reason: Option<String>,
    /// Whoever is killed before the stop was begun leaves it to the next agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops: Option<Owed>,
}

/// A stop for a maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owed {
    /// The run that is stopped.
    pub run: String,
    /// Without warning anybody.
    pub now: bool,
}

impl Maintenance {
    /// For people, without an end of sentence.
    pub(crate) fn words(&self) -> String {
        let since = self.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("in maintenance{since}{reason}")
    }
}

impl Driver {
    /// At boot, before anything could be started.
    pub(super) fn recall_maintenance(&mut self) {
        let maintenance = self.context.shelf.maintenance().unwrap_or_else(|error| {
            let reason = format!("its record cannot be read ({})", chain(&error));
            warn!(self.context.log, "in maintenance: {reason}");
            Some(Maintenance { reason: Some(reason), ..Maintenance::default() })
        });
        if maintenance.is_some() {
            self.hold(maintenance);
            self.publish();
        }
    }

    /// At boot, once what runs was found: an earlier agent may have had no time to stop it.
    pub(super) async fn stop_for_maintenance(&mut self) {
        let Some(owed) = self.maintenance.as_ref().and_then(|maintenance| maintenance.stops.clone()) else {
            return;
        };
        let running = self.run.as_ref().map(|run| &run.instance);
        if running == Some(&owed.run) && !matches!(self.machine.phase(), Phase::Stopping { .. }) {
            info!(self.context.log, "stopping for maintenance what the agent before had no time to stop");
            // A stop is never refused.
            let _ = self.stop_and_keep_wanted(owed.now);
        } else if running.is_none() && self.memory.counted.as_ref() != Some(&owed.run) {
            self.call_off(owed.run).await;
        }
    }

    /// A run that was begun and of which nothing is to be seen yet: its shim may be on its way, and
    /// would start what nobody stops.
    async fn call_off(&self, run: String) {
        let run_dir = self.context.run_dir.clone();
        let begun = tokio::task::spawn_blocking(move || {
            Spec::read(&run_dir).is_ok_and(|spec| spec.instance == run) && carriers(&run).is_empty()
        });
        if begun.await.unwrap_or(false) {
            clear_slot(&self.context.run_dir, None).await;
        }
    }

    fn stop_and_keep_wanted(&mut self, now: bool) -> Result<Outcome, Problem> {
        self.maintaining = true;
        let outcome = self.stop(now);
        self.maintaining = false;
        outcome
    }

    /// `PUT /maintenance`. Once more while it lasts: another reason, if one is given (an empty one
    /// is none), and what still runs is stopped.
    pub(super) fn maintain(
        &mut self,
        reason: Option<String>,
        keep_running: bool,
        now: bool,
    ) -> Result<Outcome, Problem> {
        if self.context.paths.change().exists() {
            let detail = "a change of version is under way: wait for it, or stop it";
            return Err(Problem::new(ErrorCode::OperationInProgress, detail));
        }
        // A damaged record says nothing that is worth keeping.
        let before = self.maintenance.as_ref().filter(|before| before.since.is_some());
        let since = before.and_then(|before| before.since.clone());
        let since = since.or_else(|| Some(crate::clock::now_rfc3339()));
        let reason = match reason {
            None => before.and_then(|before| before.reason.clone()),
            Some(reason) => Some(reason).filter(|reason| !reason.is_empty()),
        };
        let stops = !keep_running
            && match self.machine.phase() {
                // What has failed goes on saying why.
                Phase::Idle | Phase::Error { alive: false, .. } => false,
                // It ends here by itself, also if it was to be a restart.
                Phase::Stopping { .. } => now,
                _ => true,
            };
        let running = self.run.as_ref().map(|run| &run.instance).or(self.starting.as_ref());
        let owed = running.filter(|_| stops).map(|run| Owed { run: run.clone(), now });
        let stops_run = owed.or_else(|| before.and_then(|before| before.stops.clone()));
        let maintenance = Maintenance { since, reason, stops: stops_run };
        if self.maintenance.as_ref() != Some(&maintenance) {
            let says_the_same = before.is_some_and(|before| before.reason == maintenance.reason);
            match self.context.shelf.store_maintenance(&maintenance) {
                // It holds already, and no disk keeps anybody from stopping.
                Err(error) if says_the_same => {
                    warn!(self.context.log, "the stop for maintenance cannot be recorded"; "why" => chain(&error));
                }
                Err(error) => {
                    if self.maintenance.is_none() {
                        // It may be there all the same, and would hold the next agent.
                        let _ = self.context.shelf.forget_maintenance();
                    }
                    let detail = format!("maintenance cannot be recorded: {error}; free some disk space");
                    return Err(Problem::new(ErrorCode::Internal, detail));
                }
                Ok(()) => {}
            }
            if !says_the_same {
                info!(self.context.log, "maintenance"; "reason" => maintenance.reason.as_deref().unwrap_or("none given"));
                self.note_maintenance(&maintenance);
            }
            self.hold(Some(maintenance));
        }
        if !stops {
            return Ok(self.nothing_begun());
        }
        self.stop_and_keep_wanted(now)
    }

    /// `DELETE /maintenance`. `start`: what was wanted runs again. Without any, nothing happens.
    pub(super) fn end_maintenance(&mut self, start: bool) -> Result<Outcome, Problem> {
        if self.maintenance.is_none() {
            return Ok(self.nothing_begun());
        }
        let phase = self.machine.phase();
        if matches!(phase, Phase::Installing { cancelled: true }) {
            return Err(self.refuse(Refusal::Busy));
        }
        let down = matches!(phase, Phase::Idle | Phase::Crashed { .. });
        let stops = matches!(phase, Phase::Stopping { .. });
        let starts = start && self.memory.wanted && (down || stops);
        if starts && down {
            self.check_runtimes(&Verb::Start)?;
        }
        let mut outcome = self.nothing_begun();
        if !start && (down || stops) {
            // First: whoever is killed in between starts nothing. Also not what a crash had planned.
            outcome = self.command(Command::Stop, OperationKind::Stop)?;
        }
        if let Err(error) = self.context.shelf.forget_maintenance()
            && self.context.shelf.has_maintenance()
        {
            let detail = format!("the record of the maintenance cannot be removed: {error}");
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
        info!(self.context.log, "maintenance is over"; "starts" => starts);
        self.note_maintenance_over();
        self.hold(None);
        if starts && down {
            outcome = self.command(Command::Start, OperationKind::Start)?;
        } else if starts && let Some(admission) = self.machine.restart_after_stop() {
            outcome = self.accept(admission, OperationKind::Restart);
        }
        Ok(outcome)
    }

    /// Refuses what would start the game in the end. What the machine is asked it refuses itself.
    pub(super) fn check_maintenance(&self, verb: &Verb) -> Result<(), Problem> {
        let starts = match verb {
            Verb::Repair { repair, .. } => !matches!(repair, Repair::FreePort(_) | Repair::DisableAddon(_)),
            Verb::Reconfigure(_) | Verb::TakeBack { .. } => true,
            _ => false,
        };
        if starts && self.maintenance.is_some() { Err(self.in_maintenance()) } else { Ok(()) }
    }

    /// Why nothing is started, and what to do.
    pub(super) fn in_maintenance(&self) -> Problem {
        let words = self.maintenance.as_ref().map(Maintenance::words).unwrap_or_default();
        refusal(&words)
    }

    fn nothing_begun(&self) -> Outcome {
        Outcome { state: self.machine.state(), operation: None }
    }

    fn hold(&mut self, maintenance: Option<Maintenance>) {
        self.machine.set_held(maintenance.is_some());
        self.maintenance = maintenance;
    }
}

/// For what would begin something; `words`: [`Maintenance::words`].
pub(crate) fn refusal(words: &str) -> Problem {
    let detail = format!(
        "the server is {words}. End that with DELETE /maintenance (zlhctl maintenance off), or ask whoever began it"
    );
    Problem::new(ErrorCode::Maintenance, detail)
}
