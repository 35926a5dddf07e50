//! Changing the version of a game server, and going back; proving what is installed of one,
//! putting it right, taking away what is not needed ([`upkeep`]).
//!
//! ```text
//! fetch everything ─► stop ─► copy the folder ─► install, start ─► ready ─► done, the copy is kept
//! (it still runs)                                     │ fails
//!                                                     ▼
//!                     stop ─► folder and copy change places ─► the version before, started
//! ```
//!
//! Each step is written down before it is taken; an agent that is killed in between goes on
//! from there, or goes back. The folder that a failed version left is kept as a copy, too:
//! whatever happens, no world is thrown away by a change.

mod copies;
mod copy;
mod steps;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use slog::{Logger, info, warn};
use zlh_api::{
    Config, ErrorCode, GameVersion, OperationKind, OperationState, OperationSummary, Problem, State,
    VersionChange, WorldCopy,
};
use zlh_catalog::{check_component, compare_versions};
use zlh_shim::durable::{self, ReadError};

use self::copies::Copies;
pub(crate) use self::upkeep::Chore;
use crate::config::AgentConfig;
use crate::errors::chain;
use crate::game::payload::{self, GameRequest};
use crate::game::plan::Installed;
use crate::install::described;
use crate::paths::Paths;
use crate::workload::{Handle, Outcome, Shelf, maintenance_refusal};

/// Changes versions, one at a time.
#[derive(Clone)]
pub(crate) struct Changer(Arc<Inner>);

struct Inner {
    handle: Handle,
    paths: Paths,
    config: Arc<AgentConfig>,
    shelf: Shelf,
    /// The agent leaves: see [`Changer::leave`].
    leaving: AtomicBool,
    log: Logger,
}

/// A change under way, `state/change.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    from: Config,
    to: Config,
    /// Id of the copy.
    copy: String,
    stage: Stage,
    /// It ran before, so it runs afterwards.
    ran: bool,
    /// The folder that has to be in place if the change fails, once it is known.
    before: Option<u64>,
    /// A change back: the copy is there already.
    rollback: bool,
    /// What is installed of `from`: if it fails, all of it is still there, and whatever became of
    /// the artifact server or of the catalog, it runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    installed: Option<Box<Installed>>,
    /// The same of `to`, for a change back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Box<Installed>>,
}

/// How far a change is. Everything before `Switching` left the folder as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// Stopping, copying.
    Copying,
    /// The folder is the new version's.
    Switching,
    /// It failed: the folder becomes the old version's again.
    Returning,
}

/// What was to be changed, in the words of a request.
#[derive(Debug, Clone)]
enum Wish {
    To { version: String, force: bool },
    Back,
}

const SCHEMA: u32 = 1;

/// How often a record is read that the disk does not give, and the pause between.
const READS: u32 = 5;
const READ_AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

impl Changer {
    pub(crate) fn new(handle: Handle, paths: Paths, config: Arc<AgentConfig>, log: &Logger) -> Self {
        let shelf = Shelf::new(&paths);
        let log = crate::log::component(log, "change");
        Self(Arc::new(Inner { handle, paths, config, shelf, leaving: AtomicBool::new(false), log }))
    }

    /// Goes on with what an agent before this one was doing.
    pub(crate) fn resume(&self) {
        let record = match self.0.read_patiently() {
            Ok(record) => record,
            Err(ReadError::Missing(_)) => return,
            // One that stays would be gone on with by a later agent, days after it meant anything.
            Err(error) => return self.0.set_aside(&error),
        };
        let kind = kind(record.rollback);
        let phase = "going on with a change of version that was interrupted";
        let Ok(operation) = self.0.handle.take_hold(kind, phase) else { return };
        warn!(self.0.log, "{phase}"; "stage" => format!("{:?}", record.stage));
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.finish(&operation, inner.resumed(&operation, record).await) });
    }

    /// From here on nothing is decided any more: what the server does now it does because the
    /// agent leaves, and the next one goes on from what is written down.
    pub(crate) fn leave(&self) {
        self.0.leaving.store(true, Ordering::SeqCst);
    }

    /// `GET /game/version`.
    pub(crate) async fn version(&self) -> Result<GameVersion, Problem> {
        let inner = Arc::clone(&self.0);
        let told = tokio::task::spawn_blocking(move || inner.told());
        told.await.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?
    }

    /// `POST /game/version`.
    pub(crate) async fn change(&self, version: String, force: bool) -> Result<Outcome, Problem> {
        check_component("version", &version)
            .map_err(|error| Problem::new(ErrorCode::InvalidRequest, error.to_string()))?;
        self.begin(Wish::To { version, force }).await
    }

    /// `POST /game/version/rollback`.
    pub(crate) async fn roll_back(&self) -> Result<Outcome, Problem> {
        self.begin(Wish::Back).await
    }

    async fn begin(&self, wish: Wish) -> Result<Outcome, Problem> {
        self.0.handle.check_free()?;
        let inner = Arc::clone(&self.0);
        let planned = tokio::task::spawn_blocking(move || inner.plan(&wish));
        let record =
            planned.await.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))??;
        let (from, to) = (version_of(&record.from), version_of(&record.to));
        let phase = format!("changing from {from} to {to}");
        let operation = self.0.handle.take_hold(kind(record.rollback), &phase)?;
        // Maintenance may have begun since it was planned; from here on it cannot.
        let held = self.0.handle.settled().await.and_then(|()| self.0.check_maintenance());
        if let Err(problem) = held {
            self.0.finish(&operation, Err(Failed::Stopped(problem.detail.clone())));
            return Err(problem);
        }
        info!(self.0.log, "{phase}"; "operation" => &operation.id);
        let state = self.0.handle.changes().borrow().state;
        let (inner, summary) = (Arc::clone(&self.0), operation.clone());
        tokio::spawn(async move { inner.finish(&summary, inner.carry_out(&summary, record).await) });
        Ok(Outcome { state, operation: Some(operation) })
    }
}

