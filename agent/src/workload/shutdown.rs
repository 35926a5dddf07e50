//! The container shuts down: what runs is stopped, what is wanted stays wanted.
//!
//! Under systemd a workload in a unit of its own has ended before the agent is asked to
//! leave. What is left to the agent is a shim that is its child, an orphan, and the start
//! that would come too late.

use std::time::Duration;

use slog::info;
use tokio::sync::oneshot;
use zlh_api::{ErrorCode, Problem};

use super::driver::Driver;

/// Set once, never taken back.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    /// The ladder's limit, once the container shuts down.
    limit: Option<Duration>,
    /// Whoever waits until nothing runs.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Shutdown {
    /// Whether nothing may be started any more.
    pub(super) const fn has_begun(&self) -> bool {
        self.limit.is_some()
    }

    /// How long a stop may take from now on, milliseconds.
    pub(super) fn limit_ms(&self) -> Option<u64> {
        self.limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Driver {
    /// Stops what runs, without anybody wanting it stopped for good; `done` hears of the end.
    pub(super) fn shut_down(&mut self, done: Option<oneshot::Sender<()>>) {
        if !self.shutdown.has_begun() {
            info!(self.context.log, "the container is shutting down"; "running" => self.run.is_some());
            self.shutdown.limit = Some(self.context.config.container_shutdown);
            self.stop_run();
        }
        self.shutdown.waiting.extend(done);
    }

    /// After an event: whether there is nothing left to wait for.
    pub(super) fn settle_shutdown(&mut self) {
        if self.shutdown.has_begun() && self.run.is_none() && self.starting.is_none() {
            for waiting in self.shutdown.waiting.drain(..) {
                // They may have given up.
                let _ = waiting.send(());
            }
        }
    }

    /// A start that was refused because the container shuts down: not a failure of the game.
    pub(super) fn start_came_too_late(&mut self, instance: &str) {
        if self.starting.as_deref() == Some(instance) {
            self.starting = None;
        }
        self.shut_down(None);
    }
}

/// For what would begin something.
pub(super) fn refusal() -> Problem {
    Problem::new(ErrorCode::NotReady, "the container is shutting down; ask again after its next boot")
}
