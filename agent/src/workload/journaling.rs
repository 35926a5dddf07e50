//! What the driver notes in the journal: from what it saw to entries, nothing else.
//!
//! Every function here is called where something was observed or admitted, and only
//! queues an entry; none waits, none fails, none decides.

use std::time::Duration;

use tokio::time::Instant;
use zlh_api::{CrashRecord, OperationKind, OperationState, OperationSummary};
use zlh_shim::record::{Exit, ExitRecord};

use super::driver::Driver;
use super::exits::Verdict;
use super::machine::Phase;
use super::maintenance::Maintenance;
use super::stored::BootTime;
use crate::journal::{self, By, Stamp, What, Why};

impl Driver {
    fn note(&self, what: What) {
        self.context.journal.record(what);
    }

    /// An operation has begun.
    pub(super) fn note_operation(&self, operation: &OperationSummary) {
        self.note(What::OperationBegan { id: operation.id.clone(), kind: operation.kind });
    }

    /// An operation has ended.
    pub(super) fn note_operation_end(
        &self,
        operation: &OperationSummary,
        state: OperationState,
        error: Option<&str>,
    ) {
        self.note(What::OperationEnded {
            id: operation.id.clone(),
            kind: operation.kind,
            state,
            error: error.map(str::to_owned),
        });
    }

    /// Somebody wants it down, for good or for a moment.
    pub(super) fn note_stop(&self, operation: &OperationSummary) {
        let stopping = matches!(self.machine.phase(), Phase::Stopping { .. });
        if operation.kind == OperationKind::Stop || stopping {
            let restart = operation.kind != OperationKind::Stop;
            self.note(What::Stop { operation: operation.id.clone(), restart });
        }
    }

    /// Maintenance has begun, or is for another reason now.
    pub(super) fn note_maintenance(&self, maintenance: &Maintenance) {
        self.note(What::Maintenance { reason: maintenance.reason.clone() });
    }

    /// It is over.
    pub(super) fn note_maintenance_over(&self) {
        self.note(What::MaintenanceOver {});
    }

    /// Why a start begins. Called before a planned restart is forgotten.
    pub(super) fn why_start(&mut self) -> Why {
        let unasked = std::mem::take(&mut self.unasked);
        if self.memory.restart_at.as_ref().and_then(BootTime::left).is_some() {
            Why::Backoff
        } else if unasked {
            Why::Boot
        } else {
            Why::Operation
        }
    }

    /// A start has begun.
    pub(super) fn note_start(&self, instance: &str, why: Why) {
        let attempt = self.machine.policy().ladder.saturating_add(1);
        self.note(What::Start { instance: instance.to_owned(), attempt, why });
    }

    /// A living process of an earlier agent was found.
    pub(super) fn note_found(&self, instance: &str, started_boot_ms: u64) {
        self.note(What::Found { instance: instance.to_owned(), boot: started_boot_ms });
    }

    /// Nothing runs.
    pub(super) fn note_absent(&self) {
        self.note(What::Absent { wanted: self.memory.wanted });
    }

    /// The container was restarted under it.
    pub(super) fn note_swept(&self) {
        self.note(What::Swept {});
    }

    /// The probe has spoken, and the machine has heard it. `was`: the phase before.
    pub(super) fn note_probe(&mut self, was: &Phase) {
        let running = |phase: &Phase| matches!(phase, Phase::Running { .. });
        let silent = |phase: &Phase| matches!(phase, Phase::Running { silent: Some(_) });
        match self.machine.phase() {
            Phase::Running { silent: None } if silent(was) => self.note_answers(),
            Phase::Running { silent: None } if !running(was) => {
                self.flaps.begin();
                let Some(run) = &self.run else { return };
                let after = zlh_shim::holder::boot_ms().checked_sub(run.last.started_boot_ms);
                self.note(What::Ready {
                    instance: run.instance.clone(),
                    // Unknown of an orphan; since boot is no answer.
                    after_ms: after.filter(|_| run.last.started_boot_ms > 0),
                });
            }
            Phase::Running { silent: Some(why) } if !silent(was) => {
                let why = why.clone();
                self.answers_due = None;
                if self.flaps.silent() {
                    self.note(What::Silent { why });
                }
            }
            _ => {}
        }
    }

