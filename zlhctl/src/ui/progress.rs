//! Progress on standard error.
//!
//! On a terminal one line per agent that rewrites itself; otherwise a plain line
//! whenever the phase changes, and now and then how far it is, so that logs of CI jobs
//! tell the story without thousands of lines. Silent with `-q`.

use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use zlh_api::{Operation, OperationState, Progress as Done};

use super::escape::one_line;
use super::units;
use crate::printer::Printer;
use crate::wait::{Seen, describe};

/// Lines of progress that are shown together.
pub(crate) struct Progress {
    printer: Printer,
    lines: Option<MultiProgress>,
    name_width: usize,
}

/// One of them.
pub(crate) struct Line {
    printer: Printer,
    lines: Option<MultiProgress>,
    name: String,
    bar: Option<ProgressBar>,
    began: Instant,
    told: Mutex<Told>,
}

/// What was told without a terminal, and when.
#[derive(Default)]
struct Told {
    text: String,
    at: Option<Instant>,
}

impl Told {
    /// What is worth a line: another text, or after a while how far it is.
    fn line(&mut self, text: &str, amount: Option<&str>, now: Instant) -> Option<String> {
        let is_new = self.text != text;
        let is_due = amount.is_some() && self.at.is_none_or(|at| now.duration_since(at) >= NOW_AND_THEN);
        if !is_new && !is_due {
            return None;
        }
        *self = Self { text: text.to_owned(), at: Some(now) };
        Some(match amount {
            Some(amount) => format!("{text}: {amount}"),
            None => text.to_owned(),
        })
    }
}

impl Progress {
    pub(crate) fn new(printer: Printer) -> Self {
        let lines = printer
            .is_interactive()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Self { printer, lines, name_width: 0 }
    }

    /// Lines up the texts of several names.
    pub(crate) fn align<'a>(mut self, names: impl Iterator<Item = &'a str>) -> Self {
        self.name_width = names.map(str::len).max().unwrap_or_default();
        self
    }

    /// A remark above the lines.
    pub(crate) fn note(&self, text: &str) {
        note(self.lines.as_ref(), self.printer, text);
    }

    pub(crate) fn line(&self, name: &str) -> Line {
        let name = format!("{:width$}", one_line(name), width = self.name_width);
        let bar = self.lines.as_ref().map(|lines| {
            let bar = lines.add(ProgressBar::new_spinner());
            bar.set_style(style(Look::Spinner, String::new()));
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(TICK);
            bar
        });
        Line {
            printer: self.printer,
            lines: self.lines.clone(),
            name,
            bar,
            began: Instant::now(),
            told: Mutex::default(),
        }
    }
}

impl Line {
    /// Shows what was last seen of an agent.
    pub(crate) fn seen(&self, seen: Seen<'_>) {
        match seen {
            Seen::Status(status, operation) => {
                let running = operation.filter(|operation| operation.state == OperationState::Running);
                match running.filter(|operation| !operation.phase.is_empty()) {
                    Some(operation) => self.operation(operation),
                    None => self.text(&describe(status)),
                }
            }
            Seen::Unreachable(reason) => self.text(reason),
        }
    }

    /// Shows a phase without a count.
    pub(crate) fn text(&self, text: &str) {
        self.show(text, None);
    }

    /// Shows how many of so many files are done.
    pub(crate) fn files(&self, text: &str, done: usize, total: usize) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (done, total) = (count(done), Some(count(total)));
        self.show(text, Some(&Done { done, total, unit: "files".to_owned(), rate: None }));
    }

    /// Shows how far an operation is.
    pub(crate) fn operation(&self, operation: &Operation) {
        self.show(&operation.phase, operation.progress.as_ref());
    }

    fn show(&self, text: &str, progress: Option<&Done>) {
        let text = one_line(text);
        let amount = progress.and_then(amount);
        let Some(bar) = &self.bar else {
            let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(line) = told.line(&text, amount.as_deref(), Instant::now()) {
                self.printer.note(&format!("{}: {line}", self.name.trim_end()));
            }
            return;
        };
        bar.set_message(text);
        if let Some((done, total)) = progress.and_then(|progress| Some((progress.done, progress.total?))) {
            bar.set_length(total);
            bar.set_position(done.min(total));
        }
        bar.set_style(style(Look::of(progress), amount.unwrap_or_default()));
    }

    /// Replaces the line by its result.
    pub(crate) fn finish(self, text: &str) {
        let took = self.began.elapsed();
        let took = if took < WORTH_TELLING { String::new() } else { format!(" ({})", units::duration(took)) };
        self.clear();
        note(self.lines.as_ref(), self.printer, &format!("{} {}{took}", self.name, one_line(text)));
    }

    /// Takes the line away; somebody else says how it ended.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Lines that are being drawn make room first.
fn note(lines: Option<&MultiProgress>, printer: Printer, text: &str) {
    match lines {
        Some(lines) => lines.suspend(|| printer.note(text)),
        None => printer.note(text),
    }
}

