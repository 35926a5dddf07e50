//! Restart policy: 30 s, 60 s, 120 s, then a person has to look.
//!
//! Two counters, both counted in crashes:
//! - the *ladder* (`crashCount`): a process that lived [`STEP_RESET`] starts it anew;
//! - the *budget*: only [`STABLE`] of readiness refills it, so that a server that dies
//!   every 40 s does not restart for ever.
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

/// Readiness after which the budget is full again.
pub(crate) const STABLE: Duration = Duration::from_secs(300);

/// The crash, counted since the last stable period, that ends the loop.
pub(crate) const BUDGET: u32 = 5;

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
    /// Crashes on the ladder.
    pub ladder: u32,
    /// Crashes since the last stable period.
    pub spent: u32,
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
    pub(crate) fn crashed(&mut self, uptime: Duration, ready_for: Duration) -> Decision {
        if uptime >= STEP_RESET {
            self.ladder = 0;
        }
        if ready_for >= STABLE {
            self.spent = 0;
        }
        self.ladder += 1;
        self.spent += 1;
        self.total = self.total.saturating_add(1);
        let step = usize::try_from(self.ladder - 1).unwrap_or(usize::MAX);
        match BACKOFF.get(step) {
            None => Decision::GiveUp(format!(
                "crashed {} times in a row; read the last lines of the console, then start it again",
                self.ladder
            )),
            Some(_) if self.spent >= BUDGET => Decision::GiveUp(format!(
                "crashed {} times without {} stable minutes between; read the last lines of the console, then start it again",
                self.spent,
                STABLE.as_secs() / 60
            )),
            Some(pause) => Decision::RestartAfter(*pause),
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
        self.explained = None;
        self.repeats = None;
    }

    /// Automatic restarts that are left before [`Decision::GiveUp`].
    pub(crate) fn remaining(&self) -> u32 {
        let ladder = u32::try_from(BACKOFF.len()).unwrap_or(0).saturating_sub(self.ladder);
        ladder.min((BUDGET - 1).saturating_sub(self.spent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_deployed_ladder() {
        let mut policy = Policy::default();
        assert_eq!(policy.crashed(s(5), s(0)), Decision::RestartAfter(s(30)));
        assert_eq!(policy.crashed(s(5), s(0)), Decision::RestartAfter(s(60)));
        assert_eq!(policy.crashed(s(29), s(0)), Decision::RestartAfter(s(120)));
        assert!(matches!(policy.crashed(s(5), s(0)), Decision::GiveUp(_)));
        policy.forgive();
        assert_eq!(policy.crashed(s(5), s(0)), Decision::RestartAfter(s(30)));
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
            assert_eq!(policy.crashed(s(40), s(30)), Decision::RestartAfter(s(30)));
        }
        assert!(matches!(policy.crashed(s(40), s(30)), Decision::GiveUp(_)));
    }

    #[test]
    fn a_stable_period_refills_the_budget() {
        let mut policy = Policy::default();
        for _ in 0..100 {
            assert_eq!(policy.crashed(s(400), s(300)), Decision::RestartAfter(s(30)));
        }
        assert_eq!(policy.total, 100);
    }

    proptest! {
        #[test]
        fn remaining_never_promises_a_restart_that_is_refused(crashes in prop::collection::vec((0_u64..700, 0_u64..700), 1..40)) {
            let mut policy = Policy::default();
            for (uptime, ready) in crashes {
                let promised = policy.remaining();
                let decision = policy.crashed(s(uptime), s(ready.min(uptime)));
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
            let first_end = uptimes.iter().position(|&u| matches!(policy.crashed(s(u), s(u)), Decision::GiveUp(_)));
            prop_assert!(first_end.is_some_and(|i| i < 5));
        }
    }
}
