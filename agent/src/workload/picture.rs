//! What others see of the driver: the published snapshot, and what is remembered.

use std::sync::Arc;
use std::time::Duration;

use slog::warn;
use tokio::time::Instant;
use zlh_api::{Artifacts, RestartBudget};

use super::driver::{Driver, Run};
use super::machine::Phase;
use super::snapshot::Snapshot;
use crate::game::probe;

/// After a record could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// A record that the disk refused.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// When it is tried again.
    pub(super) again: Instant,
    /// What operators are told.
    warning: String,
}

impl Driver {
    /// What is remembered has changed: it is written when the event at hand is done with, so
    /// that neither a reader nor the disk ever sees half of its consequences.
    pub(super) const fn remember(&mut self) {
        self.stale = true;
    }

    /// After an event: first shown, then written. Nobody waits for the disk to learn what is
    /// already so.
    pub(super) fn settle(&mut self) {
        self.publish();
        if self.stale {
            self.write_memory();
        }
        self.settle_shutdown();
    }

    /// Writes what is remembered at once.
    pub(super) fn write_memory(&mut self) {
        self.memory.policy = self.machine.policy().clone();
        self.memory.not_started = match self.machine.phase() {
            Phase::Crashed { failed } => failed.clone(),
            _ => None,
        };
        self.stale = false;
        let before = self.unwritten.take();
        if let Err(error) = self.context.shelf.store_memory(&self.memory) {
            // A full disk must not keep anybody from stopping: it is said and tried again.
            warn!(self.context.log, "the workload's record cannot be written; trying again"; "error" => %error);
            let warning = format!(
                "degraded: the agent cannot write down what happens ({error}); what runs is not touched, \
                 but free or repair the disk before anything is restarted"
            );
            self.unwritten = Some(Unwritten { again: Instant::now() + WRITE_AGAIN, warning });
        }
        if before.map(|it| it.warning) != self.unwritten.as_ref().map(|it| it.warning.clone()) {
            self.publish();
        }
    }

    pub(super) fn publish(&mut self) {
        let next = self.picture();
        self.snapshot.send_if_modified(|current| {
            let next = Snapshot { generation: current.generation, ..next };
            let changed = **current != next;
            if changed {
                *current = Arc::new(Snapshot { generation: current.generation + 1, ..next });
            }
            changed
        });
    }

    fn picture(&self) -> Snapshot {
        let process = self.run.as_ref().and_then(|run| {
            let status = match run.shim() {
                Some(shim) => shim.status().borrow().clone(),
                None => run.last.clone(),
            };
            let started = i64::try_from(status.started_unix_ms).ok()?;
            let started = jiff::Timestamp::from_millisecond(started).ok()?;
            (status.pid > 0 && status.exit.is_none()).then(|| (status.pid, crate::clock::rfc3339(started)))
        });
        let (error, ready_error) = match self.machine.phase() {
            Phase::Error { reason, .. } => (Some(reason.clone()), self.silent.clone()),
            Phase::Crashed { failed } => (failed.clone(), String::new()),
            Phase::Running { silent: Some(why) } => (None, why.clone()),
            Phase::Starting => (None, self.silent.clone()),
            _ => (None, String::new()),
        };
        let installed = self.installed.as_ref();
        let mut warnings = self.context.config.warnings.clone();
        warnings.extend(self.warnings.iter().cloned());
        warnings.extend(self.context.launcher.warnings());
        warnings.extend(installed.iter().flat_map(|i| i.warnings.iter().cloned()));
        warnings.extend(self.run.as_ref().and_then(degraded));
        warnings.extend(self.unwritten.iter().map(|it| it.warning.clone()));
        let policy = self.machine.policy();
        // A server may answer before its shim has told its pid, or have ended a moment ago: ready
        // is only what is known to run. What has no shim is known by its answers alone.
        let known = process.is_some() || self.run.as_ref().is_none_or(|run| run.shim().is_none());
        Snapshot {
            generation: 0,
            state: self.machine.state(),
            process,
            ready: self.machine.ready() && known,
            ready_source: installed.map_or("", |i| probe::source(i.plan.readiness.probe)).to_owned(),
            ready_error,
            last_ready_at: self.memory.last_ready_at.clone(),
            install_step: self.install_step.clone(),
            crash_count: policy.ladder,
            crashes_total: policy.total,
            last_crash: self.memory.last_crash.clone(),
            error,
            config: self.payload.clone(),
            maintenance: self.maintenance.clone(),
            wanted: self.memory.wanted,
            next_restart_at: self
                .backoff_due
                .filter(|_| self.maintenance.is_none())
                .map(|(_, at)| crate::clock::rfc3339(at)),
            restart_budget: self.request.as_ref().map(|_| RestartBudget {
                remaining: policy.remaining(self.machine.limits()),
                limit: self.machine.limits().restarts(),
            }),
            port: self.request.as_ref().map(|r| r.port),
            artifacts: installed.map(|i| Artifacts {
                installed: format!("{}/{} {}", i.game, i.variant, i.version),
                catalog_serial: i.serial,
                fetches_upstream: i.fetches_upstream,
            }),
            warnings,
            runtime: self.installed.as_ref().and_then(|i| i.runtime.as_ref()).map(|one| one.dir.clone()),
            root: self.request.as_ref().map(|r| self.context.paths.game_root(&r.game, &r.variant, &r.world)),
        }
    }
}

/// What a run has lost, if anything.
fn degraded(run: &Run) -> Option<String> {
    if let Some(trouble) = &run.trouble {
        return Some(format!("degraded: {trouble}"));
    }
    let adopted = run.last.adopted?;
    let mut lost = Vec::new();
    if adopted.lost_bytes > 0 {
        lost.push(format!("{} bytes of its output are missing from the console", adopted.lost_bytes));
    }
    if !zlh_shim::living::kernel_tells() {
        lost.push("how it ends may stay unknown on this kernel (before 6.15)".to_owned());
    }
    (!lost.is_empty()).then(|| {
        format!(
            "degraded: the server's shim was killed and replaced; {}; restart it at a quiet time",
            lost.join("; ")
        )
    })
}
