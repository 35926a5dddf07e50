//! What the rest of the agent (in practice `http/`) may ask of a workload.
//!
//! Requests go to the one driver task; everything that can be read is read from
//! published values and never waits for the driver.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use zlh_api::{
    Config, ErrorCode, Operation, OperationKind, OperationState, OperationSummary, Players, Problem, Ready,
    State, Status,
};

use zlh_artifacts::InstalledTree;

use super::operations::Operations;
use super::snapshot::Snapshot;
use crate::console::Console;
use crate::crash::Archive;
use crate::errors::chain;
use crate::game::plan::{Installed, SIZE};
use crate::install::{Kind, Tend, installed};
use crate::journal::{Journal, What};
use crate::paths::Paths;

/// A mutating request.
#[derive(Debug, Clone)]
pub(crate) enum Verb {
    /// Store a payload, then install and start what it asks for.
    Configure(Box<Config>),
    /// Start what is configured.
    Start,
    /// Stop whatever is going on. `now`: without warning anybody.
    Stop { now: bool },
    /// Stop, then start. `now`: without warning anybody.
    Restart { now: bool },
    /// Do what a crash's remedy says. `server`: the one that crashed.
    Repair { repair: Repair, server: String },
    /// For whoever holds the workload: the same, also with an older version in a world that a newer
    /// one has opened.
    Reconfigure(Box<Config>),
    /// For whoever holds the workload: what was installed before, all of which is still there, is
    /// what is configured again, and is started.
    TakeBack { config: Box<Config>, installed: Box<Installed> },
    /// Nothing is started until [`Verb::EndMaintenance`]. `keep_running`: what runs is not stopped
    /// either. `now`: without warning anybody.
    Maintain { reason: Option<String>, keep_running: bool, now: bool },
    /// Maintenance is over. `start`: what was wanted is started again.
    EndMaintenance { start: bool },
    /// Something with runtimes, beside the game.
    Tend(Tend),
    /// For whoever holds the workload: read again what is installed, which is possible while
    /// nothing is being installed, nor tended, or, `at_rest`, while nothing runs either.
    Reread { at_rest: bool },
}

/// What the agent does about a crash when it is asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Put the server's own files in place again, and start it.
    Reinstall,
    /// Accept Mojang's EULA on the caller's behalf, and start it.
    AcceptEula,
    /// Rename a mod or plugin so that it is not loaded.
    DisableAddon(String),
    /// Install another major version of Java, and start with it.
    SwitchJava(u32),
    /// End a process of an earlier run that still holds the port.
    FreePort(u16),
}

/// An accepted request.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The state the workload is in, or goes to.
    pub state: State,
    /// The operation begun; none when everything was already so.
    pub operation: Option<OperationSummary>,
}

/// What the driver receives.
#[derive(Debug)]
pub(crate) enum Request {
    /// A verb and where its answer goes.
    Verb(Verb, oneshot::Sender<Result<Outcome, Problem>>),
    /// Bytes for the console, and where the offset before they were written goes.
    Input { bytes: Vec<u8>, raw: bool, reply: oneshot::Sender<Result<u64, Problem>> },
    /// Answered when everything that was asked before is admitted or refused, and published.
    Settled(oneshot::Sender<()>),
    /// Who is online.
    Players(oneshot::Sender<Result<Players, Problem>>),
    /// The agent ends and the game with it.
    Leave(oneshot::Sender<Leaving>),
    /// The container shuts down; answered when nothing runs any more.
    ShutDown(oneshot::Sender<()>),
}

/// A stop because the agent ends.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// It is over by then.
    pub within: Duration,
    /// Nothing runs any more.
    pub ended: oneshot::Receiver<()>,
}

/// A cheap, clonable handle on the workload of this container.
#[derive(Clone)]
pub(crate) struct Handle {
    requests: mpsc::Sender<Request>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    operations: Operations,
    console: Console,
    journal: Journal,
    crashes: Archive,
    paths: Paths,
    hold: Arc<Mutex<Option<Hold>>>,
    withdrawn: Arc<Mutex<Vec<Withdrawn>>>,
}

