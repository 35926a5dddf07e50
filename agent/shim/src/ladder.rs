//! The stop ladder: warnings, command, SIGTERM, SIGKILL. Pure: it is told the time and
//! answers what to do.
//!
//! ```text
//! Idle ─stop─► Warn ─lead over─► Command ─grace over─► Term ─term over─► Kill ─again─► …
//!                └── a later stop ──┘ └─ extended while ─┘ └─ extended ─┘
//!                    skips warnings      it saves             too
//! ```
//!
//! It ends when the workload does; there is no rung on which it waits for ever, whatever
//! an agent asks for: SIGTERM comes at the cap at the latest, counted from the request,
//! and SIGKILL one `term` after that. No number of extensions moves either.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::record::StopStage;
use crate::spec::{StopPlan, Warning};

/// What a rung asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Type this warning, if there is room for it.
    Warn(String),
    /// Type this command; it comes before everything that waits. A stopped (frozen)
    /// workload is continued first.
    Type(String),
    /// SIGTERM to the main process.
    Term,
    /// SIGKILL to everything.
    Kill,
}

/// Between two SIGKILLs to what forks faster than it dies.
const KILL_AGAIN: Duration = Duration::from_millis(200);

/// The cap of a plan that names none.
pub const DEFAULT_CAP: Duration = Duration::from_secs(600);

/// Longest any single time of a plan can be, whoever asks.
pub const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// Warnings of one plan at most; further ones are not typed.
pub const MAX_WARNINGS: usize = 16;

/// A running (or not yet begun) ladder.
#[derive(Debug, Default)]
pub struct Ladder {
    climb: Option<Climb>,
}

#[derive(Debug)]
struct Climb {
    rung: Rung,
    /// When the next rung is due.
    until: Instant,
    grace: Duration,
    term: Duration,
    /// SIGTERM comes then at the latest.
    cap: Instant,
}

#[derive(Debug)]
enum Rung {
    Warn { left: VecDeque<(Instant, String)>, command: Option<String> },
    Command,
    Term,
    Kill,
}

impl Ladder {
    /// Begins, or moves on faster if it runs already: a later request never lengthens it.
    /// Act on [`Ladder::tick`] right after it.
    pub fn begin(&mut self, plan: StopPlan, now: Instant) {
        let times = Times::of(&plan);
        if let Some(climb) = &mut self.climb {
            return climb.hurry(&times, now);
        }
        let at = |before: Duration| now + times.lead.saturating_sub(before);
        let mut left: Vec<_> =
            plan.warn.into_iter().take(MAX_WARNINGS).map(|w| (at(before(&w)), w.command)).collect();
        left.sort_by_key(|(at, _)| *at);
        self.climb = Some(Climb {
            rung: Rung::Warn { left: left.into(), command: plan.command },
            until: now + times.lead,
            grace: times.grace,
            term: times.term,
            cap: now + times.cap,
        });
    }

    /// Puts the next rung off, never beyond the cap. Warnings and killing are not put off.
    pub fn extend(&mut self, until: Instant) {
        let Some(climb) = &mut self.climb else { return };
        let latest = match climb.rung {
            Rung::Command => climb.cap,
            Rung::Term => climb.cap + climb.term,
            Rung::Warn { .. } | Rung::Kill => return,
        };
        climb.until = climb.until.max(until.min(latest));
    }

    /// Climbs if it is time. There may be more to do at once: ask until there is nothing.
    pub fn tick(&mut self, now: Instant) -> Option<Action> {
        let climb = self.climb.as_mut()?;
        if let Rung::Warn { left, .. } = &mut climb.rung
            && left.front().is_some_and(|(at, _)| *at <= now)
        {
            return left.pop_front().map(|(_, line)| Action::Warn(line));
        }
        if now < climb.until {
            return None;
        }
        match &mut climb.rung {
            Rung::Warn { command, .. } => match command.take() {
                Some(line) => {
                    climb.until = (now + climb.grace).min(climb.cap);
                    climb.rung = Rung::Command;
                    Some(Action::Type(line))
                }
                None => Some(climb.terminate(now)),
            },
            Rung::Command => Some(climb.terminate(now)),
            Rung::Term | Rung::Kill => {
                climb.rung = Rung::Kill;
                climb.until = now + KILL_AGAIN;
                Some(Action::Kill)
            }
        }
    }

    /// When [`Ladder::tick`] is due.
    pub fn due(&self) -> Option<Instant> {
        let climb = self.climb.as_ref()?;
        let warning = match &climb.rung {
            Rung::Warn { left, .. } => left.front().map(|(at, _)| *at),
            _ => None,
        };
        Some(warning.map_or(climb.until, |at| at.min(climb.until)))
    }

