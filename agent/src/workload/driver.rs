//! The driver: the one task that performs effects, in order, and feeds back what it saw.
//!
//! ```text
//!  Handle ──requests──►┐                      ┌──► shim, installer, probe (own tasks)
//!                      ├─► Driver ─► Machine ─┤
//!  tasks ───events────►┘     │                └──► timers
//!                            └─► Snapshot (watch), Memory (disk)
//! ```
//!
//! It never waits for the outside: whatever takes time runs in a task of its own and
//! reports as an event that names the run or the operation it belongs to, so that a
//! late one is recognised.

use std::path::PathBuf;
use std::sync::Arc;

use slog::{Logger, info};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use zlh_api::{
    Config, CrashRecord, ErrorCode, OperationKind, OperationState, OperationSummary, Players, Problem,
};
use zlh_shim::living::Living;
use zlh_shim::process::ProcessId;
use zlh_shim::proto;

use super::handle::{Outcome, Request, Verb};
use super::launcher::Launcher;
use super::machine::{Admission, Command, Effect, Machine, Observation, Refusal};
use super::maintenance::Maintenance;
use super::operations::Operations;
use super::orphan::{End, Orphan};
use super::policy::{Limits, Policy};
use super::regain::{Losses, Trouble};
use super::saving::Granted;
use super::shim_client::{ShimClient, ShimError};
use super::shutdown::{self, Shutdown};
use super::snapshot::Snapshot;
use super::stored::{BootTime, Memory, Shelf};
use crate::config::AgentConfig;
use crate::console::Console;
use crate::crash::{Archive, LastGood};
use crate::errors::chain;
use crate::game::payload::GameRequest;
use crate::game::plan::Installed;
use crate::game::probe::{self, Seen};
use crate::install::{Damaged, InstallError};
use crate::journal::{Flaps, Journal};
use crate::paths::Paths;

/// What every part of the driver may use.
pub(super) struct Context {
    pub paths: Paths,
    pub config: Arc<AgentConfig>,
    pub log: Logger,
    pub shelf: Shelf,
    pub run_dir: PathBuf,
    pub vmid: crate::log::Vmid,
    pub journal: Journal,
    pub launcher: Launcher,
    pub archive: Archive,
    pub last_good: LastGood,
}

/// The living workload.
pub(super) struct Run {
    pub instance: String,
    pub holder: Holder,
    pub ready_since: Option<BootTime>,
    /// What its shim said last: enough to count an end that nobody saw.
    pub last: proto::Status,
    /// Its process, held since it is known.
    pub living: Option<Arc<Living>>,
    /// Why nobody serves it, for more than a moment.
    pub trouble: Option<Trouble>,
}

/// Who holds it.
pub(super) enum Holder {
    /// Its shim, as it should be.
    Shim(ShimClient),
    /// Nobody: the shim is gone or frozen.
    Orphan(Orphan),
    /// Not yet known.
    Nobody,
}

impl Run {
    /// Holds its process by descriptor as soon as it is known, so that its end is known even
    /// if the shim is killed with it.
    pub(super) fn hold(&mut self) {
        let id = ProcessId { pid: self.last.pid, start_ticks: self.last.start_ticks };
        if id.pid > 0 && self.living.as_ref().is_none_or(|living| living.id() != id) {
            self.living = Living::open(id).map(Arc::new);
        }
    }

    /// Its shim, if it has one that answers.
    pub(super) fn shim(&self) -> Option<&ShimClient> {
        match &self.holder {
            Holder::Shim(shim) => Some(shim),
            Holder::Orphan(_) | Holder::Nobody => None,
        }
    }
}

/// What tasks report.
#[derive(Debug)]
pub(super) enum Event {
    /// An installation has moved on.
    InstallStep { operation: String, step: String },
    /// An installation has ended; none: it was cancelled.
    InstallEnded { operation: String, result: Option<Result<Box<Installed>, InstallError>> },
    /// A start has ended.
    Spawned { instance: String, result: Result<ShimClient, String> },
    /// A start was refused: the container is shutting down.
    TooLate { instance: String },
    /// The launcher may have something new to say.
    Checked,
    /// The shim's status has changed.
    Shim { connection: u64, status: proto::Status },
    /// The connection to the shim is gone.
    ShimGone { connection: u64 },
    /// The shim is there, and does not do its work.
    ShimStuck { connection: u64, distrust: Option<String> },
    /// A workload has no shim that serves it, for more than a moment.
    Orphaned { instance: String, trouble: Trouble },
    /// A workload without a shim has ended.
    OrphanEnded { instance: String, end: End },
    /// A shim answers again, or another one has taken its place.
    Regained { instance: String, shim: ShimClient },
    /// The readiness probe has news.
    Probe { instance: String, seen: Seen },
    /// What was to be done beside the game is over: what was done, or why not.
    Tended(Result<String, String>),
    /// A crash was explained, or its explanation amended.
    Explained { instance: String, record: Box<CrashRecord> },
}

