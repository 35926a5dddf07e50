//! `zlhctl status`: the whole fleet at a glance, asked in parallel.
//!
//! An agent that cannot be reached is a row with the reason, not an error that
//! hides the others; some unreachable agents make exit code 3, all of them 1.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use zlh_api::client::ClientError;
use zlh_api::{Players, State, Status};

use crate::cli::Selector;
use crate::exit::{self, Exit};
use crate::printer::{Format, Paint, Printer};
use crate::target::{Target, Targets};
use crate::ui::table::{Cell, Table};
use crate::ui::units;

/// What was learnt of one agent.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where players go, without the port.
    pub(crate) host: String,
    /// The status, or why there is none.
    pub(crate) seen: Result<(Status, Option<Players>), String>,
}

pub(crate) async fn run(selector: &Selector, targets: &Targets, printer: Printer) -> Result<Exit> {
    let chosen = targets.some(&selector.names, &selector.labels)?;
    let rows: Vec<Row> = stream::iter(chosen.into_iter().map(look)).buffered(MAX_PARALLEL).collect().await;
    print(&rows, printer)?;
    Ok(Exit::of(rows.len(), rows.iter().filter(|row| row.seen.is_err()).count()))
}

/// Asks one agent, for at most two seconds.
pub(crate) async fn look(target: Target) -> Row {
    let Target { name, url, labels, client } = target;
    let (host, seen) = match client {
        Err(error) => (String::new(), Err(exit::message(&error))),
        Ok(client) => {
            let asked = async {
                let (status, players) = tokio::join!(client.status(), client.players());
                // A server that is not up has no players; that is not an error of the agent.
                status.map(|status| (status, players.ok()))
            };
            let seen = match tokio::time::timeout(TIMEOUT, asked).await {
                Ok(answer) => answer.map_err(reason),
                Err(_) => Err(format!("no answer within {}", units::duration(TIMEOUT))),
            };
            (client.host().to_owned(), seen)
        }
    };
    Row { name, url, labels, host, seen }
}

/// Why there is no status, for a row that says `unreachable` already.
fn reason(error: ClientError) -> String {
    match error {
        ClientError::Unreachable { agent, reason, .. } => format!("{reason} ({agent})"),
        other => exit::message(&other.into()),
    }
}

/// Rows in the form that was asked for.
pub(crate) fn print(rows: &[Row], printer: Printer) -> Result<()> {
    match printer.format {
        Format::Json | Format::Yaml => {
            printer.document(&rows.iter().map(document).collect::<Result<Vec<_>>>()?.into())?;
        }
        Format::Name => {
            for row in rows {
                printer.line(&row.name)?;
            }
        }
        Format::Table => printer.table(&table(rows, false, jiff::Timestamp::now()))?,
        Format::Wide => printer.table(&table(rows, true, jiff::Timestamp::now()))?,
    }
    Ok(())
}

fn document(row: &Row) -> Result<Value> {
    let (status, players, error) = match &row.seen {
        Ok((status, players)) => (serde_json::to_value(status)?, serde_json::to_value(players)?, Value::Null),
        Err(reason) => (Value::Null, Value::Null, json!(reason)),
    };
    Ok(json!({
        "name": row.name, "url": row.url, "labels": row.labels, "reachable": row.seen.is_ok(), "error": error,
        "status": status, "players": players,
    }))
}

fn table(rows: &[Row], wide: bool, now: jiff::Timestamp) -> Table {
    let mut header = vec!["NAME", "STATE", "READY", "PLAYERS", "VERSION", "UPTIME", "CRASHES", "ADDRESS"];
    if wide {
        header.extend(["MEMORY", "CPU", "DISK FREE", "AGENT", "LABELS", "REMARK"]);
    }
    let mut table = Table::new(&header);
    for row in rows {
        match &row.seen {
            Err(reason) => table.remark(
                vec![Cell::new(&row.name), Cell::painted("unreachable", Paint::Bad)],
                Cell::new(reason),
            ),
            Ok((status, players)) => {
                let remark = remark(status, now);
                let head = vec![Cell::new(&row.name), state(status.state)];
                match remark
                    .clone()
                    .filter(|_| !wide && (!status.process_running || status.state == State::Error))
                {
                    Some(remark) => table.remark(head, Cell::new(remark)),
                    None => {
                        let mut cells = head;
                        cells.extend(columns(row, status, players.as_ref(), now));
                        if wide {
                            cells.extend(wide_columns(row, status, remark));
                        }
                        table.row(cells);
                    }
                }
            }
        }
    }
    table
}

fn columns(row: &Row, status: &Status, players: Option<&Players>, now: jiff::Timestamp) -> Vec<Cell> {
    let ready = if status.ready { Cell::painted("yes", Paint::Good) } else { Cell::new("no") };
    let players = players
        .filter(|_| status.process_running)
        .map(|players| format!("{}/{}", players.online, players.max));
    let uptime =
        status.started_at.as_deref().filter(|_| status.process_running).and_then(|at| units::since(at, now));
    let crashes = status.crashes_total.max(status.crash_count);
    vec![
        ready,
        Cell::new(players.unwrap_or_default()),
        Cell::new(version(status)),
        Cell::new(uptime.map(units::age).unwrap_or_default()),
        Cell::painted(crashes.to_string(), if crashes > 0 { Paint::Busy } else { Paint::Plain }),
        Cell::new(address(&row.host, status).unwrap_or_default()),
    ]
}