    /// How far it is. While it warns, the stop has been asked for: that counts as the command.
    pub fn stage(&self) -> Option<StopStage> {
        self.climb.as_ref().map(|climb| match climb.rung {
            Rung::Warn { .. } | Rung::Command => StopStage::Command,
            Rung::Term => StopStage::Term,
            Rung::Kill => StopStage::Kill,
        })
    }
}

impl Climb {
    fn terminate(&mut self, now: Instant) -> Action {
        self.rung = Rung::Term;
        self.until = now + self.term;
        Action::Term
    }

    fn hurry(&mut self, times: &Times, now: Instant) {
        self.grace = self.grace.min(times.grace);
        self.term = self.term.min(times.term);
        self.cap = self.cap.min(now + times.cap);
        let wanted = match &self.rung {
            Rung::Warn { .. } => now + times.lead,
            Rung::Command => now + times.grace,
            Rung::Term => now + times.term,
            Rung::Kill => self.until,
        };
        self.until = self.until.min(wanted);
        if let Rung::Warn { left, .. } = &mut self.rung {
            // What would have been said later is not true any more.
            left.retain(|(at, _)| *at < self.until);
        }
    }
}

/// The times of a plan, none beyond [`LONGEST`].
struct Times {
    lead: Duration,
    grace: Duration,
    term: Duration,
    cap: Duration,
}

impl Times {
    fn of(plan: &StopPlan) -> Self {
        let bounded = |ms: u64| Duration::from_millis(ms).min(LONGEST);
        let lead = plan.warn.iter().take(MAX_WARNINGS).map(before).max().unwrap_or_default();
        let grace = if plan.command.is_some() { bounded(plan.grace_ms) } else { Duration::ZERO };
        let cap = plan.cap_ms.map_or(DEFAULT_CAP, bounded);
        // A cap below what is granted without any saving would take away from it.
        Self { lead, grace, term: bounded(plan.term_ms), cap: cap.max(lead + grace) }
    }
}