/// The driver of one workload.
pub(crate) struct Driver {
    pub(super) context: Context,
    pub(super) machine: Machine,
    pub(super) memory: Memory,
    pub(super) payload: Option<Config>,
    pub(super) request: Option<GameRequest>,
    pub(super) installed: Option<Installed>,
    pub(super) warnings: Vec<String>,
    pub(super) run: Option<Run>,
    /// The shim of the run before, on its way out.
    pub(super) before: Option<ShimClient>,
    /// How often shims were lost lately.
    pub(super) losses: Losses,
    pub(super) starting: Option<String>,
    /// The next start is the agent's own idea: it found nothing running that should.
    pub(super) unasked: bool,
    pub(super) operation: Option<OperationSummary>,
    /// What is being done with runtimes or a port, beside everything else.
    pub(super) tending: Option<OperationSummary>,
    /// It takes runtimes away.
    pub(super) takes_away: Option<TakesAway>,
    /// Nothing is started until it is over.
    pub(super) maintenance: Option<Maintenance>,
    /// The stop that is asked for is maintenance's own.
    pub(super) maintaining: bool,
    /// What the next installation replaces.
    pub(super) damaged: Option<Damaged>,
    pub(super) install_step: String,
    pub(super) silent: String,
    pub(super) cancel_install: Option<oneshot::Sender<()>>,
    pub(super) prober: Option<AbortHandle>,
    /// Looks whether a stopping server saves.
    pub(super) saving: Option<AbortHandle>,
    /// Somebody may be online.
    pub(super) occupied: bool,
    /// The stop under way warns nobody.
    pub(super) unwarned: bool,
    /// When whoever held the run was first told to stop it.
    pub(super) stop_begun: Option<Instant>,
    /// What it was given beyond its plan.
    pub(super) granted: Granted,
    /// The agent ends: who waits until nothing runs.
    pub(super) leaving: Option<oneshot::Sender<()>>,
    pub(super) readiness_due: Option<Instant>,
    /// How often it is noted that it answers again.
    pub(super) flaps: Flaps,
    /// When that is noted, if it still does.
    pub(super) answers_due: Option<Instant>,
    /// What is remembered differs from what is written.
    pub(super) stale: bool,
    /// The workload's record could not be written; when it is tried again.
    pub(super) unwritten: Option<super::picture::Unwritten>,
    pub(super) backoff_due: Option<(Instant, jiff::Timestamp)>,
    pub(super) shutdown: Shutdown,
    pub(super) operations: Operations,
    pub(super) console: Console,
    pub(super) head: watch::Sender<u64>,
    pub(super) shim_slot: watch::Sender<Option<ShimClient>>,
    pub(super) snapshot: watch::Sender<Arc<Snapshot>>,
    requests: mpsc::Receiver<Request>,
    events: mpsc::Receiver<Event>,
    pub(super) events_in: mpsc::Sender<Event>,
}

/// Which runtimes are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakesAway {
    /// The one that what is configured runs with.
    Used,
    /// Others.
    Unused,
}

/// The channels a driver is built on.
pub(super) struct Channels {
    pub requests: mpsc::Receiver<Request>,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    pub operations: Operations,
    pub console: Console,
    pub head: watch::Sender<u64>,
    pub shim_slot: watch::Sender<Option<ShimClient>>,
}

impl Driver {
    pub(super) fn new(context: Context, channels: Channels) -> Self {
        let (events_in, events) = mpsc::channel(64);
        Self {
            context,
            machine: Machine::new(false, false, Policy::default(), Limits::default()),
            memory: Memory::default(),
            payload: None,
            request: None,
            installed: None,
            warnings: Vec::new(),
            run: None,
            before: None,
            losses: Losses::default(),
            starting: None,
            unasked: false,
            operation: None,
            tending: None,
            takes_away: None,
            maintenance: None,
            maintaining: false,
            damaged: None,
            install_step: String::new(),
            silent: String::new(),
            cancel_install: None,
            prober: None,
            saving: None,
            occupied: false,
            unwarned: false,
            stop_begun: None,
            granted: Granted::default(),
            leaving: None,
            readiness_due: None,
            flaps: Flaps::new(std::time::Instant::now()),
            answers_due: None,
            stale: false,
            unwritten: None,
            backoff_due: None,
            shutdown: Shutdown::default(),
            operations: channels.operations,
            console: channels.console,
            head: channels.head,
            shim_slot: channels.shim_slot,
            snapshot: channels.snapshot,
            requests: channels.requests,
            events,
            events_in,
        }
    }

