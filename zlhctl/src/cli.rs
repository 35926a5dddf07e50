//! What can be typed. Every command's long help ends in examples.

mod artifacts;
mod catalog;
mod examples;
mod installed;
mod maintenance;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use zlh_api::HistoryWindow;

pub(crate) use self::artifacts::{
    Add, ArtifactsCommand, Gc, Import, Mirror, Promote, Publishing, Reason, SignStore, Verify,
};
pub(crate) use self::catalog::CatalogCommand;
#[allow(clippy::wildcard_imports, reason = "one text for each command")]
use self::examples::*;
use crate::fleet::parse_label;
use crate::printer::Format;
use crate::ui::units::parse_duration;
use crate::wait::Goal;

pub(crate) use self::installed::{AgentCommand, GameCommand, InstalledCommand, OneVersion};
pub(crate) use self::maintenance::MaintenanceCommand;

/// Operates zlh-agents: one, or a fleet of them.
///
/// An agent is given by its name in the fleet file, or directly as a URL or HOST:PORT.
#[derive(Debug, Parser)]
#[command(name = "zlhctl", version, max_term_width = 100)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options every command knows.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Fleet file [default: ~/.config/zlhctl/fleet.toml]
    #[arg(
        long, global = true, value_name = "FILE", env = "ZLHCTL_FLEET", hide_env = true,
        value_hint = ValueHint::FilePath, help_heading = GLOBAL,
    )]
    pub(crate) fleet: Option<PathBuf>,
    /// Output format: table, wide, json, yaml or name
    #[arg(
        short, long, global = true, value_name = "FORMAT", value_enum, default_value_t,
        hide_possible_values = true, hide_default_value = true, help_heading = GLOBAL,
    )]
    pub(crate) output: Format,
    /// File with the agents' token, instead of the fleet file's
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = GLOBAL)]
    pub(crate) token_file: Option<PathBuf>,
    /// No colour, as with NO_COLOR=1
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) no_color: bool,
    /// No progress and no remarks
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the state of the fleet
    #[command(after_long_help = STATUS_EXAMPLES)]
    Status(Selector),
    /// Show everything about one agent
    #[command(after_long_help = GET_EXAMPLES)]
    Get(One),
    /// Start servers, and wait until they accept players
    #[command(after_long_help = START_EXAMPLES)]
    Start(Lifecycle),
    /// Stop servers, and wait until they have saved and ended
    #[command(after_long_help = STOP_EXAMPLES)]
    Stop(Stopping),
    /// Stop and start servers, and wait until they accept players
    Restart(Stopping),
    /// Keep servers down, whoever or whatever would start them
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Give an agent its payload; it installs and starts what that says
    #[command(after_long_help = CONFIGURE_EXAMPLES)]
    Configure(Configure),
    /// Type into a server's console
    #[command(after_long_help = CONSOLE_EXAMPLES)]
    Console(Console),
    /// Send one line to a server's console
    #[command(after_long_help = SEND_EXAMPLES)]
    Send(Send),
    /// Print a server's console log
    #[command(after_long_help = LOGS_EXAMPLES)]
    Logs(Logs),
    /// Wait until a server is in a state
    #[command(after_long_help = WAIT_EXAMPLES)]
    Wait(Wait),
    /// List who is playing
    Players(One),
    /// Show how long a server was up, and what happened to it
    #[command(after_long_help = HISTORY_EXAMPLES)]
    History(HistoryOptions),
    /// List the last crashes of a server, newest first
    #[command(after_long_help = CRASHES_EXAMPLES)]
    Crashes(One),
    /// Explain why a server died: its last crash, or a log from anywhere
    #[command(after_long_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainOptions),
    /// Have an agent do what the remedy of a crash offers
    #[command(after_long_help = FIX_EXAMPLES)]
    Fix(Fix),
    /// A login shell in a container, which goes on when you leave
    #[command(after_long_help = SHELL_EXAMPLES)]
    Shell(ShellOptions),
    /// The shells that run in a container
    #[command(subcommand)]
    Shells(ShellsCommand),
    /// What an agent has installed to run things with, and the verbs on it
    #[command(subcommand)]
    Runtimes(InstalledCommand),
    /// Tools of a workspace that an agent has installed, and the verbs on them
    #[command(subcommand)]
    Addons(InstalledCommand),
    /// The version of a game server: change, go back, verify, repair, remove
    #[command(subcommand)]
    Game(GameCommand),
    /// The version of an agent: look for a newer one, update
    #[command(subcommand)]
    Agent(AgentCommand),
    /// List an agent's operations, newest first
    Operations(One),
    /// Edit the fleet file
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// Keys and signatures of artifact catalogs
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Artifact stores
    #[command(subcommand)]
    Artifacts(ArtifactsCommand),
    /// Run a real server on this machine, to see it all work
    #[command(after_long_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Print a completion script
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// One agent.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Name, URL or HOST:PORT of the agent
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// Some of the fleet, or all of it.
#[derive(Debug, Args)]
pub(crate) struct Selector {
    /// Names, URLs or HOST:PORTs [default: the whole fleet]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only agents with this label; may be repeated
    #[arg(short, long = "label", value_name = "LABEL=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
}

