//! `zlhctl completions`.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) fn run(shell: Shell, printer: Printer) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "zlhctl", &mut script);
    printer.data(&String::from_utf8(script)?)?;
    Ok(Exit::Ok)
}
