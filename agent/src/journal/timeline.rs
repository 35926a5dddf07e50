//! From entries to a line of states in time.
//!
//! Entries come in the order of their numbers; where each lies in time is found by
//! measuring back from now:
//!
//! - within one boot of the host by CLOCK_BOOTTIME, which goes on across restarts of the
//!   container and which nobody can set;
//! - across a boot of the host by the wall clock, at the last entry before against the
//!   first after it (read with today's idea of the time): never negative, never less than
//!   the new life is old, and where it comes out as more than [`MAX_GAP`], not believed:
//!   that stretch is unknown.
//!
//! So a wall clock that is set a year forth or back moves nothing that was recorded.

use zlh_api::HistoryState;

use super::entry::{Entry, Stamp, What};

/// What the workload was doing, and whether that was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub state: HistoryState,
    /// Of a start: whether it follows a stop somebody wanted.
    pub intended: bool,
    /// Whether it was in maintenance; it does not matter where it is ready or nothing is known.
    pub held: bool,
}

/// A moment as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    epoch: usize,
    boot: u64,
}

/// Takes entries in, keeps what a summary needs: a few bytes for each.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    epochs: Vec<Epoch>,
    changes: Vec<(Position, State)>,
    starts: Vec<Position>,
    crashes: Vec<Position>,
    began: Option<Position>,
    /// The run that is alive, as far as was heard.
    instance: Option<String>,
    /// The run whose end was heard of last: a second report of it is none.
    ended: Option<String>,
    /// When the run was last known to be what it was.
    evidence: Option<Position>,
    /// It is in maintenance.
    held: bool,
}

/// The line, in Unix milliseconds as of now, ascending.
#[derive(Debug)]
pub(super) struct Line {
    pub now: i64,
    /// Where the journal begins; nothing is known before.
    pub began: Option<i64>,
    /// From when on which state.
    pub changes: Vec<(i64, State)>,
    pub starts: Vec<i64>,
    pub crashes: Vec<i64>,
    /// Of each epoch, what to add to its boot time.
    offsets: Vec<i64>,
}

/// One boot of the host, as the journal saw it.
#[derive(Debug)]
struct Epoch {
    host: String,
    first: u64,
    last: u64,
    /// The wall clock at `last`.
    last_at: i64,
    /// How long the container's life had lasted at `first`.
    age: u64,
}

impl State {
    pub(super) const fn of(state: HistoryState) -> Self {
        let intended = matches!(state, HistoryState::Stopping | HistoryState::Stopped);
        Self { state, intended, held: false }
    }

    /// The same in maintenance, or not.
    const fn held(self, held: bool) -> Self {
        let told = matches!(self.state, HistoryState::Ready | HistoryState::Unknown);
        Self { held: held && !told, ..self }
    }

    /// Whether it is a time that nobody wanted.
    pub(super) const fn is_outage(self) -> bool {
        match self.state {
            HistoryState::Silent | HistoryState::Down => !self.held,
            HistoryState::Starting => !self.held && !self.intended,
            _ => false,
        }
    }
}

impl Timeline {
    /// Takes one entry. Answers where it lies, and whether it is news (an end may be
    /// reported twice, when an agent was killed between writing and remembering it).
    pub(super) fn take(&mut self, entry: &Entry) -> (Position, bool) {
        let at = self.place(&entry.stamp);
        if self.began.is_none() {
            self.began = Some(at);
            // The first entry of all: nothing has run. Of a rotated journal: who knows.
            let first = if entry.seq == 1 { HistoryState::Stopped } else { HistoryState::Unknown };
            self.change(at, first);
        }
        let news = self.understand(&entry.what, at);
        // An agent that comes back says nothing about what ran while there was none.
        if !matches!(
            entry.what,
            What::AgentStarted { .. } | What::Swept {} | What::Absent { .. } | What::Explained { .. }
        ) {
            self.evidence = Some(at);
        }
        match &entry.what {
            What::Exit(exit) => (self.find(&exit.ended).unwrap_or(at), news),
            _ => (at, news),
        }
    }

