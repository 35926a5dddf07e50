//! `zlh-agent`: one static binary, three personalities.
//!
//! - `run` is the agent: HTTP, supervision, installs.
//! - `shim` holds one workload's terminal and process while agents come and go.
//! - `exec` gives up privileges and becomes the workload.
//!
//! The last two are told apart before a command line parser, a logger or a runtime
//! exists: they live as long as the game, one beside each, and have to stay small.

mod bucket;
mod change;
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
mod update;
mod users;
mod workload;

use std::ffi::OsString;
use std::process::ExitCode;

/// Version of this build, without a leading `v`.
pub(crate) fn version() -> &'static str {
    static VERSION: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    VERSION.get_or_init(|| forged_version().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()))
}

/// Tests need agents of different versions: a build with fault points believes what stands
/// behind its own last byte. What is shipped does not look.
fn forged_version() -> Option<String> {
    if !zlh_shim::faults::ENABLED {
        return None;
    }
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open("/proc/self/exe").ok()?;
    file.seek(SeekFrom::End(-64)).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    Some(text.rsplit_once("zlh-version=")?.1.trim().to_owned())
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.split_first() {
        Some((name, rest)) if name == "shim" => zlh_shim::holder::main(rest),
        Some((name, rest)) if name == "exec" => zlh_shim::exec_stage::main(rest),
        Some((name, rest)) if name == "launch" => update::launch(rest),
        Some((name, [pid])) if name == "stand-in" => match pid.to_str().and_then(|pid| pid.parse().ok()) {
            Some(pid) => update::stand_in(pid),
            None => ExitCode::FAILURE,
        },
        _ => match cli::interpret() {
            cli::Invocation::Run(options) => run::run(&options),
            cli::Invocation::Done(code) => code,
        },
    }
}
