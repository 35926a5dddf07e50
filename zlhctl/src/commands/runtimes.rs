//! `zlhctl runtimes`.

use anyhow::Result;
use zlh_api::InstalledRuntime;

use super::operations::until_done;
use crate::cli::{OneRuntime, RuntimesCommand};
use crate::exit::Exit;
use crate::printer::{Format, Paint, Printer};
use crate::target::Targets;
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) async fn run(command: &RuntimesCommand, targets: &Targets, printer: Printer) -> Result<Exit> {
    match command {
        RuntimesCommand::List(one) => {
            let (target, client) = targets.one(&one.name)?;
            let runtimes = client.runtimes().await?;
            match printer.format {
                Format::Json | Format::Yaml => printer.document(&serde_json::to_value(&runtimes)?)?,
                Format::Name => {
                    for one in &runtimes {
                        printer.line(&format!("{} {}", one.id, one.version))?;
                    }
                }
                Format::Table | Format::Wide if runtimes.is_empty() => {
                    printer.note(&format!("{} has no runtime installed", target.name));
                }
                Format::Table | Format::Wide => {
                    printer.table(&table(
                        &runtimes,
                        jiff::Timestamp::now(),
                        printer.format == Format::Wide,
                    ))?;
                }
            }
            Ok(Exit::Ok)
        }
        RuntimesCommand::Install(one) => tend(one, "install", "is installed", targets, printer).await,
        RuntimesCommand::Verify(one) => tend(one, "verify", "is as it was installed", targets, printer).await,
        RuntimesCommand::Repair(one) => tend(one, "repair", "is as it should be", targets, printer).await,
        RuntimesCommand::Remove { one, force } => {
            let (target, client) = targets.one(&one.one.name)?;
            let accepted = client.remove_runtime(&one.id, &one.version, *force).await?;
            let done = format!("{} {} is removed", one.id, one.version);
            until_done(&client, &target.name, accepted, one.patience.timeout, &done, printer).await
        }
        RuntimesCommand::Gc { one, patience } => {
            let (target, client) = targets.one(&one.name)?;
            let before = client.runtimes().await?;
            let accepted = client.collect_runtimes().await?;
            until_done(&client, &target.name, accepted, patience.timeout, "done", printer).await?;
            let after = client.runtimes().await?;
            let gone: Vec<_> = before.iter().filter(|one| !after.contains(one)).collect();
            let bytes = units::bytes(gone.iter().map(|one| one.bytes).sum());
            for one in &gone {
                printer.line(&format!("{} {}", one.id, one.version))?;
            }
            printer.note(&format!("{} versions removed, {bytes}", gone.len()));
            Ok(Exit::Ok)
        }
    }
}

async fn tend(one: &OneRuntime, verb: &str, done: &str, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(&one.one.name)?;
    let accepted = client.tend_runtime(&one.id, &one.version, verb).await?;
    let done = format!("{} {} {done}", one.id, one.version);
    until_done(&client, &target.name, accepted, one.patience.timeout, &done, printer).await
}

fn table(runtimes: &[InstalledRuntime], now: jiff::Timestamp, wide: bool) -> Table {
    let mut header = vec!["RUNTIME", "VERSION", "SIZE", "FILES", "INSTALLED", "STATE"];
    if wide {
        header.extend(["SHA-256", "PATH"]);
    }
    let mut table = Table::new(&header);
    for one in runtimes {
        let ago = one.installed_at.as_deref().and_then(|at| units::since(at, now));
        let (state, paint) = match (one.in_use, one.current) {
            (true, _) => ("in use", Paint::Good),
            (false, true) => ("unused", Paint::Plain),
            (false, false) => ("replaced", Paint::Dim),
        };
        let mut row = vec![
            Cell::new(&one.id),
            Cell::new(&one.version),
            Cell::new(units::bytes(one.bytes)),
            Cell::new(one.entries.to_string()),
            Cell::new(ago.map(|ago| format!("{} ago", units::age(ago))).unwrap_or_default()),
            Cell::painted(state, paint),
        ];
        if wide {
            row.push(Cell::new(&one.sha256));
            row.push(Cell::new(&one.path));
        }
        table.row(row);
    }
    table
}
