//! `zlhctl game` and `zlhctl agent`: which version runs, and another one instead.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use zlh_api::client::{Client, ClientError};
use zlh_api::{Accepted, ChangeVersion, GameVersion, UpdateRequest, UpdateState, UpdateStatus, WorldCopy};

use super::operations::until_done;
use crate::cli::{AgentCommand, GameCommand, One, Patience};
use crate::exit::{Exit, Hint};
use crate::printer::{Format, Paint, Printer};
use crate::target::Targets;
use crate::ui::progress::Progress;
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) async fn game(command: &GameCommand, targets: &Targets, printer: Printer) -> Result<Exit> {
    match command {
        GameCommand::Version(one) => {
            let (_, client) = targets.one(&one.name)?;
            let version = client.game_version().await?;
            match printer.format {
                Format::Json | Format::Yaml => printer.document(&serde_json::to_value(&version)?)?,
                Format::Name => printer.line(&version.version)?,
                Format::Table | Format::Wide => show_game(&version, printer)?,
            }
            Ok(Exit::Ok)
        }
        GameCommand::Upgrade { one, version, force, patience } => {
            let wish = ChangeVersion { version: version.clone(), force: *force };
            let begin = async |client: &Client| client.change_game_version(&wish).await;
            see_through(begin, one, patience, targets, printer).await
        }
        GameCommand::Rollback { one, patience } => {
            see_through(
                async |client: &Client| client.roll_back_game().await,
                one,
                patience,
                targets,
                printer,
            )
            .await
        }
        GameCommand::Verify { one, patience } => {
            see_through(
                async |client: &Client| client.tend_game("verify").await,
                one,
                patience,
                targets,
                printer,
            )
            .await
        }
        GameCommand::Repair { one, patience } => {
            see_through(
                async |client: &Client| client.tend_game("repair").await,
                one,
                patience,
                targets,
                printer,
            )
            .await
        }
        GameCommand::Remove { one, version, force, patience } => {
            let begin = async |client: &Client| client.remove_game(version, *force).await;
            see_through(begin, one, patience, targets, printer).await
        }
        GameCommand::RemoveCopy { one, copy, force, patience } => {
            let begin = async |client: &Client| client.remove_copy(copy, *force).await;
            see_through(begin, one, patience, targets, printer).await
        }
        GameCommand::Gc { one, patience } => {
            see_through(async |client: &Client| client.tend_game("gc").await, one, patience, targets, printer)
                .await
        }
    }
}

/// Begins an operation and watches it to its end.
async fn see_through(
    begin: impl AsyncFnOnce(&Client) -> Result<Accepted, ClientError>,
    one: &One,
    patience: &Patience,
    targets: &Targets,
    printer: Printer,
) -> Result<Exit> {
    let (target, client) = targets.one(&one.name)?;
    let accepted = begin(&client).await?;
    until_done(&client, &target.name, accepted, patience.timeout, None, printer).await
}

fn show_game(version: &GameVersion, printer: Printer) -> Result<()> {
    let runtime = version.runtime.as_ref().map(|runtime| format!(" on {runtime}")).unwrap_or_default();
    printer.line(&format!("{}/{} {}{runtime}", version.game, version.variant, version.version))?;
    if !version.installed {
        printer.note("it is not installed: the next start installs it");
    }
    if let Some(change) = &version.change {
        let (from, to, id) = (&change.from, &change.to, &change.operation);
        printer.note(&format!("changing from {from} to {to} (operation {id})"));
    }
    let now = jiff::Timestamp::now();
    let wide = printer.format == Format::Wide;
    if version.copies.is_empty() {
        printer.note("there is no copy to go back to: a change of version makes one");
    } else {
        printer.table(&copies(&version.copies, now, wide))?;
    }
    if !version.servers.is_empty() {
        printer.line("")?;
        printer.table(&servers(version, now, wide))?;
    }
    Ok(())
}

fn copies(all: &[WorldCopy], now: jiff::Timestamp, wide: bool) -> Table {
    let mut header = vec!["COPY", "OF", "MADE", "SIZE", "STATE"];
    header.extend(wide.then_some("PATH"));
    let mut table = Table::new(&header);
    let mut next = true;
    for copy in all {
        let made = units::since(&copy.made_at, now);
        let state = match copy.failed {
            true => Cell::painted("failed change", Paint::Dim),
            false if std::mem::take(&mut next) => Cell::painted("rollback", Paint::Good),
            false => Cell::new("older"),
        };
        let mut row = vec![
            Cell::new(&copy.id),
            Cell::new(&copy.version),
            Cell::new(made.map(|ago| format!("{} ago", units::age(ago))).unwrap_or_default()),
            Cell::new(units::bytes(copy.bytes)),
            state,
        ];
        row.extend(wide.then(|| Cell::new(&copy.path)));
        table.row(row);
    }
    table
}

