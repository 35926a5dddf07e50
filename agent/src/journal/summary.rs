//! The figures of a window, and what it looks like.

use zlh_api::{HistoryState, HistorySummary, HistoryWindow};

use super::timeline::{Line, State};

/// A stretch of one state, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub state: State,
    pub from: i64,
    pub to: i64,
}

/// The window in numbers.
pub(super) fn summarize(line: &Line, window: HistoryWindow) -> HistorySummary {
    let from = begin(line, window);
    let (mut ready, mut intended, mut unintended, mut unknown) = (0, 0, 0, 0);
    let (mut outage, mut longest) = (0, 0);
    for stretch in stretches(line, window) {
        let length = length(&stretch);
        let is_outage = stretch.state.is_outage();
        outage = if is_outage { outage + length } else { 0 };
        longest = longest.max(outage);
        *match stretch.state.state {
            HistoryState::Ready => &mut ready,
            HistoryState::Unknown => &mut unknown,
            _ if is_outage => &mut unintended,
            _ => &mut intended,
        } += length;
    }
    let within = |moments: &[i64]| moments.iter().filter(|&&at| at >= from).count() as u64;
    let crashes = within(&line.crashes);
    HistorySummary {
        window,
        uptime_percent: percent(ready, ready + unintended),
        ready_seconds: ready / 1000,
        intended_seconds: intended / 1000,
        unintended_seconds: unintended / 1000,
        unknown_seconds: unknown / 1000,
        starts: within(&line.starts),
        crashes,
        longest_outage_seconds: longest / 1000,
        mean_seconds_between_crashes: (ready / 1000).checked_div(crashes),
    }
}

/// The states of the window, oldest first and without gaps; neighbours differ.
pub(super) fn stretches(line: &Line, window: HistoryWindow) -> impl Iterator<Item = Stretch> + '_ {
    let from = begin(line, window);
    let ends = line.changes.iter().skip(1).map(|(at, _)| *at).chain([line.now]);
    let mut all = line
        .changes
        .iter()
        .zip(ends)
        .map(move |((at, state), to)| Stretch { state: *state, from: (*at).max(from), to: to.min(line.now) })
        .filter(|stretch| stretch.to > stretch.from)
        .peekable();
    std::iter::from_fn(move || {
        let mut whole = all.next()?;
        while let Some(next) = all.next_if(|next| next.state == whole.state) {
            whole.to = next.to;
        }
        Some(whole)
    })
}

/// The same in at most `most` stretches; whether they had to be drawn together.
pub(super) fn drawn(line: &Line, window: HistoryWindow, most: usize) -> (Vec<Stretch>, bool) {
    let all: Vec<Stretch> = stretches(line, window).collect();
    if all.len() <= most {
        return (all, false);
    }
    // A cell's worst state stands for it: an outage is never drawn away.
    let cell = (span(window) / i64::try_from(most).unwrap_or(i64::MAX)).max(1) + 1;
    let mut cells: Vec<Stretch> = Vec::new();
    for stretch in all {
        let mut from = stretch.from;
        while from < stretch.to {
            let to = stretch.to.min((from.div_euclid(cell) + 1) * cell);
            let piece = Stretch { state: stretch.state, from, to };
            match cells.last_mut() {
                Some(last) if last.from.div_euclid(cell) == from.div_euclid(cell) => {
                    last.to = to;
                    if severity(piece.state) > severity(last.state) {
                        last.state = piece.state;
                    }
                }
                _ => cells.push(piece),
            }
            from = to;
        }
    }
    cells.dedup_by(|next, last| {
        let same = next.state == last.state;
        if same {
            last.to = next.to;
        }
        same
    });
    (cells, true)
}

/// Where the window begins, Unix milliseconds.
pub(super) fn begin(line: &Line, window: HistoryWindow) -> i64 {
    line.now.saturating_sub(span(window))
}

fn span(window: HistoryWindow) -> i64 {
    i64::try_from(window.seconds() * 1000).unwrap_or(i64::MAX)
}

fn length(stretch: &Stretch) -> u64 {
    u64::try_from(stretch.to - stretch.from).unwrap_or(0)
}

fn severity(state: State) -> u8 {
    match state.state {
        HistoryState::Down if state.is_outage() => 6,
        HistoryState::Silent if state.is_outage() => 5,
        HistoryState::Starting if state.is_outage() => 4,
        HistoryState::Unknown => 3,
        HistoryState::Starting => 2,
        HistoryState::Ready => 0,
        _ => 1,
    }
}

/// Rounded down: 100 % means all of it.
#[allow(clippy::cast_precision_loss, reason = "thousandths of a percent are far below 2^53")]
fn percent(part: u64, whole: u64) -> Option<f64> {
    let thousandths = (u128::from(part) * 100_000).checked_div(u128::from(whole))?;
    Some(thousandths as f64 / 1000.0)
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
