//! When the rungs of a stop's ladder are due: what whoever watches a shim holds it to.

use std::time::Duration;

use tokio::time::Instant;
use zlh_shim::ladder::{DEFAULT_CAP, LONGEST};
use zlh_shim::spec::StopPlan;

/// The stage of a shim that has sent SIGTERM, and SIGKILL.
pub(super) const TERM_STAGE: u8 = 2;
pub(super) const KILL_STAGE: u8 = 3;

/// When SIGTERM and SIGKILL are sent at the latest, as the ladder has it.
#[derive(Debug)]
pub(super) struct Due {
    pub term: Instant,
    pub kill: Instant,
    /// SIGTERM comes then, however much is saved.
    pub cap: Instant,
    /// From SIGTERM to SIGKILL.
    between: Duration,
    stage: u8,
}

impl Due {
    /// Of a ladder that was begun so long ago.
    pub(super) fn of(plan: &StopPlan, now: Instant, gone: Duration) -> Self {
        let bounded = |ms: u64| Duration::from_millis(ms).min(LONGEST);
        let lead = bounded(plan.warn.iter().map(|warning| warning.before_ms).max().unwrap_or(0));
        let grace = if plan.command.is_some() { bounded(plan.grace_ms) } else { Duration::ZERO };
        let cap = plan.cap_ms.map_or(DEFAULT_CAP, bounded).max(lead + grace);
        let between = bounded(plan.term_ms);
        let from_now = |time: Duration| now + time.saturating_sub(gone);
        let term = from_now(lead + grace);
        Self { term, kill: term + between, cap: from_now(cap), between, stage: 0 }
    }

    /// The next rung.
    pub(super) fn put_off(&mut self, until: Instant, stage: u8) {
        if stage < TERM_STAGE {
            self.term = self.term.max(until.min(self.cap));
            self.kill = self.kill.max(self.term + self.between);
        } else {
            self.kill = self.kill.max(until.min(self.cap + self.between));
        }
    }

    /// It is at this stage, since a moment ago if that is news: the next rung follows in its time.
    pub(super) fn seen(&mut self, stage: u8) {
        if stage >= TERM_STAGE && self.stage < TERM_STAGE {
            self.kill = self.kill.max(Instant::now() + self.between);
        }
        self.stage = stage;
    }

    /// Of a ladder that is at this stage.
    pub(super) fn next(&self, stage: u8) -> Instant {
        if stage < TERM_STAGE { self.term } else { self.kill }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_is_due_when_the_ladder_climbs_it() {
        let s = Duration::from_secs;
        let warn = vec![zlh_shim::spec::Warning { before_ms: 60_000, command: "say soon".to_owned() }];
        let plan = StopPlan {
            command: Some("stop".to_owned()),
            grace_ms: 30_000,
            term_ms: 20_000,
            cap_ms: Some(100_000),
            warn,
        };
        let now = Instant::now();
        let at = |due: &Due| (due.term - now, due.kill - now);
        assert_eq!(at(&Due::of(&plan, now, s(0))), (s(90), s(110)));
        assert_eq!(at(&Due::of(&plan, now, s(5))), (s(85), s(105)), "it still warns");
        let quiet = StopPlan { warn: Vec::new(), ..plan };
        assert_eq!(at(&Due::of(&quiet, now, s(500))), (s(0), s(20)));
        let at_once = StopPlan { command: None, ..quiet.clone() };
        assert_eq!(at(&Due::of(&at_once, now, s(0))), (s(0), s(20)), "SIGTERM comes first");

        let mut due = Due::of(&quiet, now, s(0));
        due.put_off(now + s(45), 1);
        assert_eq!(at(&due), (s(45), s(65)));
        due.put_off(now + s(40), 1);
        assert_eq!(at(&due), (s(45), s(65)), "never sooner");
        for until in [99, 150, 1000] {
            due.put_off(now + s(until), 1);
        }
        assert_eq!(at(&due), (s(100), s(120)), "never beyond the cap");
        due.put_off(now + s(1000), 2);
        assert_eq!(at(&due), (s(100), s(120)));
        let mut due = Due::of(&quiet, now, s(0));
        due.put_off(now + s(60), 2);
        assert_eq!(at(&due), (s(30), s(60)), "only SIGKILL is left to be put off");
    }
}