impl Inner {
    fn record(&self) -> PathBuf {
        self.paths.change()
    }

    fn write(&self, record: &Record) -> std::io::Result<()> {
        durable::write_record(&self.record(), SCHEMA, record)?;
        zlh_shim::faults::point(match record.stage {
            Stage::Copying => "change.copying",
            Stage::Switching => "change.switching",
            Stage::Returning => "change.returning",
        })
    }

    /// A disk or a machine that is short of something for a moment ends no change.
    fn read_patiently(&self) -> Result<Record, ReadError> {
        let mut read = durable::read_record(&self.record(), SCHEMA);
        for _ in 0..READS {
            if !matches!(read, Err(ReadError::Io { .. })) {
                break;
            }
            std::thread::sleep(READ_AGAIN);
            read = durable::read_record(&self.record(), SCHEMA);
        }
        read
    }

    /// A record that nobody can go on from: it must not keep anything else from being done.
    fn set_aside(&self, error: &ReadError) {
        let told = Shelf::set_aside(&self.record(), &chain(error));
        warn!(self.log, "a change of version was interrupted and cannot be gone on with; the world and its copy are \
            where they were, look at both before the server is started"; "record" => told);
    }

    /// Takes the record away, which needs no room: one that outlived its change would be gone
    /// on with by the next agent.
    fn forget(&self) {
        if let Err(error) = durable::remove(&self.record()) {
            warn!(self.log, "a change that is over could not be forgotten"; "error" => %error);
        }
    }

    fn copies(&self, request: &GameRequest) -> Copies {
        Copies(self.paths.copies(&request.game, &request.variant))
    }

    /// The payload and what it asks for, installed or not.
    fn request(&self) -> Result<(Config, GameRequest), Problem> {
        let config = self.handle.changes().borrow().config.clone();
        let config = config.ok_or_else(|| {
            Problem::new(ErrorCode::NotConfigured, "nothing is configured yet: send POST /config first")
        })?;
        let request = payload::check(&config)?;
        Ok((config, request))
    }

    /// The payload, what it asks for, and what is installed of it.
    fn configured(&self) -> Result<(Config, GameRequest, Installed), Problem> {
        let (config, request) = self.request()?;
        match self.shelf.installed().0 {
            Some(installed) if installed.serves(&request) => Ok((config, request, installed)),
            _ => Err(Problem::new(
                ErrorCode::WrongState,
                format!("{} is not installed yet: start it once first", request.label()),
            )),
        }
    }

    /// In maintenance nothing is started, and a change has to be.
    fn check_maintenance(&self) -> Result<(), Problem> {
        match &self.handle.changes().borrow().maintenance {
            Some(maintenance) => Err(maintenance_refusal(&maintenance.words())),
            None => Ok(()),
        }
    }