/// Something installed that its publisher has withdrawn since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Withdrawn {
    /// The server, as [`zlh_api::Artifacts::installed`] has it.
    pub server: String,
    /// The tree of the server's runtime, if that is what was withdrawn.
    pub runtime: Option<PathBuf>,
    /// What operators are told.
    pub warning: String,
}

/// A long change that consists of several verbs: nobody else's come in between, but a stop.
#[derive(Debug)]
struct Hold {
    operation: OperationSummary,
    stop_asked: bool,
}

impl Handle {
    pub(crate) fn new(
        requests: mpsc::Sender<Request>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        operations: Operations,
        console: Console,
        journal: Journal,
        crashes: Archive,
        paths: Paths,
    ) -> Self {
        Self {
            requests,
            snapshot,
            operations,
            console,
            journal,
            crashes,
            paths,
            hold: Arc::default(),
            withdrawn: Arc::default(),
        }
    }

    /// Asks the driver; the answer comes as soon as the verb is admitted or refused.
    pub(crate) async fn request(&self, verb: Verb) -> Result<Outcome, Problem> {
        let (reply, answer) = oneshot::channel();
        let room = self.requests.reserve().await.map_err(|_| gone())?;
        {
            // Whoever takes hold from here on asks the driver after us.
            let mut hold = self.hold();
            if let Some(hold) = &mut *hold {
                match &verb {
                    Verb::Stop { .. } => hold.stop_asked = true,
                    // Beside the game, and nothing that it may be started with.
                    Verb::Tend(tend)
                        if !tend.takes_away()
                            && matches!(
                                hold.operation.kind,
                                OperationKind::Upgrade | OperationKind::Rollback
                            ) => {}
                    _ => return Err(busy(&hold.operation)),
                }
            }
            room.send(Request::Verb(verb, reply));
        }
        answer.await.map_err(|_| gone())?
    }

    /// Asks the driver as whoever holds the workload.
    pub(crate) async fn request_held(&self, verb: Verb) -> Result<Outcome, Problem> {
        self.ask(|reply| Request::Verb(verb, reply)).await
    }

    /// Waits until everything that was asked before is admitted or refused, and published.
    pub(crate) async fn settled(&self) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Settled(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Types one line (validated by the caller) and answers the log offset before it.
    pub(crate) async fn send_line(&self, line: &str) -> Result<u64, Problem> {
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(b'\n');
        self.ask(|reply| Request::Input { bytes, raw: false, reply }).await
    }

    /// Passes terminal bytes through unchanged.
    pub(crate) async fn send_raw(&self, bytes: Vec<u8>) -> Result<(), Problem> {
        self.ask(|reply| Request::Input { bytes, raw: true, reply }).await.map(|_| ())
    }

    /// Who is online, asked of the server itself.
    pub(crate) async fn players(&self) -> Result<Players, Problem> {
        self.ask(Request::Players).await
    }

    /// Stops the game because the agent ends, and waits (not for ever) until nothing runs.
    /// From then on every verb is refused. False when something still runs.
    pub(crate) async fn leave(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Leave(reply)).await.is_err() {
            return false;
        }
        let Ok(leaving) = answer.await else { return false };
        tokio::time::timeout(leaving.within, leaving.ended).await.is_ok_and(|ended| ended.is_ok())
    }

    /// The container shuts down: ends what runs, and waits until nothing does.
    pub(crate) async fn shut_down(&self) {
        let (done, ended) = oneshot::channel();
        if self.requests.send(Request::ShutDown(done)).await.is_ok() {
            // A driver that is gone holds nothing.
            let _ = ended.await;
        }
    }

