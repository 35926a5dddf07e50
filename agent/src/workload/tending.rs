//! What the driver does beside the game when it is asked to, one at a time.

use slog::{info, o, warn};
use zlh_api::{ErrorCode, OperationKind, OperationState, Problem};

use super::driver::{Driver, Event};
use super::handle::Outcome;
use super::machine::Phase;
use crate::errors::chain;
use crate::install::{Step, Tend, TendJob, is};

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
        let idle =
            matches!(self.machine.phase(), Phase::Idle | Phase::Crashed | Phase::Error { alive: false, .. })
                && self.operation.is_none();
        let refuse = |detail: String| Err(Problem::new(ErrorCode::WrongState, detail));
        let (kind, phase) = match &tend {
            Tend::Install { id, version } => (OperationKind::Install, format!("installing {id} {version}")),
            Tend::Verify(tree) => (OperationKind::Verify, format!("reading {} {}", tree.name, tree.version)),
            Tend::Repair(tree) if is(tree, used.as_deref()) && !idle => {
                return refuse(format!(
                    "the server runs with {} {}, or is about to: stop it first",
                    tree.name, tree.version
                ));
            }
            Tend::Repair(tree) => {
                (OperationKind::Repair, format!("repairing {} {}", tree.name, tree.version))
            }
            Tend::Remove { tree, .. } if is(tree, used.as_deref()) && !idle => {
                return refuse(format!(
                    "the server runs with {} {}, or is about to: stop it first",
                    tree.name, tree.version
                ));
            }
            Tend::Remove { tree, force: false } if is(tree, used.as_deref()) => {
                return refuse(format!(
                    "{} {} is what is configured to run: remove it with force, and the next start installs it again",
                    tree.name, tree.version
                ));
            }
            Tend::Remove { tree, .. } => {
                (OperationKind::Remove, format!("removing {} {}", tree.name, tree.version))
            }
            // An installation may be about to use what nobody uses yet.
            Tend::Collect if !idle && matches!(self.machine.phase(), Phase::Installing { .. }) => {
                return refuse("an installation runs: wait for it".to_owned());
            }
            Tend::Collect => (OperationKind::Remove, "removing what nobody uses".to_owned()),
        };
        let operation = self.operations.begin(kind, &phase);
        info!(self.context.log, "{phase}"; "operation" => &operation.id);
        self.note_operation(&operation);
        self.tending = Some(operation.clone());
        let job = TendJob {
            paths: self.context.paths.clone(),
            config: self.context.config.clone(),
            log: self.context.log.new(o!("component" => "install")),
            tend,
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
            let result = job.run(report).await.map_err(|error| chain(&error));
            drop(events.send(Event::Tended(result)).await);
        });
        Ok(Outcome { state: self.machine.state(), operation: Some(operation) })
    }

    pub(super) fn tended(&mut self, result: Result<String, String>) {
        let Some(operation) = self.tending.take() else { return };
        let (state, error) = match result {
            Ok(done) => {
                info!(self.context.log, "{done}"; "operation" => &operation.id);
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
