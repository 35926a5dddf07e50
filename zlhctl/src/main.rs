//! `zlhctl`: operates zlh-agents, one or a fleet.
//!
//! The story: parse what was typed, run the one command it names, say what became
//! of it. Commands return how they ended; nothing below prints errors or exits.

mod atomic;
mod cli;
mod commands;
mod demo;
mod depot;
mod exit;
mod fleet;
mod prepare;
mod printer;
mod serve;
mod target;
mod terminal;
#[cfg(test)]
mod testing;
mod ui;
mod upstream;
mod wait;

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::printer::Printer;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let printer = Printer::new(cli.global.output, cli.global.quiet, cli.global.no_color);
    match run(cli, printer) {
        Ok(exit) => exit.into(),
        // `zlhctl status | head -1`: the reader has what it wanted.
        Err(error) if is_broken_pipe(&error) => Exit::Ok.into(),
        Err(error) => {
            printer.error(&error);
            Exit::Failed.into()
        }
    }
}

fn run(cli: Cli, printer: Printer) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(commands::run(cli, printer));
    // Nothing that is still reading a file or a name keeps the shell waiting.
    runtime.shutdown_background();
    result
}

/// Only our own output: a socket that breaks is an error like any other.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
