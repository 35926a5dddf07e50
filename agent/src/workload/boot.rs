//! Boot: what an earlier agent (or an earlier life of the container) left behind.
//!
//! Everything is found out by looking, nothing by remembering alone: a shim that
//! answers is attached to, an exit record that was not counted is counted with its
//! own time, a process that cannot be asked is never signalled by its number.

use std::sync::Arc;
use std::time::Duration;

use slog::{Logger, info, o, warn};
use tokio::sync::{mpsc, watch};
use zlh_shim::connect::ConnectError;
use zlh_shim::console_log::Reader;
use zlh_shim::files;
use zlh_shim::living::Living;
use zlh_shim::process::{Generation, ProcessId};
use zlh_shim::proto;
use zlh_shim::record::{Exit, ExitRecord, ShimRecord};

use super::drain::Legacy;
use super::driver::{Channels, Context, Driver, Holder, Run};
use super::exits;
use super::handle::Handle;
use super::launcher::Launcher;
use super::machine::{Effect, Machine, Phase};
use super::operations::Operations;
use super::orphan::{Orphan, clear_slot, sweep_slot};
use super::regain::{Known, explain, is_frozen};
use super::shim_client::ShimClient;
use super::snapshot::Snapshot;
use super::stored::{BootTime, Shelf};
use crate::config::AgentConfig;
use crate::console::{Console, packer};
use crate::crash::{Archive, LastGood};
use crate::game::payload;
use crate::journal::{Journal, What};
use crate::paths::Paths;

/// Name of the one workload of a game container.
const GAME: &str = "game";

/// How long a shim that has just begun may take until it answers, and the pause between looks.
const BEGINNING: Duration = Duration::from_secs(10);
const BEGINNING_LOOKS: Duration = Duration::from_millis(200);

/// What a shim says that found another one in its place.
const SLOT_TAKEN: &str = "this workload is running already";

/// Requests that may wait for the driver.
const QUEUE: usize = 64;

/// Builds the driver and its handle. What is there is looked at when the driver runs: a shim
/// that does not answer must not keep anybody from being heard.
pub(crate) fn boot(
    paths: Paths,
    config: Arc<AgentConfig>,
    vmid: crate::log::Vmid,
    log: &Logger,
) -> (Driver, Handle) {
    let run_dir = paths.run(GAME);
    let log = log.new(o!("component" => "workload"));
    let console_dir = run_dir.join(files::CONSOLE);
    let end = Reader::new(&console_dir).range().map_or(0, |(_, end)| end);
    let (head, head_out) = watch::channel(end);
    let (shim_slot, shim_out) = watch::channel(None);
    let console = Console::new(&console_dir, head_out, shim_out);
    tokio::spawn(packer::pack(console_dir, console.subscribe(), log.clone()));
    let operations = Operations::default();
    let (snapshot, snapshot_out) = watch::channel(Arc::new(Snapshot::initial()));
    let (requests_in, requests) = mpsc::channel(QUEUE);
    let shelf = Shelf::new(&paths);
    let journal = Journal::open(&paths.journal(GAME), log.new(o!("component" => "journal")));
    let (version, held) = (crate::version().to_owned(), shelf.has_maintenance());
    journal.record(What::AgentStarted { version, held });
    let archive = Archive::new(paths.crashes(GAME), log.new(o!("component" => "crash")));
    let last_good = LastGood::new(&paths.state());
    let handle = Handle::new(
        requests_in,
        snapshot_out,
        operations.clone(),
        console.clone(),
        journal.clone(),
        archive.clone(),
        paths.clone(),
    );
    let launcher = Launcher::new(config.workload_units, paths.is_system(), &log);
    let context = Context { paths, config, log, shelf, run_dir, vmid, launcher, journal, archive, last_good };
    let channels = Channels { requests, snapshot, operations, console, head, shim_slot };
    (Driver::new(context, channels), handle)
}

/// What became of the run that `shim.json` names.
enum Found {
    /// Nothing was ever run here, or it was counted already.
    Nothing,
    /// A shim answers.
    Shim(Box<ShimClient>),
    /// It ended, and how is known.
    Ended(Box<ExitRecord>),
    /// The container was restarted under it.
    Swept,
    /// It lives, or has just ended, and no shim answers for it.
    Orphan(Box<ShimRecord>, Arc<Living>),
}

