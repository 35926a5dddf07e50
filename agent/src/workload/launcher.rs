//! Starting a shim: in a unit of its own where systemd is the init, else as our child.
//!
//! ```text
//!  systemd, nothing to inherit ─► transient service  the shim is PID 1's child
//!  systemd, a descriptor       ─► transient scope    our child, in a unit of its own
//!  neither, or systemd refused ─► plain child        our child, in our control group
//! ```
//!
//! In a unit of its own no stop of the agent's unit, whatever its `KillMode`, reaches the
//! shim; a container that shuts down sends SIGTERM to the shim alone, waits for it longer
//! than its ladder takes, and stops the agent after it (docs/adr/0012).
//!
//! Invariants: the shim's one line (`ready`, or why not) decides, however it was started;
//! every call has a deadline; what systemd refuses is said in `/status` and started as a
//! plain child, except in a container that is shutting down, where nothing is started.
//! A shim that systemd would start after we gave up finds its standard output gone and is
//! not executed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use slog::{Logger, info, warn};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::Command;
use zlh_shim::files;
use zlh_shim::process::ProcessId;

use super::orphan::clear_slot;
use crate::errors::chain;
use crate::systemd::{KillMode, Systemd, own_unit, unit_of};

/// Why no shim holds the workload now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// A step of our own.
    #[error("cannot {step}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The shim said why not.
    #[error("the shim could not hold the server: {0}")]
    Shim(String),
    /// What is started now would be killed before it has loaded its world.
    #[error("the container is shutting down: the server starts again at its next boot")]
    ShuttingDown,
}

/// A shim to start.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// Where it works; the folder's name is the workload's.
    pub run_dir: &'a Path,
    /// Arguments after `shim RUN_DIR`.
    pub arguments: &'a [&'a str],
    /// Becomes the shim's standard input: for one that adopts, the terminal's master. PID 1
    /// cannot be handed a descriptor through its tools, so with one the shim is our child,
    /// in a scope.
    pub stdin: Option<OwnedFd>,
    /// How long its ladder takes at most when the container shuts down.
    pub shutdown: Duration,
}

/// Starts shims, and knows what of it the operator should hear. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Launcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Logger,
    /// For questions; workloads get units of their own only if `units`.
    systemd: Option<Systemd>,
    units: bool,
    own_unit: Option<String>,
    warnings: Mutex<Warnings>,
}

#[derive(Debug, Default)]
struct Warnings {
    /// systemd refused a unit.
    refused: Option<String>,
    /// Our own unit would take the workload along.
    exposed: Option<String>,
}

impl Launcher {
    /// `configured`: the operator's word on units of their own, else they are used where
    /// they can be, for a `system` that is the whole container.
    pub(crate) fn new(configured: Option<bool>, system: bool, log: &Logger) -> Self {
        let systemd = Systemd::find();
        let root = rustix::process::geteuid().is_root();
        let units = systemd.is_some() && root && configured.unwrap_or(system);
        let warnings = Warnings::default();
        let inner =
            Inner { log: log.clone(), systemd, units, own_unit: own_unit(), warnings: Mutex::new(warnings) };
        if configured == Some(true) && !inner.units {
            let why = if root { "systemd does not run this container" } else { "the agent is not root" };
            inner.warnings().refused =
                Some(format!("workload_units is true, but workloads get no units of their own: {why}"));
        }
        Self(Arc::new(inner))
    }