    fn understand(&mut self, what: &What, at: Position) -> bool {
        match what {
            What::Start { instance, .. } => self.begin(instance, at),
            What::Found { instance, boot } => {
                if self.instance.as_ref() == Some(instance) {
                    return true;
                }
                let began = Position { epoch: at.epoch, boot: (*boot).min(at.boot) };
                self.begin(instance, began);
            }
            What::Absent { wanted } => {
                // Its end was not written before the agent was killed: when it was, nobody knows.
                if let Some(instance) = self.instance.take() {
                    self.ended = Some(instance);
                    self.change(self.evidence.unwrap_or(at), HistoryState::Unknown);
                }
                if self.now().is_some_and(|state| state.state == HistoryState::Unknown) {
                    self.change(at, if *wanted { HistoryState::Down } else { HistoryState::Stopped });
                }
            }
            What::Ready { instance, .. } => {
                self.instance = Some(instance.clone());
                self.change(at, HistoryState::Ready);
            }
            What::Answers {} => self.change(at, HistoryState::Ready),
            What::Silent { .. } | What::NotReady { .. } => self.change(at, HistoryState::Silent),
            What::Stop { .. } if self.instance.is_some() => self.change(at, HistoryState::Stopping),
            What::Stop { .. } => self.change(at, HistoryState::Stopped),
            What::AgentStarted { held, .. } => self.hold(at, *held),
            What::Maintenance { .. } => self.hold(at, true),
            What::MaintenanceOver {} => self.hold(at, false),
            What::Exit(exit) => {
                if self.ended.as_ref() == Some(&exit.instance) {
                    return false;
                }
                let ended = self.find(&exit.ended).unwrap_or(at);
                self.instance = None;
                self.ended = Some(exit.instance.clone());
                if exit.by.is_some() {
                    self.change(ended, HistoryState::Stopped);
                } else {
                    self.crashes.push(ended);
                    self.change(ended, HistoryState::Down);
                }
            }
            What::GaveUp { .. } | What::StartFailed { .. } => {
                // A start that came to nothing leaves no exit.
                self.ended = self.instance.take().or(self.ended.take());
                self.change(at, HistoryState::Down);
            }
            What::OperationEnded { kind: zlh_api::OperationKind::Stop, .. }
                if self.now().is_some_and(|state| state.state == HistoryState::Stopping) =>
            {
                self.instance = None;
                self.change(at, HistoryState::Stopped);
            }
            What::Swept {} => {
                if let Some(instance) = self.instance.take() {
                    self.ended = Some(instance);
                    self.change(self.evidence.unwrap_or(at), HistoryState::Down);
                } else {
                    return false;
                }
            }
            What::Alive { ready } => {
                if self.now().is_some_and(|state| state.state == HistoryState::Unknown) {
                    self.change(at, if *ready { HistoryState::Ready } else { HistoryState::Silent });
                }
            }
            What::Gap { boot, .. } => {
                self.change(Position { epoch: at.epoch, boot: (*boot).min(at.boot) }, HistoryState::Unknown);
            }
            What::AgentLeft { .. }
            | What::Crash { .. }
            | What::Explained { .. }
            | What::Command { .. }
            | What::OperationBegan { .. }
            | What::OperationEnded { .. }
            | What::Installed { .. }
            | What::Degraded { .. }
            | What::Recovered {}
            | What::Foreign => {}
        }
        true
    }

    fn begin(&mut self, instance: &str, at: Position) {
        self.instance = Some(instance.to_owned());
        self.starts.push(at);
        // A start is part of the time that it ends.
        let intended = self.now().is_none_or(|state| !state.held(false).is_outage());
        self.changes.push((at, State { state: HistoryState::Starting, intended, held: self.held }));
    }

    /// From here on it is in maintenance, or not any more, whatever else it is.
    fn hold(&mut self, at: Position, held: bool) {
        self.held = held;
        if let Some(now) = self.now()
            && now != now.held(held)
        {
            self.changes.push((at, now.held(held)));
        }
    }

    fn now(&self) -> Option<State> {
        self.changes.last().map(|(_, state)| *state)
    }

    fn change(&mut self, at: Position, state: HistoryState) {
        if self.now().is_none_or(|now| now.state != state) {
            self.changes.push((at, State::of(state).held(self.held)));
        }
    }