impl Driver {
    pub(super) async fn recall(&mut self) {
        let (memory, warning) = self.context.shelf.memory();
        self.memory = memory;
        self.warnings.extend(warning);
        let (installed, warning) = self.context.shelf.installed();
        self.installed = installed;
        self.warnings.extend(warning);
        for warning in &self.warnings {
            warn!(self.context.log, "{}", warning);
        }
        let broken = self.recall_payload().err();
        let ready = self.is_in_place();
        let limits = self.context.config.restart.limits;
        self.machine = Machine::new(self.request.is_some(), ready, self.memory.policy.clone(), limits);
        self.recall_maintenance();
        self.announce();
        self.explain_what_was_left();
        // Also under a payload that cannot be used something may be running.
        self.reconcile(broken.is_none()).await;
        self.stop_for_maintenance().await;
        if let Some(reason) = broken {
            warn!(self.context.log, "{}", reason);
            // What is being stopped goes on being stopped; whoever starts it afterwards is told.
            if !matches!(self.machine.phase(), Phase::Stopping { .. }) {
                self.machine.adopt_error(reason, self.run.is_some());
            }
        }
    }

    /// The error says what is wrong and what to do.
    fn recall_payload(&mut self) -> Result<(), String> {
        const REMEDY: &str = "send POST /config again";
        let stored = self.context.shelf.payload().map_err(|error| format!("{error}; {REMEDY}"))?;
        let Some(config) = stored else { return Ok(()) };
        let request = payload::check(&config)
            .map_err(|problem| format!("the stored payload is not valid: {}; {REMEDY}", problem.detail))?;
        if let Some(vmid) = self.context.config.vmid.or(config.vmid) {
            self.context.vmid.set(vmid);
        }
        self.payload = Some(config);
        self.request = Some(request);
        Ok(())
    }

    /// Whether what the record says is installed is what is wanted and still lies there.
    pub(super) fn is_in_place(&self) -> bool {
        let (Some(installed), Some(request)) = (&self.installed, &self.request) else { return false };
        let root = self.context.paths.game_root(&request.game, &request.variant, &request.world);
        installed.serves(request)
            && installed.server.as_ref().is_none_or(|dir| dir.is_dir())
            && installed.runtime.iter().flat_map(|r| r.paths()).all(|(_, path)| path.is_file())
            && installed.placed(request, &root).iter().all(|path| root.join(path).is_file())
    }

    /// What can be said before anybody was asked: a server that seems to live is on its way,
    /// and not idle.
    fn announce(&mut self) {
        let living = ShimRecord::read(&self.context.run_dir).is_ok_and(|record| {
            is_of_this_life(&record) && record.child.is_some_and(|child| child.is_alive())
        });
        if !living {
            return;
        }
        let looked_at = self.machine.clone();
        self.machine.adopt();
        "an earlier agent's server is being asked for".clone_into(&mut self.silent);
        self.publish();
        (self.machine, self.silent) = (looked_at, String::new());
    }

    /// `may_start`: whether what is wanted may be started if nothing runs.
    async fn reconcile(&mut self, may_start: bool) {
        let found = self.find().await;
        match found {
            Found::Nothing => self.note_absent(),
            Found::Swept => self.note_swept(),
            _ => {}
        }
        match found {
            Found::Nothing | Found::Ended(_) | Found::Swept if !may_start => {}
            Found::Nothing => self.resume(),
            Found::Swept => {
                info!(self.context.log, "the container was restarted; nothing of before is left");
                self.resume();
            }
            Found::Shim(shim) => self.adopt(*shim).await,
            Found::Ended(record) => {
                info!(self.context.log, "the server ended while no agent was there");
                if Generation::current().is_ok_and(|now| now == record.generation) {
                    self.count_missed_exit(&record).await;
                } else {
                    self.note_old_exit(&record).await;
                }
            }
            Found::Orphan(record, living) => {
                // Told to whoever holds it, as soon as somebody does.
                if let Some(restart) = self.was_stopping(&record.instance) {
                    self.machine.adopt_stopping(restart);
                    return self.hold_found(&record, living);
                }
                self.memory.wanted = true;
                self.hold_found(&record, living);
                let effects = self.machine.adopt();
                self.perform(effects);
            }
        }
    }

    fn ready_of(&self, instance: &str) -> Option<BootTime> {
        self.memory.ready.clone().filter(|(run, _)| run == instance).map(|(_, at)| at)
    }

    fn hold_found(&mut self, record: &ShimRecord, living: Arc<Living>) {
        warn!(self.context.log, "the server runs without its shim"; "pid" => living.id().pid);
        self.note_found(&record.instance, record.started_boot_ms);
        let run = Run {
            instance: record.instance.clone(),
            ready_since: self.ready_of(&record.instance),
            last: status_of(record),
            living: Some(living),
            trouble: None,
            holder: Holder::Nobody,
        };
        self.hold_orphan(run, Some(record.shim), None, None, Duration::ZERO);
    }

