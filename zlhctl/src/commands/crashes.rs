//! `zlhctl crashes` and `zlhctl fix`.

use anyhow::{Result, anyhow};
use zlh_api::CrashRecord;

use super::operations;
use crate::cli::Fix;
use crate::exit::{Exit, Hint};
use crate::printer::{Format, Paint, Printer};
use crate::target::Targets;
use crate::ui::table::{Cell, Table};
use crate::ui::units;

/// Lists the kept crashes, newest first.
pub(crate) async fn run(name: &str, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(name)?;
    let crashes = client.crashes().await?;
    match printer.format {
        Format::Json | Format::Yaml => printer.document(&serde_json::to_value(&crashes)?)?,
        Format::Name => {
            for crash in &crashes {
                printer.line(&crash.id)?;
            }
        }
        Format::Table | Format::Wide if crashes.is_empty() => {
            printer.note(&format!("{} has no crash on record", target.name));
        }
        Format::Table | Format::Wide => {
            printer.table(&table(&crashes, jiff::Timestamp::now(), printer.format == Format::Wide))?;
            printer.hint(&format!("`zlhctl explain {} --crash ID` shows one with its evidence", target.name));
        }
    }
    Ok(Exit::Ok)
}

fn table(crashes: &[CrashRecord], now: jiff::Timestamp, wide: bool) -> Table {
    let mut header = vec!["ID", "AGO", "END", "UPTIME", "CAUSE", "WHO"];
    if wide {
        header.extend(["CLASS", "SEEN", "FINGERPRINT"]);
    }
    header.push("WHAT");
    let mut table = Table::new(&header);
    for crash in crashes {
        let ago = units::since(&crash.time, now).map(units::age).unwrap_or_default();
        let end = match (crash.exit_code, &crash.signal_name) {
            (Some(code), _) => format!("code {code}"),
            (None, Some(signal)) => signal.clone(),
            (None, None) => "lost".to_owned(),
        };
        let who = crash.culprit.first().map(|one| one.name.clone().unwrap_or_else(|| one.id.clone()));
        let cause = crash
            .cause
            .clone()
            .unwrap_or_else(|| if crash.explained { String::new() } else { "…".to_owned() });
        let mut row = vec![
            Cell::new(&crash.id),
            Cell::new(ago),
            Cell::new(end),
            Cell::new(units::age(std::time::Duration::from_secs(crash.uptime_seconds))),
            Cell::painted(cause, if crash.certain { Paint::Bad } else { Paint::Busy }),
            Cell::new(who.unwrap_or_default()),
        ];
        if wide {
            row.push(Cell::new(&crash.classification));
            row.push(Cell::new(crash.seen_before.to_string()));
            row.push(Cell::new(&crash.fingerprint));
        }
        row.push(Cell::new(&crash.title));
        table.row(row);
    }
    table
}

/// Has the agent do what a crash's remedy offers, and waits for it.
pub(crate) async fn fix(options: &Fix, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(&options.one.name)?;
    let id = match &options.crash {
        Some(id) => id.clone(),
        None => match client.status().await?.last_crash {
            Some(crash) if !crash.id.is_empty() => crash.id,
            _ => {
                return Err(anyhow!("{} has not crashed since it was configured", target.name))
                    .hint("`zlhctl crashes NAME` lists what is on record");
            }
        },
    };
    let accepted = client.act_on_crash(&id, &options.action).await?;
    let done = format!("{} is done", options.action);
    operations::until_done(&client, &target.name, accepted, options.timeout, Some(&done), printer)
        .await
        .hint("`zlhctl explain NAME` shows what else can be done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_crashes() {
        let crash = CrashRecord {
            id: "17-ab".to_owned(),
            time: "2026-01-01T00:00:00Z".to_owned(),
            exit_code: Some(1),
            uptime_seconds: 75,
            explained: true,
            cause: Some("eula".to_owned()),
            title: "Mojang's EULA is not accepted".to_owned(),
            ..CrashRecord::default()
        };
        let text = table(&[crash], "2026-01-01T00:02:05Z".parse().unwrap(), false).render(None, false);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row.join(" "), "17-ab 2m 5s code 1 1m 15s eula - Mojang's EULA is not accepted");
    }
}
