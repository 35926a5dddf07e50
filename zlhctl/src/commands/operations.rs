//! `zlhctl operations`.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use zlh_api::client::Client;
use zlh_api::{Accepted, Operation, OperationKind, OperationState};

use crate::exit::{Exit, Hint};
use crate::printer::{Format, Paint, Printer};
use crate::target::Targets;
use crate::ui::progress::Progress;
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) async fn run(name: &str, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (_, client) = targets.one(name)?;
    let operations = client.operations().await?;
    match printer.format {
        Format::Json | Format::Yaml => printer.document(&serde_json::to_value(&operations)?)?,
        Format::Name => {
            for operation in &operations {
                printer.line(&operation.id)?;
            }
        }
        Format::Table | Format::Wide => printer.table(&table(&operations, jiff::Timestamp::now()))?,
    }
    Ok(Exit::Ok)
}

fn table(operations: &[Operation], now: jiff::Timestamp) -> Table {
    let mut table = Table::new(&["ID", "TYPE", "STATE", "STARTED", "TOOK", "REMARK"]);
    for operation in operations {
        let started = units::since(&operation.started_at, now);
        let finished = operation
            .finished_at
            .as_deref()
            .map_or(Some(std::time::Duration::ZERO), |at| units::since(at, now));
        let took = started
            .zip(finished)
            .map(|(started, finished)| units::duration(started.saturating_sub(finished)));
        // The last phase of what has ended says nothing.
        let phase = if operation.state == OperationState::Running { operation.phase.as_str() } else { "" };
        table.row(vec![
            Cell::new(&operation.id),
            Cell::new(kind(operation.kind)),
            state(operation.state),
            Cell::new(started.map(|ago| format!("{} ago", units::age(ago))).unwrap_or_default()),
            Cell::new(took.unwrap_or_default()),
            Cell::new(operation.error.as_deref().unwrap_or(phase)),
        ]);
    }
    table
}

/// Waits for the end of what was begun. Its steps are told on the way, and `done` when it went
/// well; without that its own last words.
pub(crate) async fn until_done(
    client: &Client,
    name: &str,
    accepted: Accepted,
    timeout: Duration,
    done: Option<&str>,
    printer: Printer,
) -> Result<Exit> {
    let Some(begun) = accepted.operation else { return Ok(Exit::Ok) };
    let until = Instant::now() + timeout;
    let progress = Progress::new(printer);
    let line = progress.line(name);
    loop {
        let operation = client.operation(&begun.id).await?;
        match operation.state {
            OperationState::Running => line.operation(&operation),
            OperationState::Succeeded => {
                line.finish(done.unwrap_or(&operation.phase));
                return Ok(Exit::Ok);
            }
            OperationState::Failed | OperationState::Cancelled => {
                line.clear();
                return Err(anyhow!(
                    "{name}: {}",
                    operation.error.unwrap_or_else(|| "it was cancelled".to_owned())
                ));
            }
        }
        if Instant::now() > until {
            return Err(anyhow!("{name}: it is not done yet"))
                .hint("`zlhctl operations NAME` shows how far it is");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

pub(crate) fn kind(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Install => "install",
        OperationKind::Start => "start",
        OperationKind::Stop => "stop",
        OperationKind::Restart => "restart",
        OperationKind::Repair => "repair",
        OperationKind::Verify => "verify",
        OperationKind::Remove => "remove",
        OperationKind::Upgrade => "upgrade",
        OperationKind::Rollback => "rollback",
        OperationKind::Update => "update",
        OperationKind::Unknown => "?",
    }
}

fn state(state: OperationState) -> Cell {
    match state {
        OperationState::Running => Cell::painted("running", Paint::Busy),
        OperationState::Succeeded => Cell::painted("succeeded", Paint::Good),
        OperationState::Failed => Cell::painted("failed", Paint::Bad),
        OperationState::Cancelled => Cell::painted("cancelled", Paint::Dim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let operation = |id: &str, state, finished: Option<&str>, error: Option<&str>| Operation {
            id: id.to_owned(),
            kind: OperationKind::Install,
            state,
            phase: "fetching server".to_owned(),
            progress: None,
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            finished_at: finished.map(str::to_owned),
            error: error.map(str::to_owned),
        };
        let operations = [
            operation("2", OperationState::Running, None, None),
            operation("1", OperationState::Failed, Some("2026-01-01T00:00:01.5Z"), Some("no space")),
        ];
        let expected = "\
ID  TYPE     STATE    STARTED     TOOK    REMARK
2   install  running  2m 5s ago   2m 5s   fetching server
1   install  failed   2m 5s ago   1.5s    no space
";
        let now = "2026-01-01T00:02:05Z".parse().unwrap();
        let squeeze = |text: &str| {
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&table(&operations, now).render(None, false)), squeeze(expected));
    }
}
