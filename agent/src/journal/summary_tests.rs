use proptest::prelude::*;
use zlh_api::HistoryState::{Down, Ready};

use super::super::entry::{By, What};
use super::super::timeline::tests::{Pen, agent, exit, ready, started};
use super::*;

/// What a second was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    Ready,
    Intended,
    Unintended,
}

/// A world of whole seconds, and the journal that an agent kept of it.
struct World {
    pen: Pen,
    seconds: Vec<Second>,
    starts: Vec<usize>,
    crashes: Vec<usize>,
    now: Second,
    /// Whatever it is then is wanted.
    maintenance: bool,
    instance: Option<String>,
    runs: u32,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Whatever begins or improves things from here.
    Forward,
    /// It crashes, and nobody sees it for so many seconds.
    Crash {
        unseen: u16,
    },
    Silent,
    Stop,
    Maintenance(bool),
    NewAgent,
    SetClock {
        days: i16,
    },
    RestartContainer,
}

impl World {
    fn new() -> Self {
        let mut pen = Pen::new();
        pen.write(agent());
        let now = Second::Intended;
        let (starts, crashes) = (vec![], vec![]);
        Self { pen, seconds: vec![], starts, crashes, now, maintenance: false, instance: None, runs: 0 }
    }

    fn wait(&mut self, seconds: u16) {
        self.pen.wait(seconds.into());
        let now =
            if self.maintenance && self.now == Second::Unintended { Second::Intended } else { self.now };
        self.seconds.extend(std::iter::repeat_n(now, seconds.into()));
    }

    fn go(&mut self, step: Step) {
        match (step, self.instance.clone()) {
            (Step::Forward, None) => {
                self.runs += 1;
                let instance = format!("run {}", self.runs);
                self.pen.write(started(&instance));
                self.starts.push(self.seconds.len());
                self.instance = Some(instance);
            }
            (Step::Forward, Some(instance)) => {
                self.pen.write(ready(&instance));
                self.now = Second::Ready;
            }
            (Step::Crash { unseen }, Some(instance)) => {
                let ended = self.pen.now.clone();
                self.crashes.push(self.seconds.len());
                (self.now, self.instance) = (Second::Unintended, None);
                self.wait(unseen);
                self.pen.write(exit(&instance, &ended, None));
            }
            (Step::Silent, Some(_)) if self.now == Second::Ready => {
                self.pen.write(What::Silent { why: String::new() });
                self.now = Second::Unintended;
            }
            (Step::Stop, instance) => {
                self.pen.write(What::Stop { operation: "1".to_owned(), restart: false });
                self.now = Second::Intended;
                if let Some(instance) = instance {
                    self.wait(3);
                    self.pen.write(exit(&instance, &self.pen.now.clone(), Some(By::Operation)));
                    self.instance = None;
                }
            }
            (Step::Maintenance(on), _) => {
                self.pen.write(match on {
                    true => What::Maintenance { reason: None },
                    false => What::MaintenanceOver {},
                });
                self.maintenance = on;
            }
            (Step::NewAgent, instance) => {
                self.begin_agent();
                if let Some(instance) = instance {
                    self.pen.write(What::Found { instance, boot: 0 });
                }
            }
            (Step::SetClock { days }, _) => self.pen.set_clock(i64::from(days) * 86_400_000),
            (Step::RestartContainer, Some(instance)) => {
                self.pen.write(exit(&instance, &self.pen.now.clone(), Some(By::Outside)));
                (self.now, self.instance) = (Second::Intended, None);
                self.wait(9);
                self.pen.now.life = format!("aaaaaaaaaaaa.{}", self.pen.now.boot / 10);
                self.begin_agent();
            }
            _ => {}
        }
    }

    fn begin_agent(&mut self) {
        self.pen.write(What::AgentStarted { version: "1".to_owned(), held: self.maintenance });
    }