fn before(warning: &Warning) -> Duration {
    Duration::from_millis(warning.before_ms).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    fn plan(grace_s: u64, term_s: u64) -> StopPlan {
        StopPlan {
            command: Some("stop".to_owned()),
            grace_ms: grace_s * 1000,
            term_ms: term_s * 1000,
            ..StopPlan::default()
        }
    }

    fn typed(line: &str) -> Option<Action> {
        Some(Action::Type(line.to_owned()))
    }

    #[test]
    fn it_climbs_in_order() {
        let t = Instant::now();
        let mut ladder = Ladder::default();
        assert_eq!(ladder.tick(t), None);
        ladder.begin(plan(10, 5), t);
        assert_eq!(ladder.tick(t), typed("stop"));
        assert_eq!(ladder.tick(t + 9 * S), None);
        assert_eq!(ladder.tick(t + 10 * S), Some(Action::Term));
        assert_eq!(ladder.tick(t + 14 * S), None);
        assert_eq!(ladder.tick(t + 15 * S), Some(Action::Kill));
        assert_eq!(ladder.stage(), Some(StopStage::Kill));
    }

    #[test]
    fn without_a_command_it_begins_with_sigterm() {
        let t = Instant::now();
        let mut ladder = Ladder::default();
        ladder.begin(StopPlan { command: None, ..plan(10, 5) }, t);
        assert_eq!(ladder.tick(t), Some(Action::Term));
        assert_eq!(ladder.due(), Some(t + 5 * S));
    }

    #[test]
    fn a_second_request_types_nothing_and_can_only_shorten() {
        let t = Instant::now();
        let mut ladder = Ladder::default();
        ladder.begin(plan(10, 5), t);
        assert_eq!(ladder.tick(t), typed("stop"));
        ladder.begin(plan(100, 100), t);
        assert_eq!(ladder.tick(t), None);
        assert_eq!(ladder.due(), Some(t + 10 * S));
        ladder.begin(plan(0, 1), t + S);
        assert_eq!(ladder.tick(t + S), Some(Action::Term));
        assert_eq!(ladder.tick(t + 2 * S), Some(Action::Kill));
    }

    #[test]
    fn players_are_warned_in_time_and_then_it_stops() {
        let t = Instant::now();
        let warn = |before_s: u64| Warning { before_ms: before_s * 1000, command: format!("say {before_s}") };
        let warned = |s: u64| Some(Action::Warn(format!("say {s}")));
        let plan = StopPlan { warn: vec![warn(3), warn(10)], ..plan(20, 5) };
        let mut ladder = Ladder::default();
        ladder.begin(plan.clone(), t);
        assert_eq!(ladder.stage(), Some(StopStage::Command), "a stop was asked for");
        assert_eq!(ladder.tick(t), warned(10));
        assert_eq!(ladder.tick(t), None);
        assert_eq!(ladder.due(), Some(t + 7 * S));
        ladder.extend(t + 100 * S);
        assert_eq!(ladder.tick(t + 7 * S), warned(3));
        // The same request once more (an agent that came back) changes nothing.
        ladder.begin(plan.clone(), t + 8 * S);
        assert_eq!(ladder.tick(t + 9 * S), None);
        assert_eq!(ladder.tick(t + 10 * S), typed("stop"));
        assert_eq!(ladder.due(), Some(t + 30 * S));
        // One without warnings skips them.
        let mut ladder = Ladder::default();
        ladder.begin(plan.clone(), t);
        assert_eq!(ladder.tick(t), warned(10));
        ladder.begin(StopPlan { warn: Vec::new(), ..plan }, t + S);
        assert_eq!(ladder.tick(t + S), typed("stop"));
        assert_eq!(ladder.due(), Some(t + 21 * S));
    }

    #[test]
    fn saving_puts_off_each_rung_but_never_beyond_the_cap() {
        let t = Instant::now();
        let mut ladder = Ladder::default();
        ladder.begin(StopPlan { cap_ms: Some(30_000), ..plan(10, 5) }, t);
        ladder.tick(t);
        for second in 0..60 {
            ladder.extend(t + (second + 5) * S);
            if ladder.due() == Some(t + second * S) {
                break;
            }
        }
        assert_eq!(ladder.tick(t + 29 * S), None);
        assert_eq!(ladder.tick(t + 30 * S), Some(Action::Term));
        ladder.extend(t + 1000 * S);
        assert_eq!(ladder.tick(t + 35 * S), Some(Action::Kill));
        ladder.extend(t + 1000 * S);
        assert!(ladder.due() < Some(t + 36 * S), "killing is not put off");
    }

    #[test]
    fn a_shutdown_hook_that_saves_is_given_its_time() {
        let t = Instant::now();
        let mut ladder = Ladder::default();
        ladder.begin(plan(10, 5), t);
        ladder.tick(t);
        assert_eq!(ladder.tick(t + 10 * S), Some(Action::Term));
        ladder.extend(t + 25 * S);
        assert_eq!(ladder.tick(t + 24 * S), None);
        assert_eq!(ladder.tick(t + 25 * S), Some(Action::Kill));
    }

    proptest! {
        /// Whatever is asked for, in whatever order: the end comes at the cap and one term.
        #[test]
        fn it_always_reaches_kill(
            grace in 0_u64..1000,
            term in 0_u64..1000,
            cap in prop::option::of(0_u64..5000),
            warn in prop::collection::vec(0_u64..2000, 0..20),
            asks in prop::collection::vec((0_u64..500, 0_u64..u64::MAX, any::<bool>()), 0..40),
        ) {
            let start = Instant::now();
            let ms = Duration::from_millis;
            let warn: Vec<_> =
                warn.into_iter().map(|before_ms| Warning { before_ms, command: "say".to_owned() }).collect();
            let lead = warn.iter().take(MAX_WARNINGS).map(|w| w.before_ms).max().unwrap_or(0);
            let plan = StopPlan { command: Some("stop".to_owned()), grace_ms: grace, term_ms: term, cap_ms: cap, warn };
            let mut ladder = Ladder::default();
            ladder.begin(plan.clone(), start);
            let mut now = start;
            let mut commands = 0;
            for (pause, time, again) in asks {
                now += ms(pause);
                while let Some(action) = ladder.tick(now) {
                    commands += usize::from(matches!(action, Action::Type(_)));
                    if action == Action::Kill { break }
                }
                if again {
                    ladder.begin(StopPlan { grace_ms: time, term_ms: time, cap_ms: Some(time), ..plan.clone() }, now);
                } else {
                    ladder.extend(now + ms(time.min(1 << 40)));
                }
            }
            let cap = cap.unwrap_or(600_000).max(lead + grace);
            // One tick a rung is all a late caller gets.
            now = now.max(start + ms(cap + term));
            for _ in 0..MAX_WARNINGS + 3 {
                now += ms(term);
                while let Some(action) = ladder.tick(now) {
                    commands += usize::from(matches!(action, Action::Type(_)));
                    if action == Action::Kill { break }
                }
            }
            prop_assert_eq!(ladder.stage(), Some(StopStage::Kill));
            prop_assert!(commands <= 1, "the command is typed once");
        }
    }
}
