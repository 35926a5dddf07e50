//! The command line of `zlh-agent`.
//!
//! `shim` and `exec` are absent on purpose: they are dispatched before this
//! module exists to a process, because clap, the logger and the runtime would
//! cost memory in a process that has to live as long as the game does. They are
//! named in the long help so that nobody wonders what `ps` shows.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{AgentConfig, Environment};
use crate::errors::chain;
use crate::paths::Paths;

/// What is left to do once the command line was read.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Be the daemon.
    Run(RunOptions),
    /// Already done; leave with this code.
    Done(ExitCode),
}

/// Flags of `zlh-agent run`. A flag wins over the environment, that over the file.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    /// Prefix of every absolute path, so that tests and the demo need no privileges
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Configuration file [default: <root>/opt/zlh-agent/config/agent.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:18888, or 0.0.0.0:18888 with a token]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Base URL of the artifact server
    #[arg(long, value_name = "URL")]
    pub artifacts_url: Option<String>,
    /// minisign public key that signs the catalog; may be given several times
    #[arg(long = "catalog-key", value_name = "KEY")]
    pub catalog_keys: Vec<String>,
    /// Form of the log lines
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Least severe log lines to write
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub log_level: LogLevel,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// `human` when standard error is a terminal, else `json`
    #[default]
    Auto,
    /// Lines for people, on standard error
    Human,
    /// One JSON object a line, on standard output
    Json,
}

/// Least severe log lines to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Something failed and a person has to look at it
    Error,
    /// Works, but not as it should
    Warning,
    /// What happens
    #[default]
    Info,
    /// Every request and decision
    Debug,
}

/// Reads the process's command line and answers what needs no daemon.
pub(crate) fn interpret() -> Invocation {
    match Cli::parse().command {
        Command::Run(options) => Invocation::Run(options),
        Command::Openapi => Invocation::Done(emit(&crate::http::openapi_json())),
        Command::CheckConfig(options) => Invocation::Done(check_config(&options)),
        Command::SelfTest(options) => Invocation::Done(self_test(&options)),
        Command::Version => Invocation::Done(emit(&version_line())),
    }
}

#[derive(Debug, Parser)]
#[command(name = "zlh-agent", version, about = "Runs one game server or dev workspace inside a container")]
#[command(after_long_help = INTERNAL)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Run(RunOptions),
    /// Print the OpenAPI document
    Openapi,
    /// Check the configuration and print what is in effect, secrets left out
    CheckConfig(RunOptions),
    /// Say whether this version would run here, with these options: asked of a new version
    /// before it takes over
    #[command(hide = true)]
    SelfTest(RunOptions),
    /// Print the version
    Version,
}

fn check_config(options: &RunOptions) -> ExitCode {
    match AgentConfig::load(options, &Environment::of_process()) {
        Ok(config) => {
            for warning in &config.warnings {
                complain(&format!("warning: {warning}"));
            }
            emit(&config.to_string())
        }
        Err(error) => {
            complain(&format!("error: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// The configuration is one that this version reads, and its folders can be used.
fn self_test(options: &RunOptions) -> ExitCode {
    let tested = AgentConfig::load(options, &Environment::of_process())
        .map_err(|error| chain(&error))
        .and_then(|config| Paths::new(&config.root).prepare().map_err(|error| error.to_string()));
    match tested {
        Ok(()) => emit(&version_line()),
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn version_line() -> String {
    format!("zlh-agent v{} ({})\n", crate::version(), crate::http::TARGET)
}

fn emit(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) {
    // Nobody is left to be told when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

const INTERNAL: &str = "\
Internal personalities, started by the agent itself and not for people:
  shim  holds the terminal, the process and the console log of one workload
  exec  drops privileges and becomes the workload's own process
  launch  starts a newer agent as a child of the service manager's
  stand-in  waits for a newer agent that took over, where no service manager could be told";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_run_is_read() {
        let cli = Cli::try_parse_from([
            "zlh-agent",
            "run",
            "--root=/tmp/z",
            "--config=/etc/z.toml",
            "--listen=[::1]:9",
            "--artifacts-url=http://a.example",
            "--catalog-key=one",
            "--catalog-key=two",
            "--log-format=json",
        ])
        .unwrap();
        let Command::Run(options) = cli.command else { panic!("not run") };
        assert_eq!(options.root, PathBuf::from("/tmp/z"));
        assert_eq!(options.config, Some(PathBuf::from("/etc/z.toml")));
        assert_eq!(options.listen, Some("[::1]:9".parse().unwrap()));
        assert_eq!(options.artifacts_url.as_deref(), Some("http://a.example"));
        assert_eq!(options.catalog_keys, ["one", "two"]);
        assert_eq!(options.log_format, LogFormat::Json);
    }

    #[test]
    fn long_help_names_the_internal_personalities() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("shim") && help.contains("exec"), "{help}");
    }
}
