//! Stops: the plan that holds, who is warned, who is given time, and an agent that ends.
//!
//! The ladder itself is climbed by the shim: it goes on if this agent dies now. What only the
//! agent can know is added here: whether anybody is online to be warned, and whether the
//! server is really saving ([`super::saving`]).

use std::time::Duration;

use slog::{info, warn};
use tokio::sync::oneshot;
use tokio::time::Instant;
use zlh_api::{OperationKind, Problem};
use zlh_shim::ladder::{DEFAULT_CAP, LONGEST};
use zlh_shim::process::ProcessId;
use zlh_shim::proto;
use zlh_shim::spec::{Spec, StopPlan};

use super::driver::{Driver, Event, Holder};
use super::handle::{Leaving, Outcome};
use super::machine::{Command, Phase};
use super::saving::{AFTERMATH, Extend, Overdue, Saving, quiet};
use super::stored::{BootTime, Stopping, Told};

impl Driver {
    /// `POST /stop`. Once more while one is under way: the warnings are skipped.
    pub(super) fn stop(&mut self, now: bool) -> Result<Outcome, Problem> {
        let again = matches!(self.machine.phase(), Phase::Stopping { .. });
        self.unwarned = now || again;
        let outcome = self.command(Command::Stop, OperationKind::Stop)?;
        if again {
            // Only this: who looks whether it saves is not disturbed, however often it is asked.
            self.tell_stop(self.stop_plan());
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

    /// The stop under way, for the next agent, should this one not see its end.
    pub(super) fn stopping(&self) -> Option<Stopping> {
        let Phase::Stopping { .. } = self.machine.phase() else { return None };
        let instance = self.run.as_ref().map(|run| &run.instance).or(self.starting.as_ref())?;
        // However often it is asked.
        let before = self.memory.stopping.as_ref().filter(|before| before.instance == *instance);
        let told = before.and_then(|before| before.told.clone());
        Some(Stopping { instance: instance.clone(), restart: self.memory.wanted, told })
    }

    /// Whether an earlier agent was stopping a run, and whether another one was to follow it. If so,
    /// its time goes on from there.
    pub(super) fn was_stopping(&mut self, instance: &str) -> Option<bool> {
        let stopping = self.memory.stopping.as_ref().filter(|stopping| stopping.instance == instance)?;
        let gone = stopping.told.as_ref().and_then(|told| told.at.ago());
        self.stop_begun = gone.and_then(|gone| Instant::now().checked_sub(gone));
        Some(stopping.restart)
    }

    pub(super) fn stop_run(&mut self) {
        let plan = self.stop_plan();
        self.tell_stop(plan.clone());
        self.watch_saving(self.in_these_circumstances(plan), Duration::ZERO);
    }

    /// The run has another holder: a stop under way goes on in the time that is left of it.
    pub(super) fn go_on_stopping(&mut self) {
        // Who was watched until now has what it was given; of anybody else nothing is known yet.
        let sight = if self.saving.is_some() { self.granted.left() } else { SIGHT };
        let plan = what_is_left(self.stop_plan(), self.stopping_for(), sight);
        self.tell_stop(plan.clone());
        self.watch_saving(self.in_these_circumstances(plan), Duration::ZERO);
    }

    /// An earlier agent had told the shim, which climbs by itself, and by the plan of then.
    pub(super) fn watch_stopping(&mut self) {
        let told = self.memory.stopping.as_ref().and_then(|stopping| stopping.told.as_ref());
        let plan = told.map_or_else(|| self.stop_plan(), |told| told.plan.clone());
        // At least a moment, so that what it was given since is waited for.
        self.watch_saving(plan, self.stopping_for().max(Duration::from_millis(1)));
    }

    fn stopping_for(&self) -> Duration {
        self.stop_begun.map(|begun| begun.elapsed()).unwrap_or_default()
    }

    /// Without warnings where nobody is there to read them, or nobody wants them.
    fn in_these_circumstances(&self, plan: StopPlan) -> StopPlan {
        let warned = self.occupied && !self.unwarned;
        if warned { plan } else { StopPlan { warn: Vec::new(), ..plan } }
    }

    fn tell_stop(&mut self, plan: StopPlan) {
        let plan = self.in_these_circumstances(plan);
        let Some(run) = &self.run else { return };
        if self.stop_begun.is_none() {
            self.stop_begun = Some(Instant::now());
            self.stale = true;
            if let (Some(stopping), Some(at)) = (&mut self.memory.stopping, BootTime::after(Duration::ZERO)) {
                stopping.told = Some(Told { at, plan: plan.clone() });
            }
        }
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
    fn watch_saving(&mut self, plan: StopPlan, gone: Duration) {
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
            granted: self.granted.clone(),
            overdue,
            log: self.context.log.clone(),
        };
        let task = tokio::spawn(saving.watch(plan, gone));
        if let Some(before) = self.saving.replace(task.abort_handle()) {
            before.abort();
        }
    }

    /// What the running spec says, as the operator wants it: it was written for this very
    /// run, whatever is installed now.
    pub(super) fn stop_plan(&self) -> StopPlan {
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

/// What is left of a plan after `gone`. The grace is used up first, and none of it begins anew, but
/// for `sight`, in which a save that goes on is seen; SIGTERM is always given its time, because
/// nobody may have sent one yet.
fn what_is_left(plan: StopPlan, gone: Duration, sight: Duration) -> StopPlan {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let gone = ms(gone);
    let lead = plan.warn.iter().map(|warning| warning.before_ms).max().unwrap_or(0);
    let granted = lead.saturating_add(plan.grace_ms);
    let grace_ms = granted.saturating_sub(gone).min(plan.grace_ms).max(ms(sight.min(quiet(&plan))));
    let cap = plan.cap_ms.unwrap_or(ms(DEFAULT_CAP));
    let warn = if gone == 0 { plan.warn } else { Vec::new() };
    StopPlan { grace_ms, cap_ms: Some(cap.saturating_sub(gone).max(grace_ms)), warn, ..plan }
}

/// In which a save that goes on is seen.
const SIGHT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use zlh_shim::spec::Warning;

    use super::*;

    fn left(gone_ms: u64) -> (u64, u64, Option<u64>, usize) {
        let warn = vec![Warning { before_ms: 10_000, command: "say soon".to_owned() }];
        let plan = StopPlan {
            command: Some("stop".to_owned()),
            grace_ms: 90_000,
            term_ms: 20_000,
            cap_ms: Some(600_000),
            warn,
        };
        let left = what_is_left(plan, Duration::from_millis(gone_ms), SIGHT);
        (left.grace_ms, left.term_ms, left.cap_ms, left.warn.len())
    }

    #[test]
    fn a_stop_in_other_hands_does_not_begin_anew() {
        assert_eq!(left(0), (90_000, 20_000, Some(600_000), 1));
        assert_eq!(left(3_000), (90_000, 20_000, Some(597_000), 0), "the lead is used up first");
        assert_eq!(left(13_000), (87_000, 20_000, Some(587_000), 0));
        assert_eq!(left(99_000), (2_000, 20_000, Some(501_000), 0));
        assert_eq!(left(10_000_000), (2_000, 20_000, Some(2_000), 0), "SIGTERM has its time");
    }
}
