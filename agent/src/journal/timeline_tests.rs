use super::super::entry::{By, Exit, Why};
use super::*;

const DAY: i64 = 86_400_000;
const YEAR: i64 = 365 * DAY;
/// Of the first entry, Unix milliseconds.
const EPOCH: i64 = 1_767_225_600_000;

/// Writes a journal second by second.
pub(in crate::journal) struct Pen {
    pub entries: Vec<Entry>,
    pub now: Stamp,
}

impl Pen {
    pub(in crate::journal) fn new() -> Self {
        let now = Stamp { at: EPOCH, boot: 5_000_000, life: "aaaaaaaaaaaa.100".to_owned() };
        Self { entries: Vec::new(), now }
    }

    pub(in crate::journal) fn wait(&mut self, seconds: u64) {
        self.now.boot += seconds * 1000;
        self.now.at += i64::try_from(seconds * 1000).unwrap();
    }

    /// Somebody sets the clock.
    pub(in crate::journal) fn set_clock(&mut self, by_ms: i64) {
        self.now.at += by_ms;
    }

    /// The host boots anew and takes this long for it.
    pub(in crate::journal) fn boot_host(&mut self, host: &str, seconds: u64) {
        self.wait(seconds);
        self.now.boot = 60_000;
        self.now.life = format!("{host}.100");
    }

    pub(in crate::journal) fn write(&mut self, what: What) {
        let seq = self.entries.len() as u64 + 1;
        self.entries.push(Entry { seq, stamp: self.now.clone(), what });
    }

    pub(in crate::journal) fn line(&self) -> Line {
        let mut timeline = Timeline::default();
        for entry in &self.entries {
            timeline.take(entry);
        }
        timeline.resolve(&self.now)
    }

    /// States and how many seconds they lasted, up to now.
    fn states(&self) -> Vec<(HistoryState, i64)> {
        let line = self.line();
        let ends = line.changes.iter().skip(1).map(|(at, _)| *at).chain([line.now]);
        let states = line.changes.iter().zip(ends).map(|((at, state), to)| (state.state, (to - at) / 1000));
        states.filter(|(_, seconds)| *seconds > 0).collect()
    }
}

pub(in crate::journal) fn started(instance: &str) -> What {
    What::Start { instance: instance.to_owned(), attempt: 1, why: Why::Operation }
}

pub(in crate::journal) fn ready(instance: &str) -> What {
    What::Ready { instance: instance.to_owned(), after_ms: None }
}

pub(in crate::journal) fn exit(instance: &str, ended: &Stamp, by: Option<By>) -> What {
    What::Exit(Box::new(Exit {
        instance: instance.to_owned(),
        ended: ended.clone(),
        code: Some(1),
        signal: 0,
        signal_name: None,
        uptime_ms: 0,
        was_ready: true,
        by,
        lost: None,
        oom: false,
    }))
}

pub(in crate::journal) fn agent() -> What {
    What::AgentStarted { version: "1".to_owned(), held: false }
}

fn stop() -> What {
    What::Stop { operation: "1".to_owned(), restart: false }
}

use HistoryState::{Down, Ready, Silent, Starting, Stopped, Stopping, Unknown};

#[test]
fn a_life_from_start_to_stop() {
    let mut pen = Pen::new();
    pen.write(agent());
    pen.wait(10);
    pen.write(started("a"));
    pen.wait(20);
    pen.write(ready("a"));
    pen.wait(100);
    pen.write(What::Silent { why: "hung".to_owned() });
    pen.wait(5);
    pen.write(What::Answers {});
    pen.wait(7);
    pen.write(stop());
    pen.wait(3);
    pen.write(exit("a", &pen.now.clone(), Some(By::Operation)));
    pen.wait(60);
    assert_eq!(
        pen.states(),
        [(Stopped, 10), (Starting, 20), (Ready, 100), (Silent, 5), (Ready, 7), (Stopping, 3), (Stopped, 60)]
    );
}

#[test]
fn an_end_that_was_missed_lies_where_it_happened_and_counts_once() {
    let mut pen = Pen::new();
    pen.write(started("a"));
    pen.write(ready("a"));
    pen.wait(100);
    let ended = pen.now.clone();
    pen.wait(600);
    pen.write(agent());
    pen.write(exit("a", &ended, None));
    // Killed before it could remember: the next agent counts it again.
    pen.wait(5);
    pen.write(agent());
    pen.write(exit("a", &ended, None));
    pen.wait(10);
    assert_eq!(pen.states(), [(Ready, 100), (Down, 615)]);
    assert_eq!(pen.line().crashes.len(), 1);
}

#[test]
fn an_agent_that_comes_and_goes_changes_nothing_for_what_runs_on() {
    let mut pen = Pen::new();
    pen.write(started("a"));
    pen.wait(10);
    pen.write(ready("a"));
    pen.wait(100);
    let boot = pen.entries[0].stamp.boot;
    for _ in 0..3 {
        pen.wait(60);
        pen.write(agent());
        pen.write(What::Found { instance: "a".to_owned(), boot });
        pen.write(ready("a"));
    }
    assert_eq!(pen.states(), [(Starting, 10), (Ready, 280)]);
    assert_eq!(pen.line().starts.len(), 1);
}