    /// After a start that failed on its way: whatever lives is taken over, never doubled.
    /// What this very start left behind without a shim is ended: its terminal is gone, and it
    /// has only just begun. False when nothing runs.
    pub(super) async fn take_over(&mut self, instance: &str) -> bool {
        match self.find().await {
            Found::Shim(shim) => self.attach(*shim, None),
            Found::Orphan(record, living) if record.instance != instance || record.shim.is_alive() => {
                self.hold_found(&record, living);
            }
            Found::Orphan(..) => {
                sweep_slot(&self.context.run_dir).await;
                return false;
            }
            _ => return false,
        }
        true
    }

    /// After a start that found the slot taken: whoever has it was started by an agent that is
    /// gone, and answers in a moment.
    pub(super) async fn take_over_in_time(&mut self, instance: &str, reason: &str) -> bool {
        let patience = tokio::time::Instant::now() + BEGINNING;
        loop {
            if self.take_over(instance).await {
                return true;
            }
            if !reason.contains(SLOT_TAKEN) {
                return false;
            }
            if tokio::time::Instant::now() >= patience {
                // It has the slot and answers nobody: it must not start anything later.
                clear_slot(&self.context.run_dir, None).await;
                return false;
            }
            tokio::time::sleep(BEGINNING_LOOKS).await;
        }
    }

    /// Follows a run that no shim answers for.
    fn hold_orphan(
        &mut self,
        mut run: Run,
        shim: Option<ProcessId>,
        legacy: Option<Legacy>,
        distrust: Option<String>,
        delay: Duration,
    ) {
        let known = Known {
            instance: run.instance.clone(),
            child: ProcessId { pid: run.last.pid, start_ticks: run.last.start_ticks },
            shim,
            run_dir: self.context.run_dir.clone(),
            legacy,
            last: run.last.clone(),
            distrust,
            launcher: self.context.launcher.clone(),
            shutdown: self.context.config.container_shutdown,
        };
        self.note_degraded();
        let (living, events) = (run.living.clone(), self.events_in.clone());
        run.holder = Holder::Orphan(Orphan::follow(known, living, delay, events, self.head.clone()));
        self.shim_slot.send_replace(None);
        self.run = Some(run);
        if matches!(self.machine.phase(), Phase::Stopping { .. }) || self.shutdown.has_begun() {
            self.go_on_stopping();
        }
    }

    async fn adopt(&mut self, shim: ShimClient) {
        let status = shim.status().borrow().clone();
        let instance = shim.instance().to_owned();
        let ready = self.ready_of(&instance);
        info!(self.context.log, "attached to the running server"; "pid" => status.pid, "instance" => &instance);
        if status.exit.is_some() {
            let record = ExitRecord::read(&self.context.run_dir, &instance)
                .unwrap_or_else(|_| record_from_status(&instance, &status));
            self.before = Some(shim.clone());
            tokio::spawn(async move { drop(shim.acknowledge().await) });
            if self.memory.counted.as_ref() == Some(&instance) {
                self.note_absent();
                self.resume();
            } else {
                self.count_missed_exit(&record).await;
            }
            return;
        }
        self.note_found(&instance, status.started_boot_ms);
        let stopping = self.was_stopping(&instance);
        if status.stop_stage == 0
            && let Some(restart) = stopping
        {
            // The agent before decided it and had no time to tell the shim: its time begins now.
            self.stop_begun = None;
            self.machine.adopt_stopping(restart);
            return self.attach(shim, ready);
        }
        self.attach(shim, ready);
        if status.stop_stage > 0 {
            // Still wanted: it was the first half of a restart.
            self.machine.adopt_stopping(stopping.unwrap_or(self.memory.wanted));
            self.watch_stopping();
        } else {
            // It runs and nobody has asked it to stop: so it is wanted, whatever is remembered.
            self.memory.wanted = true;
            let effects = self.machine.adopt();
            self.perform(effects);
        }
    }

    /// An exit that nobody counted yet, with its own time and the rest of its pause.
    async fn count_missed_exit(&mut self, record: &ExitRecord) {
        let ready = self.ready_of(&record.instance);
        // As if it had been seen: the machine was running it, or stopping it.
        match self.was_stopping(&record.instance) {
            Some(restart) => self.machine.adopt_stopping(restart),
            None => drop(self.machine.adopt()),
        }
        self.count_exit(record, ready.as_ref()).await;
        let now = zlh_shim::holder::boot_ms();
        let ago = Duration::from_millis(now.saturating_sub(record.ended_boot_ms));
        if let Some((due, _)) = self.backoff_due {
            let left = due.saturating_duration_since(tokio::time::Instant::now()).saturating_sub(ago);
            self.perform(vec![Effect::ArmBackoff(left)]);
            self.remember();
        } else if *self.machine.phase() == Phase::Idle {
            // It ended as somebody asked; if it is wanted all the same, it was a restart.
            self.resume();
        }
    }