    /// Where a moment lies; the last boot of its host counts.
    fn find(&self, stamp: &Stamp) -> Option<Position> {
        let epoch = self.epochs.iter().rposition(|epoch| epoch.host == stamp.host())?;
        Some(Position { epoch, boot: stamp.boot })
    }

    fn place(&mut self, stamp: &Stamp) -> Position {
        let host = stamp.host();
        match self.epochs.last_mut() {
            Some(epoch) if epoch.host == host => {
                epoch.last = epoch.last.max(stamp.boot);
                epoch.last_at = stamp.at;
            }
            _ => self.epochs.push(Epoch {
                host: host.to_owned(),
                first: stamp.boot,
                last: stamp.boot,
                last_at: stamp.at,
                age: stamp.boot.saturating_sub(stamp.life_began()),
            }),
        }
        Position { epoch: self.epochs.len() - 1, boot: stamp.boot }
    }

    /// Measures everything back from `now`.
    pub(super) fn resolve(mut self, now: &Stamp) -> Line {
        self.place(now);
        let (offsets, doubtful) = offsets(&self.epochs, now);
        let mut line = Line {
            now: now.at,
            began: None,
            changes: Vec::with_capacity(self.changes.len() + 2 * doubtful.len()),
            starts: Vec::new(),
            crashes: Vec::new(),
            offsets,
        };
        let mut epoch = 0;
        let mut state = None;
        for (position, next) in &self.changes {
            line.doubt(&self.epochs, &doubtful, epoch, position.epoch, state);
            epoch = epoch.max(position.epoch);
            state = Some(*next);
            line.push(line.at(*position), *next);
        }
        line.doubt(&self.epochs, &doubtful, epoch, self.epochs.len() - 1, state);
        line.began = self.began.map(|began| line.at(began));
        line.starts = self.starts.iter().map(|position| line.at(*position)).collect();
        line.crashes = self.crashes.iter().map(|position| line.at(*position)).collect();
        line
    }
}

impl Line {
    /// Unix milliseconds, as of now.
    pub(super) fn at(&self, position: Position) -> i64 {
        let offset = self.offsets.get(position.epoch).copied().unwrap_or(0);
        signed(position.boot).saturating_add(offset).min(self.now)
    }

    fn push(&mut self, at: i64, state: State) {
        // What was written later was later, whatever an old record says.
        let at = self.changes.last().map_or(at, |(last, _)| at.max(*last));
        self.changes.push((at, state));
    }

    /// Between two boots of the host that cannot be told apart in time, nothing is known.
    fn doubt(&mut self, epochs: &[Epoch], doubtful: &[usize], from: usize, to: usize, state: Option<State>) {
        let Some(state) = state else { return };
        for &epoch in doubtful.iter().filter(|&&epoch| from < epoch && epoch <= to) {
            let (Some(before), Some(after)) = (epochs.get(epoch - 1), epochs.get(epoch)) else { continue };
            let gone = self.at(Position { epoch: epoch - 1, boot: before.last });
            let back = self.at(Position { epoch, boot: after.first });
            self.push(gone, State::of(HistoryState::Unknown));
            self.push(back, state);
        }
    }
}

/// What to add to each epoch's boot time, and before which epochs the gap is not believed.
fn offsets(epochs: &[Epoch], now: &Stamp) -> (Vec<i64>, Vec<usize>) {
    let mut offsets = vec![0; epochs.len()];
    let mut doubtful = Vec::new();
    let mut offset = now.at.saturating_sub(signed(now.boot));
    if let Some(last) = offsets.last_mut() {
        *last = offset;
    }
    for (index, pair) in epochs.windows(2).enumerate().rev() {
        let [before, after] = pair else { continue };
        let back = signed(after.first).saturating_add(offset);
        let said = back.saturating_sub(before.last_at);
        let age = signed(after.age).min(MAX_GAP);
        let gap = said.clamp(age, MAX_GAP);
        if said > MAX_GAP {
            doubtful.push(index + 1);
        }
        offset = back.saturating_sub(gap).saturating_sub(signed(before.last));
        offsets[index] = offset;
    }
    doubtful.reverse();
    (offsets, doubtful)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Longer than every window: whatever lies before a longer gap is not looked at anyway.
const MAX_GAP: i64 = 31 * 86_400_000;

#[cfg(test)]
#[path = "timeline_tests.rs"]
pub(super) mod tests;