/// Which agents to start or stop, and whether to wait.
#[derive(Debug, Args)]
pub(crate) struct Lifecycle {
    /// Names, URLs or HOST:PORTs
    #[arg(value_name = "NAME", required_unless_present = "labels")]
    pub(crate) names: Vec<String>,
    /// Only agents with this label; may be repeated
    #[arg(short, long = "label", id = "labels", value_name = "LABEL=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

/// Which agents to stop or restart, and how.
#[derive(Debug, Args)]
pub(crate) struct Stopping {
    #[command(flatten)]
    pub(crate) lifecycle: Lifecycle,
    /// Do not warn players first; the world is saved all the same
    #[arg(long)]
    pub(crate) now: bool,
}

/// Whether to wait for the end of what was begun, and how long.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Waiting {
    /// Wait for the end (the default)
    #[arg(long, overrides_with = "no_wait")]
    pub(crate) wait: bool,
    /// Return as soon as the agent has accepted
    #[arg(long, overrides_with = "wait")]
    pub(crate) no_wait: bool,
    /// Give up waiting after this time
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Configure {
    #[command(flatten)]
    pub(crate) one: One,
    /// The payload, JSON; - for standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct Console {
    #[command(flatten)]
    pub(crate) one: One,
    /// Key that leaves the console
    #[arg(long, value_name = "KEY", default_value = "ctrl-]", value_parser = crate::terminal::parse_key)]
    pub(crate) detach_key: crate::terminal::Key,
    /// Also record what is shown, as asciicast v2; the file must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ShellOptions {
    #[command(flatten)]
    pub(crate) one: One,
    /// Which one: it is opened if there is none of that name
    #[arg(value_name = "SESSION", default_value = "main")]
    pub(crate) session: String,
    /// Key that leaves the shell
    #[arg(long, value_name = "KEY", default_value = "ctrl-]", value_parser = crate::terminal::parse_key)]
    pub(crate) detach_key: crate::terminal::Key,
    /// Also record what is shown, as asciicast v2; the file must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ShellsCommand {
    /// List them
    List(One),
    /// End one, with everything that runs in it
    Close {
        #[command(flatten)]
        one: One,
        /// As in `zlhctl shells list`
        #[arg(value_name = "SESSION")]
        session: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) one: One,
    /// Print what the server answers, for at most this time [default without TIME: 5s]
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5s",
        value_parser = parse_duration
    )]
    pub(crate) wait: Option<Duration>,
    /// The line to send; words are joined by one blank
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Names, URLs or HOST:PORTs
    #[arg(value_name = "NAME", required_unless_present = "labels")]
    pub(crate) names: Vec<String>,
    /// Only agents with this label; may be repeated
    #[arg(short, long = "label", id = "labels", value_name = "LABEL=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Only lines that contain this
    #[arg(long, value_name = "TEXT")]
    pub(crate) grep: Option<String>,
    /// How many lines from the end
    #[arg(
        short = 'n',
        long = "lines",
        visible_alias = "tail",
        value_name = "LINES",
        default_value_t = 100,
        conflicts_with = "since"
    )]
    pub(crate) lines: u64,
    /// Go on printing what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Everything from this byte offset on
    #[arg(long, value_name = "OFFSET")]
    pub(crate) since: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    pub(crate) one: One,
    /// What to wait for
    #[arg(long = "for", value_name = "STATE", value_enum, default_value_t = Goal::Ready)]
    pub(crate) goal: Goal,
    /// Give up after this time
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryOptions {
    #[command(flatten)]
    pub(crate) one: One,
    /// How far back events are listed: 24h, 7d or 30d
    #[arg(long, value_name = "WINDOW", default_value = "24h", value_parser = parse_window)]
    pub(crate) window: HistoryWindow,
    /// How many events at most, the last ones
    #[arg(
        short = 'n',
        long = "events",
        value_name = "EVENTS",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(0..=1000)
    )]
    pub(crate) events: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainOptions {
    /// Log files, - for standard input; or the name of one agent
    #[arg(value_name = "FILE|NAME", required_unless_present = "server", value_hint = ValueHint::AnyPath)]
    pub(crate) what: Vec<String>,
    /// An agent, even if a file has that name
    #[arg(long, value_name = "NAME", conflicts_with = "what")]
    pub(crate) server: Option<String>,
    /// Which crash of the agent [default: the last one]
    #[arg(long, value_name = "ID")]
    pub(crate) crash: Option<String>,
    /// The exit code of the process that wrote the log
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = EXIT_EVIDENCE)]
    pub(crate) exit_code: Option<i32>,
    /// The signal that ended it
    #[arg(long, value_name = "N", help_heading = EXIT_EVIDENCE)]
    pub(crate) signal: Option<i32>,
    /// How often the kernel killed for memory in its control group
    #[arg(long, value_name = "N", help_heading = EXIT_EVIDENCE)]
    pub(crate) oom_kill: Option<u64>,
    /// Somebody had asked for the stop
    #[arg(long, help_heading = EXIT_EVIDENCE)]
    pub(crate) requested: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fix {
    #[command(flatten)]
    pub(crate) one: One,
    /// What to do, as `zlhctl explain NAME` offers it
    #[arg(value_name = "ACTION")]
    pub(crate) action: String,
    /// Of which crash [default: the last one]
    #[arg(long, value_name = "ID")]
    pub(crate) crash: Option<String>,
    /// Give up waiting after this time
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FleetCommand {
    /// Add an agent
    #[command(after_long_help = FLEET_ADD_EXAMPLES)]
    Add {
        /// Name to call it by
        name: String,
        /// URL, HOST:PORT or IP address
        url: String,
        /// Label; may be repeated
        #[arg(short, long = "label", value_name = "LABEL=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
    },
    /// Take an agent out
    Remove {
        /// Its name
        name: String,
    },
    /// List the agents without asking them anything
    List,
    /// Print which file is used
    Path,
}

/// How long an operation is waited for.
#[derive(Debug, Args)]
pub(crate) struct Patience {
    /// Give up waiting after this time
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Folder that everything goes into
    #[arg(long, value_name = "DIR", default_value = ".demo", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// The agent's binary [default: zlh-agent beside zlhctl]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) agent: Option<PathBuf>,
    /// Go through the story once instead of staying (the default without a terminal)
    #[arg(long, env = "DEMO_ONCE", hide_env = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) once: bool,
    /// End what a demo in that folder left running, and nothing else
    #[arg(long, conflicts_with = "once")]
    pub(crate) stop: bool,
}

fn parse_window(text: &str) -> Result<HistoryWindow, String> {
    let known = HistoryWindow::ALL.into_iter().find(|window| window.as_str() == text);
    known.ok_or_else(|| "there are 24h, 7d and 30d".to_owned())
}

impl ValueEnum for Goal {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Ready, Self::Running, Self::Idle, Self::Stopped]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.as_str()).help(match self {
            Self::Ready => "players can join",
            Self::Running => "the agent says `running`",
            Self::Idle => "the agent says `idle`",
            Self::Stopped => "no process, and none planned",
        }))
    }
}