fn wide_columns(row: &Row, status: &Status, remark: Option<String>) -> Vec<Cell> {
    let resources = status.resources.as_ref();
    let running = resources.filter(|_| status.process_running);
    let labels: Vec<_> = row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        Cell::new(running.map(|r| units::bytes(r.memory_bytes)).unwrap_or_default()),
        Cell::new(running.map(|r| units::duration(Duration::from_millis(r.cpu_millis))).unwrap_or_default()),
        Cell::new(resources.map(|r| units::bytes(r.disk_free_bytes)).unwrap_or_default()),
        Cell::new(&status.agent_version),
        Cell::new(labels.join(",")),
        Cell::new(remark.unwrap_or_default()),
    ]
}

/// What there is to say about a state that is not simply good.
fn remark(status: &Status, now: jiff::Timestamp) -> Option<String> {
    let restart = status.next_restart_at.as_deref().map(|at| format!("starts again at {at}"));
    if status.maintenance && matches!(status.state, State::Idle | State::Running | State::Crashed) {
        return Some(maintenance(status, now));
    }
    let candidates = match status.state {
        State::Idle | State::Running => [status.error.clone(), None, None],
        State::Installing | State::Starting | State::Stopping => {
            [status.operation_message.clone(), Some(status.install_step.clone()), None]
        }
        State::Crashed => {
            let why = match (&status.error, &restart) {
                (Some(error), Some(restart)) => Some(format!("{error}; {restart}")),
                _ => status.error.clone(),
            };
            [why, restart, status.last_crash_classification.clone()]
        }
        State::Error => [status.error.clone(), Some(status.ready_error.clone()), None],
    };
    candidates.into_iter().flatten().find(|text| !text.is_empty())
}

/// That it is in maintenance, for how long, and what for.
pub(crate) fn maintenance(status: &Status, now: jiff::Timestamp) -> String {
    let since = status.maintenance_since.as_deref().and_then(|since| units::since(since, now));
    let since = since.map(|since| format!(" for {}", units::age(since))).unwrap_or_default();
    let reason = status.maintenance_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("maintenance{since}{reason}")
}

/// Variant and version of what is configured.
pub(crate) fn version(status: &Status) -> String {
    let Some(config) = &status.config else { return String::new() };
    let what = config.variant.as_deref().or(config.runtime.as_deref());
    [what, config.version.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Where players join.
pub(crate) fn address(host: &str, status: &Status) -> Option<String> {
    let port = status.port.or_else(|| status.config.as_ref()?.ports.first().copied())?;
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

pub(crate) fn state(state: State) -> Cell {
    Cell::painted(state.as_str(), paint(state))
}

pub(crate) fn paint(state: State) -> Paint {
    match state {
        State::Idle => Paint::Dim,
        State::Installing | State::Starting | State::Stopping => Paint::Busy,
        State::Running => Paint::Good,
        State::Crashed | State::Error => Paint::Bad,
    }
}

/// For one agent, as the contract of the deployed API has it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Connections at a time.
const MAX_PARALLEL: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::status;

    fn row(name: &str, seen: Result<(Status, Option<Players>), String>) -> Row {
        Row {
            name: name.to_owned(),
            url: String::new(),
            labels: BTreeMap::new(),
            host: "10.0.0.2".to_owned(),
            seen,
        }
    }

    fn rows() -> Vec<Row> {
        let mut running = status(State::Running);
        (running.ready, running.process_running) = (true, true);
        running.started_at = Some("2026-01-01T00:00:00Z".to_owned());
        running.port = Some(25565);
        running.config =
            serde_json::from_str(r#"{"variant":"paper","version":"1.21.7","ports":[25565]}"#).unwrap();
        let mut broken = status(State::Error);
        broken.error = Some("sha256 of server.jar: expected 12ab, got 34cd\u{1b}[2J".to_owned());
        let mut held = status(State::Idle);
        held.maintenance = true;
        held.maintenance_since = Some("2026-01-01T02:00:00Z".to_owned());
        held.maintenance_reason = Some("new disk".to_owned());
        let mut installing = status(State::Installing);
        installing.install_step = "fetching server.tar.zst".to_owned();
        vec![
            row("lobby", Ok((running, Some(Players { online: 3, max: 20, players: vec![] })))),
            row("creative", Ok((broken, None))),
            row("new", Ok((installing, None))),
            row("held", Ok((held, None))),
            row("idle", Ok((status(State::Idle), None))),
            row("gone", Err("connection refused (10.0.0.9:18888)".to_owned())),
        ]
    }

    #[test]
    fn the_table_fits_80_columns() {
        let now = "2026-01-01T03:12:00Z".parse().unwrap();
        let expected = "\
NAME      STATE        READY  PLAYERS  VERSION       UPTIME  CRASHES  ADDRESS
lobby     running      yes    3/20     paper 1.21.7  3h 12m  0        10.0.0.2:25565
creative  error        sha256 of server.jar: expected 12ab, got 34cd
new       installing   fetching server.tar.zst
held      idle         maintenance for 1h 12m: new disk
idle      idle         no     -        -             -       0        -
gone      unreachable  connection refused (10.0.0.9:18888)
";
        assert_eq!(table(&rows(), false, now).render(None, false), expected);
        let wide = table(&rows(), true, now).render(None, false);
        assert!(wide.contains("expected 12ab") && wide.contains("DISK FREE"), "{wide}");
    }

    #[test]
    fn a_document_says_whether_it_was_reachable() {
        let documents: Vec<_> = rows().iter().map(|row| document(row).unwrap()).collect();
        assert_eq!(documents[0]["status"]["state"], "running");
        assert_eq!(documents[0]["players"]["online"], 3);
        assert_eq!(documents[5]["reachable"], false);
        assert!(documents[5]["error"].as_str().unwrap().contains("refused"));
    }
}
