//! The effects of the machine, performed: in order, and never waited for.

use std::time::Duration;

use slog::{info, o, warn};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use zlh_api::{OperationKind, OperationState};
use zlh_catalog::Probe;

use super::driver::{Driver, Event};
use super::launcher::LaunchError;
use super::machine::{Effect, HELD, Observation, Phase};
use super::start::{Launch, StartError};
use super::stored::BootTime;
use crate::errors::chain;
use crate::game::probe;
use crate::install;

/// How long a start may take when nothing says otherwise.
const READINESS: Duration = Duration::from_secs(60);

impl Driver {
    pub(super) fn observe(&mut self, seen: Observation) {
        let effects = self.machine.observe(seen);
        self.perform(effects);
    }

    pub(super) fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Install => self.install(),
                Effect::CancelInstall => {
                    if let Some(cancel) = self.cancel_install.take() {
                        // It may have ended by itself a moment ago.
                        let _ = cancel.send(());
                    }
                }
                Effect::Spawn => self.spawn(),
                Effect::Stop => self.stop_run(),
                Effect::Probe => self.probe(),
                Effect::ArmReadiness => {
                    let timeout = self.installed.as_ref().map_or(READINESS, |i| i.plan.readiness.timeout());
                    self.readiness_due = Some(Instant::now() + timeout);
                }
                Effect::DisarmReadiness => self.readiness_due = None,
                Effect::ArmBackoff(pause) => {
                    self.backoff_due = Some((
                        Instant::now() + pause,
                        crate::clock::now().saturating_add(pause).unwrap_or(jiff::Timestamp::MAX),
                    ));
                    self.memory.restart_at = BootTime::after(pause);
                    // Whatever was remembered: it ran, and nobody has stopped it.
                    self.memory.wanted = true;
                    info!(self.context.log, "the server starts again after a pause"; "seconds" => pause.as_secs());
                }
                Effect::DisarmBackoff => {
                    self.backoff_due = None;
                    self.memory.restart_at = None;
                }
                Effect::Succeeded => self.succeeded(),
                Effect::Failed(reason) => {
                    self.finish(OperationState::Failed, Some(reason));
                    self.note_failure();
                    if let Phase::Error { reason, alive: false } = self.machine.phase() {
                        self.memory.error = Some(reason.clone());
                    }
                    self.remember();
                }
                Effect::Cancelled => {} // done before the stop's own operation began
            }
        }
    }

    /// An installation on the way of a start is not its end.
    fn succeeded(&mut self) {
        let kind = self.operation.as_ref().map(|o| o.kind);
        let was_to_start = matches!(kind, Some(OperationKind::Start | OperationKind::Restart));
        if was_to_start && self.maintenance.is_some() && *self.machine.phase() == Phase::Idle {
            return self.finish(OperationState::Failed, Some(HELD.to_owned()));
        }
        let on_the_way = *self.machine.phase() == Phase::Spawning && kind != Some(OperationKind::Install);
        if !on_the_way {
            self.finish(OperationState::Succeeded, None);
        }
    }

    pub(super) fn finish(&mut self, state: OperationState, error: Option<String>) {
        if let Some(operation) = self.operation.take() {
            self.note_operation_end(&operation, state, error.as_deref());
            self.operations.finish(&operation.id, state, error);
            // What an install or a start took is not kept by an agent that now waits for days.
            tokio::task::spawn_blocking(zlh_shim::trim::trim);
        }
    }

    fn current_operation(&mut self, kind: OperationKind, phase: &str) -> String {
        if let Some(operation) = &self.operation {
            self.operations.phase(&operation.id, phase);
            return operation.id.clone();
        }
        let operation = self.operations.begin(kind, phase);
        let id = operation.id.clone();
        self.note_operation(&operation);
        self.operation = Some(operation);
        id
    }

    fn install(&mut self) {
        let Some(request) = self.request.clone() else { return };
        let operation = self.current_operation(OperationKind::Install, "reading the catalog");
        self.install_step = "reading the catalog".to_owned();
        let (cancel, cancelled) = oneshot::channel();
        self.cancel_install = Some(cancel);
        let (events, operations) = (self.events_in.clone(), self.operations.clone());
        let job = install::Job {
            paths: self.context.paths.clone(),
            config: self.context.config.clone(),
            shelf: self.context.shelf.clone(),
            request,
            audience: self.audience(),
            log: self.context.log.new(o!("component" => "install")),
            damaged: self.damaged.take(),
        };
        tokio::spawn(async move {
            let report = {
                let (events, operations, operation) = (events.clone(), operations, operation.clone());
                move |step: install::Step| {
                    operations.phase(&operation, &step.text);
                    if let Some((done, total)) = step.bytes {
                        operations.progress(&operation, done, Some(total), "bytes");
                    } else {
                        // Only what users read; a full queue may lose a step, never an end.
                        let _ = events
                            .try_send(Event::InstallStep { operation: operation.clone(), step: step.text });
                    }
                }
            };
            let result = tokio::select! {
                result = job.run(report) => Some(result.map(Box::new)),
                _ = cancelled => None,
            };
            drop(events.send(Event::InstallEnded { operation, result }).await);
        });
    }

    fn spawn(&mut self) {
        if self.shutdown.has_begun() {
            return; // the next boot does it
        }
        let why = self.why_start();
        self.memory.restart_at = None;
        let (Some(request), Some(installed)) = (self.request.clone(), self.installed.clone()) else {
            self.observe(Observation::SpawnFailed(
                "nothing is installed: send POST /config again".to_owned(),
            ));
            return;
        };
        let Ok(instance) = zlh_shim::holder::random_hex() else {
            self.observe(Observation::SpawnFailed("the system has no random numbers".to_owned()));
            return;
        };
        let root = self.context.paths.game_root(&request.game, &request.variant, &request.world);
        if let Err(error) = self.context.shelf.note_opened(&root, &request.version) {
            // Only a later payload goes by it.
            warn!(self.context.log, "which version opens the world cannot be recorded"; "error" => %error);
        }
        self.current_operation(OperationKind::Start, "starting");
        self.note_start(&instance, why);
        self.starting = Some(instance.clone());
        let launch = Launch {
            paths: self.context.paths.clone(),
            run_dir: self.context.run_dir.clone(),
            accept_eula: request.accept_eula || self.context.config.accept_eula,
            request,
            installed,
            game_user: self.context.config.game_user.clone(),
            stop: self.context.config.stop,
            instance: instance.clone(),
            before: self.before.take(),
            launcher: self.context.launcher.clone(),
            shutdown: self.context.config.container_shutdown,
        };
        let (events, head) = (self.events_in.clone(), self.head.clone());
        tokio::spawn(async move {
            let event = match launch.run(head).await {
                Err(StartError::Launch(LaunchError::ShuttingDown)) => Event::TooLate { instance },
                result => Event::Spawned { instance, result: result.map_err(|error| chain(&error)) },
            };
            drop(events.send(event).await);
        });
    }

    fn probe(&mut self) {
        let (Some(run), Some(request)) = (&self.run, &self.request) else { return };
        let probe = self.installed.as_ref().map_or(Probe::MinecraftPing, |i| i.plan.readiness.probe);
        let port = request.port;
        let (sender, mut seen) = mpsc::channel(4);
        let (events, instance) = (self.events_in.clone(), run.instance.clone());
        let task = tokio::spawn(async move {
            let forward = async {
                while let Some(seen) = seen.recv().await {
                    if events.send(Event::Probe { instance: instance.clone(), seen }).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(probe::watch(probe, port, sender), forward);
        });
        if let Some(old) = self.prober.replace(task.abort_handle()) {
            old.abort();
        }
        if let Some(operation) = &self.operation {
            self.operations.phase(&operation.id, "waiting until the server answers");
        }
    }
}
