//! How the fake game is told to behave: flags, then `ZLH_FAKE_*`, then a JSON file.
//!
//! One struct is all three; an absent value falls through to the next source.
//! The file is `fake-game.json` in the working directory (the game's root) when
//! it exists, so that a test changes the behaviour of the next start without a
//! new catalog. Keys of the file are the flags with `_` for `-`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use super::family::Role;
use super::{Bytes, PingMode, SignalName, Span};

/// What a console `stop` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopMode {
    /// Saves and exits 0.
    #[default]
    Obey,
    /// Says nothing, does nothing.
    Ignore,
    /// Says `Stopping the server` and then does nothing more.
    Pretend,
    /// Says `Stopping the server`, and saves and exits 0 once there is a file `may-end`.
    Held,
    /// Writes new world files until its linger time is over.
    SaveForever,
    /// Says that it saves, and touches its world files, until its linger time is over.
    TouchForever,
    /// Starts orphans that end at once until its linger time is over, on SIGTERM too.
    Storm,
}

macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)*) => {
        /// A game server that behaves, or misbehaves, as told.
        ///
        /// It reads `server.properties` (server-port, level-name, max-players, motd), `eula.txt` and,
        /// when it exists, `fake-game.json` in the working directory. Every flag can also be given as
        /// ZLH_FAKE_<FLAG> or as a key of that file (with `_` for `-`); flags win over the environment,
        /// the environment over the file.
        #[derive(Debug, Clone, Default, PartialEq, Parser, Serialize, Deserialize)]
        #[command(name = "zlh-fake-game", version, after_help = COMMANDS)]
        #[serde(default, deny_unknown_fields)]
        pub struct Settings {
            $($(#[$meta])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$type>,)*
        }

        impl Settings {
            /// These settings, with `base` where they say nothing.
            #[must_use]
            pub fn or(self, base: Self) -> Self {
                Self { $($name: self.$name.or(base.$name),)* }
            }
        }
    };
}

settings! {
    /// JSON file to read instead of ./fake-game.json.
    #[arg(long, env = "ZLH_FAKE_SETTINGS")]
    settings: PathBuf,
    /// Append what happened, with CLOCK_MONOTONIC times, to this file as JSON lines.
    #[arg(long, env = "ZLH_FAKE_EVENTS")]
    events: PathBuf,

    /// Time from start to the `Done` line [0s].
    #[arg(long, env = "ZLH_FAKE_STARTUP_DELAY")]
    startup_delay: Span,
    /// Time from `Done` to the open port [0s].
    #[arg(long, env = "ZLH_FAKE_READY_DELAY")]
    ready_delay: Span,
    /// Never say `Done` (and never open the port).
    #[arg(long, env = "ZLH_FAKE_NEVER_DONE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    never_done: bool,
    /// How a Server List Ping is answered [answer].
    #[arg(long, env = "ZLH_FAKE_PING")]
    ping: PingMode,
    /// Port to listen on, instead of server-port of server.properties.
    #[arg(long, env = "ZLH_FAKE_PORT")]
    port: u16,
    /// Names of the players online.
    #[arg(long, env = "ZLH_FAKE_PLAYERS", value_delimiter = ',')]
    players: Vec<String>,
    /// Refuse to start, with Minecraft's words, unless eula.txt says eula=true.
    #[arg(long, env = "ZLH_FAKE_REQUIRE_EULA", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    require_eula: bool,

    /// What a console `stop` does [obey].
    #[arg(long, env = "ZLH_FAKE_STOP")]
    stop: StopMode,
    /// Time from `stop` to the beginning of the last save [0s].
    #[arg(long, env = "ZLH_FAKE_STOP_DELAY")]
    stop_delay: Span,
    /// Never read the console.
    #[arg(long, env = "ZLH_FAKE_DEAF", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    deaf: bool,
    /// Do nothing on SIGTERM (otherwise: save, exit 143, like a JVM).
    #[arg(long, env = "ZLH_FAKE_IGNORE_SIGTERM", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ignore_sigterm: bool,

    /// Exit this long after `Done` (after the start with --never-done), with --exit-code or --exit-signal.
    #[arg(long, env = "ZLH_FAKE_EXIT_AFTER")]
    exit_after: Span,
    /// Exit code of --exit-after [1].
    #[arg(long, env = "ZLH_FAKE_EXIT_CODE")]
    exit_code: u8,
    /// Die by this signal instead of exiting.
    #[arg(long, env = "ZLH_FAKE_EXIT_SIGNAL")]
    exit_signal: SignalName,
    /// SIGSTOP itself this long after `Done`.
    #[arg(long, env = "ZLH_FAKE_FREEZE_AFTER")]
    freeze_after: Span,

    /// After `Done`, print numbered 64-byte lines at this many bytes a second (0 = as fast as it goes).
    #[arg(long, env = "ZLH_FAKE_FLOOD_RATE")]
    flood_rate: Bytes,
    /// End the flood after this many bytes [never].
    #[arg(long, env = "ZLH_FAKE_FLOOD_BYTES")]
    flood_bytes: Bytes,
    /// After `Done`, print one line of this many bytes.
    #[arg(long, env = "ZLH_FAKE_LONG_LINE")]
    long_line: Bytes,
    /// After `Done`, print this many bytes that are no text (and no line ends).
    #[arg(long, env = "ZLH_FAKE_NOISE")]
    noise: Bytes,

    /// After `Done`, double-fork a session leader that outlives the game [none].
    #[arg(long, env = "ZLH_FAKE_DAEMON")]
    daemon: DaemonMode,
    /// After `Done`, fork this many grandchildren.
    #[arg(long, env = "ZLH_FAKE_FORKS")]
    forks: u32,
    /// After `Done`, start a process whose first thread ends while another runs.
    #[arg(long, env = "ZLH_FAKE_HEADLESS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    headless: bool,
    /// After `Done`, start a process that changes to this user (as root).
    #[arg(long, env = "ZLH_FAKE_CHILD_UID")]
    child_uid: u32,
    /// Longest life of every process the game leaves behind [2m].
    #[arg(long, env = "ZLH_FAKE_LINGER")]
    linger: Span,

    /// Bytes of the world file [256KiB].
    #[arg(long, env = "ZLH_FAKE_WORLD_BYTES")]
    world_bytes: Bytes,
    /// How long one save of the world takes [0s].
    #[arg(long, env = "ZLH_FAKE_SAVE_TIME")]
    save_time: Span,
    /// Save by itself this often, unless save-off [never].
    #[arg(long, env = "ZLH_FAKE_AUTOSAVE")]
    autosave: Span,

    /// Allocate this many bytes a second.
    #[arg(long, env = "ZLH_FAKE_LEAK_RATE")]
    leak_rate: Bytes,
    /// End the leak at this many bytes [512MiB].
    #[arg(long, env = "ZLH_FAKE_LEAK_LIMIT")]
    leak_limit: Bytes,

    /// Internal: what a process started by the game does.
    #[arg(long, hide = true)]
    role: Role,
    /// Ignored, so that a launch plan can end in `nogui`.
    #[arg(hide = true, num_args = 0..)]
    rest: Vec<String>,
}

/// What a double-forked process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DaemonMode {
    /// Nothing: its standard streams are /dev/null.
    Detached,
    /// The terminal, on all three standard streams.
    HoldsTerminal,
}

