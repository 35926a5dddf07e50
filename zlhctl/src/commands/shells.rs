//! `zlhctl shells`.

use anyhow::Result;
use zlh_api::Shell;

use crate::cli::ShellsCommand;
use crate::exit::Exit;
use crate::printer::{Format, Paint, Printer};
use crate::target::Targets;
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) async fn run(command: &ShellsCommand, targets: &Targets, printer: Printer) -> Result<Exit> {
    match command {
        ShellsCommand::List(one) => {
            let (target, client) = targets.one(&one.name)?;
            let shells = client.shells().await?;
            match printer.format {
                Format::Json | Format::Yaml => printer.document(&serde_json::to_value(&shells)?)?,
                Format::Name => {
                    for shell in &shells {
                        printer.line(&shell.name)?;
                    }
                }
                Format::Table | Format::Wide if shells.is_empty() => {
                    printer.note(&format!("{} has no shell; `zlhctl shell {0}` opens one", target.name));
                }
                Format::Table | Format::Wide => printer.table(&table(&shells, jiff::Timestamp::now()))?,
            }
        }
        ShellsCommand::Close { one, session } => {
            let (target, client) = targets.one(&one.name)?;
            client.close_shell(session).await?;
            printer.note(&format!("the shell {session} of {} is closed", target.name));
        }
    }
    Ok(Exit::Ok)
}

fn table(shells: &[Shell], now: jiff::Timestamp) -> Table {
    let mut table = Table::new(&["SHELL", "USER", "PID", "SIZE", "AGE", "VIEWERS", "ENDS"]);
    for shell in shells {
        let age = units::since(&shell.created_at, now).map(units::age).unwrap_or_default();
        let ends = match &shell.closes_at {
            None => Cell::new(""),
            Some(at) => {
                let left = at.parse::<jiff::Timestamp>().ok().map(|at| at.duration_since(now).unsigned_abs());
                let left = left.map(|left| format!("in {}", units::age(left))).unwrap_or_default();
                Cell::painted(left, Paint::Busy)
            }
        };
        table.row(vec![
            Cell::new(&shell.name),
            Cell::new(&shell.user),
            Cell::new(shell.pid.to_string()),
            Cell::new(format!("{}x{}", shell.columns, shell.rows)),
            Cell::new(age),
            Cell::new(shell.viewers.to_string()),
            ends,
        ]);
    }
    table
}
