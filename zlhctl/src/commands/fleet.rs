//! `zlhctl fleet`: the fleet file, by hand or by script.

use anyhow::{Result, anyhow};

use crate::cli::{FleetCommand, Global};
use crate::exit::{Exit, Hint};
use crate::fleet::{self, Fleet, Member, check_name};
use crate::printer::{Format, Printer};
use crate::target::fleet_path;
use crate::ui::table::{Cell, Table};

pub(crate) fn run(command: FleetCommand, global: &Global, printer: Printer) -> Result<Exit> {
    let path = fleet_path(global.fleet.as_deref())?;
    match command {
        FleetCommand::Path => printer.line(&path.display().to_string())?,
        FleetCommand::List => list(&Fleet::load(&path)?, printer)?,
        FleetCommand::Add { name, url, labels } => {
            check_name(&name).map_err(|reason| anyhow!(reason))?;
            // Refuses what is not an address before it is written down.
            zlh_api::client::Connector::new(std::time::Duration::ZERO, None).agent(&url, None)?;
            let token_file = global.token_file.as_deref().map(std::path::absolute).transpose()?;
            if let Some(file) = &token_file {
                fleet::read_token(file)?;
            }
            fleet::add(
                &path,
                &Member { name, url, labels: labels.into_iter().collect(), token_file, token: None },
            )?;
        }
        FleetCommand::Remove { name } => {
            if !fleet::remove(&path, &name)? {
                return Err(anyhow!(
                    "there is no agent called `{}` in `{}`",
                    name.escape_debug(),
                    path.display()
                ))
                .hint("`zlhctl fleet list` shows the names");
            }
        }
    }
    Ok(Exit::Ok)
}

fn list(fleet: &Fleet, printer: Printer) -> Result<()> {
    match printer.format {
        Format::Json | Format::Yaml => {
            let agents: Vec<_> = fleet
                .agents
                .iter()
                .map(|agent| {
                    serde_json::json!({
                        "name": agent.name, "url": agent.url, "labels": agent.labels, "token_file": agent.token_file,
                    })
                })
                .collect();
            printer.document(&agents.into())?;
        }
        Format::Name => {
            for agent in &fleet.agents {
                printer.line(&agent.name)?;
            }
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["NAME", "URL", "TOKEN", "LABELS"]);
            for agent in &fleet.agents {
                let labels: Vec<_> =
                    agent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let token = match (&agent.token, &agent.token_file) {
                    (Some(_), _) => "inline",
                    (None, Some(_)) => "file",
                    (None, None) => "",
                };
                table.row(vec![
                    Cell::new(&agent.name),
                    Cell::new(&agent.url),
                    Cell::new(token),
                    Cell::new(labels.join(",")),
                ]);
            }
            printer.table(&table)?;
        }
    }
    Ok(())
}