#[test]
fn a_clock_that_is_set_a_year_off_moves_nothing() {
    for jump in [YEAR, -YEAR] {
        let mut pen = Pen::new();
        pen.write(started("a"));
        pen.wait(10);
        pen.write(ready("a"));
        pen.wait(100);
        pen.set_clock(jump);
        pen.write(exit("a", &pen.now.clone(), None));
        pen.wait(30);
        // A container that restarts on the same host measures with the same clock.
        pen.now.life = "aaaaaaaaaaaa.500009".to_owned();
        pen.write(agent());
        pen.write(started("b"));
        pen.wait(10);
        pen.write(ready("b"));
        pen.set_clock(-jump);
        pen.wait(50);
        assert_eq!(pen.states(), [(Starting, 10), (Ready, 100), (Down, 30), (Starting, 10), (Ready, 50)]);
        let line = pen.line();
        assert_eq!((line.now, line.began), (pen.now.at, Some(pen.now.at - 200_000)));
    }
}

#[test]
fn a_host_that_boots_with_a_wrong_clock_is_placed_by_the_right_one() {
    let mut pen = Pen::new();
    pen.write(started("a"));
    pen.write(ready("a"));
    pen.wait(1000);
    pen.write(What::Alive { ready: true });
    // Its clock has no battery: it says 1970 until the network has told it better.
    pen.boot_host("bbbbbbbbbbbb", 300);
    let wrong = -pen.now.at;
    pen.set_clock(wrong);
    pen.write(agent());
    pen.write(What::Swept {});
    pen.write(started("b"));
    pen.wait(20);
    pen.write(ready("b"));
    pen.set_clock(-wrong);
    pen.wait(500);
    assert_eq!(pen.states(), [(Ready, 1000), (Down, 300), (Starting, 20), (Ready, 500)]);
}

#[test]
fn a_boot_a_year_away_is_not_believed() {
    let mut pen = Pen::new();
    pen.write(started("a"));
    pen.write(ready("a"));
    pen.wait(1000);
    pen.write(What::Alive { ready: true });
    pen.set_clock(YEAR);
    pen.boot_host("bbbbbbbbbbbb", 300);
    pen.write(agent());
    pen.write(What::Swept {});
    pen.write(started("b"));
    pen.wait(20);
    pen.write(ready("b"));
    pen.wait(500);
    let month = 31 * 86_400;
    assert_eq!(pen.states(), [(Ready, 1000), (Unknown, month), (Starting, 20), (Ready, 500)]);

    // And one before the last entry: no less than the new life is old.
    let mut pen = Pen::new();
    pen.write(started("a"));
    pen.write(ready("a"));
    pen.wait(1000);
    pen.write(What::Alive { ready: true });
    pen.set_clock(-YEAR);
    pen.boot_host("bbbbbbbbbbbb", 300);
    pen.write(agent());
    pen.write(What::Swept {});
    assert_eq!(pen.states(), [(Ready, 1000), (Down, 59)]);
}

#[test]
fn after_a_gap_nothing_is_known_until_something_is_heard() {
    let mut pen = Pen::new();
    pen.write(started("a"));
    pen.write(ready("a"));
    pen.wait(100);
    let boot = pen.now.boot;
    pen.wait(50);
    pen.write(What::Gap { lost: 3, boot });
    pen.wait(25);
    pen.write(What::Alive { ready: true });
    pen.wait(10);
    assert_eq!(pen.states(), [(Ready, 100), (Unknown, 75), (Ready, 10)]);
}

#[test]
fn a_start_that_comes_to_nothing_is_an_outage_and_a_stop_ends_it() {
    let mut pen = Pen::new();
    pen.write(agent());
    pen.write(started("a"));
    pen.wait(5);
    pen.write(What::GaveUp { why: "port in use".to_owned() });
    pen.wait(100);
    pen.write(stop());
    pen.wait(40);
    assert_eq!(pen.states(), [(Starting, 5), (Down, 100), (Stopped, 40)]);
}

#[test]
fn an_end_that_was_never_written_leaves_a_hole_and_no_uptime() {
    for (wanted, after) in [(true, Down), (false, Stopped)] {
        let mut pen = Pen::new();
        pen.write(started("a"));
        pen.write(ready("a"));
        pen.wait(100);
        pen.write(What::Alive { ready: true });
        pen.wait(50);
        pen.write(agent());
        pen.write(What::Absent { wanted });
        pen.wait(30);
        assert_eq!(pen.states(), [(Ready, 100), (Unknown, 50), (after, 30)]);
        // Found once more, nothing is news.
        pen.write(agent());
        pen.write(What::Absent { wanted });
        assert_eq!(pen.states().len(), 3);
    }
}

#[test]
fn a_rotated_journal_begins_with_nothing_known() {
    let mut pen = Pen::new();
    pen.write(agent());
    pen.write(What::Alive { ready: false });
    pen.entries.remove(0);
    pen.wait(10);
    assert_eq!(pen.states(), [(Silent, 10)]);
    pen.entries[0].what = agent();
    assert_eq!(pen.states(), [(Unknown, 10)]);
}
