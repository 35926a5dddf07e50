//! Restart policy: 30 s, 60 s, 120 s, then a person has to look.
//!
//! Two counters, both counted in crashes:
//! - the *ladder* (`crashCount`): a process that lived [`STEP_RESET`] starts it anew;
//! - the *budget* ([`Limits`]): only a stable time of readiness refills it, so that a server
//!   that dies every 40 s does not restart for ever.
//!
//! Where the cause of a crash is certain and a restart can only repeat it, one confirming
//! retry is enough: the same fingerprint again ends the ladder at once.
//!
//! Pure: uptimes and fingerprints come in, a decision comes out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Pauses before the first, second and third restart.
pub(crate) const BACKOFF: [Duration; 3] =
    [Duration::from_secs(30), Duration::from_secs(60), Duration::from_secs(120)];

/// Uptime after which the ladder begins anew.
pub(crate) const STEP_RESET: Duration = Duration::from_secs(30);

/// How many crashes are put up with, as the operator wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The crash, counted since the last stable period, that ends the loop.
    pub budget: u32,
    /// Readiness after which the budget is full again.
    pub stable: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { budget: 5, stable: Duration::from_secs(300) }
    }
}

/// What a crash leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Start again after this pause.
    RestartAfter(Duration),
    /// Stay down; the text says why.
    GiveUp(String),
}

/// The counters. They survive the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Crashes on the ladder, and starts between them that came to nothing.
    pub ladder: u32,
    /// The same since the last stable period.
    pub spent: u32,
    /// How many of these were no crashes.
    #[serde(default)]
    pub not_started: u32,
    /// Crashes in all.
    pub total: u32,
    /// The last crash that was explained: its id, and its fingerprint if a restart can only
    /// repeat it.
    #[serde(default)]
    pub explained: Option<(String, Option<String>)>,
    /// The fingerprint of the crash before that one, if a restart could only repeat it.
    #[serde(default)]
    pub repeats: Option<String>,
}

impl Policy {
    /// Counts a crash of a process that lived `uptime` and was ready for `ready_for`.
    pub(crate) fn crashed(&mut self, uptime: Duration, ready_for: Duration, limits: Limits) -> Decision {
        if uptime >= STEP_RESET {
            self.ladder = 0;
        }
        if ready_for >= limits.stable {
            (self.spent, self.not_started) = (0, 0);
        }
        self.ladder += 1;
        self.spent += 1;
        self.total = self.total.saturating_add(1);
        let step = usize::try_from(self.ladder - 1).unwrap_or(usize::MAX);
        match BACKOFF.get(step) {
            None => Decision::GiveUp(format!(
                "{} {} times in a row; read the last lines of the console, then start it again",
                self.what_happened(),
                self.ladder
            )),
            Some(_) if self.spent >= limits.budget => {
                Decision::GiveUp(limits.spent(self.what_happened(), self.spent))
            }
            Some(pause) => Decision::RestartAfter(*pause),
        }
    }

    /// Counts a start that was tried by itself and came to nothing: it takes its place on the ladder,
    /// and is no crash.
    pub(crate) fn not_started(&mut self, reason: &str, limits: Limits) -> Decision {
        self.ladder += 1;
        self.spent += 1;
        self.not_started += 1;
        let step = usize::try_from(self.ladder - 1).unwrap_or(usize::MAX);
        match BACKOFF.get(step) {
            Some(pause) if self.spent < limits.budget => Decision::RestartAfter(*pause),
            Some(_) => {
                let spent = limits.spent(self.what_happened(), self.spent);
                Decision::GiveUp(format!("{reason}; {spent}"))
            }
            None => Decision::GiveUp(format!(
                "{reason}; given up after it {} {} times in a row",
                self.what_happened(),
                self.ladder
            )),
        }
    }

    const fn what_happened(&self) -> &'static str {
        match self.not_started {
            0 => "crashed",
            failed if failed == self.spent => "could not be started",
            _ => "crashed or could not be started",
        }
    }

    /// The last crash was explained, or its explanation amended. `useless`: its fingerprint,
    /// if a restart can only repeat it. True when it is the confirming retry.
    pub(crate) fn explained(&mut self, crash: &str, useless: Option<&str>) -> bool {
        let useless = useless.map(str::to_owned);
        match &mut self.explained {
            Some((id, fingerprint)) if id == crash => fingerprint.clone_from(&useless),
            other => {
                self.repeats = other.take().and_then(|(_, fingerprint)| fingerprint);
                *other = Some((crash.to_owned(), useless.clone()));
            }
        }
        useless.is_some() && useless == self.repeats
    }

    /// A person acted: everything but the total begins anew.
    pub(crate) fn forgive(&mut self) {
        self.ladder = 0;
        self.spent = 0;
        self.not_started = 0;
        self.explained = None;
        self.repeats = None;
    }

    /// Automatic restarts that are left before [`Decision::GiveUp`].
    pub(crate) fn remaining(&self, limits: Limits) -> u32 {
        let ladder = u32::try_from(BACKOFF.len()).unwrap_or(0).saturating_sub(self.ladder);
        ladder.min(limits.budget.saturating_sub(1).saturating_sub(self.spent))
    }
}

