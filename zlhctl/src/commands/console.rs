//! `zlhctl console`: the server's own console; `zlhctl shell`: a shell beside it.
//!
//! On a terminal: a WebSocket to the server's terminal, raw in both directions
//! (the only place where a server's bytes reach the operator's terminal as they
//! are), until the detach key. Otherwise lines from standard input are sent one by
//! one, and what the server prints from then on is printed, made harmless.

mod lines;
mod raw;
mod record;

use anyhow::{Result, ensure};
use zlh_api::client::ClientError;
use zlh_api::{ErrorCode, NewShell};

use crate::cli::{Console, ShellOptions};
use crate::exit::Exit;
use crate::printer::Printer;
use crate::target::Targets;
use crate::terminal;

pub(crate) async fn run(options: &Console, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(&options.one.name)?;
    if terminal::is_interactive() {
        raw::run(
            &target.name,
            &client,
            raw::Place::Game,
            options.detach_key,
            options.record.as_deref(),
            printer,
        )
        .await
    } else {
        ensure!(options.record.is_none(), "--record needs a terminal at both ends");
        lines::run(&client, printer).await
    }
}

/// A shell: the one of that name, or a new one.
pub(crate) async fn shell(options: &ShellOptions, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(&options.one.name)?;
    ensure!(terminal::is_interactive(), "a shell needs a terminal at both ends");
    let (columns, rows) = raw::window();
    let name = options.session.clone();
    let there = client.shells().await?.iter().any(|shell| shell.name == name);
    if !there {
        let wanted = NewShell { name: Some(name.clone()), columns: Some(columns), rows: Some(rows) };
        match client.open_shell(&wanted).await {
            Ok(_) => {}
            // Somebody else was faster; what is in the way otherwise is told by the attempt to attach.
            Err(ClientError::Refused { problem, .. })
                if problem.error == ErrorCode::WrongState
                    && client.shells().await?.iter().any(|shell| shell.name == name) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let place = raw::Place::Shell(name);
    raw::run(&target.name, &client, place, options.detach_key, options.record.as_deref(), printer).await
}
