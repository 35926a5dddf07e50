//! The stop ladder: command, SIGTERM, SIGKILL. Pure: it is told the time and answers what to do.
//!
//! ```text
//! Idle ─stop─► Command ─grace over─► Term ─term over─► Kill ─again every second─► …
//! ```
//!
//! It ends when the workload does; there is no rung on which it waits for ever.

use std::time::{Duration, Instant};

use crate::record::StopStage;

/// What a rung asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Type this line. A stopped (frozen) workload is continued first.
    Type(String),
    /// SIGTERM to the main process.
    Term,
    /// SIGKILL to everything.
    Kill,
}

/// How often SIGKILL is repeated for what forks faster than it dies.
const KILL_AGAIN: Duration = Duration::from_millis(200);

/// A running (or not yet begun) ladder.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    rung: Option<Rung>,
}

#[derive(Debug)]
struct Rung {
    stage: StopStage,
    until: Instant,
    term: Duration,
}

impl Ladder {
    /// Begins, or moves on faster if it runs already: a later request never lengthens it.
    pub(super) fn begin(
        &mut self,
        command: Option<String>,
        grace: Duration,
        term: Duration,
        now: Instant,
    ) -> Option<Action> {
        if let Some(rung) = &mut self.rung {
            let wanted = match rung.stage {
                StopStage::Command => now + grace,
                StopStage::Term => now + term,
                StopStage::Kill => rung.until,
            };
            rung.until = rung.until.min(wanted);
            rung.term = rung.term.min(term);
            return None;
        }
        let (stage, until, action) = match command {
            Some(line) => (StopStage::Command, now + grace, Action::Type(line)),
            None => (StopStage::Term, now + term, Action::Term),
        };
        self.rung = Some(Rung { stage, until, term });
        Some(action)
    }

    /// Puts the next rung off. Killing is never put off.
    pub(super) fn extend(&mut self, until: Instant) {
        if let Some(rung) = &mut self.rung
            && rung.stage != StopStage::Kill
        {
            rung.until = rung.until.max(until);
        }
    }

    /// Climbs if it is time.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Action> {
        let rung = self.rung.as_mut()?;
        if now < rung.until {
            return None;
        }
        match rung.stage {
            StopStage::Command => {
                (rung.stage, rung.until) = (StopStage::Term, now + rung.term);
                Some(Action::Term)
            }
            StopStage::Term | StopStage::Kill => {
                (rung.stage, rung.until) = (StopStage::Kill, now + KILL_AGAIN);
                Some(Action::Kill)
            }
        }
    }

    /// When [`Ladder::tick`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.rung.as_ref().map(|rung| rung.until)
    }

    /// How far it is.
    pub(super) fn stage(&self) -> Option<StopStage> {
        self.rung.as_ref().map(|rung| rung.stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn it_climbs_in_order() {
        let t = Instant::now();
        let mut ladder = Ladder::default();
        assert_eq!(ladder.tick(t), None);
        assert_eq!(
            ladder.begin(Some("stop".to_owned()), 10 * S, 5 * S, t),
            Some(Action::Type("stop".to_owned()))
        );
        assert_eq!(ladder.tick(t + 9 * S), None);
        assert_eq!(ladder.tick(t + 10 * S), Some(Action::Term));
        assert_eq!(ladder.tick(t + 14 * S), None);
        assert_eq!(ladder.tick(t + 15 * S), Some(Action::Kill));
        assert_eq!(ladder.stage(), Some(StopStage::Kill));
    }

    #[test]
    fn a_second_request_types_nothing_and_can_only_shorten() {
        let t = Instant::now();
        let mut ladder = Ladder::default();
        ladder.begin(Some("stop".to_owned()), 10 * S, 5 * S, t);
        assert_eq!(ladder.begin(Some("stop".to_owned()), 100 * S, 100 * S, t), None);
        assert_eq!(ladder.due(), Some(t + 10 * S));
        assert_eq!(ladder.begin(None, Duration::ZERO, S, t + S), None);
        assert_eq!(ladder.tick(t + S), Some(Action::Term));
        assert_eq!(ladder.tick(t + 2 * S), Some(Action::Kill));
    }

    proptest! {
        #[test]
        fn it_always_reaches_kill(grace in 0_u64..1000, term in 0_u64..1000, repeats in prop::collection::vec((0_u64..500, 0_u64..2000, 0_u64..2000), 0..20)) {
            let start = Instant::now();
            let ms = Duration::from_millis;
            let mut ladder = Ladder::default();
            ladder.begin(Some("stop".to_owned()), ms(grace), ms(term), start);
            let mut now = start;
            for (pause, grace, term) in repeats {
                now += ms(pause);
                ladder.tick(now);
                ladder.begin(None, ms(grace), ms(term), now);
            }
            let end = (start + ms(grace + term)).max(now) + ms(1000);
            ladder.tick(end);
            ladder.tick(end + ms(term));
            prop_assert_eq!(ladder.stage(), Some(StopStage::Kill));
        }
    }
}