    /// What `/status` should say.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warnings = self.0.warnings();
        warnings.refused.iter().chain(&warnings.exposed).cloned().collect()
    }

    /// Looks whether a stop of our own unit would end the workload: the one that `shim` holds,
    /// or the next one to be started.
    pub(crate) async fn check(&self, shim: Option<ProcessId>) {
        let Inner { systemd, units, own_unit, .. } = &*self.0;
        let (Some(systemd), Some(own)) = (systemd, own_unit.as_ref().filter(|u| u.ends_with(".service")))
        else {
            return;
        };
        let inside = match shim {
            Some(shim) => shim.is_alive() && unit_of(shim.pid).as_ref() == Some(own),
            None => !units,
        };
        let exposed = inside && systemd.kill_mode(own).await == Some(KillMode::Kills);
        let mut warnings = self.0.warnings();
        if exposed && warnings.exposed.is_none() {
            warn!(self.0.log, "a restart of {own} would kill the server");
        }
        warnings.exposed = exposed.then(|| exposed_text(own));
    }

    /// Starts a shim and waits until it holds the workload or says why not.
    pub(crate) async fn launch(&self, order: Order<'_>) -> Result<(), LaunchError> {
        // Once before the first start, so that its warning is not later than the danger.
        let Some(systemd) = self.0.systemd.as_ref().filter(|_| self.0.units) else {
            self.check(None).await;
            return launch_child(program(), &[], &order).await.and_then(Said::into_result);
        };
        let refused = match self.launch_in_unit(systemd, &order).await {
            Ok(unit) => {
                info!(self.0.log, "a workload runs in a unit of its own"; "unit" => unit);
                self.0.warnings().refused = None;
                return Ok(());
            }
            Err(NotLaunched::Failed(error)) => return Err(error),
            Err(NotLaunched::Refused(why)) => why,
        };
        // Then it refuses everything.
        if systemd.is_stopping().await {
            return Err(LaunchError::ShuttingDown);
        }
        warn!(self.0.log, "no unit of its own for the server"; "why" => &refused);
        self.0.warnings().refused = Some(format!(
            "the server has no unit of its own ({refused}): it runs below the agent's, and a container \
             shutdown stops it through the agent only; set workload_units = false if that is meant"
        ));
        launch_child(program(), &[], &order).await.and_then(Said::into_result)
    }

    async fn launch_in_unit(&self, systemd: &Systemd, order: &Order<'_>) -> Result<String, NotLaunched> {
        let random = zlh_shim::holder::random_hex().map_err(io_at("read random numbers"))?;
        let id = unit_id(order.run_dir, &random);
        if order.stdin.is_some() {
            let unit = format!("{id}.scope");
            let wrapper: Vec<OsString> = [systemd.run().path().as_os_str(), OsStr::new("--scope")]
                .into_iter()
                .map(OsStr::to_owned)
                .chain(self.common(&unit, order))
                .chain(["--".into()])
                .collect();
            return match launch_child(program(), &wrapper, order).await? {
                Said::Nothing => Err(NotLaunched::Refused("systemd-run ended without a word".to_owned())),
                said => said.into_result().map(|()| unit).map_err(NotLaunched::Failed),
            };
        }
        let unit = format!("{id}.service");
        open_log(order.run_dir, order.stdin.is_some())?;
        let (out, shim_out) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| io_at("make a pipe")(e.into()))?;
        let mut arguments: Vec<OsString> = self.common(&unit, order).collect();
        let mut property = |text: &str| arguments.push(format!("--property={text}").into());
        // Started is: executed. What follows is the shim's own line.
        property("Type=exec");
        // A stop asks the shim, which knows how a server wants to be asked; and the end of a
        // killed shim is not the end of the game.
        property("KillMode=process");
        // One process too many for the memory is the game's end, not a reason to stop the shim.
        property("OOMPolicy=continue");
        property(&format!("StandardOutput=file:/proc/{}/fd/{}", std::process::id(), shim_out.as_raw_fd()));
        let mut log = OsString::from("--property=StandardError=append:");
        log.push(order.run_dir.join(files::LOG));
        arguments.push(log);
        if let Some((name, value)) = zlh_shim::faults::environment() {
            let mut variable = OsString::from(format!("--setenv={name}="));
            variable.push(value);
            arguments.push(variable);
        }
        arguments.push("--".into());
        arguments.push(escape(program().as_os_str()));
        arguments.extend(shim_arguments(order).map(|argument| escape(&argument)));
        let called = systemd.run().succeed(&arguments, UNIT_STARTED).await;
        // From here on only the shim holds it: its end is ours to see, and a systemd that is
        // too late finds nothing to open.
        drop(shim_out);
        let out = pipe::Receiver::from_owned_fd(out).map_err(io_at("hear the shim"))?;
        let said = hear(out, order).await?;
        if matches!(said, Said::Silence) {
            systemd.kill(&unit).await;
            clear_after(order).await;
        }
        match (said, called) {
            (Said::Nothing, Err(error)) => Err(NotLaunched::Refused(chain(&error))),
            (said, _) => said.into_result().map(|()| unit).map_err(NotLaunched::Failed),
        }
    }

    /// What services and scopes have in common.
    fn common(&self, unit: &str, order: &Order<'_>) -> impl Iterator<Item = OsString> + use<> {
        // At a shutdown the reverse order holds: first the workload, with network and file
        // systems in place, then the agent, which sees it end.
        let after = self.0.own_unit.as_deref().filter(|unit| unit.ends_with(".service")).unwrap_or_default();
        let stop = (order.shutdown + STOP_MARGIN).as_secs();
        [
            "--quiet".to_owned(),
            "--no-ask-password".to_owned(),
            // Also after a failure: its name is never used again.
            "--collect".to_owned(),
            format!("--unit={unit}"),
            format!("--description=ZeroLagHub workload {}", workload(order.run_dir)),
            format!("--property=After=basic.target network.target {after}"),
            format!("--property=TimeoutStopSec={stop}"),
        ]
        .into_iter()
        .map(OsString::from)
    }
}

