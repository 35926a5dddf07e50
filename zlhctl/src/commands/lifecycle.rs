//! `zlhctl start`, `stop` and `restart`: all agents at once, each with its own line.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use zlh_api::client::{Client, ClientError};

use crate::cli::Lifecycle;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::target::{Target, Targets};
use crate::ui::progress::{Line, Progress};
use crate::wait::{Goal, Wait, describe};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

impl Verb {
    fn goal(self) -> Goal {
        match self {
            Self::Start | Self::Restart { .. } => Goal::Ready,
            Self::Stop { .. } => Goal::Idle,
        }
    }

    async fn ask(self, client: &Client) -> Result<Option<String>, ClientError> {
        let accepted = match self {
            Self::Start => client.start().await?,
            Self::Restart { now: false } => client.restart().await?,
            Self::Restart { now: true } => client.restart_now().await?,
            Self::Stop { now: false } => return Ok(client.stop().await?.operation),
            Self::Stop { now: true } => return Ok(client.stop_now().await?.operation),
        };
        Ok(accepted.operation.map(|operation| operation.id))
    }
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

async fn one(verb: Verb, target: Target, wait: bool, timeout: Duration, line: Line) -> Result<()> {
    let client = target.client?;
    let operation = verb.ask(&client).await?;
    if wait {
        return settle(&client, verb.goal(), operation, timeout, line).await;
    }
    line.finish("accepted");
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
    let wait = Wait { goal, operation, timeout };
    let status = wait.run(client, |seen| line.seen(seen)).await?;
    let text = if goal == Goal::Ready && status.ready { "ready".to_owned() } else { describe(&status) };
    line.finish(&text);
    Ok(())
}
