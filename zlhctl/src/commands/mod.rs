//! One module per verb.

mod artifacts;
pub(crate) mod catalog;
mod completions;
mod configure;
mod console;
mod crashes;
mod explain;
mod fleet;
mod get;
mod history;
mod installed;
mod lifecycle;
mod logs;
mod operations;
mod players;
mod send;
mod shells;
pub(crate) mod status;
mod versions;
mod wait;

use anyhow::Result;

use zlh_api::client::Kind;

use crate::cli::{Cli, Command};
use crate::demo;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::target::Targets;

/// Runs the command that was typed.
pub(crate) async fn run(cli: Cli, printer: Printer) -> Result<Exit> {
    // These need no fleet, and work where its file is broken or missing.
    let (command, global) = (cli.command, cli.global);
    let command = match command {
        Command::Completions { shell } => return completions::run(shell, printer),
        Command::Catalog(command) => return catalog::run(command, printer),
        Command::Artifacts(command) => return artifacts::run(command, printer).await,
        Command::Fleet(command) => return fleet::run(command, &global, printer),
        Command::Demo(options) => return demo::run(options, printer).await,
        Command::Explain(options) => {
            if let Some(done) = explain::files(&options, printer) {
                return done;
            }
            Command::Explain(options)
        }
        other => other,
    };
    let targets = Targets::load(&global)?;
    match command {
        Command::Status(selector) => status::run(&selector, &targets, printer).await,
        Command::Get(one) => get::run(&one.name, &targets, printer).await,
        Command::Start(options) => lifecycle::run(lifecycle::Verb::Start, &options, &targets, printer).await,
        Command::Stop(options) => {
            let verb = lifecycle::Verb::Stop { now: options.now };
            lifecycle::run(verb, &options.lifecycle, &targets, printer).await
        }
        Command::Restart(options) => {
            let verb = lifecycle::Verb::Restart { now: options.now };
            lifecycle::run(verb, &options.lifecycle, &targets, printer).await
        }
        Command::Maintenance(command) => {
            let (verb, options) = lifecycle::Verb::of_maintenance(command);
            lifecycle::run(verb, &options, &targets, printer).await
        }
        Command::Configure(options) => configure::run(&options, &targets, printer).await,
        Command::Console(options) => console::run(&options, &targets, printer).await,
        Command::Send(options) => send::run(&options, &targets, printer).await,
        Command::Logs(options) => logs::run(&options, &targets, printer).await,
        Command::Wait(options) => wait::run(&options, &targets, printer).await,
        Command::Players(one) => players::run(&one.name, &targets, printer).await,
        Command::History(options) => history::run(&options, &targets, printer).await,
        Command::Crashes(one) => crashes::run(&one.name, &targets, printer).await,
        Command::Explain(options) => explain::run(&options, &targets, printer).await,
        Command::Fix(options) => crashes::fix(&options, &targets, printer).await,
        Command::Shell(options) => console::shell(&options, &targets, printer).await,
        Command::Shells(command) => shells::run(&command, &targets, printer).await,
        Command::Runtimes(command) => installed::run(Kind::Runtimes, &command, &targets, printer).await,
        Command::Addons(command) => installed::run(Kind::Addons, &command, &targets, printer).await,
        Command::Game(command) => versions::game(&command, &targets, printer).await,
        Command::Agent(command) => versions::agent(&command, &targets, printer).await,
        Command::Operations(one) => operations::run(&one.name, &targets, printer).await,
        Command::Completions { .. }
        | Command::Catalog(_)
        | Command::Artifacts(_)
        | Command::Fleet(_)
        | Command::Demo(_) => {
            unreachable!("handled above")
        }
    }
}
