//! What happened, one line each.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use zlh_api::{HistoryEvent, HistoryExit, HistoryKind, OperationKind, OperationState};

use crate::commands::operations::kind;
use crate::printer::Paint;
use crate::ui::table::{Cell, Table};
use crate::ui::{escape, units};

/// Whether it belongs in a short list: not, what another line of it says as well.
pub(super) fn matters(event: &HistoryEvent) -> bool {
    let operation = event.operation.as_ref();
    match event.kind {
        HistoryKind::OperationBegan => operation.is_some_and(|o| o.kind == OperationKind::Install),
        HistoryKind::OperationEnded => operation
            .is_some_and(|o| o.state == Some(OperationState::Failed) && o.kind == OperationKind::Install),
        HistoryKind::AgentLeft | HistoryKind::Command => false,
        _ => true,
    }
}

/// Time, what, details.
pub(super) fn table(events: &[&HistoryEvent], zone: &TimeZone, now: Timestamp) -> Table {
    let mut table = Table::new(&["TIME", "EVENT", "DETAILS"]);
    for event in events {
        let (what, paint) = what(event);
        table.row(vec![
            Cell::painted(time(&event.time, zone, now), Paint::Dim),
            Cell::painted(what, paint),
            Cell::new(details(event)),
        ]);
    }
    table
}