    fn check(&self, window: HistoryWindow) {
        let from = self.seconds.len().saturating_sub(usize::try_from(window.seconds()).unwrap());
        let seen = &self.seconds[from..];
        let count = |wanted| seen.iter().filter(|&&second| second == wanted).count() as u64;
        let longest = seen.split(|&s| s != Second::Unintended).map(<[Second]>::len).max().unwrap_or(0) as u64;
        let within = |moments: &[usize]| moments.iter().filter(|&&at| at >= from).count() as u64;
        let (ready, unintended, crashes) =
            (count(Second::Ready), count(Second::Unintended), within(&self.crashes));
        let whole = ready + unintended;
        let expected = HistorySummary {
            window,
            uptime_percent: (whole > 0)
                .then(|| f64::from(u32::try_from(ready * 100_000 / whole).unwrap()) / 1000.0),
            ready_seconds: ready,
            intended_seconds: count(Second::Intended),
            unintended_seconds: unintended,
            unknown_seconds: 0,
            starts: within(&self.starts),
            crashes,
            longest_outage_seconds: longest,
            mean_seconds_between_crashes: (crashes > 0).then(|| ready / crashes),
        };
        assert_eq!(summarize(&self.pen.line(), window), expected);
    }
}

fn steps() -> impl Strategy<Value = Vec<(u16, Step)>> {
    let step = prop_oneof![
        6 => Just(Step::Forward),
        2 => (0_u16..2000).prop_map(|unseen| Step::Crash { unseen }),
        1 => Just(Step::Silent),
        2 => Just(Step::Stop),
        2 => any::<bool>().prop_map(Step::Maintenance),
        1 => Just(Step::NewAgent),
        1 => prop_oneof![Just(-365_i16), Just(365), Just(1)].prop_map(|days| Step::SetClock { days }),
        1 => Just(Step::RestartContainer),
    ];
    prop::collection::vec((0_u16..20_000, step), 1..60)
}

proptest! {
    #[test]
    fn the_figures_are_those_of_a_count_by_the_second(steps in steps()) {
        let mut world = World::new();
        for (pause, step) in steps {
            world.wait(pause);
            world.go(step);
        }
        world.wait(100);
        for window in HistoryWindow::ALL {
            world.check(window);
        }
    }

    #[test]
    fn drawn_together_nothing_is_left_out_and_no_outage_is_hidden(steps in steps(), most in 3_usize..40) {
        let mut world = World::new();
        for (pause, step) in steps {
            world.wait(pause);
            world.go(step);
        }
        let line = world.pen.line();
        for window in HistoryWindow::ALL {
            let exact: Vec<_> = stretches(&line, window).collect();
            let (coarse, drawn_together) = drawn(&line, window, most);
            prop_assert_eq!(drawn_together, exact.len() > most);
            prop_assert!(coarse.len() <= most + 1);
            prop_assert!(coarse.windows(2).all(|pair| pair[0].to == pair[1].from));
            prop_assert_eq!(coarse.first().map(|s| s.from), exact.first().map(|s| s.from));
            prop_assert_eq!(coarse.last().map(|s| s.to), exact.last().map(|s| s.to));
            let bad = |all: &[Stretch]| all.iter().any(|s| s.state.is_outage());
            prop_assert_eq!(bad(&exact), bad(&coarse));
        }
    }
}

#[test]
fn without_a_journal_there_are_no_figures() {
    let line = Pen::new().line();
    for window in HistoryWindow::ALL {
        let summary = summarize(&line, window);
        assert_eq!((summary.uptime_percent, summary.ready_seconds, summary.unknown_seconds), (None, 0, 0));
        assert_eq!(stretches(&line, window).count(), 0);
    }
}

#[test]
fn never_meant_to_run_is_no_percentage_and_a_whole_is_only_whole() {
    assert_eq!((percent(0, 0), percent(5, 5), percent(0, 5)), (None, Some(100.0), Some(0.0)));
    assert_eq!(percent(999_999_999, 1_000_000_000), Some(99.999));
    let mut pen = Pen::new();
    pen.write(agent());
    pen.wait(1000);
    let summary = summarize(&pen.line(), HistoryWindow::Day);
    assert_eq!((summary.uptime_percent, summary.intended_seconds), (None, 1000));
}

#[test]
fn time_before_the_journal_does_not_count() {
    let mut pen = Pen::new();
    pen.write(started("a"));
    pen.write(ready("a"));
    pen.wait(90);
    pen.write(exit("a", &pen.now.clone(), None));
    pen.wait(10);
    let line = pen.line();
    let states: Vec<_> =
        stretches(&line, HistoryWindow::Month).map(|s| (s.state.state, s.to - s.from)).collect();
    assert_eq!(states, [(Ready, 90_000), (Down, 10_000)]);
    assert_eq!(summarize(&line, HistoryWindow::Month).uptime_percent, Some(90.0));
}