    /// An exit in an earlier life of the container: told, but the new life begins anew.
    async fn note_old_exit(&mut self, record: &ExitRecord) {
        let verdict = exits::judge(record, &self.console, false, Duration::ZERO).await;
        self.note_exit(record, &verdict, self.ready_of(&record.instance).is_some());
        self.memory.counted = Some(record.instance.clone());
        self.memory.restart_at = None;
        if verdict.stopped_inside {
            self.memory.wanted = false;
        } else if !verdict.ended.intended {
            self.explain(record, verdict.crash.clone());
            self.memory.last_crash = Some(verdict.crash);
        }
        self.remember();
        self.resume();
    }

    /// Whatever shim answers here, of whichever run.
    pub(super) async fn find_shim(&self) -> Option<ShimClient> {
        ShimClient::connect(&self.context.run_dir, "", self.head.clone()).await.ok()
    }

    /// Nothing runs: a planned restart goes on, an error stays, what is wanted is started.
    pub(super) fn resume(&mut self) {
        if let Some(reason) = self.memory.error.clone() {
            self.machine.adopt_error(reason, false);
            return;
        }
        if self.memory.wanted
            && let Some(left) = self.memory.restart_at.as_ref().and_then(BootTime::left)
        {
            let effects = self.machine.adopt_backoff(left, self.memory.not_started.clone());
            self.perform(effects);
            return;
        }
        if self.memory.wanted
            && let Ok(super::machine::Admission::Accepted(effects)) = self.machine.start_by_itself()
        {
            info!(self.context.log, "starting what is configured");
            self.unasked = true;
            self.perform(effects);
        }
    }

    /// Looks for the run that `shim.json` names.
    async fn find(&self) -> Found {
        let run_dir = &self.context.run_dir;
        let record = match ShimRecord::read(run_dir) {
            Ok(record) => record,
            // Unreadable or absent: a socket that answers still says who it is.
            Err(_) => {
                return self.find_shim().await.map_or(Found::Nothing, |shim| Found::Shim(Box::new(shim)));
            }
        };
        let instance = &record.instance;
        let of_this_life = is_of_this_life(&record);
        // One that is stopped accepts connections and says nothing: no need to wait for that.
        if of_this_life && !is_frozen(&record.shim) {
            match self.find_recorded().await {
                Ok(shim) => return Found::Shim(Box::new(shim)),
                Err(ConnectError::Absent { .. }) => {}
                Err(error) => {
                    warn!(self.context.log, "the shim cannot be used"; "pid" => record.shim.pid, "why" => explain(&error));
                }
            }
        }
        if self.memory.counted.as_deref() == Some(instance) {
            return Found::Nothing;
        }
        if let Ok(exit) = ExitRecord::read(run_dir, instance) {
            if of_this_life && !record.shim.is_alive() {
                // Killed between the record and the end of its sweep.
                sweep_slot(run_dir).await;
            }
            return Found::Ended(Box::new(exit));
        }
        if !of_this_life {
            return Found::Swept;
        }
        if let Some(living) = record.child.and_then(Living::open) {
            return Found::Orphan(Box::new(record), Arc::new(living));
        }
        // A shim that has just begun knows no child yet, and may not answer yet on a busy
        // machine: while it lives, nothing has ended.
        let patience = tokio::time::Instant::now() + BEGINNING;
        while record.shim.is_alive() && !is_frozen(&record.shim) && tokio::time::Instant::now() < patience {
            tokio::time::sleep(BEGINNING_LOOKS).await;
            if let Ok(shim) = self.find_recorded().await {
                return Found::Shim(Box::new(shim));
            }
            if let Ok(exit) = ExitRecord::read(run_dir, instance) {
                return Found::Ended(Box::new(exit));
            }
        }
        // A shim killed before it could note whom it had started; and one that lives and does not
        // answer: what it would start later nobody would look after.
        clear_slot(run_dir, Some(record.shim)).await;
        if let Ok(exit) = ExitRecord::read(run_dir, instance) {
            return Found::Ended(Box::new(exit));
        }
        Found::Ended(Box::new(lost(
            instance,
            &status_of(&record),
            "its shim is gone and left no exit record",
        )))
    }