impl Settings {
    /// From flags, environment and file.
    pub fn from_process() -> anyhow::Result<Self> {
        let given = Self::parse();
        let base = match &given.settings {
            Some(path) => Self::read(path)?.with_context(|| format!("{} does not exist", path.display()))?,
            None => Self::read(Path::new(DEFAULT_FILE))?.unwrap_or_default(),
        };
        Ok(given.or(base))
    }

    /// From a file; `None` when there is none.
    pub fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        if text.len() > MAX_FILE {
            bail!("{} has more than {MAX_FILE} bytes", path.display());
        }
        serde_json::from_str(&text).map(Some).with_context(|| format!("parse {}", path.display()))
    }

    /// Writes the file a game started in `dir` will read.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(DEFAULT_FILE);
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Longest life of every process the game leaves behind.
    pub fn linger(&self) -> Duration {
        self.linger.map_or(DEFAULT_LINGER, |span| span.0)
    }
}

/// The settings file of the working directory.
pub const DEFAULT_FILE: &str = "fake-game.json";
const MAX_FILE: usize = 1 << 20;
const DEFAULT_LINGER: Duration = Duration::from_secs(120);

const COMMANDS: &str = "\
Console commands:
  stop, say TEXT, list, help, save-all [flush], save-off, save-on   as in Minecraft
  join NAME, leave NAME      a player comes or goes
  echo TEXT                  print TEXT as it is, without a log prefix
  ping MODE                  answer pings in another way from now on
  crash N                    exit with code N, with a stack trace, without saving
  signal NAME                die by a signal
  freeze                     SIGSTOP itself
  hang                       never look at the console or at SIGTERM again (pings go on)
  flood BYTES RATE           numbered lines, RATE bytes a second, 0 = as fast as it goes
  line BYTES, noise BYTES    one long line; bytes that are no text
  fork N                     fork N grandchildren
  storm N                    start N orphans that end at once, one after the other
  daemon detached|holds-terminal
                             double-fork a process that outlives the game
  leak BYTES                 allocate and keep";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_leave_the_rest_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = Settings { exit_code: Some(7), ping: Some(PingMode::Silent), ..Settings::default() };
        file.write(dir.path()).unwrap();
        let read = Settings::read(&dir.path().join(DEFAULT_FILE)).unwrap().unwrap();
        assert_eq!(read, file);
        let given =
            Settings::try_parse_from(["x", "--exit-code", "3", "--never-done", "--players", "a,b"]).unwrap();
        let merged = given.or(read);
        assert_eq!(merged.exit_code, Some(3));
        assert_eq!(merged.never_done, Some(true));
        assert_eq!(merged.ping, Some(PingMode::Silent));
        assert_eq!(merged.players, Some(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn a_misspelt_key_is_an_error_not_a_well_behaved_server() {
        let error = serde_json::from_str::<Settings>(r#"{"exit_cod":3}"#).unwrap_err().to_string();
        assert!(error.contains("exit_cod"), "{error}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Settings::command().debug_assert();
    }
}