/// How far it is and how fast it goes, in words: `12 MiB of 185 MiB, 3.4 MiB/s`. Nothing
/// before anything is done.
fn amount(progress: &Done) -> Option<String> {
    if progress.done == 0 {
        return None;
    }
    let is_bytes = progress.unit == "bytes";
    let count = |count: u64| if is_bytes { units::bytes(count) } else { count.to_string() };
    let mut text = count(progress.done);
    if let Some(total) = progress.total.filter(|total| *total > 0) {
        text = format!("{text} of {}", count(total));
    }
    match progress.rate.filter(|_| is_bytes) {
        Some(rate) => Some(format!("{text}, {}/s", units::bytes(rate))),
        None => Some(text),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// There is nothing to count.
    Spinner,
    /// It is not known of how much.
    Counter,
    Bar,
}

impl Look {
    fn of(progress: Option<&Done>) -> Self {
        match progress {
            Some(Done { total: Some(1..), .. }) => Self::Bar,
            Some(Done { done: 1.., .. }) => Self::Counter,
            _ => Self::Spinner,
        }
    }
}

/// The templates are constants; one that does not parse shows indicatif's own style.
fn style(look: Look, amount: String) -> ProgressStyle {
    let template = match look {
        Look::Spinner => "{spinner} {prefix} {wide_msg} {elapsed:>4}",
        Look::Counter => "{spinner} {prefix} {wide_msg} {amount} {elapsed:>4}",
        Look::Bar => "{spinner} {prefix} {wide_msg} [{bar:20}] {amount} {elapsed:>4}",
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key("amount", move |_: &ProgressState, out: &mut dyn Write| {
            // It is written into a string: there is nothing to fail on.
            let _ = out.write_str(&amount);
        })
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        .progress_chars("█▌ ")
}

/// Below this a time says nothing.
const WORTH_TELLING: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(120);
/// How often it is told how far something is, where there is no terminal.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use indicatif::TermLike;

    use super::*;

    /// A terminal that keeps what is written to it.
    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn done(done: u64, total: Option<u64>, unit: &str, rate: Option<u64>) -> Done {
        Done { done, total, unit: unit.to_owned(), rate }
    }

    #[test]
    fn bytes_and_rate_in_words() {
        for (progress, expected) in [
            (done(12 << 20, Some(185 << 20), "bytes", Some(3_565_158)), Some("12 MiB of 185 MiB, 3.4 MiB/s")),
            (done(12 << 20, Some(185 << 20), "bytes", None), Some("12 MiB of 185 MiB")),
            (done(12 << 20, None, "bytes", Some(512)), Some("12 MiB, 512 B/s")),
            (done(3, Some(10), "steps", Some(1)), Some("3 of 10")),
            (done(0, Some(185 << 20), "bytes", None), None),
        ] {
            assert_eq!(amount(&progress).as_deref(), expected, "{progress:?}");
        }
    }

    #[test]
    fn without_a_terminal_a_line_tells_now_and_then_how_far_it_is() {
        let (mut told, began) = (Told::default(), Instant::now());
        let mut line = |text: &str, amount: Option<&str>, seconds: u64| {
            told.line(text, amount, began + Duration::from_secs(seconds))
        };
        assert_eq!(line("fetching", None, 0).as_deref(), Some("fetching"));
        assert_eq!(line("fetching", Some("1 MiB"), 1), None);
        assert_eq!(line("fetching", Some("9 MiB"), 9), None);
        assert_eq!(line("fetching", Some("10 MiB"), 10).as_deref(), Some("fetching: 10 MiB"));
        assert_eq!(line("fetching", Some("15 MiB"), 15), None);
        assert_eq!(line("unpacking", Some("1 of 2"), 16).as_deref(), Some("unpacking: 1 of 2"));
        // A phase without a count is told once.
        assert_eq!(line("starting", None, 17).as_deref(), Some("starting"));
        assert_eq!(line("starting", None, 60), None);
    }

    /// What a terminal of that width shows.
    fn shown(progress: Option<&Done>) -> String {
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let bar = ProgressBar::with_draw_target(Some(100), target);
        bar.set_prefix("lobby");
        let printer = Printer::new(crate::printer::Format::Table, true, true);
        let (name, told) = (String::new(), Mutex::default());
        let line = Line { printer, lines: None, name, bar: Some(bar.clone()), began: Instant::now(), told };
        line.show("fetching server.jar", progress);
        bar.force_draw();
        screen.0.lock().unwrap().clone()
    }

    #[test]
    fn a_terminal_shows_bytes_and_rate() {
        let text = shown(Some(&done(50 << 20, Some(100 << 20), "bytes", Some(5 << 20))));
        assert!(text.contains("lobby fetching server.jar"), "{text}");
        assert!(text.contains("[██████████▌         ] 50 MiB of 100 MiB, 5.0 MiB/s"), "{text}");
        let text = shown(Some(&done(50 << 20, None, "bytes", Some(5 << 20))));
        assert!(text.contains(" 50 MiB, 5.0 MiB/s") && !text.contains('['), "{text}");
        let text = shown(Some(&done(3, Some(10), "steps", None)));
        assert!(text.contains("] 3 of 10"), "{text}");
        let text = shown(None);
        assert!(text.contains("lobby fetching server.jar") && !text.contains('['), "{text}");
    }
}
