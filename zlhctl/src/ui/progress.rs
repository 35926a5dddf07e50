//! Progress on standard error.
//!
//! On a terminal one line per agent that rewrites itself; otherwise a plain line
//! whenever the phase changes, so that logs of CI jobs tell the story without
//! thousands of lines. Silent with `-q`.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use zlh_api::{Operation, OperationState};

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
    last: Mutex<String>,
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
            bar.set_style(style(Look::Spinner));
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
            last: Mutex::default(),
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

    /// Shows how far an operation is.
    pub(crate) fn operation(&self, operation: &Operation) {
        let count = operation
            .progress
            .as_ref()
            .map(|progress| (progress.done, progress.total, progress.unit == "bytes"));
        self.show(&operation.phase, count);
    }

    fn show(&self, text: &str, count: Option<(u64, Option<u64>, bool)>) {
        let text = one_line(text);
        let Some(bar) = &self.bar else {
            let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if *last != text {
                self.printer.note(&format!("{}: {text}", self.name.trim_end()));
                *last = text;
            }
            return;
        };
        bar.set_message(text);
        match count {
            Some((done, Some(total), is_bytes)) if total > 0 => {
                bar.set_style(style(if is_bytes { Look::Bytes } else { Look::Steps }));
                bar.set_length(total);
                bar.set_position(done.min(total));
            }
            _ => bar.set_style(style(Look::Spinner)),
        }
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

#[derive(Clone, Copy)]
enum Look {
    Spinner,
    Bytes,
    Steps,
}

/// The templates are constants; one that does not parse shows indicatif's own style.
fn style(look: Look) -> ProgressStyle {
    let template = match look {
        Look::Spinner => "{spinner} {prefix} {wide_msg} {elapsed:>4}",
        Look::Bytes => {
            "{spinner} {prefix} {wide_msg} [{bar:20}] {binary_bytes:>10} / {binary_total_bytes} {elapsed:>4}"
        }
        Look::Steps => "{spinner} {prefix} {wide_msg} [{bar:20}] {pos}/{len} {elapsed:>4}",
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        .progress_chars("█▌ ")
}

/// Below this a time says nothing.
const WORTH_TELLING: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_parse() {
        for look in [Look::Spinner, Look::Bytes, Look::Steps] {
            // A template that does not parse would fall back silently.
            let bar = ProgressBar::with_draw_target(Some(10), ProgressDrawTarget::hidden());
            bar.set_style(style(look));
            bar.set_message("x");
            bar.tick();
        }
    }
}
