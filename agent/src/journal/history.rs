//! The journal as `GET /history` shows it.

use std::collections::VecDeque;

use zlh_api::{
    History, HistoryEvent, HistoryExit, HistoryKind, HistoryOperation, HistorySegment, HistoryWindow,
    JournalState,
};

use super::entry::{By, Entry, Exit, Stamp, What, Why, show};
use super::summary::{begin, drawn, summarize};
use super::timeline::{Line, Position, Timeline};

/// What is asked of the journal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    /// Of the segments and events.
    pub window: HistoryWindow,
    /// Only events before this number.
    pub before: Option<u64>,
    /// At most so many events, the newest.
    pub limit: usize,
}

/// Collects entries, one after the other, and keeps what an answer needs.
pub(super) struct Collector {
    query: Query,
    timeline: Timeline,
    events: VecDeque<(Position, HistoryEvent, i64)>,
    /// Number and place of the newest event that had to give way.
    dropped: Option<Position>,
    lost: u64,
}

impl Collector {
    pub(super) fn new(query: Query) -> Self {
        Self { query, timeline: Timeline::default(), events: VecDeque::new(), dropped: None, lost: 0 }
    }

    pub(super) fn take(&mut self, entry: Entry) {
        let (at, news) = self.timeline.take(&entry);
        if let What::Gap { lost, .. } = entry.what {
            self.lost = self.lost.saturating_add(lost);
        }
        if let What::Explained { instance, cause, title } = entry.what {
            self.explain(&instance, cause, title);
            return;
        }
        if !news || self.query.before.is_some_and(|before| entry.seq >= before) {
            return;
        }
        let stamp = match &entry.what {
            What::Exit(exit) => exit.ended.at,
            _ => entry.stamp.at,
        };
        if let Some(event) = event(entry) {
            self.events.push_back((at, event, stamp));
        }
        if self.events.len() > self.query.limit {
            self.dropped = self.events.pop_front().map(|(at, ..)| at);
        }
    }

    /// An explanation belongs to its crash, wherever a page ends.
    fn explain(&mut self, instance: &str, cause: Option<String>, title: String) {
        let is_it = |event: &HistoryEvent| {
            event.kind == HistoryKind::Crash && event.instance.as_deref() == Some(instance)
        };
        if let Some((_, crash, _)) = self.events.iter_mut().rev().find(|(_, event, _)| is_it(event)) {
            crash.cause = cause;
            crash.detail = Some(title).filter(|title| !title.is_empty());
        }
    }

    /// The answer. `pending`/`lost`: what waits for the disk, and what did not find room.
    pub(super) fn finish(self, now: &Stamp, entries: u64, damaged: u64, pending: u64, lost: u64) -> History {
        let line = self.timeline.resolve(now);
        let window = self.query.window;
        let from = begin(&line, window);
        let (stretches, coarse) = drawn(&line, window, MAX_SEGMENTS);
        let shown = |(at, event, said): (Position, HistoryEvent, i64)| dated(&line, at, event, said);
        let events: Vec<HistoryEvent> =
            self.events.into_iter().filter(|(at, ..)| line.at(*at) >= from).map(shown).collect();
        let is_more = self.dropped.is_some_and(|at| line.at(at) >= from);
        History {
            now: show(line.now),
            window,
            from: show(from),
            summaries: HistoryWindow::ALL.iter().map(|window| summarize(&line, *window)).collect(),
            segments: stretches
                .iter()
                .map(|stretch| HistorySegment {
                    state: stretch.state.state,
                    intended: !stretch.state.is_outage()
                        && !matches!(
                            stretch.state.state,
                            zlh_api::HistoryState::Ready | zlh_api::HistoryState::Unknown
                        ),
                    from: show(stretch.from),
                    to: show(stretch.to),
                })
                .collect(),
            coarse,
            next_before: events.first().filter(|_| is_more).map(|event| event.seq),
            events,
            journal: JournalState {
                since: line.began.map(show),
                entries,
                pending,
                damaged,
                lost: self.lost.saturating_add(lost),
            },
        }
    }
}

fn dated(line: &Line, at: Position, mut event: HistoryEvent, said: i64) -> HistoryEvent {
    let at = line.at(at);
    event.time = show(at);
    event.recorded = (said.abs_diff(at) > CLOCK_NEWS_MS).then(|| show(said));
    event
}

