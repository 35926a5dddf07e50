//! Stops: the plan that holds, who is warned, who is given time, and an agent that ends.
//!
//! The ladder itself is climbed by the shim: it goes on if this agent dies now. What only the
//! agent can know is added here: whether anybody is online to be warned, and whether the
//! server is really saving ([`super::saving`]).

use std::time::Duration;

use slog::{info, warn};
use tokio::sync::oneshot;
use zlh_api::{OperationKind, Problem};
use zlh_shim::ladder::{DEFAULT_CAP, LONGEST};
use zlh_shim::process::ProcessId;
use zlh_shim::proto;
use zlh_shim::spec::{Spec, StopPlan};

use super::driver::{Driver, Event, Holder};
use super::handle::{Leaving, Outcome};
use super::machine::{Command, Phase};
use super::saving::{AFTERMATH, Extend, Overdue, Saving};

impl Driver {
    /// `POST /stop`. Once more while one is under way: the warnings are skipped.
    pub(super) fn stop(&mut self, now: bool) -> Result<Outcome, Problem> {
        let again = matches!(self.machine.phase(), Phase::Stopping { .. });
        self.unwarned = now || again;
        let outcome = self.command(Command::Stop, OperationKind::Stop)?;
        if again {
            // Only this: who looks whether it saves is not disturbed, however often it is asked.
            self.tell_stop();
        }
        Ok(outcome)
    }

    /// `POST /restart`.
    pub(super) fn restart(&mut self, now: bool) -> Result<Outcome, Problem> {
        self.unwarned = now;
        self.command(Command::Restart, OperationKind::Restart)
    }

    /// The agent ends and was told to take the game with it. What is wanted stays wanted:
    /// the next agent starts it again.
    pub(super) fn leave(&mut self, reply: oneshot::Sender<Leaving>) {
        let (done, ended) = oneshot::channel();
        let plan = self.stop_plan();
        let ms = Duration::from_millis;
        let cap = plan.cap_ms.map_or(DEFAULT_CAP, ms).max(ms(plan.grace_ms));
        let within = cap.min(LONGEST) + ms(plan.term_ms).min(LONGEST) + AFTERMATH;
        self.leaving = Some(done);
        if self.run.is_some() || self.starting.is_some() {
            info!(self.context.log, "the agent ends and stops the server, as configured");
            // A stop is never refused.
            let _ = self.stop(true);
        }
        // Whoever asked may have gone.
        drop(reply.send(Leaving { within, ended }));
        self.tell_left();
    }

    /// Tells whoever waits for it that nothing runs any more.
    pub(super) fn tell_left(&mut self) {
        if self.run.is_none()
            && self.starting.is_none()
            && let Some(leaving) = self.leaving.take()
        {
            let _ = leaving.send(());
        }
    }

    pub(super) fn stop_run(&mut self) {
        self.tell_stop();
        self.watch_saving();
    }

    fn tell_stop(&self) {
        let Some(run) = &self.run else { return };
        let warned = self.occupied && !self.unwarned;
        let plan = self.stop_plan();
        let plan = if warned { plan } else { StopPlan { warn: Vec::new(), ..plan } };
        if let (Some(lead), Some(operation)) = (plan.warn.iter().map(|w| w.before_ms).max(), &self.operation)
        {
            let phase = format!("stopping: players are warned, {} s before", lead.div_ceil(1000));
            self.operations.phase(&operation.id, &phase);
        }
        match &run.holder {
            Holder::Nobody => {}
            Holder::Orphan(orphan) => orphan.stop(plan),
            Holder::Shim(shim) => {
                let (shim, log) = (shim.clone(), self.context.log.clone());
                let (events, connection) = (self.events_in.clone(), shim.id());
                tokio::spawn(async move {
                    if let Err(error) = shim.stop(&proto::Stop::from(plan)).await {
                        warn!(log, "the shim did not take the stop"; "error" => %error);
                        // Then it is stopped without it.
                        let distrust = Some(format!("it did not take a stop ({error})"));
                        drop(events.send(Event::ShimStuck { connection, distrust }).await);
                    }
                });
            }
        }
    }

    /// Gives a stop that is under way more time while the server saves.
    pub(super) fn watch_saving(&mut self) {
        let (Some(run), Some(request)) = (&self.run, &self.request) else { return };
        let events = self.events_in.clone();
        let (extend, overdue) = match &run.holder {
            Holder::Shim(shim) => {
                (Extend::Shim(shim.clone()), Some(Overdue { events, connection: shim.id() }))
            }
            Holder::Orphan(orphan) => (Extend::Orphan(orphan.clone()), None),
            Holder::Nobody => return,
        };
        let saving = Saving {
            root: self.context.paths.game_root(&request.game, &request.variant, &request.world),
            process: ProcessId { pid: run.last.pid, start_ticks: run.last.start_ticks },
            extend,
            operations: self.operations.clone(),
            operation: self.operation.as_ref().map(|operation| operation.id.clone()),
            overdue,
            log: self.context.log.clone(),
        };
        let task = tokio::spawn(saving.watch(self.stop_plan()));
        if let Some(before) = self.saving.replace(task.abort_handle()) {
            before.abort();
        }
    }

    /// What the running spec says, as the operator wants it: it was written for this very
    /// run, whatever is installed now.
    fn stop_plan(&self) -> StopPlan {
        let plan = match (Spec::read(&self.context.run_dir), &self.installed) {
            (Ok(spec), _) => spec.stop,
            (Err(_), Some(installed)) => installed.stop_plan(),
            (Err(_), None) => StopPlan {
                command: Some("stop".to_owned()),
                grace_ms: 90_000,
                term_ms: 20_000,
                ..StopPlan::default()
            },
        };
        let plan = self.context.config.stop.over(plan);
        // In the time there is.
        match self.shutdown.limit_ms() {
            Some(limit) => plan.within(limit),
            None => plan,
        }
    }
}