const GLOBAL: &str = "Global options";

const EXIT_EVIDENCE: &str = "How the process ended, where that is known";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_for_the_server_may_look_like_an_option() {
        let cli = parse("zlhctl send lobby say -v --help").unwrap();
        let Command::Send(send) = cli.command else { panic!() };
        assert_eq!(send.command, ["say", "-v", "--help"]);
    }

    #[test]
    fn the_last_of_wait_and_no_wait_counts() {
        for (line, no_wait) in
            [("zlhctl start a --wait --no-wait", true), ("zlhctl start a --no-wait --wait", false)]
        {
            let Command::Start(start) = parse(line).unwrap().command else { panic!() };
            assert_eq!(start.waiting.no_wait, no_wait, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "zlhctl",
            "zlhctl start",
            "zlhctl send lobby",
            "zlhctl status -l nolabel",
            "zlhctl wait a --for done",
            "zlhctl wait a --timeout 10",
            "zlhctl logs a -n 5 --since 7",
            "zlhctl configure a",
            "zlhctl history a --window 1y",
            "zlhctl status -o xml",
            "zlhctl console a --detach-key ctrl-",
            "zlhctl artifacts serve d --listen nowhere",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn no_help_line_is_wider_than_80_columns() {
        fn check(command: &mut clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            for (kind, text) in [("-h", command.render_help()), ("--help", command.render_long_help())] {
                // Examples are one command a line, however long it is.
                let text = text.to_string();
                let text = text.split("Examples:").next().unwrap_or_default();
                for line in text.lines() {
                    assert!(line.chars().count() <= 80, "{path} {kind}: {line}");
                }
            }
            for sub in command.get_subcommands_mut() {
                check(sub, &path);
            }
        }
        let mut command = Cli::command().term_width(80);
        command.build();
        check(&mut command, "");
    }
}
