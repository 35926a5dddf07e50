//! `zlhctl runtimes` and `zlhctl addons`.

use anyhow::Result;
use zlh_api::client::Kind;
use zlh_api::{InstalledRuntime, UpgradeRequest};

use super::operations::until_done;
use crate::cli::{InstalledCommand, OneVersion};
use crate::exit::Exit;
use crate::printer::{Format, Paint, Printer};
use crate::target::Targets;
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) async fn run(
    kind: Kind,
    command: &InstalledCommand,
    targets: &Targets,
    printer: Printer,
) -> Result<Exit> {
    match command {
        InstalledCommand::List(one) => {
            let (target, client) = targets.one(&one.name)?;
            let all = client.installed(kind).await?;
            match printer.format {
                Format::Json | Format::Yaml => printer.document(&serde_json::to_value(&all)?)?,
                Format::Name => {
                    for one in &all {
                        printer.line(&format!("{} {}", one.id, one.version))?;
                    }
                }
                Format::Table | Format::Wide if all.is_empty() => {
                    printer.note(&format!("{} has no {} installed", target.name, kind.path()));
                }
                Format::Table | Format::Wide => {
                    printer.table(&table(
                        kind,
                        &all,
                        jiff::Timestamp::now(),
                        printer.format == Format::Wide,
                    ))?;
                }
            }
            Ok(Exit::Ok)
        }
        InstalledCommand::Install(one) => tend(kind, one, "install", targets, printer).await,
        InstalledCommand::Verify(one) => tend(kind, one, "verify", targets, printer).await,
        InstalledCommand::Repair(one) => tend(kind, one, "repair", targets, printer).await,
        InstalledCommand::Upgrade { one, id, version, patience } => {
            let (target, client) = targets.one(&one.name)?;
            let accepted = client.upgrade(kind, id, &UpgradeRequest { version: version.clone() }).await?;
            until_done(&client, &target.name, accepted, patience.timeout, None, printer).await
        }
        InstalledCommand::Rollback { one, id, patience } => {
            let (target, client) = targets.one(&one.name)?;
            let accepted = client.roll_back(kind, id).await?;
            until_done(&client, &target.name, accepted, patience.timeout, None, printer).await
        }
        InstalledCommand::Remove { one, force } => {
            let (target, client) = targets.one(&one.one.name)?;
            let accepted = client.remove(kind, &one.id, &one.version, *force).await?;
            until_done(&client, &target.name, accepted, one.patience.timeout, None, printer).await
        }
        InstalledCommand::Gc { one, patience } => {
            let (target, client) = targets.one(&one.name)?;
            let before = client.installed(kind).await?;
            let accepted = client.collect(kind).await?;
            until_done(&client, &target.name, accepted, patience.timeout, None, printer).await?;
            let after = client.installed(kind).await?;
            for one in before.iter().filter(|one| !after.contains(one)) {
                printer.line(&format!("{} {}", one.id, one.version))?;
            }
            Ok(Exit::Ok)
        }
    }
}

async fn tend(kind: Kind, one: &OneVersion, verb: &str, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(&one.one.name)?;
    let accepted = client.tend(kind, &one.id, &one.version, verb).await?;
    until_done(&client, &target.name, accepted, one.patience.timeout, None, printer).await
}

fn table(kind: Kind, all: &[InstalledRuntime], now: jiff::Timestamp, wide: bool) -> Table {
    let name = match kind {
        Kind::Runtimes => "RUNTIME",
        Kind::Addons => "ADDON",
    };
    let mut header = vec![name, "VERSION", "SIZE", "FILES", "INSTALLED", "STATE"];
    if wide {
        header.extend(["SHA-256", "PATH"]);
    }
    let mut table = Table::new(&header);
    for one in all {
        let ago = one.installed_at.as_deref().and_then(|at| units::since(at, now));
        let (state, paint) = match (one.in_use, one.active, one.previous, one.current) {
            (true, true, ..) => ("runs, chosen", Paint::Good),
            (true, ..) => ("runs", Paint::Good),
            (_, true, ..) => ("chosen", Paint::Good),
            (_, _, true, _) => ("previous", Paint::Plain),
            (_, _, _, true) => ("unused", Paint::Plain),
            _ => ("replaced", Paint::Dim),
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