/// What callers see of an entry; some are for the timeline only.
fn event(entry: Entry) -> Option<HistoryEvent> {
    let mut event = HistoryEvent {
        seq: entry.seq,
        time: String::new(),
        recorded: None,
        kind: HistoryKind::Gap,
        instance: None,
        detail: None,
        cause: None,
        who: None,
        operation: None,
        exit: None,
        count: None,
        seconds: None,
    };
    event.kind = match entry.what {
        What::AgentStarted { version, .. } => {
            event.detail = Some(version);
            HistoryKind::AgentStarted
        }
        What::AgentLeft { signal } => {
            event.detail = Some(signal);
            HistoryKind::AgentLeft
        }
        What::Start { instance, attempt, why } => {
            event.instance = Some(instance);
            event.count = Some(attempt.into());
            event.detail = Some(reason(why).to_owned());
            HistoryKind::Start
        }
        What::Found { instance, .. } => {
            event.instance = Some(instance);
            HistoryKind::Found
        }
        What::Ready { instance, after_ms } => {
            event.instance = Some(instance);
            event.seconds = after_ms.map(|ms| ms / 1000);
            HistoryKind::Ready
        }
        What::Silent { why } => {
            event.detail = Some(why);
            HistoryKind::Silent
        }
        What::Answers {} => HistoryKind::Answers,
        What::NotReady { why } => {
            event.detail = Some(why);
            HistoryKind::NotReady
        }
        What::Stop { operation, restart } => {
            let kind = if restart { zlh_api::OperationKind::Restart } else { zlh_api::OperationKind::Stop };
            event.operation = Some(HistoryOperation { id: operation, kind, state: None });
            HistoryKind::Stop
        }
        What::Maintenance { reason } => {
            event.detail = reason;
            HistoryKind::Maintenance
        }
        What::MaintenanceOver {} => HistoryKind::MaintenanceOver,
        What::Exit(exit) => {
            let kind = if exit.by.is_some() { HistoryKind::Exit } else { HistoryKind::Crash };
            event.detail = exit.by.map(|by| who(by).to_owned());
            event.exit = Some(ended(&exit, &entry.stamp));
            event.instance = Some(exit.instance);
            kind
        }
        What::Crash { count, restart_after_s, .. } => {
            // Giving up has an entry of its own.
            restart_after_s?;
            event.count = Some(count.into());
            event.seconds = restart_after_s;
            HistoryKind::Restart
        }
        What::GaveUp { why } => {
            event.detail = Some(why);
            HistoryKind::GaveUp
        }
        What::StartFailed { why, restart_after_s } => {
            event.detail = Some(why);
            event.seconds = restart_after_s;
            HistoryKind::StartFailed
        }
        What::Swept {} => HistoryKind::Swept,
        What::OperationBegan { id, kind } => {
            event.operation = Some(HistoryOperation { id, kind, state: None });
            HistoryKind::OperationBegan
        }
        What::OperationEnded { id, kind, state, error } => {
            event.operation = Some(HistoryOperation { id, kind, state: Some(state) });
            event.detail = error;
            HistoryKind::OperationEnded
        }
        What::Installed { what } => {
            event.detail = Some(what);
            HistoryKind::Installed
        }
        What::Command { who, line, unnoted } => {
            event.who = Some(who);
            event.detail = Some(line);
            event.count = Some(unnoted).filter(|unnoted| *unnoted > 0);
            HistoryKind::Command
        }
        What::Degraded { why } => {
            event.detail = Some(why);
            HistoryKind::Degraded
        }
        What::Recovered {} => HistoryKind::Recovered,
        What::Gap { lost, .. } => {
            event.count = Some(lost);
            HistoryKind::Gap
        }
        What::Alive { .. } | What::Absent { .. } | What::Explained { .. } | What::Foreign => return None,
    };
    Some(event)
}

fn ended(exit: &Exit, seen: &Stamp) -> HistoryExit {
    let late = seen.at.saturating_sub(exit.ended.at) > SEEN_LATE_MS;
    HistoryExit {
        code: exit.code,
        signal: exit.signal,
        signal_name: exit.signal_name.clone(),
        uptime_seconds: exit.uptime_ms / 1000,
        was_ready: exit.was_ready,
        out_of_memory: exit.oom,
        lost: exit.lost.clone(),
        seen: late.then(|| show(seen.at)),
    }
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Operation => "operation",
        Why::Boot => "boot",
        Why::Backoff => "backoff",
    }
}

fn who(by: By) -> &'static str {
    match by {
        By::Operation => "operation",
        By::Inside => "inside",
        By::Outside => "outside",
    }
}

/// Segments of an answer; more are drawn together.
const MAX_SEGMENTS: usize = 1000;
/// A clock that is off by less is no news.
const CLOCK_NEWS_MS: u64 = 60_000;
/// An end that is heard of later than this was missed.
const SEEN_LATE_MS: i64 = 5_000;
