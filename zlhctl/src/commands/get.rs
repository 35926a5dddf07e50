//! `zlhctl get`: everything one agent knows.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use zlh_api::{Operation, OperationState, Players, Status, Version};

use super::status::{address, maintenance, paint, version};
use crate::exit::Exit;
use crate::printer::{Format, Paint, Printer};
use crate::target::{Target, Targets};
use crate::ui::escape::one_line;
use crate::ui::units;

pub(crate) async fn run(name: &str, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(name)?;
    let (status, build, players, operations) =
        tokio::join!(client.status(), client.version(), client.players(), client.operations());
    // Without a status there is nothing to show; the others may fail one by one.
    let status = status.with_context(|| target.name.clone())?;
    let all = All {
        target: &target,
        host: client.host(),
        status,
        build: build.ok(),
        players: players.ok(),
        operations: operations.unwrap_or_default(),
    };
    match printer.format {
        Format::Json | Format::Yaml => printer.document(&json!({
            "name": target.name, "url": target.url, "labels": target.labels, "version": all.build,
            "status": all.status, "players": all.players, "operations": all.operations,
        }))?,
        Format::Name => printer.line(&target.name)?,
        Format::Table | Format::Wide => printer.data(&all.render(printer, jiff::Timestamp::now()))?,
    }
    Ok(Exit::Ok)
}

/// What was learnt.
struct All<'a> {
    target: &'a Target,
    host: &'a str,
    status: Status,
    build: Option<Version>,
    players: Option<Players>,
    operations: Vec<Operation>,
}

/// Sections of `label  value` lines.
struct Sheet {
    out: String,
    printer: Printer,
}

impl All<'_> {
    fn render(&self, printer: Printer, now: jiff::Timestamp) -> String {
        let mut sheet = Sheet { out: String::new(), printer };
        self.head(&mut sheet, now);
        self.resources(&mut sheet);
        self.crash(&mut sheet, now);
        self.operations(&mut sheet, now);
        self.config(&mut sheet);
        for warning in &self.status.warnings {
            sheet.title("Warning");
            sheet.text(warning);
        }
        sheet.out
    }

    fn head(&self, sheet: &mut Sheet, now: jiff::Timestamp) {
        let status = &self.status;
        let state = if status.ready { format!("{}, ready", status.state) } else { status.state.to_string() };
        let held = status.maintenance.then(|| {
            let words = maintenance(status, now);
            words.strip_prefix("maintenance").unwrap_or(&words).trim_start_matches([':', ' ']).to_owned()
        });
        sheet.painted("Name", &self.target.name, Paint::Bold);
        sheet.painted("State", &state, paint(status.state));
        sheet.optional("Error", status.error.as_deref());
        sheet.optional(
            "Not ready",
            Some(status.ready_error.as_str()).filter(|_| !status.ready && status.process_running),
        );
        sheet.optional("Maintenance", held.as_deref());
        sheet.optional("Doing", status.operation_message.as_deref().or(Some(&status.install_step)));
        sheet.optional("Restarts", status.next_restart_at.as_deref());
        sheet.optional("Server", Some(&version(status)));
        sheet.optional("Address", address(self.host, status).as_deref());
        if let Some(players) = self.players.as_ref().filter(|_| status.process_running) {
            let names = if players.players.is_empty() {
                String::new()
            } else {
                format!(": {}", players.players.join(", "))
            };
            sheet.field("Players", &format!("{}/{}{names}", players.online, players.max));
        }
        let uptime = status
            .started_at
            .as_deref()
            .filter(|_| status.process_running)
            .and_then(|at| units::since(at, now));
        sheet.optional("Uptime", uptime.map(units::age).as_deref());
        sheet.optional(
            "Process",
            status.pid.filter(|_| status.process_running).map(|pid| pid.to_string()).as_deref(),
        );
        if let Some(build) = &self.build {
            let words = [build.version.as_str(), &build.commit, &build.target];
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            sheet.field("Agent", &format!("{} at {}", words.join(" "), self.target.url));
        }
        let labels: Vec<_> = self.target.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        sheet.optional("Labels", Some(&labels.join(", ")));
        if let Some(artifacts) = &self.status.artifacts {
            let upstream =
                if artifacts.fetches_upstream { ", fetches unverified files by itself" } else { "" };
            sheet.field(
                "Installed",
                &format!("{} (catalog {}{upstream})", artifacts.installed, artifacts.catalog_serial),
            );
        }
    }

    fn resources(&self, sheet: &mut Sheet) {
        let Some(resources) = &self.status.resources else { return };
        sheet.title("Resources");
        if self.status.process_running {
            sheet.field("Memory", &units::bytes(resources.memory_bytes));
            sheet.field("CPU time", &units::duration(Duration::from_millis(resources.cpu_millis)));
            sheet.field("Threads", &resources.threads.to_string());
        }
        sheet.field(
            "Disk",
            &format!(
                "{} free of {}",
                units::bytes(resources.disk_free_bytes),
                units::bytes(resources.disk_total_bytes)
            ),
        );
    }

    fn crash(&self, sheet: &mut Sheet, now: jiff::Timestamp) {
        let status = &self.status;
        if let Some(budget) = status.restart_budget.filter(|_| status.crash_count > 0) {
            sheet.title("Restarts");
            sheet.field(
                "Crashes",
                &format!("{} on the ladder, {} in all", status.crash_count, status.crashes_total),
            );
            sheet.field("Left", &format!("{} of {}", budget.remaining, budget.limit));
        }
        let Some(crash) = &status.last_crash else { return };
        sheet.title("Last crash");
        let ago = units::since(&crash.time, now).map(|ago| format!(" ({} ago)", units::age(ago)));
        sheet.field("When", &format!("{}{}", crash.time, ago.unwrap_or_default()));
        sheet.field("Kind", &crash.classification);
        let how = match (&crash.lost, crash.exit_code, &crash.signal_name) {
            (Some(lost), _, _) => format!("unknown: {lost}"),
            (None, _, Some(name)) => format!("killed by {name}"),
            (None, Some(code), None) => format!("exit code {code}"),
            (None, None, None) => "unknown".to_owned(),
        };
        let lived = units::age(Duration::from_secs(crash.uptime_seconds));
        sheet.field(
            "Ended",
            &format!("{how} after {lived}{}", if crash.was_ready { "" } else { ", before it was ready" }),
        );
        for line in crash.log_tail.iter().rev().take(CRASH_LINES).rev() {
            sheet.text(line);
        }
    }

    fn operations(&self, sheet: &mut Sheet, now: jiff::Timestamp) {
        if self.operations.is_empty() {
            return;
        }
        sheet.title("Operations");
        for operation in self.operations.iter().take(OPERATIONS) {
            let state = match operation.state {
                OperationState::Running => "running",
                OperationState::Succeeded => "succeeded",
                OperationState::Failed => "failed",
                OperationState::Cancelled => "cancelled",
            };
            let ago = units::since(&operation.started_at, now).map(units::age).unwrap_or_default();
            let why = operation.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
            sheet.field(super::operations::kind(operation.kind), &format!("{state}, began {ago} ago{why}"));
        }
    }

    fn config(&self, sheet: &mut Sheet) {
        let Some(serde_json::Value::Object(config)) =
            self.status.config.as_ref().and_then(|c| serde_json::to_value(c).ok())
        else {
            return;
        };
        sheet.title("Payload");
        for (key, value) in &config {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            sheet.field(key, &text);
        }
    }
}

