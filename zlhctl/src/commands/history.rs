//! `zlhctl history`: how long it was up, and what happened.
//!
//! One question to the agent, for the longest window: the bars of the shorter ones are
//! cut out of its segments.

mod bar;
mod events;

use anyhow::Result;
use jiff::tz::TimeZone;
use serde_json::to_value;
use zlh_api::{History, HistorySummary, HistoryWindow};

use self::bar::Bar;
use crate::cli::HistoryOptions;
use crate::exit::Exit;
use crate::printer::{Format, Paint, Printer};
use crate::target::Targets;
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) async fn run(options: &HistoryOptions, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(&options.one.name)?;
    match printer.format {
        Format::Json | Format::Yaml => {
            let history = client.history(options.window, Some(options.events), None).await?;
            printer.document(&to_value(&history)?)?;
        }
        Format::Name => printer.line(&target.name)?,
        Format::Table | Format::Wide => {
            // More than are shown: some kinds are for `wide` only, some are of older days.
            let asked = options.events.saturating_mul(4).clamp(100, 1000);
            let history = client.history(HistoryWindow::Month, Some(asked), None).await?;
            let view = View { history: &history, options, printer, zone: TimeZone::system() };
            printer.data(&view.head(&target.name))?;
            printer.table(&view.figures())?;
            printer.data(&view.bars())?;
            let events = view.events();
            if !events.is_empty() {
                printer.data("\n")?;
                printer.table(&events::table(&events, &view.zone, view.now()))?;
            }
            view.remarks();
        }
    }
    Ok(Exit::Ok)
}

struct View<'a> {
    history: &'a History,
    options: &'a HistoryOptions,
    printer: Printer,
    zone: TimeZone,
}

impl View<'_> {
    fn now(&self) -> jiff::Timestamp {
        self.history.now.parse().unwrap_or_else(|_| jiff::Timestamp::now())
    }

    fn head(&self, name: &str) -> String {
        let now = self.history.segments.last().map(|segment| bar::word(segment));
        let since = self.history.journal.since.as_deref().and_then(|at| units::since(at, self.now()));
        let mut line = self.printer.painted(name, Paint::Bold);
        if let Some((word, paint)) = now {
            line.push_str(", ");
            line.push_str(&self.printer.painted(word, paint));
        }
        match since {
            Some(since) => line.push_str(&format!("; the journal goes back {}", units::age(since))),
            None => line.push_str("; the journal is empty"),
        }
        line + "\n\n"
    }

    fn figures(&self) -> Table {
        let mut table = Table::new(&[
            "WINDOW", "UPTIME", "READY", "STOPPED", "DOWN", "STARTS", "CRASHES", "LONGEST", "BETWEEN",
        ]);
        for summary in &self.history.summaries {
            table.row(figures(summary));
        }
        table
    }

    fn bars(&self) -> String {
        let mut out = String::from("\n");
        for window in HistoryWindow::ALL {
            let bar = Bar::new(&self.history.segments, self.now(), window);
            out.push_str(&format!("{:>3} ago [{}] now\n", window.as_str(), bar.render(self.printer)));
        }
        out.push_str(&self.printer.painted(bar::LEGEND, Paint::Dim));
        out.push('\n');
        out
    }

    /// The last ones of the window that was asked for.
    fn events(&self) -> Vec<&zlh_api::HistoryEvent> {
        let all = matches!(self.printer.format, Format::Wide);
        let from = self.now().as_second().saturating_sub_unsigned(self.options.window.seconds());
        let in_window = |event: &&zlh_api::HistoryEvent| {
            event.time.parse::<jiff::Timestamp>().is_ok_and(|at| at.as_second() >= from)
        };
        let events =
            self.history.events.iter().filter(in_window).filter(|event| all || events::matters(event));
        let mut events: Vec<_> = events.collect();
        let most = usize::try_from(self.options.events).unwrap_or(usize::MAX);
        events.drain(..events.len().saturating_sub(most));
        events
    }

    fn remarks(&self) {
        let journal = &self.history.journal;
        if journal.pending > 0 {
            self.printer
                .warning(&format!("{} entries wait for the disk of the agent: is it full?", journal.pending));
        }
        if journal.damaged > 0 {
            self.printer.note(&format!("{} damaged lines of the journal were skipped", journal.damaged));
        }
        if journal.lost > 0 {
            self.printer.note(&format!("{} entries were lost while the disk took nothing", journal.lost));
        }
    }
}

fn figures(summary: &HistorySummary) -> Vec<Cell> {
    let length = |seconds: u64| units::age(std::time::Duration::from_secs(seconds));
    let some = |seconds: u64| if seconds == 0 { String::new() } else { length(seconds) };
    let uptime = match summary.uptime_percent {
        Some(percent) if summary.unintended_seconds == 0 => Cell::painted(show(percent), Paint::Good),
        Some(percent) => Cell::painted(show(percent), Paint::Busy),
        None => Cell::new(""),
    };
    vec![
        Cell::new(summary.window.as_str()),
        uptime,
        Cell::new(some(summary.ready_seconds)),
        Cell::new(some(summary.intended_seconds)),
        Cell::painted(some(summary.unintended_seconds), Paint::Bad),
        Cell::new(summary.starts.to_string()),
        Cell::painted(
            summary.crashes.to_string(),
            if summary.crashes > 0 { Paint::Bad } else { Paint::Plain },
        ),
        Cell::new(some(summary.longest_outage_seconds)),
        Cell::new(summary.mean_seconds_between_crashes.map(length).unwrap_or_default()),
    ]
}

fn show(percent: f64) -> String {
    format!("{percent:.3}%")
}

#[cfg(test)]
#[path = "history/tests.rs"]
mod tests;
