//! A window as a line of characters, each for an equal part of it.

use zlh_api::{HistorySegment, HistoryState, HistoryWindow};

use crate::printer::{Paint, Printer};

/// What the characters mean.
pub(super) const LEGEND: &str =
    "# ready  + starting  . stopped on request  x partly down  X down  blank: unknown";

/// One window, cell by cell.
#[derive(Debug)]
pub(super) struct Bar(Vec<Mark>);

/// What stands for a part of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ready,
    Starting,
    Stopped,
    Partly,
    Down,
    Unknown,
}

/// Milliseconds of a cell by what it was.
#[derive(Debug, Default, Clone, Copy)]
struct Cell {
    ready: i64,
    starting: i64,
    stopped: i64,
    down: i64,
}

impl Bar {
    /// The window that ends `now`.
    pub(super) fn new(segments: &[HistorySegment], now: jiff::Timestamp, window: HistoryWindow) -> Self {
        let span = i64::try_from(window.seconds() * 1000).unwrap_or(i64::MAX);
        let begin = now.as_millisecond().saturating_sub(span);
        let edge = |index: usize| begin + span / i64::from(CELLS) * i64::try_from(index).unwrap_or(0);
        let mut cells = [Cell::default(); CELLS as usize];
        for segment in segments {
            let at = |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
            let (Some(from), Some(to)) = (at(&segment.from), at(&segment.to)) else { continue };
            for (index, cell) in cells.iter_mut().enumerate() {
                let length = to.min(edge(index + 1)) - from.max(edge(index));
                if length > 0 {
                    cell.add(segment, length);
                }
            }
        }
        Self(cells.iter().map(|cell| cell.mark()).collect())
    }

    /// The characters, in colour where that is allowed.
    pub(super) fn render(&self, printer: Printer) -> String {
        let runs = self.0.chunk_by(|a, b| a == b);
        runs.map(|run| {
            let (character, paint) = run.first().map_or((" ", Paint::Plain), |mark| mark.look());
            printer.painted(&character.repeat(run.len()), paint)
        })
        .collect()
    }
}

impl Cell {
    fn add(&mut self, segment: &HistorySegment, length: i64) {
        *match segment.state {
            HistoryState::Ready => &mut self.ready,
            HistoryState::Starting => &mut self.starting,
            HistoryState::Stopping | HistoryState::Stopped => &mut self.stopped,
            // In maintenance.
            HistoryState::Silent | HistoryState::Down if segment.intended => &mut self.stopped,
            HistoryState::Silent | HistoryState::Down => &mut self.down,
            HistoryState::Unknown => return,
        } += length;
    }

    /// The largest part stands for the whole; time that nobody wanted always shows.
    fn mark(self) -> Mark {
        let known = self.ready + self.starting + self.stopped + self.down;
        if known == 0 {
            Mark::Unknown
        } else if self.down > 0 {
            if self.down * 2 > known { Mark::Down } else { Mark::Partly }
        } else if self.ready >= self.starting.max(self.stopped) {
            Mark::Ready
        } else if self.starting > self.stopped {
            Mark::Starting
        } else {
            Mark::Stopped
        }
    }
}

impl Mark {
    const fn look(self) -> (&'static str, Paint) {
        match self {
            Self::Ready => ("#", Paint::Good),
            Self::Starting => ("+", Paint::Busy),
            Self::Stopped => (".", Paint::Dim),
            Self::Partly => ("x", Paint::Bad),
            Self::Down => ("X", Paint::Bad),
            Self::Unknown => (" ", Paint::Plain),
        }
    }
}

/// What it is doing now, in a word.
pub(super) fn word(segment: &HistorySegment) -> (&'static str, Paint) {
    match segment.state {
        HistoryState::Ready => ("ready", Paint::Good),
        HistoryState::Starting => ("starting", Paint::Busy),
        HistoryState::Silent | HistoryState::Down if segment.intended => ("in maintenance", Paint::Dim),
        HistoryState::Silent => ("not answering", Paint::Bad),
        HistoryState::Stopping => ("stopping", Paint::Busy),
        HistoryState::Stopped => ("stopped", Paint::Dim),
        HistoryState::Down => ("down", Paint::Bad),
        HistoryState::Unknown => ("not known", Paint::Dim),
    }
}

/// Characters of a bar; with its labels 74 columns.
const CELLS: u8 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printer::Format;

    fn segment(state: HistoryState, from: &str, to: &str) -> HistorySegment {
        HistorySegment { state, intended: false, from: from.to_owned(), to: to.to_owned() }
    }

    fn drawn(segments: &[HistorySegment], window: HistoryWindow) -> String {
        let now = "2026-01-31T00:00:00Z".parse().unwrap();
        Bar::new(segments, now, window).render(Printer::new(Format::Table, false, true))
    }

    #[test]
    fn a_short_outage_shows_and_what_is_not_known_is_blank() {
        let segments = [
            segment(HistoryState::Stopped, "2026-01-30T00:00:00Z", "2026-01-30T06:00:00Z"),
            segment(HistoryState::Ready, "2026-01-30T06:00:00Z", "2026-01-30T18:00:00Z"),
            segment(HistoryState::Down, "2026-01-30T18:00:00Z", "2026-01-30T18:00:01Z"),
            segment(HistoryState::Starting, "2026-01-30T18:00:01Z", "2026-01-30T18:48:00Z"),
            segment(HistoryState::Down, "2026-01-30T18:48:00Z", "2026-01-31T00:00:00Z"),
        ];
        let day = format!("{}{}x+{}", ".".repeat(15), "#".repeat(30), "X".repeat(13));
        assert_eq!(drawn(&segments, HistoryWindow::Day), day);
        let month = drawn(&segments, HistoryWindow::Month);
        assert_eq!(month, format!("{}#x", " ".repeat(58)));
        assert_eq!(drawn(&[], HistoryWindow::Week), " ".repeat(CELLS.into()));
    }

    #[test]
    fn the_legend_fits() {
        assert!(LEGEND.lines().all(|line| line.chars().count() <= 80));
    }
}
