//! Starting a game: everything is checked and written before a process exists.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use zlh_shim::connect::ConnectError;
use zlh_shim::durable;
use zlh_shim::process::Generation;
use zlh_shim::record::ShimRecord;

use super::launcher::{LaunchError, Launcher, Order};
use super::shim_client::ShimClient;
use crate::config::StopConfig;
use crate::game::files::{self as game_files, FileError};
use crate::game::payload::GameRequest;
use crate::game::plan::Installed;
use crate::game::worlds;
use crate::paths::{self, Paths};
use crate::users::{GameUser, UserError};

/// Longest name of a process, bytes.
const MAX_COMM: u64 = 256;

/// Why a game was not started. The text ends in `error`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Another process listens there.
    #[error("port {0} is in use by another process: stop it, or configure another port")]
    PortInUse(u16),
    /// Its world is somebody else's at the moment.
    #[error("{} is locked by {by}: another server uses this world; stop it, then start this one again", lock.display())]
    WorldLocked {
        /// The lock.
        lock: PathBuf,
        /// Who holds it.
        by: String,
    },
    /// It runs already.
    #[error("the server runs already (pid {0}): stop it first")]
    Alive(i32),
    /// The user to run as.
    #[error(transparent)]
    User(#[from] UserError),
    /// A file of the plan.
    #[error(transparent)]
    File(#[from] FileError),
    /// A template of the plan.
    #[error(transparent)]
    Template(#[from] zlh_catalog::TemplateError),
    /// A step of our own.
    #[error("cannot {step}")]
    Io {
        /// What was tried.
        step: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No shim could be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A task of our own broke.
    #[error("the preparation broke off: {0}")]
    Broken(tokio::task::JoinError),
    /// The shim started and cannot be reached.
    #[error("the shim started, but cannot be reached")]
    Connect(#[from] ConnectError),
}

/// What a start needs.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub paths: Paths,
    pub run_dir: PathBuf,
    pub request: GameRequest,
    pub installed: Installed,
    pub game_user: Option<String>,
    pub accept_eula: bool,
    /// What the operator wants of every stop.
    pub stop: StopConfig,
    pub instance: String,
    /// The shim of the run before, if it may still hold the slot.
    pub before: Option<ShimClient>,
    /// Who starts the shim.
    pub launcher: Launcher,
    /// How long a stop may take when the container shuts down.
    pub shutdown: Duration,
}

impl Launch {
    /// Starts the game and connects to its shim.
    pub(crate) async fn run(mut self, head: watch::Sender<u64>) -> Result<ShimClient, StartError> {
        if let Some(before) = self.before.take() {
            before.leave().await;
        }
        let (run_dir, instance) = (self.run_dir.clone(), self.instance.clone());
        let (launcher, shutdown) = (self.launcher.clone(), self.shutdown);
        tokio::task::spawn_blocking(move || self.prepare()).await.map_err(StartError::Broken)??;
        step("start.spawn")?;
        launcher.launch(Order { run_dir: &run_dir, arguments: &[], stdin: None, shutdown }).await?;
        step("start.connect")?;
        Ok(ShimClient::connect(&run_dir, &instance, head).await?)
    }

    /// Never a second instance beside a living one, whatever became of the lock.
    fn check_nothing_lives(&self) -> Result<(), StartError> {
        let living = ShimRecord::read(&self.run_dir).ok().and_then(|record| {
            let current = Generation::current().is_ok_and(|now| now == record.generation);
            record.child.filter(|child| current && child.is_alive())
        });
        living.map_or(Ok(()), |child| Err(StartError::Alive(child.pid)))
    }

    /// Blocking: files and checks.
    fn prepare(&self) -> Result<(), StartError> {
        self.check_nothing_lives()?;
        check_port(self.request.port)?;
        let user = game_user(&self.paths, self.game_user.as_deref())?;
        let root = self.paths.game_root(&self.request.game, &self.request.variant, &self.request.world);
        let owner = user.ids.as_ref().map(|ids| (ids.uid, ids.gid));
        make_game_root(&root, owner)
            .map_err(|source| StartError::Io { step: format!("make {}", root.display()), source })?;
        check_worlds(&root)?;
        let values = self.installed.values(&self.request, &root);
        game_files::apply(&root, &self.installed.plan.files, &values, self.accept_eula, owner)?;
        let mut spec = self.installed.spec(&self.request, &root, &user, self.instance.clone())?;
        spec.stop = self.stop.over(spec.stop);
        spec.shutdown_ms = u64::try_from(self.shutdown.as_millis()).ok();
        let io = |step: &str| {
            let step = format!("{step} in {}", self.run_dir.display());
            move |source| StartError::Io { step, source }
        };
        paths::make_dir(&self.run_dir, 0o700).map_err(io("prepare the run directory"))?;
        spec.write(&self.run_dir).map_err(io("write the spec"))
    }
}

/// The user of this container's games.
pub(crate) fn game_user(paths: &Paths, configured: Option<&str>) -> Result<GameUser, UserError> {
    crate::users::game_user(configured, &paths.passwd(), !paths.is_system())
}

/// The game's folder belongs to the game; its parents do not.
pub(crate) fn make_game_root(root: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    match std::fs::symlink_metadata(root) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        // Its parents are ours; a link here is nobody's doing but an operator's.
        Ok(_) => return Err(io::Error::other("it is there and not a directory")),
        Err(_) => {}
    }
    paths::make_dir(root, 0o750)?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(root, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// A server that cannot listen dies with a line few people find: say it before.
fn check_port(port: u16) -> Result<(), StartError> {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(StartError::PortInUse(port)),
        Err(source) => Err(StartError::Io { step: format!("listen on port {port}"), source }),
    }
}

/// A place where tests break a start.
fn step(name: &str) -> Result<(), StartError> {
    zlh_shim::faults::point(name).map_err(|source| StartError::Io { step: name.to_owned(), source })
}

/// Two servers in one world destroy it; most notice, after they have begun. The kernel knows
/// who holds a world's lock, whoever started it.
fn check_worlds(root: &Path) -> Result<(), StartError> {
    let Some(held) = worlds::held_locks(root).into_iter().next() else { return Ok(()) };
    let by = match held.pid {
        Some(pid) => {
            let name = durable::read_bounded(Path::new(&format!("/proc/{pid}/comm")), MAX_COMM);
            let name = name.map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default();
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            format!("pid {pid} ({})", if name.is_empty() { "it has just ended" } else { name.as_str() })
        }
        None => "a process outside of this container".to_owned(),
    };
    Err(StartError::WorldLocked { lock: root.join(held.path), by })
}