    /// It answers again, and may have done so for a while.
    pub(super) fn note_answers(&mut self) {
        self.answers_due = None;
        if !self.machine.ready() {
            return;
        }
        match self.flaps.answers(std::time::Instant::now()) {
            Ok(()) => self.note(What::Answers {}),
            Err(wait) => self.answers_due = Some(Instant::now() + wait),
        }
    }

    /// Something has failed; where that left the machine says what.
    pub(super) fn note_failure(&self) {
        match self.machine.phase() {
            Phase::Error { reason, alive: true } => self.note(What::NotReady { why: reason.clone() }),
            Phase::Error { reason, alive: false } => self.note(What::GaveUp { why: reason.clone() }),
            Phase::Crashed { failed: Some(reason) } => {
                self.note(What::StartFailed { why: reason.clone(), restart_after_s: self.planned_in_s() });
            }
            _ => {}
        }
    }

    /// The main process has ended. What never ran has no end: the failure says all.
    pub(super) fn note_exit(&self, record: &ExitRecord, verdict: &Verdict, was_ready: bool) {
        if verdict.ended.never_ran.is_some() {
            return;
        }
        let stopping = matches!(self.machine.phase(), Phase::Stopping { .. });
        let by = if stopping || (record.stop.is_some() && !self.memory.wanted) {
            Some(By::Operation)
        } else if verdict.stopped_inside {
            Some(By::Inside)
        } else {
            verdict.ended.intended.then_some(By::Outside)
        };
        let (code, signal, lost) = match &record.exit {
            Exit::Exited { code } => (Some(*code), 0, None),
            Exit::Killed { signal, .. } => (None, *signal, None),
            Exit::ExecFailed { step, .. } => (None, 0, Some(step.clone())),
            Exit::Lost { reason } => (None, 0, Some(reason.clone())),
        };
        self.note(What::Exit(Box::new(journal::Exit {
            instance: record.instance.clone(),
            ended: Stamp {
                at: i64::try_from(record.ended_unix_ms).unwrap_or(i64::MAX),
                boot: record.ended_boot_ms,
                life: journal::life_of(&record.generation),
            },
            code,
            signal,
            signal_name: verdict.crash.signal_name.clone(),
            uptime_ms: record.uptime_ms,
            was_ready,
            by,
            lost,
            oom: verdict.crash.classification == "oom",
        })));
    }

    /// The machine has heard of an end; `total`: the crashes counted before.
    pub(super) fn note_decision(&self, total: u32) {
        let policy = self.machine.policy();
        if policy.total == total {
            return;
        }
        self.note(What::Crash {
            count: policy.ladder,
            total: policy.total,
            restart_after_s: self.planned_in_s(),
        });
    }

    /// After how many seconds it starts again by itself, if it does.
    fn planned_in_s(&self) -> Option<u64> {
        let planned = matches!(self.machine.phase(), Phase::Crashed { .. }) && self.maintenance.is_none();
        let pause = self.memory.restart_at.as_ref().and_then(BootTime::left).filter(|_| planned)?;
        Some((pause + Duration::from_millis(500)).as_secs())
    }

    /// A crash was explained, or explained better than `before`.
    pub(super) fn note_explained(&self, instance: &str, record: &CrashRecord, before: Option<&CrashRecord>) {
        let same =
            |one: &CrashRecord| one.explained && (&one.cause, &one.title) == (&record.cause, &record.title);
        if !before.is_some_and(same) {
            self.note(What::Explained {
                instance: instance.to_owned(),
                cause: record.cause.clone(),
                title: record.title.clone(),
            });
        }
    }

    /// Files were put in place.
    pub(super) fn note_installed(&self, what: String) {
        self.note(What::Installed { what });
    }

    /// The shim is gone, or frozen.
    pub(super) fn note_degraded(&self) {
        self.note(What::Degraded { why: "it runs without its shim".to_owned() });
    }

    /// The shim answers again.
    pub(super) fn note_recovered(&self) {
        self.note(What::Recovered {});
    }
}
