//! `zlhctl console`: the server's own console.
//!
//! On a terminal: a WebSocket to the server's terminal, raw in both directions
//! (the only place where a server's bytes reach the operator's terminal as they
//! are), until the detach key. Otherwise lines from standard input are sent one by
//! one, and what the server prints from then on is printed, made harmless.

mod lines;
mod raw;
mod record;

use anyhow::{Result, ensure};

use crate::cli::Console;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::target::Targets;
use crate::terminal;

pub(crate) async fn run(options: &Console, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(&options.one.name)?;
    if terminal::is_interactive() {
        raw::run(&target.name, &client, options.detach_key, options.record.as_deref(), printer).await
    } else {
        ensure!(options.record.is_none(), "--record needs a terminal at both ends");
        lines::run(&client, printer).await
    }
}