    /// Keeps other verbs out, until [`Handle::release`].
    pub(crate) fn take_hold(&self, kind: OperationKind, phase: &str) -> Result<OperationSummary, Problem> {
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hold) = &*hold {
            return Err(busy(&hold.operation));
        }
        let operation = self.operations.begin(kind, phase);
        *hold = Some(Hold { operation: operation.clone(), stop_asked: false });
        self.journal.record(What::OperationBegan { id: operation.id.clone(), kind });
        Ok(operation)
    }

    /// Takes hold for an operation that was begun already, unless somebody holds it.
    pub(crate) fn try_hold(&self, operation: &OperationSummary) -> bool {
        let mut hold = self.hold();
        if hold.is_none() {
            *hold = Some(Hold { operation: operation.clone(), stop_asked: false });
            return true;
        }
        false
    }

    /// Lets go of what [`Handle::try_hold`] took.
    pub(crate) fn let_go(&self) {
        *self.hold() = None;
    }

    /// Refuses while a change holds the workload, before anything else is found wrong.
    pub(crate) fn check_free(&self) -> Result<(), Problem> {
        self.held().map_or(Ok(()), |operation| Err(busy(&operation)))
    }

    /// Ends what [`Handle::take_hold`] began.
    pub(crate) fn release(&self, operation: &OperationSummary, state: OperationState, error: Option<String>) {
        *self.hold() = None;
        let (id, kind) = (operation.id.clone(), operation.kind);
        self.journal.record(What::OperationEnded { id, kind, state, error: error.clone() });
        self.operations.finish(&operation.id, state, error);
    }

    /// The change that holds the workload.
    pub(crate) fn held(&self) -> Option<OperationSummary> {
        self.hold().as_ref().map(|hold| hold.operation.clone())
    }

    /// Whether somebody asked for a stop since it is held.
    pub(crate) fn stop_asked(&self) -> bool {
        self.hold().as_ref().is_some_and(|hold| hold.stop_asked)
    }

    /// The list of operations, to say how far one is.
    pub(crate) fn told(&self) -> Operations {
        self.operations.clone()
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, Option<Hold>> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The published state, to be watched.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// `GET /status`, from the published snapshot.
    pub(crate) fn status(&self) -> Status {
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let mut status = snapshot.to_status(&self.operations);
        // What is not installed any more is nobody's concern.
        let concerns = |one: &&Withdrawn| {
            snapshot.artifacts.as_ref().is_some_and(|artifacts| artifacts.installed == one.server)
                && (one.runtime.is_none() || one.runtime == snapshot.runtime)
        };
        let withdrawn = self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner);
        status.warnings.extend(withdrawn.iter().filter(concerns).map(|one| one.warning.clone()));
        status
    }

    /// Replaces what is known to be withdrawn.
    pub(crate) fn tell_withdrawn(&self, withdrawn: Vec<Withdrawn>) {
        *self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner) = withdrawn;
    }

    /// `GET /ready`, from the published snapshot.
    pub(crate) fn ready(&self) -> Ready {
        self.snapshot.borrow().to_ready()
    }

    /// `GET /maintenance`, from the published snapshot.
    pub(crate) fn maintenance(&self) -> zlh_api::Maintenance {
        self.snapshot.borrow().to_maintenance()
    }

    /// All known operations, newest first.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.operations.list()
    }

    /// One operation.
    pub(crate) fn operation(&self, id: &str) -> Option<Operation> {
        self.operations.get(id)
    }

    /// The console log.
    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// Columns and rows of the terminal.
    pub(crate) fn terminal_size(&self) -> (u16, u16) {
        (SIZE.cols, SIZE.rows)
    }

    /// What became of the workload so far.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The last crashes. Reading them blocks.
    pub(crate) fn crashes(&self) -> &Archive {
        &self.crashes
    }

    /// Every installed runtime or addon.
    pub(crate) async fn installed(&self, kind: Kind) -> Result<Vec<InstalledTree>, String> {
        let store = kind.store(&self.paths);
        tokio::task::spawn_blocking(move || installed(store))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| chain(&error))
    }

    /// The tree that what is configured runs with.
    pub(crate) fn runtime_in_use(&self) -> Option<PathBuf> {
        self.snapshot.borrow().runtime.clone()
    }

    async fn ask<T>(
        &self,
        build: impl FnOnce(oneshot::Sender<Result<T, Problem>>) -> Request,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(build(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn gone() -> Problem {
    Problem::new(ErrorCode::Internal, "the agent is shutting down")
}

fn busy(operation: &OperationSummary) -> Problem {
    let detail = match operation.kind {
        OperationKind::Upgrade | OperationKind::Rollback => {
            "a change of version is under way; wait for it, or stop it"
        }
        OperationKind::Update => "another version of the agent takes over; ask it in a moment",
        _ => "another operation on the server's files is under way; wait for it",
    };
    Problem::new(ErrorCode::OperationInProgress, detail).with_operation(operation.clone())
}
