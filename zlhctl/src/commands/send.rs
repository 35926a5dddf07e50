//! `zlhctl send`.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::to_value;

use crate::cli::Send;
use crate::exit::Exit;
use crate::printer::{Format, Printer};
use crate::target::Targets;
use crate::ui::units;

pub(crate) async fn run(options: &Send, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (_, client) = targets.one(&options.one.name)?;
    let line = options.command.join(" ");
    let Some(wait) = options.wait else {
        client.command(&line).await?;
        return Ok(Exit::Ok);
    };
    ensure!(wait <= LONGEST, "--wait takes at most {}", units::duration(LONGEST));
    let output = client.command_and_wait(&line, wait).await?;
    if matches!(printer.format, Format::Json | Format::Yaml) {
        printer.document(&to_value(&output)?)?;
        return Ok(Exit::Ok);
    }
    for line in &output.lines {
        printer.line(line)?;
    }
    if output.lines.is_empty() {
        printer.note(&format!("the server printed nothing within {}", units::duration(wait)));
    } else if output.truncated {
        printer.note(&format!("there was more: `zlhctl logs {} --since {}`", options.one.name, output.next));
    }
    Ok(Exit::Ok)
}

/// What the agent lets a caller wait.
const LONGEST: Duration = Duration::from_secs(10);