/// In the zone of whoever reads it; the year only where it is another one.
fn time(rfc3339: &str, zone: &TimeZone, now: Timestamp) -> String {
    let Ok(at) = rfc3339.parse::<Timestamp>() else { return rfc3339.to_owned() };
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let form = if at.date() == now.date() {
        "%H:%M:%S"
    } else if at.year() == now.year() {
        "%b %d %H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    at.strftime(form).to_string()
}

fn what(event: &HistoryEvent) -> (&'static str, Paint) {
    match event.kind {
        HistoryKind::AgentStarted => ("agent", Paint::Plain),
        HistoryKind::AgentLeft => ("agent", Paint::Plain),
        HistoryKind::Start => ("start", Paint::Busy),
        HistoryKind::Found => ("found", Paint::Plain),
        HistoryKind::Ready => ("ready", Paint::Good),
        HistoryKind::Silent => ("silent", Paint::Bad),
        HistoryKind::Answers => ("answers", Paint::Good),
        HistoryKind::NotReady => ("not ready", Paint::Bad),
        HistoryKind::Stop => ("stop", Paint::Busy),
        HistoryKind::Maintenance | HistoryKind::MaintenanceOver => ("maintenance", Paint::Busy),
        HistoryKind::Exit => ("ended", Paint::Plain),
        HistoryKind::Crash => ("crashed", Paint::Bad),
        HistoryKind::Restart => ("restart", Paint::Busy),
        HistoryKind::GaveUp => ("gave up", Paint::Bad),
        HistoryKind::StartFailed => ("not started", Paint::Bad),
        HistoryKind::Swept => ("swept", Paint::Bad),
        HistoryKind::OperationBegan => ("began", Paint::Plain),
        HistoryKind::OperationEnded => ("done", Paint::Plain),
        HistoryKind::Installed => ("installed", Paint::Plain),
        HistoryKind::Command => ("command", Paint::Plain),
        HistoryKind::Degraded => ("degraded", Paint::Busy),
        HistoryKind::Recovered => ("recovered", Paint::Good),
        HistoryKind::Gap => ("gap", Paint::Busy),
        HistoryKind::Unknown => ("?", Paint::Plain),
    }
}

fn details(event: &HistoryEvent) -> String {
    let detail = event.detail.as_deref().unwrap_or_default();
    let seconds = event.seconds.map(|seconds| units::age(Duration::from_secs(seconds)));
    let text = match event.kind {
        HistoryKind::AgentStarted => format!("version {detail} began"),
        HistoryKind::AgentLeft => format!("left after {detail}; what ran went on"),
        HistoryKind::Start => match (detail, event.count) {
            ("backoff", Some(attempt)) => format!("after a crash, attempt {attempt}"),
            ("boot", _) => "it is meant to run".to_owned(),
            _ => "somebody asked for it".to_owned(),
        },
        HistoryKind::Found => "it ran on while there was no agent".to_owned(),
        HistoryKind::Ready => seconds.map(|took| format!("{took} after its start")).unwrap_or_default(),
        HistoryKind::Stop => match event.operation.as_ref().map(|operation| operation.kind) {
            Some(OperationKind::Restart) => "somebody asked for a restart".to_owned(),
            _ => "somebody asked for it".to_owned(),
        },
        HistoryKind::Maintenance if detail.is_empty() => "began".to_owned(),
        HistoryKind::Maintenance => format!("began: {}", escape::one_line(detail)),
        HistoryKind::MaintenanceOver => "is over".to_owned(),
        // What ended it is more telling than how the process ended; that stands behind it.
        HistoryKind::Crash => {
            let how = event.exit.as_ref().map(ended).unwrap_or_default();
            if detail.is_empty() { how } else { format!("{detail} ({how})") }
        }
        HistoryKind::Exit => {
            let who = match detail {
                "inside" => "stopped from inside: ",
                "outside" => "stopped from outside: ",
                _ => "",
            };
            format!("{who}{}", event.exit.as_ref().map(ended).unwrap_or_default())
        }
        HistoryKind::Restart => format!(
            "crash {} in a row, starts again after {}",
            event.count.unwrap_or(0),
            seconds.unwrap_or_default()
        ),
        HistoryKind::StartFailed => match seconds {
            Some(pause) => format!("{detail}; again after {pause}"),
            None => detail.to_owned(),
        },
        HistoryKind::Swept => "the container was restarted under it".to_owned(),
        HistoryKind::OperationBegan | HistoryKind::OperationEnded => {
            let Some(operation) = &event.operation else { return detail.to_owned() };
            let state = match operation.state {
                Some(OperationState::Succeeded) => " succeeded",
                Some(OperationState::Failed) => " failed",
                Some(OperationState::Cancelled) => " cancelled",
                Some(OperationState::Running) | None => "",
            };
            let why = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            format!("{}{state}{why}", kind(operation.kind))
        }
        HistoryKind::Command => {
            let more = event.count.map(|count| format!("; {count} before it are in the agent's log only"));
            let who = event.who.as_deref().unwrap_or("somebody");
            format!("{} (by {who}{})", escape::one_line(detail), more.unwrap_or_default())
        }
        HistoryKind::Gap => format!("{} entries had no room", event.count.unwrap_or(0)),
        HistoryKind::Unknown if detail.is_empty() => "newer than this zlhctl".to_owned(),
        HistoryKind::Unknown => format!("newer than this zlhctl: {}", escape::one_line(detail)),
        HistoryKind::Silent
        | HistoryKind::NotReady
        | HistoryKind::GaveUp
        | HistoryKind::Installed
        | HistoryKind::Degraded
        | HistoryKind::Answers
        | HistoryKind::Recovered => detail.to_owned(),
    };
    match &event.recorded {
        Some(said) => format!("{text} (the clock said {said})"),
        None => text,
    }
}

fn ended(exit: &HistoryExit) -> String {
    let how = match (&exit.lost, &exit.signal_name, exit.code) {
        (Some(lost), ..) => format!("nobody saw how: {lost}"),
        (None, Some(name), _) if exit.out_of_memory => format!("{name}, out of memory"),
        (None, Some(name), _) => name.clone(),
        (None, None, Some(code)) => format!("exit code {code}"),
        (None, None, None) => "nobody saw how".to_owned(),
    };
    let lived = units::age(Duration::from_secs(exit.uptime_seconds));
    let early = if exit.was_ready { "" } else { ", before it was ready" };
    let missed = if exit.seen.is_some() { "; no agent was there" } else { "" };
    format!("{how} after {lived}{early}{missed}")
}
