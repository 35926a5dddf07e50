//! What the driver does beside the game when it is asked to, one at a time.

use std::path::Path;

use slog::{info, o, warn};
use zlh_api::{ErrorCode, OperationKind, OperationState, Problem};
use zlh_artifacts::InstalledTree;
use zlh_catalog::Audience;

use super::driver::{Driver, Event, TakesAway};
use super::handle::{Outcome, Verb};
use super::machine::{Phase, Refusal};
use crate::errors::chain;
use crate::install::{Act, Kind, Step, Tend, TendJob, is};

impl Driver {
    pub(super) fn tend(&mut self, tend: Tend) -> Result<Outcome, Problem> {
        if let Some(operation) = &self.tending {
            let detail = "another operation beside the game runs; GET /operations says how far it is";
            return Err(
                Problem::new(ErrorCode::OperationInProgress, detail).with_operation(operation.clone())
            );
        }
        let used = self
            .installed
            .as_ref()
            .and_then(|installed| installed.runtime.as_ref())
            .map(|one| one.dir.clone());
        let (kind, phase) = self.admit_tend(&tend, used.as_deref())?;
        let operation = self.operations.begin(kind, &phase);
        info!(self.context.log, "{phase}"; "operation" => &operation.id);
        self.note_operation(&operation);
        self.tending = Some(operation.clone());
        self.takes_away = tend.takes_away().then(|| match &tend.act {
            Act::Repair(tree) | Act::Remove { tree, .. } if is(tree, used.as_deref()) => TakesAway::Used,
            _ => TakesAway::Unused,
        });
        let job = TendJob {
            paths: self.context.paths.clone(),
            config: self.context.config.clone(),
            log: self.context.log.new(o!("component" => "install")),
            tend,
            audience: self.audience(),
            used,
        };
        let (events, operations, id) =
            (self.events_in.clone(), self.operations.clone(), operation.id.clone());
        tokio::spawn(async move {
            let report = {
                let id = id.clone();
                move |step: Step| {
                    operations.phase(&id, &step.text);
                    if let Some((done, total)) = step.bytes {
                        operations.progress(&id, done, Some(total), "bytes");
                    }
                }
            };
            // However it ends, the driver hears of it.
            let result = match tokio::spawn(job.run(report)).await {
                Ok(result) => result.map_err(|error| chain(&error)),
                Err(error) => Err(error.to_string()),
            };
            drop(events.send(Event::Tended(result)).await);
        });
        Ok(Outcome { state: self.machine.state(), operation: Some(operation) })
    }

    /// Whether it may be done now, what kind of operation it is, and its first words.
    fn admit_tend(&self, tend: &Tend, used: Option<&Path>) -> Result<(OperationKind, String), Problem> {
        // One that crashed is about to be started again.
        let idle = match self.machine.phase() {
            Phase::Idle | Phase::Error { alive: false, .. } => self.operation.is_none(),
            Phase::Crashed { .. } => self.maintenance.is_some(),
            _ => false,
        };
        let refuse = |detail: String| Err(Problem::new(ErrorCode::WrongState, detail));
        let used = used.filter(|_| tend.kind == Kind::Runtimes);
        let label = |tree: &InstalledTree| format!("{} {}", tree.name, tree.version);
        // An installation may be about to use what nobody uses yet.
        if tend.takes_away() && matches!(self.machine.phase(), Phase::Installing { .. }) {
            return refuse("an installation runs: wait for it".to_owned());
        }
        Ok(match &tend.act {
            Act::Install { id, version } => (OperationKind::Install, format!("installing {id} {version}")),
            Act::Verify(tree) => (OperationKind::Verify, format!("reading {}", label(tree))),
            Act::Repair(tree) | Act::Remove { tree, .. } if is(tree, used) && !idle => {
                let label = label(tree);
                return refuse(format!("the server runs with {label}, or is about to: stop it first"));
            }
            Act::Repair(tree) => (OperationKind::Repair, format!("repairing {}", label(tree))),
            Act::Remove { tree, force: false } if is(tree, used) => {
                let label = label(tree);
                return refuse(format!(
                    "{label} is what is configured to run: remove it with force, and the next start installs it again"
                ));
            }
            Act::Remove { tree, force: false } if tree.active => {
                let label = label(tree);
                return refuse(format!(
                    "{label} is the version that is used: upgrade to another one first, or remove it with force"
                ));
            }
            Act::Remove { tree, .. } => (OperationKind::Remove, format!("removing {}", label(tree))),
            Act::Collect => (OperationKind::Remove, "removing what nobody uses".to_owned()),
            Act::Upgrade { id, version: Some(version) } => {
                (OperationKind::Upgrade, format!("upgrading {id} to {version}"))
            }
            Act::Upgrade { id, version: None } => (OperationKind::Upgrade, format!("upgrading {id}")),
            Act::RollBack { id } => (OperationKind::Rollback, format!("going back from the {id} of now")),
        })
    }