    /// Serves until every handle is gone.
    ///
    /// First it looks at what an earlier agent left behind; `recalled` hears when that is
    /// done.
    pub(crate) async fn run(mut self, recalled: oneshot::Sender<()>) {
        self.recall().await;
        self.check_launcher();
        self.settle();
        // Whoever waited may have lost patience.
        let _ = recalled.send(());
        loop {
            let due = self.due();
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request),
                    None => return,
                },
                Some(event) = self.events.recv() => self.hear(event).await,
                () = sleep_until(due) => self.tick(),
            }
            self.settle();
            self.tell_left();
        }
    }

    fn due(&self) -> Option<Instant> {
        let backoff = self.backoff_due.filter(|_| self.may_restart()).map(|(at, _)| at);
        let unwritten = self.unwritten.as_ref().map(|it| it.again);
        [self.readiness_due, self.answers_due, backoff, unwritten].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.readiness_due.is_some_and(|at| now >= at) {
            self.readiness_due = None;
            let seconds = self.installed.as_ref().map_or(0, |i| i.plan.readiness.timeout_s);
            let why = if self.silent.is_empty() { "it does not answer" } else { self.silent.as_str() };
            self.observe(Observation::ReadinessTimedOut(format!(
                "the server was not ready within {seconds} s ({why}); it was left running, look at its console"
            )));
        }
        if self.answers_due.is_some_and(|at| now >= at) {
            self.note_answers();
        }
        if self.backoff_due.is_some_and(|(at, _)| now >= at) && self.may_restart() {
            self.backoff_due = None;
            self.machine.set_installed(self.is_in_place());
            self.observe(Observation::BackoffOver);
        }
        if self.unwritten.as_ref().is_some_and(|it| now >= it.again) {
            self.write_memory();
        }
    }

    /// In a container that shuts down a restart stays planned, for the next boot; in maintenance and
    /// while runtimes are taken away, for when that is over.
    fn may_restart(&self) -> bool {
        !self.shutdown.has_begun() && self.maintenance.is_none() && !self.start_waits()
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Verb(verb, reply) => {
                let outcome = self.admit(verb);
                // Who has the answer sees what follows from it.
                self.publish();
                // Whoever asked may have gone; the answer is theirs to miss.
                drop(reply.send(outcome));
            }
            Request::Input { bytes, raw, reply } => self.input(bytes, raw, reply),
            Request::Settled(reply) => drop(reply.send(())),
            Request::Players(reply) => self.players(reply),
            Request::Leave(reply) => self.leave(reply),
            Request::ShutDown(done) => self.shut_down(Some(done)),
        }
    }

    fn admit(&mut self, verb: Verb) -> Result<Outcome, Problem> {
        if self.leaving.is_some() {
            return Err(Problem::new(ErrorCode::NotReady, "the agent is shutting down; ask the next one"));
        }
        if self.shutdown.has_begun() && !matches!(verb, Verb::Stop { .. }) {
            return Err(shutdown::refusal());
        }
        self.check_maintenance(&verb)?;
        if !matches!(
            verb,
            Verb::Stop { .. }
                | Verb::Tend(_)
                | Verb::Reread { .. }
                | Verb::Maintain { .. }
                | Verb::EndMaintenance { .. }
        ) {
            self.check_runtimes(&verb)?;
        }
        match verb {
            Verb::Configure(config) => {
                self.check_downgrade(&config)?;
                self.configure(*config)
            }
            Verb::Reconfigure(config) => self.configure(*config),
            Verb::TakeBack { config, installed } => self.take_back(*config, *installed),
            Verb::Start => self.command(Command::Start, OperationKind::Start),
            Verb::Stop { now } => self.stop(now),
            Verb::Restart { now } => self.restart(now),
            Verb::Repair { repair, server } => self.repair(repair, &server),
            Verb::Maintain { reason, keep_running, now } => self.maintain(reason, keep_running, now),
            Verb::EndMaintenance { start } => self.end_maintenance(start),
            Verb::Tend(tend) => self.tend(tend),
            Verb::Reread { at_rest } => self.reread(at_rest),
        }
    }

    pub(super) fn command(&mut self, command: Command, kind: OperationKind) -> Result<Outcome, Problem> {
        self.machine.set_installed(self.is_in_place());
        let admission = self.machine.command(command).map_err(|refusal| self.refuse(refusal))?;
        Ok(self.accept(admission, kind))
    }

    pub(super) fn accept(&mut self, admission: Admission, kind: OperationKind) -> Outcome {
        // What ends with the agent, or for maintenance, is wanted again afterwards.
        let keeps_wanted = self.leaving.is_some() || self.maintaining;
        let effects = match admission {
            Admission::AlreadySo => {
                if kind == OperationKind::Stop && self.memory.wanted && !keeps_wanted {
                    self.memory.wanted = false;
                    self.memory.stopping = self.stopping();
                    self.write_memory();
                }
                let operation = self.operation.clone();
                return Outcome { state: self.machine.state(), operation };
            }
            Admission::Accepted(effects) => effects,
        };
        if effects.contains(&Effect::Cancelled) {
            let why =
                if kind == OperationKind::Stop { "a stop was asked for" } else { "maintenance is over" };
            self.finish(OperationState::Cancelled, Some(why.to_owned()));
        }
        let phase = match kind {
            OperationKind::Install => "preparing the installation",
            OperationKind::Start => "starting",
            OperationKind::Stop => "stopping: the server saves and ends",
            OperationKind::Restart => "restarting: the server saves and ends",
            OperationKind::Repair => "repairing",
            OperationKind::Verify => "verifying",
            OperationKind::Remove => "removing",
            OperationKind::Upgrade => "upgrading",
            OperationKind::Rollback => "going back",
            OperationKind::Update => "updating the agent",
            // Not begun here.
            OperationKind::Unknown => "working",
        };
        let operation = self.operations.begin(kind, phase);
        info!(self.context.log, "{phase}"; "operation" => &operation.id);
        self.unasked = false;
        self.note_operation(&operation);
        self.note_stop(&operation);
        self.operation = Some(operation.clone());
        self.memory.wanted = kind != OperationKind::Stop || keeps_wanted && self.memory.wanted;
        self.memory.stopping = self.stopping();
        self.memory.error = None;
        // Whatever was planned gives way to it.
        self.memory.restart_at = None;
        // First written, then begun: whoever is killed in between has decided already.
        self.write_memory();
        let _ = zlh_shim::faults::point("accept.written");
        self.perform(effects);
        self.remember();
        Outcome { state: self.machine.state(), operation: Some(operation) }
    }

    pub(super) fn refuse(&self, refusal: Refusal) -> Problem {
        match refusal {
            Refusal::NotConfigured => {
                Problem::new(ErrorCode::NotConfigured, "nothing is configured yet: send POST /config first")
            }
            Refusal::Held => self.in_maintenance(),
            Refusal::Running => Problem::new(
                ErrorCode::WrongState,
                "the server is running: stop it before configuring something else",
            ),
            Refusal::Busy => match self.operation.as_ref().and_then(|o| self.operations.get(&o.id)) {
                Some(operation) => {
                    let detail = format!(
                        "{} has been in progress since {}; wait for it, or stop it",
                        operation.phase, operation.started_at
                    );
                    Problem::new(ErrorCode::OperationInProgress, detail).with_operation((&operation).into())
                }
                None => Problem::new(
                    ErrorCode::OperationInProgress,
                    format!("the workload is {}; try again when it is not", self.machine.state()),
                ),
            },
        }
    }

    fn input(&self, bytes: Vec<u8>, raw: bool, reply: oneshot::Sender<Result<u64, Problem>>) {
        let Some(run) = &self.run else {
            drop(reply.send(Err(not_running())));
            return;
        };
        let Some(shim) = run.shim().cloned() else {
            let detail = match &run.trouble {
                Some(trouble) => format!("the server takes no input: {trouble}"),
                None => "the server's console is changing hands; try again in a second".to_owned(),
            };
            drop(reply.send(Err(Problem::new(ErrorCode::NotReady, detail))));
            return;
        };
        tokio::spawn(async move {
            let result = shim.input(bytes, !raw).await.map_err(|error| match error {
                ShimError::Refused(refusal) if refusal.code == "stdin_busy" => {
                    Problem::new(ErrorCode::StdinBusy, refusal.message)
                }
                ShimError::Refused(refusal) if refusal.code == "ended" => not_running(),
                other => Problem::new(ErrorCode::NotReady, other.to_string()),
            });
            drop(reply.send(result));
        });
    }

    fn players(&self, reply: oneshot::Sender<Result<Players, Problem>>) {
        let Some(port) = self.run.as_ref().and(self.request.as_ref()).map(|r| r.port) else {
            drop(reply.send(Err(Problem::new(ErrorCode::NotReady, "the server is not running"))));
            return;
        };
        tokio::spawn(async move {
            let result = probe::players(port).await;
            drop(reply.send(result.map_err(|error| Problem::new(ErrorCode::NotReady, chain(&error)))));
        });
    }
}

fn not_running() -> Problem {
    Problem::new(ErrorCode::NotRunning, "the server is not running: start it first")
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