    /// The shim that answers here, if the record agrees. Any run is welcome (an agent that was
    /// killed while it started one knew an older record), but a shim writes its own before it
    /// answers anybody: who is in no record is none of ours.
    async fn find_recorded(&self) -> Result<ShimClient, ConnectError> {
        let run_dir = &self.context.run_dir;
        let shim = ShimClient::connect(run_dir, "", self.head.clone()).await?;
        match ShimRecord::read(run_dir) {
            Ok(record) if record.instance != shim.instance() => {
                Err(ConnectError::OtherRun { found: shim.instance().to_owned() })
            }
            _ => Ok(shim),
        }
    }

    /// The connection broke, or the shim does not do its work (`distrust` says what), while
    /// the workload ran.
    pub(super) async fn shim_gone(&mut self, distrust: Option<String>) {
        let Some(mut run) = self.run.take() else { return };
        let run_dir = self.context.run_dir.clone();
        // A shim that died before it told us has been overtaken by its child's own word.
        if run.last.pid <= 0
            && let Ok(record) = ShimRecord::read(&run_dir)
            && let Some(child) = record.child.filter(|_| record.instance == run.instance)
        {
            (run.last.pid, run.last.start_ticks) = (child.pid, child.start_ticks);
            run.hold();
        }
        let client = run.shim();
        let (shim, legacy) = (client.and_then(ShimClient::shim), client.and_then(ShimClient::legacy));
        let gone = shim.is_none_or(|shim| !shim.is_alive());
        // It may have ended as it should, and its shim before it could tell us.
        if gone && let Ok(record) = ExitRecord::read(&run_dir, &run.instance) {
            sweep_slot(&run_dir).await;
            return self.count_exit(&record, run.ready_since.as_ref()).await;
        }
        // A shim that is just dying has closed its socket and still looks alive: what counts is
        // that it did not do its work any more.
        let stays = distrust.is_some() || shim.is_some_and(|shim| is_frozen(&shim));
        let delay = if stays { Duration::ZERO } else { self.losses.count(std::time::Instant::now()) };
        warn!(self.context.log, "the connection to the shim is gone"; "killed" => gone, "server" => run.last.pid);
        self.hold_orphan(run, shim, legacy, distrust, delay);
    }
}

/// Whether a record belongs to the container's current life.
fn is_of_this_life(record: &ShimRecord) -> bool {
    Generation::current().is_ok_and(|now| now == record.generation)
}

/// An exit nobody saw: never 0.
pub(super) fn lost(instance: &str, last: &proto::Status, reason: &str) -> ExitRecord {
    let now = zlh_shim::holder::boot_ms();
    ExitRecord {
        exit: Exit::Lost { reason: reason.to_owned() },
        child: Some(ProcessId { pid: last.pid, start_ticks: last.start_ticks }),
        stop: None,
        uptime_ms: now.saturating_sub(last.started_boot_ms),
        ..record_from_status(instance, last)
    }
}

/// As much of a status as the shim's record knows.
fn status_of(record: &ShimRecord) -> proto::Status {
    proto::Status {
        sequence: 0,
        pid: record.child.map_or(0, |c| c.pid),
        start_ticks: record.child.map_or(0, |c| c.start_ticks),
        started_boot_ms: record.started_boot_ms,
        started_unix_ms: record.started_unix_ms,
        log_start: 0,
        log_head: 0,
        log_unwritten: 0,
        stop_stage: 0,
        exit: None,
        log_run_start: record.console_start,
        adopted: None,
    }
}

/// What the shim told, when the disk had no room for its record.
pub(super) fn record_from_status(instance: &str, status: &proto::Status) -> ExitRecord {
    let message = status.exit.as_ref();
    let now = zlh_shim::holder::boot_ms();
    // It may have been heard of long after.
    let ago = message
        .filter(|_| status.started_boot_ms > 0)
        .map_or(0, |m| now.saturating_sub(status.started_boot_ms.saturating_add(m.uptime_ms)));
    ExitRecord {
        instance: instance.to_owned(),
        child: None,
        exit: message
            .map_or(Exit::Lost { reason: "the shim did not say how it ended".to_owned() }, |m| m.exit()),
        stop: (status.stop_stage > 0).then_some(zlh_shim::record::StopStage::Command),
        ended_unix_ms: u64::try_from(crate::clock::now().as_millisecond()).unwrap_or(0).saturating_sub(ago),
        ended_boot_ms: now.saturating_sub(ago),
        uptime_ms: message.map_or(0, |m| m.uptime_ms),
        console_end: status.log_head,
        console_start: status.log_run_start,
        oom: None,
        generation: Generation::current()
            .unwrap_or(Generation { boot_id: String::new(), init_start_ticks: 0 }),
    }
}
