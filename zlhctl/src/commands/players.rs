//! `zlhctl players`.

use anyhow::Result;

use crate::exit::Exit;
use crate::printer::{Format, Printer};
use crate::target::Targets;
use crate::ui::table::{Cell, Table};

pub(crate) async fn run(name: &str, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(name)?;
    let players = client.players().await?;
    match printer.format {
        Format::Json | Format::Yaml => printer.document(&serde_json::to_value(&players)?)?,
        Format::Name => {
            for player in &players.players {
                printer.line(player)?;
            }
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["PLAYER"]);
            for player in &players.players {
                table.row(vec![Cell::new(player)]);
            }
            if !players.players.is_empty() {
                printer.table(&table)?;
            }
            printer.note(&format!("{}: {} of {} playing", target.name, players.online, players.max));
            if players.players.len() < usize::try_from(players.online).unwrap_or(usize::MAX)
                && players.online > 0
            {
                printer.note("the server names only some of them");
            }
        }
    }
    Ok(Exit::Ok)
}