impl Inner {
    fn warnings(&self) -> std::sync::MutexGuard<'_, Warnings> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why it is not in a unit.
enum NotLaunched {
    /// systemd would not; another way may work.
    Refused(String),
    /// The shim would not, and would not another way either.
    Failed(LaunchError),
}

impl From<LaunchError> for NotLaunched {
    fn from(error: LaunchError) -> Self {
        Self::Failed(error)
    }
}

/// A shim's first line.
enum Said {
    Ready,
    Error(String),
    /// It ended before it said anything.
    Nothing,
    /// It lives and says nothing.
    Silence,
}

impl Said {
    fn into_result(self) -> Result<(), LaunchError> {
        match self {
            Self::Ready => Ok(()),
            Self::Error(why) => Err(LaunchError::Shim(why)),
            Self::Nothing => {
                Err(LaunchError::Shim(format!("it ended without a word; see {} in its folder", files::LOG)))
            }
            Self::Silence => Err(LaunchError::Shim(
                "it was too slow to say a word and was ended; look at the disk, then start it again"
                    .to_owned(),
            )),
        }
    }
}

/// A shim that is our child, by birth only: it leads a session of its own and outlives us.
/// `wrapper` is executed first and becomes it.
async fn launch_child(
    program: PathBuf,
    wrapper: &[OsString],
    order: &Order<'_>,
) -> Result<Said, LaunchError> {
    let line: Vec<OsString> =
        wrapper.iter().cloned().chain([program.into_os_string()]).chain(shim_arguments(order)).collect();
    let [first, rest @ ..] = line.as_slice() else { return Ok(Said::Nothing) };
    let stdin = match &order.stdin {
        Some(fd) => Stdio::from(fd.try_clone().map_err(io_at("duplicate a descriptor"))?),
        None => Stdio::null(),
    };
    let mut child = Command::new(first)
        .args(rest)
        .env_clear()
        .envs(zlh_shim::faults::environment())
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(open_log(order.run_dir, order.stdin.is_some())?)
        .spawn()
        .map_err(io_at("start the shim"))?;
    let Some(stdout) = child.stdout.take() else { return Ok(Said::Nothing) };
    let said = hear(stdout, order).await;
    if matches!(said, Ok(Said::Silence)) {
        // It may be in a system call that ends late; it does nothing after that.
        let _ = child.start_kill();
        let _ = tokio::time::timeout(SHIM_GONE, child.wait()).await;
        clear_after(order).await;
    }
    // The runtime reaps the shim whenever it ends; nobody waits for it.
    said
}

/// After a shim that said nothing: what is only slow would start later what nobody looks after.
/// What was to be adopted lives on.
async fn clear_after(order: &Order<'_>) {
    if order.stdin.is_none() {
        clear_slot(order.run_dir, None).await;
    }
}

async fn hear(stdout: impl tokio::io::AsyncRead + Unpin, order: &Order<'_>) -> Result<Said, LaunchError> {
    let patience = if order.stdin.is_some() { SHIM_ADOPTS } else { SHIM_READY };
    let mut line = String::new();
    let mut reader = BufReader::new(stdout.take(MAX_LINE));
    match tokio::time::timeout(patience, reader.read_line(&mut line)).await {
        Err(_) => Ok(Said::Silence),
        Ok(Err(source)) => Err(io_at("hear the shim")(source)),
        Ok(Ok(_)) => Ok(match line.trim_end() {
            "ready" => Said::Ready,
            "" => Said::Nothing,
            other => Said::Error(other.trim_start_matches("error ").to_owned()),
        }),
    }
}

/// The running binary, whatever lies at its path by now: under its own name as long as that
/// still leads to it, else as the kernel keeps it for us.
fn program() -> PathBuf {
    let identity = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let running = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    match std::env::current_exe() {
        Ok(named) if identity(&named).is_some() && identity(&named) == identity(&running) => named,
        _ => running,
    }
}

fn shim_arguments(order: &Order<'_>) -> impl Iterator<Item = OsString> {
    let fixed = [OsString::from("shim"), order.run_dir.as_os_str().to_owned()];
    fixed.into_iter().chain(order.arguments.iter().map(OsString::from))
}

/// systemd expands variables in the command lines of services.
fn escape(argument: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let doubled = argument.as_bytes().iter().flat_map(|&byte| {
        let times = if byte == b'$' { 2 } else { 1 };
        std::iter::repeat_n(byte, times)
    });
    OsString::from_vec(doubled.collect())
}

/// The workload's name, as far as a unit's name may hold it.
fn workload(run_dir: &Path) -> String {
    let name = run_dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    name.chars().take(MAX_NAME).map(plain).collect()
}

/// Never the same twice: a unit whose shim was killed stays as long as the game in it.
fn unit_id(run_dir: &Path, random: &str) -> String {
    format!("zlh-{}-{}", workload(run_dir), &random[..random.len().min(8)])
}

/// Truncated by a new run; one that adopts adds to what the dead shim said.
fn open_log(run_dir: &Path, adopts: bool) -> Result<File, LaunchError> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(!adopts)
        .append(adopts)
        .mode(0o600)
        .open(run_dir.join(files::LOG))
        .map_err(io_at("open the shim's log"))
}

