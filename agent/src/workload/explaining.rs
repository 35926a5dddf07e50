//! How the driver has a crash explained, and what follows from an explanation and from
//! the repairs it offers.

use slog::{info, warn};
use tokio::sync::mpsc;
use zlh_api::{Config, CrashRecord, ErrorCode, OperationKind, OperationState, Problem};
use zlh_shim::record::ExitRecord;

use super::driver::{Driver, Event};
use super::handle::{Outcome, Repair};
use super::machine::{Command, Explained, Observation, Phase, Refusal};
use super::start::game_user;
use crate::crash::{Inquest, facts_of, repair, server_of};
use crate::errors::chain;
use crate::game::payload::{self, GameRequest};
use crate::install::Damaged;

impl Driver {
    /// Begins to look at an end; the findings come as events.
    pub(super) fn explain(&self, exit: &ExitRecord, record: CrashRecord) {
        let Some(request) = &self.request else { return };
        let inquest = Inquest {
            exit: exit.clone(),
            record,
            root: self.context.paths.game_root(&request.game, &request.variant, &request.world),
            request: Some(request.clone()),
            installed: self.installed.clone(),
            console: self.console.clone(),
            archive: self.context.archive.clone(),
            last_good: self.context.last_good.clone(),
            log: self.context.log.clone(),
        };
        let (events, instance) = (self.events_in.clone(), exit.instance.clone());
        let (tell, mut told) = mpsc::channel(1);
        tokio::spawn(async move {
            let forward = async {
                while let Some(record) = told.recv().await {
                    let told = Event::Explained { instance: instance.clone(), record: Box::new(record) };
                    if events.send(told).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(inquest.hold(tell), forward);
            // What an analysis took is not kept by an agent that now waits for days.
            tokio::task::spawn_blocking(zlh_shim::trim::trim);
        });
    }

    /// At boot: an earlier agent counted a crash and was killed before it was explained.
    pub(super) fn explain_what_was_left(&self) {
        let Some(crash) =
            self.memory.last_crash.as_ref().filter(|crash| !crash.explained && !crash.id.is_empty())
        else {
            return;
        };
        if let Some(counted) = &self.memory.counted
            && let Ok(exit) = ExitRecord::read(&self.context.run_dir, counted)
        {
            self.explain(&exit, crash.clone());
        }
    }

    /// The last crash has an explanation, or a better one.
    pub(super) fn explained(&mut self, instance: &str, record: CrashRecord) {
        // A payload that was replaced took its crashes along.
        if self.memory.last_crash.as_ref().is_none_or(|last| last.id != record.id) {
            return;
        }
        info!(self.context.log, "the crash is explained"; "cause" => record.cause.as_deref().unwrap_or("none"),
            "title" => &record.title, "crash" => &record.id, "certain" => record.certain);
        let useless = record.certain && record.restart_useless && self.context.config.restart.cause_aware;
        let remedy = record.remedy.first().map(|step| format!(" {}", step.text)).unwrap_or_default();
        let explained = Explained {
            crash: record.id.clone(),
            useless: useless.then(|| record.fingerprint.clone()),
            reason: format!("{} (twice; a restart can only repeat it).{remedy}", record.title),
        };
        self.note_explained(instance, &record, self.memory.last_crash.as_ref());
        self.memory.last_crash = Some(record);
        self.observe(Observation::Explained(explained));
        self.remember();
    }

    /// The server is ready: what is there now is good.
    pub(super) fn remember_good(&self) {
        let Some(request) = &self.request else { return };
        let root = self.context.paths.game_root(&request.game, &request.variant, &request.world);
        let facts = facts_of(Some(request), self.installed.as_ref());
        let (last_good, log) = (self.context.last_good.clone(), self.context.log.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = last_good.remember(&root, facts) {
                warn!(log, "what a good start looks like cannot be remembered"; "error" => %error);
            }
            zlh_shim::trim::trim();
        });
    }

    /// Admits what a crash's remedy lets the agent do. Nothing may run, and what is configured
    /// must be the server that crashed: a file of the same name in another one is innocent.
    pub(super) fn repair(&mut self, repair: Repair, server: &str) -> Result<Outcome, Problem> {
        let configured = self.request.as_ref().map(server_of).unwrap_or_default();
        if configured != server {
            let configured = if configured.is_empty() { "nothing" } else { configured.as_str() };
            return Err(Problem::new(
                ErrorCode::WrongState,
                format!("{server} crashed, and {configured} is configured now: configure {server} first"),
            ));
        }
        match self.machine.phase() {
            Phase::Idle | Phase::Crashed { .. } | Phase::Error { alive: false, .. }
                if self.operation.is_none() && self.tending.is_none() => {}
            Phase::Running { .. } | Phase::Error { alive: true, .. } => {
                return Err(Problem::new(ErrorCode::WrongState, "the server is running: stop it first"));
            }
            _ => return Err(self.refuse(Refusal::Busy)),
        }
        match repair {
            Repair::Reinstall => self.reinstall(),
            Repair::AcceptEula => self.accept_eula(),
            Repair::DisableAddon(file) => self.disable_addon(&file),
            Repair::SwitchJava(version) => self.switch_java(version),
            Repair::FreePort(port) => Ok(self.free_port(port)),
        }
    }

    /// Everything that was installed counts for nothing as soon as all of it is here again; what is
    /// put in place is verified.
    fn reinstall(&mut self) -> Result<Outcome, Problem> {
        let mut damaged = Damaged::default();
        if let Some(installed) = &self.installed {
            let root = self.context.paths.servers();
            let trees = crate::install::installed(root.clone()).map_err(|error| {
                let detail = format!("what is installed cannot be read: {}", chain(&error));
                Problem::new(ErrorCode::Internal, detail)
            })?;
            let own = trees.into_iter().filter(|tree| Some(&tree.dir) == installed.server.as_ref());
            damaged.trees.extend(own.map(|tree| (root.clone(), tree)));
            damaged.placed = Some(Box::new(installed.clone()));
        }
        self.machine.set_installed(false);
        let admission = self.machine.command(Command::Start).map_err(|refusal| self.refuse(refusal))?;
        self.damaged = Some(damaged);
        Ok(self.accept(admission, OperationKind::Install))
    }

    /// The payload with a change: checked and stored like one that somebody sends.
    fn amend(&mut self, change: impl FnOnce(&mut Config)) -> Result<GameRequest, Problem> {
        let Some(mut config) = self.payload.clone() else { return Err(self.refuse(Refusal::NotConfigured)) };
        change(&mut config);
        let request = payload::check(&config)?;
        self.context.shelf.store_payload(&config).map_err(|error| {
            Problem::new(
                ErrorCode::Internal,
                format!("the payload cannot be stored: {error}; free some disk space"),
            )
        })?;
        self.payload = Some(config);
        self.request = Some(request.clone());
        Ok(request)
    }

    /// From now on it runs with that Java: whatever the catalog's entry requires.
    fn switch_java(&mut self, version: u32) -> Result<Outcome, Problem> {
        self.amend(|config| config.java_version = Some(version))?;
        info!(self.context.log, "another Java was chosen on a caller's behalf"; "version" => version);
        self.command(Command::Start, OperationKind::Start)
    }

    fn accept_eula(&mut self) -> Result<Outcome, Problem> {
        let request = self.amend(|config| config.accept_eula = Some(true))?;
        // A plan that does not write it leaves that to us.
        let root = self.context.paths.game_root(&request.game, &request.variant, &request.world);
        let owner = game_user(&self.context.paths, self.context.config.game_user.as_deref())
            .ok()
            .and_then(|user| user.ids)
            .map(|ids| (ids.uid, ids.gid));
        crate::game::files::accept_eula(&root, owner).map_err(|error| {
            Problem::new(ErrorCode::Internal, format!("eula.txt cannot be written: {}", chain(&error)))
        })?;
        info!(self.context.log, "Mojang's EULA was accepted on a caller's behalf");
        self.command(Command::Start, OperationKind::Start)
    }

    fn disable_addon(&mut self, file: &str) -> Result<Outcome, Problem> {
        let Some(request) = &self.request else { return Err(self.refuse(Refusal::NotConfigured)) };
        let root = self.context.paths.game_root(&request.game, &request.variant, &request.world);
        let operation = self.operations.begin(OperationKind::Repair, &format!("disabling {file}"));
        self.note_operation(&operation);
        let result = repair::disable_addon(&root, file);
        let (state, error) = match &result {
            Ok(()) => (OperationState::Succeeded, None),
            Err(error) => (OperationState::Failed, Some(chain(error))),
        };
        info!(self.context.log, "a mod or plugin was to be disabled"; "file" => file, "error" => error.as_deref().unwrap_or("none"));
        self.note_operation_end(&operation, state, error.as_deref());
        self.operations.finish(&operation.id, state, error.clone());
        match error {
            None => Ok(Outcome { state: self.machine.state(), operation: Some(operation) }),
            Some(error) => Err(Problem::new(ErrorCode::WrongState, error)),
        }
    }

    /// Beside everything else: whoever starts the server meanwhile is told that the port is taken.
    fn free_port(&mut self, port: u16) -> Outcome {
        let operation = self.operations.begin(OperationKind::Repair, &format!("freeing port {port}"));
        self.note_operation(&operation);
        self.tending = Some(operation.clone());
        let (events, journal) = (self.events_in.clone(), self.context.journal.clone());
        tokio::spawn(async move {
            let result = match journal.runs().await {
                Ok(runs) => tokio::task::spawn_blocking(move || repair::free_port(port, &runs))
                    .await
                    .map_err(|error| error.to_string())
                    .and_then(|result| result.map_err(|error| chain(&error))),
                Err(error) => Err(chain(&error)),
            };
            drop(events.send(Event::Tended(result.map(|()| format!("port {port} is free")))).await);
        });
        Outcome { state: self.machine.state(), operation: Some(operation) }
    }
}