impl Sheet {
    fn title(&mut self, text: &str) {
        let text = self.printer.painted(text, Paint::Bold);
        let _ = writeln!(self.out, "\n{text}");
    }

    fn field(&mut self, label: &str, value: &str) {
        self.painted(label, value, Paint::Plain);
    }

    fn optional(&mut self, label: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.field(label, value);
        }
    }

    fn painted(&mut self, label: &str, value: &str, paint: Paint) {
        let label = self.printer.painted(&format!("{:14}", one_line(label)), Paint::Dim);
        let value = self.printer.painted(&one_line(value), paint);
        let _ = writeln!(self.out, "  {label}  {value}");
    }

    /// A line of somebody else's text.
    fn text(&mut self, text: &str) {
        let text = self.printer.painted(&one_line(text), Paint::Plain);
        let _ = writeln!(self.out, "  {text}");
    }
}

const CRASH_LINES: usize = 10;
const OPERATIONS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::status;

    #[test]
    fn a_sheet() {
        let mut status = status(zlh_api::State::Crashed);
        status.last_crash = serde_json::from_value(json!({
            "time": "2026-01-01T00:00:00Z", "exitCode": null, "signal": 9, "signalName": "SIGKILL",
            "uptimeSeconds": 61, "wasReady": true, "classification": "oom", "logTail": ["a\u{1b}[31mb"],
        }))
        .unwrap();
        status.config =
            serde_json::from_str(r#"{"variant":"paper","version":"1.21.7","admin_pass":"********"}"#)
                .unwrap();
        let target = Target {
            name: "lobby".into(),
            url: "10.0.0.2".into(),
            labels: [].into(),
            client: Err(anyhow::anyhow!("")),
        };
        let all = All {
            target: &target,
            host: "10.0.0.2",
            status,
            build: None,
            players: None,
            operations: Vec::new(),
        };
        let text =
            all.render(Printer::new(Format::Table, false, true), "2026-01-01T00:01:00Z".parse().unwrap());
        let expected = "  Name            lobby
  State           crashed
  Server          paper 1.21.7

Last crash
  When            2026-01-01T00:00:00Z (1m 0s ago)
  Kind            oom
  Ended           killed by SIGKILL after 1m 1s
  ab

Payload
  admin_pass      ********
  variant         paper
  version         1.21.7
";
        assert_eq!(text, expected);
    }
}
