//! `zlhctl start`, `stop`, `restart` and `maintenance`: all agents at once, each with its own line.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use zlh_api::client::{Client, ClientError};
use zlh_api::{MaintenanceRequest, State};

use crate::cli::{Lifecycle, MaintenanceCommand};
use crate::exit::Exit;
use crate::printer::Printer;
use crate::target::{Target, Targets};
use crate::ui::progress::{Line, Progress};
use crate::wait::{Goal, Wait, describe};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    /// `now`: without warning players.
    Stop {
        now: bool,
    },
    /// `now`: without warning players.
    Restart {
        now: bool,
    },
    Maintain(MaintenanceRequest),
    /// `start`: what was meant to run.
    EndMaintenance {
        start: bool,
    },
}

/// What an agent began.
struct Begun {
    operation: Option<String>,
    /// What it leads to, if anything has to be waited for.
    goal: Option<Goal>,
    /// What there is to say then, instead of the state.
    told: Option<&'static str>,
}

impl Verb {
    /// The verb, and on whom.
    pub(crate) fn of_maintenance(command: MaintenanceCommand) -> (Self, Lifecycle) {
        match command {
            MaintenanceCommand::On(on) => {
                let (reason, keep_running, now) = (on.reason, on.keep_running, on.now);
                (Self::Maintain(MaintenanceRequest { reason, keep_running, now }), on.lifecycle)
            }
            MaintenanceCommand::Off(off) => (Self::EndMaintenance { start: !off.no_start }, off.lifecycle),
        }
    }

    async fn ask(&self, client: &Client) -> Result<Begun, ClientError> {
        let (operation, goal) = match self {
            Self::Start => (client.start().await?.operation, Goal::Ready),
            Self::Restart { now: false } => (client.restart().await?.operation, Goal::Ready),
            Self::Restart { now: true } => (client.restart_now().await?.operation, Goal::Ready),
            Self::Stop { now } => {
                let done = if *now { client.stop_now().await? } else { client.stop().await? };
                return Ok(Begun { operation: done.operation, goal: Some(Goal::Idle), told: None });
            }
            Self::Maintain(request) => return maintain(request, client).await,
            Self::EndMaintenance { start } => {
                let operation = client.end_maintenance(*start).await?.operation.map(|operation| operation.id);
                let status = client.status().await?;
                let goal = operation.as_ref().map(|_| if *start { Goal::Ready } else { Goal::Idle });
                let told = match status.state {
                    State::Error => Some("not in maintenance; it had failed, `zlhctl get` says why"),
                    _ => Some("not in maintenance"),
                };
                return Ok(Begun { operation, goal, told: told.filter(|_| goal != Some(Goal::Ready)) });
            }
        };
        Ok(Begun { operation: operation.map(|operation| operation.id), goal: Some(goal), told: None })
    }
}

async fn maintain(request: &MaintenanceRequest, client: &Client) -> Result<Begun, ClientError> {
    let operation = client.begin_maintenance(request).await?.operation.map(|operation| operation.id);
    let status = client.status().await?;
    // It may have been on its way down before.
    let stops = operation.is_some() || status.state == State::Stopping;
    let told = match status.process_running && !stops {
        true => "in maintenance; it runs on, and is not started again",
        false => "in maintenance",
    };
    Ok(Begun { operation, goal: stops.then_some(Goal::Idle), told: Some(told) })
}

pub(crate) async fn run(
    verb: Verb,
    options: &Lifecycle,
    targets: &Targets,
    printer: Printer,
) -> Result<Exit> {
    let chosen = targets.some(&options.names, &options.labels)?;
    let total = chosen.len();
    let progress = Progress::new(printer).align(chosen.iter().map(|target| target.name.as_str()));
    let verb = &verb;
    let results = join_all(chosen.into_iter().map(|target| {
        let line = progress.line(&target.name);
        let waiting = options.waiting;
        async move {
            let name = target.name.clone();
            one(verb, target, !waiting.no_wait, waiting.timeout, line).await.with_context(|| name)
        }
    }))
    .await;
    let mut failed = 0;
    for error in results.into_iter().filter_map(Result::err) {
        failed += 1;
        printer.error(&error);
    }
    Ok(Exit::of(total, failed))
}

async fn one(verb: &Verb, target: Target, wait: bool, timeout: Duration, line: Line) -> Result<()> {
    let client = target.client?;
    let Begun { operation, goal, told } = verb.ask(&client).await?;
    let text = match goal.filter(|_| wait) {
        Some(goal) => Some(reach(&client, goal, operation, timeout, &line).await?),
        None if goal.is_some() => Some("accepted".to_owned()),
        None => None,
    };
    let told = told.filter(|_| wait || goal.is_none()).map(str::to_owned);
    line.finish(&told.or(text).unwrap_or_default());
    Ok(())
}

/// Waits for the end of what was begun, and leaves its result in place of the line.
pub(crate) async fn settle(
    client: &Client,
    goal: Goal,
    operation: Option<String>,
    timeout: Duration,
    line: Line,
) -> Result<()> {
    let text = reach(client, goal, operation, timeout, &line).await?;
    line.finish(&text);
    Ok(())
}

/// Waits for the end of what was begun; answers where that led.
async fn reach(
    client: &Client,
    goal: Goal,
    operation: Option<String>,
    timeout: Duration,
    line: &Line,
) -> Result<String> {
    let wait = Wait { goal, operation, timeout };
    let status = wait.run(client, |seen| line.seen(seen)).await?;
    Ok(if goal == Goal::Ready && status.ready { "ready".to_owned() } else { describe(&status) })
}