fn io_at(step: &'static str) -> impl FnOnce(io::Error) -> LaunchError {
    move |source| LaunchError::Io { step, source }
}

fn exposed_text(own: &str) -> String {
    format!(
        "a stop or restart of {own} kills the server, which runs below it: its KillMode must be process; \
         `mkdir -p /etc/systemd/system/{own}.d && printf '[Service]\\nKillMode=process\\n' \
         >/etc/systemd/system/{own}.d/killmode.conf && systemctl daemon-reload` sets it"
    )
}

/// How long a new shim may take until it holds the workload.
const SHIM_READY: Duration = Duration::from_secs(15);

/// How long one that adopts may take: nobody reads the terminal meanwhile.
const SHIM_ADOPTS: Duration = Duration::from_secs(5);

/// How long it may take to die.
const SHIM_GONE: Duration = Duration::from_secs(2);

/// How long systemd may take until it has executed it.
const UNIT_STARTED: Duration = Duration::from_secs(10);

/// From the last rung of the ladder to the moment systemd stops waiting for the shim.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Longest line a starting shim may say, bytes.
const MAX_LINE: u64 = 4096;

/// Longest part of a unit's name, characters.
const MAX_NAME: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_units_name_is_plain_and_new() {
        assert_eq!(unit_id(Path::new("/opt/zlh-agent/run/game"), "0123456789ab"), "zlh-game-01234567");
        assert_eq!(unit_id(Path::new("/r/My Game%n/x-y"), "01"), "zlh-x_y-01");
        assert_eq!(unit_id(Path::new("/r/My Game%n"), ""), "zlh-my_game_n-");
    }

    #[test]
    fn systemd_expands_nothing_of_a_path() {
        assert_eq!(escape(OsStr::new("/a$b/${HOME}/c")), "/a$$b/$${HOME}/c");
    }

    #[test]
    fn the_program_is_the_running_binary() {
        use std::os::unix::fs::MetadataExt;
        let ours = std::fs::metadata("/proc/self/exe").unwrap();
        let named = std::fs::metadata(program()).unwrap();
        assert_eq!((ours.dev(), ours.ino()), (named.dev(), named.ino()));
    }
}