    /// What is to be done, or why not; before anything is touched.
    fn plan(&self, wish: &Wish) -> Result<Record, Problem> {
        let (from, request, installed) = self.configured()?;
        let snapshot = self.handle.changes().borrow().clone();
        if matches!(snapshot.state, State::Installing | State::Stopping) {
            let detail = format!("the server is {}; try again when it is not", snapshot.state);
            return Err(Problem::new(ErrorCode::OperationInProgress, detail));
        }
        self.check_maintenance()?;
        let ran = matches!(snapshot.state, State::Starting | State::Running | State::Crashed);
        let (version, copy, target) = match wish {
            Wish::To { version, force } => {
                if compare_versions(version, &installed.version).is_lt() && !force {
                    let detail = format!(
                        "{version} is older than {}: an older server may destroy a world that a newer one has \
                         opened. Go back with POST /game/version/rollback, which brings the world of then; or \
                         send \"force\": true",
                        installed.version
                    );
                    return Err(Problem::new(ErrorCode::WrongState, detail));
                }
                let now = crate::clock::now().as_millisecond();
                (version.clone(), format!("{}@{}-{now}", request.world, installed.version), None)
            }
            Wish::Back => {
                let copies = self.copies(&request).list(&request.world);
                let copy = copies.into_iter().find(|copy| !copy.failed);
                let copy = copy.ok_or_else(|| {
                    let detail = "there is no copy to go back to: one is made by POST /game/version";
                    Problem::new(ErrorCode::WrongState, detail)
                })?;
                (copy.version, copy.id, Some(copy.installed))
            }
        };
        let (rollback, target) = (target.is_some(), target.flatten());
        // What was chosen for one version is not chosen for another.
        let java_version = match &target {
            Some(installed) => installed.java_version,
            None if rollback => from.java_version,
            None => None,
        };
        let to = Config {
            version: Some(version),
            artifact_path: None,
            java_path: None,
            java_version,
            ..from.clone()
        };
        let wanted = payload::check(&to)?;
        let root = self.copies(&request).root(&copy);
        let target =
            target.filter(|installed| installed.serves(&wanted) && stands(installed, &wanted, &root));
        let installed = Some(Box::new(installed));
        Ok(Record { from, to, copy, stage: Stage::Copying, ran, before: None, rollback, installed, target })
    }

    fn told(&self) -> Result<GameVersion, Problem> {
        let (_, request) = self.request()?;
        let installed = self.shelf.installed().0.filter(|installed| installed.serves(&request));
        let used = installed.as_ref().and_then(|installed| installed.server.as_deref());
        // Which there are is of less weight than the rest.
        let servers = self.trees(&request).unwrap_or_default();
        let servers = servers.into_iter().map(|tree| described(tree, used)).collect();
        let copies = self.copies(&request);
        let told = |copy: copies::Copy| WorldCopy {
            id: copy.id.clone(),
            path: copies.root(&copy.id).display().to_string(),
            version: copy.version,
            made_at: copy.made_at,
            bytes: copy.bytes,
            failed: copy.failed,
        };
        let record = durable::read_record::<Record>(&self.record(), SCHEMA).ok();
        let change = record.zip(self.handle.held()).map(|(record, operation)| VersionChange {
            from: version_of(&record.from),
            to: version_of(&record.to),
            operation: operation.id,
        });
        Ok(GameVersion {
            copies: copies.list(&request.world).into_iter().map(told).collect(),
            servers,
            installed: installed.is_some(),
            runtime: installed
                .and_then(|installed| installed.runtime)
                .map(|runtime| format!("{} {}", runtime.id, runtime.version)),
            game: request.game,
            variant: request.variant,
            version: request.version,
            change,
        })
    }

    fn finish(&self, operation: &OperationSummary, result: Result<String, Failed>) {
        let (state, error) = match result {
            Ok(done) => {
                info!(self.log, "{done}"; "operation" => &operation.id);
                self.handle.told().phase(&operation.id, &done);
                (OperationState::Succeeded, None)
            }
            Err(Failed::Stopped(why)) => {
                info!(self.log, "{why}"; "operation" => &operation.id);
                (OperationState::Cancelled, Some(why))
            }
            Err(Failed::Error(why)) => {
                warn!(self.log, "{} failed", doing(operation.kind); "error" => &why);
                (OperationState::Failed, Some(why))
            }
        };
        self.handle.release(operation, state, error);
    }
}

/// Whether everything that was installed is still there, with what was placed in `root`.
fn stands(installed: &Installed, request: &GameRequest, root: &Path) -> bool {
    installed.server.as_ref().is_none_or(|dir| dir.is_dir())
        && installed.runtime.iter().flat_map(|runtime| runtime.paths()).all(|(_, path)| path.is_file())
        && installed.placed(request, root).iter().all(|path| root.join(path).is_file())
}

/// Why a change did not come to its end.
#[derive(Debug)]
enum Failed {
    /// Somebody stopped it.
    Stopped(String),
    /// Anything else.
    Error(String),
}

impl Failed {
    fn error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Error(chain(error))
    }
}

/// What was attempted, for a sentence.
fn doing(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Verify => "reading the server's files",
        OperationKind::Repair => "repairing the server's files",
        OperationKind::Remove => "removing a version",
        _ => "a change of version",
    }
}

fn kind(rollback: bool) -> OperationKind {
    if rollback { OperationKind::Rollback } else { OperationKind::Upgrade }
}

fn version_of(config: &Config) -> String {
    config.version.clone().unwrap_or_default()
}
