//! `zlhctl explain`: why a server died, from a log from anywhere or from an agent's record.
//!
//! A path that exists is a file, `-` is standard input; anything else is an agent of the
//! fleet, whose last crash (or `--crash ID`) is shown. The analysis of a file runs here: no
//! agent is asked.

mod card;
mod text;

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use zlh_crash::{Analysis, Evidence, Exit as ExitEvidence};

use self::card::{Card, Data};
use crate::cli::ExplainOptions;
use crate::exit::{Exit, Hint};
use crate::printer::{Format, Printer};
use crate::target::Targets;

/// Files: needs no fleet. Answers whether everything was one.
pub(crate) fn files(options: &ExplainOptions, printer: Printer) -> Option<Result<Exit>> {
    let is_file = |name: &String| name == "-" || Path::new(name).exists();
    if options.server.is_some() || options.crash.is_some() || !options.what.iter().any(is_file) {
        return None;
    }
    Some(explain_files(options, printer))
}

fn explain_files(options: &ExplainOptions, printer: Printer) -> Result<Exit> {
    let mut failed = None;
    let (mut done, many) = (0_usize, options.what.len() > 1);
    for name in &options.what {
        match explain_file(name, options) {
            Ok(analysis) => {
                print(name, &analysis, many, done, printer)?;
                done += 1;
            }
            // The others are explained all the same.
            Err(error) if many => {
                printer.error(&error);
                failed = Some(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(match failed {
        None => Exit::Ok,
        Some(()) if done > 0 => Exit::Partial,
        Some(()) => Exit::Failed,
    })
}

fn explain_file(name: &str, options: &ExplainOptions) -> Result<Analysis> {
    let read = if name == "-" {
        text::read(&mut std::io::stdin().lock()).context("cannot read standard input")?
    } else {
        let path = Path::new(name);
        if path.is_dir() {
            return Err(anyhow!("`{}` is a folder", path.display()))
                .hint("give the log itself, for example logs/latest.log or a file of crash-reports/");
        }
        let mut file =
            std::fs::File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        text::read(&mut file).with_context(|| format!("cannot read `{}`", path.display()))?
    };
    let given = options.exit_code.is_some()
        || options.signal.is_some()
        || options.oom_kill.is_some()
        || options.requested;
    let exit = given.then(|| ExitEvidence {
        code: options.exit_code.filter(|_| options.signal.is_none()),
        signal: options.signal,
        requested: options.requested,
        oom_kills: options.oom_kill.unwrap_or(0),
        ..ExitEvidence::default()
    });
    let shown = if name == "-" { "standard input" } else { name };
    Ok(zlh_crash::analyse(&Evidence { exit, console: read.texts(shown), ..Evidence::default() }))
}

fn print(name: &str, analysis: &Analysis, many: bool, before: usize, printer: Printer) -> Result<()> {
    match printer.format {
        Format::Json => printer.object(&fixed_form(name, analysis))?,
        Format::Yaml => printer.document(&fixed_form(name, analysis))?,
        Format::Name => {
            let cause = serde_json::to_value(analysis.cause)?;
            printer.line(cause.as_str().unwrap_or("healthy"))?;
        }
        Format::Table | Format::Wide => {
            if before > 0 {
                printer.data("\n")?;
            }
            let data: Data = serde_json::from_value(serde_json::to_value(analysis)?)?;
            let title = if many || name != "-" { name } else { "standard input" };
            printer.data(
                &Card { name: title, data: &data, fix: None, printer, wide: printer.format == Format::Wide }
                    .render(),
            )?;
        }
    }
    Ok(())
}

/// The form that other programs rely on; keys are never taken away.
fn fixed_form(name: &str, analysis: &Analysis) -> Value {
    json!({
        "file": name,
        "classification": analysis.classification,
        "cause": analysis.cause,
        "certain": analysis.certain,
        "restartUseless": analysis.restart_useless,
        "culprit": analysis.culprit.iter().map(|one| json!({"id": one.id, "name": one.name, "file": one.file})).collect::<Vec<_>>(),
        "dependency": analysis.dependency.iter().map(|one| json!({"id": one.id, "wanted": one.wanted})).collect::<Vec<_>>(),
        "java": analysis.java,
        "healthy": analysis.healthy,
    })
}

/// An agent's record.
pub(crate) async fn run(options: &ExplainOptions, targets: &Targets, printer: Printer) -> Result<Exit> {
    let name = match (&options.server, options.what.as_slice()) {
        (Some(server), []) => server,
        (None, [name]) => name,
        (Some(_), [..]) => return Err(anyhow!("--server and other names do not go together")),
        (None, names) => {
            let missing = names.iter().find(|name| !Path::new(name).exists());
            let missing = missing.map_or("", String::as_str);
            return Err(anyhow!("there is no file `{}`", missing.escape_debug()))
                .hint("several at once are files; one agent is explained at a time");
        }
    };
    let (target, client) = targets.one(name).map_err(|error| {
        // Most who get here meant a file.
        if options.server.is_none() {
            error.context(format!("`{}` is no file, so it was taken for an agent", name.escape_debug()))
        } else {
            error
        }
    })?;
    let crash = match &options.crash {
        Some(id) => client.crash(id).await?,
        None => match client.status().await?.last_crash {
            Some(crash) => crash,
            None => {
                printer.note(&format!("{} has not crashed since it was configured", target.name));
                return Ok(Exit::Ok);
            }
        },
    };
    match printer.format {
        Format::Json | Format::Yaml => printer.document(&serde_json::to_value(&crash)?)?,
        Format::Name => printer.line(&crash.id)?,
        Format::Table | Format::Wide => {
            let data: Data = serde_json::from_value(serde_json::to_value(&crash)?)?;
            let card = Card {
                name: &target.name,
                data: &data,
                fix: Some(&target.name),
                printer,
                wide: printer.format == Format::Wide,
            };
            printer.data(&card.render())?;
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_form_has_its_keys_for_every_outcome() {
        let keys = [
            "file",
            "classification",
            "cause",
            "certain",
            "restartUseless",
            "culprit",
            "dependency",
            "java",
            "healthy",
        ];
        for log in [
            "",
            "[12:00:00] [Server thread/INFO]: Done (1.0s)! For help, type \"help\"\n",
            "Error: Unable to access jarfile x.jar\n",
        ] {
            let read = text::read(&mut log.as_bytes()).unwrap();
            let analysis = zlh_crash::analyse(&Evidence { console: read.texts("x"), ..Evidence::default() });
            let form = fixed_form("x", &analysis);
            let mut have: Vec<&String> = form.as_object().unwrap().keys().collect();
            have.sort();
            let mut want = keys.to_vec();
            want.sort_unstable();
            assert_eq!(have, want);
            assert_eq!(form["healthy"], form["cause"].is_null());
        }
    }
}
