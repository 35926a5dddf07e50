//! `zlh-agent`: one static binary, three personalities.
//!
//! - `run` is the agent: HTTP, supervision, installs.
//! - `shim` holds one workload's terminal and process while agents come and go.
//! - `exec` gives up privileges and becomes the workload.
//!
//! The last two are told apart before a command line parser, a logger or a runtime
//! exists: they live as long as the game, one beside each, and have to stay small.

mod cli;
mod clock;
mod config;
mod console;
mod crash;
mod descriptors;
mod errors;
mod game;
mod http;
mod install;
mod journal;
mod log;
mod observe;
mod paths;
mod run;
mod shell;
mod systemd;
mod users;
mod workload;

use std::ffi::OsString;
use std::process::ExitCode;

/// Version of this build, without a leading `v`.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.split_first() {
        Some((name, rest)) if name == "shim" => zlh_shim::holder::main(rest),
        Some((name, rest)) if name == "exec" => zlh_shim::exec_stage::main(rest),
        _ => match cli::interpret() {
            cli::Invocation::Run(options) => run::run(&options),
            cli::Invocation::Done(code) => code,
        },
    }
}