fn servers(version: &GameVersion, now: jiff::Timestamp, wide: bool) -> Table {
    let mut header = vec!["SERVER", "SIZE", "FILES", "INSTALLED", "STATE"];
    header.extend(wide.then_some("PATH"));
    let mut table = Table::new(&header);
    for server in &version.servers {
        let ago = server.installed_at.as_deref().and_then(|at| units::since(at, now));
        let back_to = version.copies.iter().any(|copy| !copy.failed && copy.version == server.version);
        let state = match (server.in_use, back_to) {
            (true, _) => Cell::painted("configured", Paint::Good),
            (_, true) => Cell::new("rollback"),
            _ => Cell::painted("unused", Paint::Dim),
        };
        let mut row = vec![
            Cell::new(&server.version),
            Cell::new(units::bytes(server.bytes)),
            Cell::new(server.entries.to_string()),
            Cell::new(ago.map(|ago| format!("{} ago", units::age(ago))).unwrap_or_default()),
            state,
        ];
        row.extend(wide.then(|| Cell::new(&server.path)));
        table.row(row);
    }
    table
}

pub(crate) async fn agent(command: &AgentCommand, targets: &Targets, printer: Printer) -> Result<Exit> {
    match command {
        AgentCommand::Status(one) => {
            let (target, client) = targets.one(&one.name)?;
            let status = client.update_status().await?;
            match printer.format {
                Format::Json | Format::Yaml => printer.document(&serde_json::to_value(&status)?)?,
                Format::Name => printer.line(&status.current)?,
                Format::Table | Format::Wide => printer.table(&table(&target.name, &status))?,
            }
            if let Some(error) = &status.error {
                printer.warning(error);
            }
            Ok(Exit::Ok)
        }
        AgentCommand::Update { one, version, force, patience } => {
            let (target, client) = targets.one(&one.name)?;
            let before = client.update_status().await?;
            let request = UpdateRequest { version: version.clone(), force: *force };
            client.update_agent(&request).await?;
            follow(&client, &target.name, &before, patience.timeout, printer).await
        }
    }
}

fn table(name: &str, status: &UpdateStatus) -> Table {
    let mut table = Table::new(&["AGENT", "RUNS", "OFFERED", "MODE", "CHANNEL", "LAST UPDATE"]);
    let now = jiff::Timestamp::now();
    let offered = match &status.latest {
        Some(latest) if status.update_available => Cell::painted(latest, Paint::Busy),
        Some(latest) => Cell::new(latest),
        None => Cell::new("unknown"),
    };
    let ago = status.updated_at.as_deref().and_then(|at| units::since(at, now));
    let ago = ago.map(|ago| format!(", {} ago", units::age(ago))).unwrap_or_default();
    let last = match status.update_status {
        UpdateState::Succeeded => {
            let from = status.previous.as_deref().unwrap_or("?");
            Cell::painted(format!("from {from}{ago}"), Paint::Good)
        }
        UpdateState::Failed => Cell::painted(format!("failed{ago}"), Paint::Bad),
        UpdateState::Idle => Cell::new("none"),
        UpdateState::Checking | UpdateState::Preparing | UpdateState::Switching => {
            Cell::painted("under way", Paint::Busy)
        }
    };
    table.row(vec![
        Cell::new(name),
        Cell::new(&status.current),
        offered,
        Cell::new(status.mode.to_string()),
        Cell::new(&status.channel),
        last,
    ]);
    table
}

/// The process that was asked is not the one that answers in the end.
async fn follow(
    client: &Client,
    name: &str,
    before: &UpdateStatus,
    timeout: Duration,
    printer: Printer,
) -> Result<Exit> {
    let until = Instant::now() + timeout;
    let progress = Progress::new(printer);
    let line = progress.line(name);
    loop {
        match client.update_status().await {
            Ok(status) => match status.update_status {
                UpdateState::Checking => line.text("reading the catalog"),
                UpdateState::Preparing => line.text("fetching and trying the new version"),
                UpdateState::Switching => line.text("the new version takes over"),
                UpdateState::Succeeded if status.updated_at != before.updated_at => {
                    line.finish(&format!("{} runs, {} before", status.current, before.current));
                    return Ok(Exit::Ok);
                }
                _ => {
                    line.clear();
                    let why = status.error.unwrap_or_else(|| "the agent gives no reason".to_owned());
                    return Err(anyhow!("{name}: {why}"));
                }
            },
            Err(
                ClientError::Unreachable { .. } | ClientError::Timeout { .. } | ClientError::Broken { .. },
            ) => {
                line.text("the new version takes over");
            }
            Err(error) => return Err(error.into()),
        }
        if Instant::now() > until {
            return Err(anyhow!("{name}: it is not done yet"))
                .hint("`zlhctl agent status NAME` shows how far it is");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(200);