    /// Whether what is configured cannot be started now, because its runtime is taken away, or
    /// because it would be installed, with a runtime that is.
    pub(super) fn start_waits(&self) -> bool {
        match self.takes_away {
            None => false,
            Some(TakesAway::Used) => true,
            Some(TakesAway::Unused) => !self.is_in_place(),
        }
    }

    /// Refuses what could start the game with a runtime that is taken away. What runs is not touched
    /// by that, and may be asked for anything.
    pub(super) fn check_runtimes(&self, verb: &Verb) -> Result<(), Problem> {
        let starts = matches!(
            self.machine.phase(),
            Phase::Idle | Phase::Crashed { .. } | Phase::Error { alive: false, .. }
        );
        let waits = match verb {
            Verb::Start | Verb::Restart { .. } => self.start_waits(),
            _ => self.takes_away.is_some(),
        };
        match &self.tending {
            Some(operation) if waits && starts => {
                let detail = "runtimes are being repaired or removed: wait for that";
                Err(Problem::new(ErrorCode::OperationInProgress, detail).with_operation(operation.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Whoever holds the workload has changed what is installed, or is about to: then nothing
    /// may run, nor be about to.
    pub(super) fn reread(&mut self, at_rest: bool) -> Result<Outcome, Problem> {
        match self.machine.phase() {
            Phase::Idle | Phase::Error { alive: false, .. } if self.operation.is_none() => {}
            Phase::Crashed { .. } if self.maintenance.is_some() => {}
            // In a moment it installs by itself.
            Phase::Crashed { .. } if !self.is_in_place() => return Err(self.refuse(Refusal::Busy)),
            Phase::Installing { .. } => return Err(self.refuse(Refusal::Busy)),
            _ if !at_rest => {}
            Phase::Running { .. } | Phase::Error { alive: true, .. } => {
                return Err(Problem::new(ErrorCode::WrongState, "the server is running: stop it first"));
            }
            Phase::Crashed { .. } => {
                let detail = "the server crashed and is about to be started again: stop it first";
                return Err(Problem::new(ErrorCode::WrongState, detail));
            }
            _ => return Err(self.refuse(Refusal::Busy)),
        }
        if let Some(operation) = &self.tending {
            let detail = "an operation on runtimes or addons runs; GET /operations says how far it is";
            return Err(
                Problem::new(ErrorCode::OperationInProgress, detail).with_operation(operation.clone())
            );
        }
        if at_rest {
            self.installed = self.context.shelf.installed().0;
            self.machine.set_installed(self.is_in_place());
        }
        Ok(Outcome { state: self.machine.state(), operation: None })
    }

    /// Whom this container is, for channels and waves.
    pub(super) fn audience(&self) -> Audience {
        let vmid = self.context.config.vmid.or(self.payload.as_ref().and_then(|payload| payload.vmid));
        self.context.config.audience(vmid)
    }

    pub(super) fn tended(&mut self, result: Result<String, String>) {
        let Some(operation) = self.tending.take() else { return };
        self.takes_away = None;
        let (state, error) = match result {
            Ok(done) => {
                info!(self.context.log, "{done}"; "operation" => &operation.id);
                // Its last words.
                self.operations.phase(&operation.id, &done);
                (OperationState::Succeeded, None)
            }
            Err(error) => {
                warn!(self.context.log, "an operation beside the game failed"; "error" => &error);
                (OperationState::Failed, Some(error))
            }
        };
        self.note_operation_end(&operation, state, error.as_deref());
        self.operations.finish(&operation.id, state, error);
        tokio::task::spawn_blocking(zlh_shim::trim::trim);
    }
}