impl Limits {
    /// Automatic restarts in a row at most.
    pub(crate) fn restarts(self) -> u32 {
        u32::try_from(BACKOFF.len()).unwrap_or(0).min(self.budget.saturating_sub(1))
    }

    /// Why the loop ends after so many crashes.
    fn spent(self, what: &str, times: u32) -> String {
        const REMEDY: &str = "read the last lines of the console, then start it again";
        if self.budget <= 1 {
            return format!("crashed, and restart.crash_budget allows no restart; {REMEDY}");
        }
        let stable = match self.stable.as_secs() {
            seconds if seconds.is_multiple_of(60) => format!("{} stable minutes", seconds / 60),
            seconds => format!("{seconds} stable seconds"),
        };
        format!("{what} {times} times without {stable} between; {REMEDY}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { budget: 5, stable: s(300) };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_deployed_ladder() {
        let mut policy = Policy::default();
        assert_eq!(policy.crashed(s(5), s(0), LIMITS), Decision::RestartAfter(s(30)));
        assert_eq!(policy.crashed(s(5), s(0), LIMITS), Decision::RestartAfter(s(60)));
        assert_eq!(policy.crashed(s(29), s(0), LIMITS), Decision::RestartAfter(s(120)));
        assert!(matches!(policy.crashed(s(5), s(0), LIMITS), Decision::GiveUp(_)));
        policy.forgive();
        assert_eq!(policy.crashed(s(5), s(0), LIMITS), Decision::RestartAfter(s(30)));
    }

    #[test]
    fn the_same_certain_cause_twice_is_enough() {
        let mut policy = Policy::default();
        assert!(!policy.explained("1", Some("a")));
        assert!(!policy.explained("1", Some("a")), "amended, not repeated");
        assert!(policy.explained("2", Some("a")));
        assert!(!policy.explained("2", None), "amended: it was something else");
        assert!(!policy.explained("3", Some("a")));
        assert!(!policy.explained("4", Some("b")), "another cause");
        assert!(!policy.explained("5", None), "one that may pass by itself");
        assert!(!policy.explained("6", Some("b")));
        policy.forgive();
        assert!(!policy.explained("7", Some("b")), "a person acted");
    }

    #[test]
    fn dying_every_forty_seconds_ends_too() {
        let mut policy = Policy::default();
        for _ in 0..4 {
            assert_eq!(policy.crashed(s(40), s(30), LIMITS), Decision::RestartAfter(s(30)));
        }
        assert!(matches!(policy.crashed(s(40), s(30), LIMITS), Decision::GiveUp(_)));
    }

    #[test]
    fn an_operator_may_put_up_with_more_or_with_nothing() {
        let mut policy = Policy::default();
        let none = Limits { budget: 1, ..LIMITS };
        assert_eq!((policy.remaining(none), none.restarts()), (0, 0));
        let Decision::GiveUp(why) = policy.crashed(s(400), s(400), none) else { panic!("it restarts") };
        assert!(why.contains("restart.crash_budget"), "{why}");

        let mut policy = Policy::default();
        let many = Limits { budget: 20, stable: s(90) };
        assert_eq!(many.restarts(), 3, "the ladder is as long as it was");
        for _ in 0..19 {
            assert_eq!(policy.crashed(s(40), s(30), many), Decision::RestartAfter(s(30)));
        }
        let Decision::GiveUp(why) = policy.crashed(s(40), s(30), many) else { panic!("it restarts") };
        assert!(why.starts_with("crashed 20 times without 90 stable seconds between"), "{why}");
    }

    #[test]
    fn a_stable_period_refills_the_budget() {
        let mut policy = Policy::default();
        for _ in 0..100 {
            assert_eq!(policy.crashed(s(400), s(300), LIMITS), Decision::RestartAfter(s(30)));
        }
        assert_eq!(policy.total, 100);
    }

    proptest! {
        #[test]
        fn remaining_never_promises_a_restart_that_is_refused(
            crashes in prop::collection::vec((0_u64..700, 0_u64..700), 1..40),
            budget in 1_u32..12,
            stable in 60_u64..600,
        ) {
            let limits = Limits { budget, stable: s(stable) };
            let mut policy = Policy::default();
            for (uptime, ready) in crashes {
                let promised = policy.remaining(limits);
                let decision = policy.crashed(s(uptime), s(ready.min(uptime)), limits);
                if promised > 0 {
                    prop_assert!(matches!(decision, Decision::RestartAfter(_)));
                }
                if matches!(decision, Decision::GiveUp(_)) {
                    policy.forgive();
                }
            }
        }

        #[test]
        fn without_stability_the_loop_is_finite(uptimes in prop::collection::vec(0_u64..300, 5..20)) {
            let mut policy = Policy::default();
            let first_end = uptimes.iter().position(|&u| matches!(policy.crashed(s(u), s(u), LIMITS), Decision::GiveUp(_)));
            prop_assert!(first_end.is_some_and(|i| i < 5));
        }
    }
}
