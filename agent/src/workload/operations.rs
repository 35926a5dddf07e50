//! Operations: what is being done, how far it is, and what became of the last ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use zlh_api::{Operation, OperationKind, OperationState, OperationSummary, Progress};

/// How many ended operations are kept.
const KEPT: usize = 64;

/// The shared list of operations.
#[derive(Clone, Default)]
pub(crate) struct Operations {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    list: VecDeque<Operation>,
    /// Of the operation that counts at the moment.
    pace: Option<Pace>,
}

/// Since when, and from where, something is counted.
struct Pace {
    id: String,
    total: Option<u64>,
    from: u64,
    since: Instant,
}

impl Operations {
    /// Begins an operation.
    pub(crate) fn begin(&self, kind: OperationKind, phase: &str) -> OperationSummary {
        self.with(|inner| {
            inner.next += 1;
            let started = crate::clock::now();
            let operation = Operation {
                // Unique across agent restarts too: the start time leads.
                id: format!("{}-{}", started.as_millisecond(), inner.next),
                kind,
                state: OperationState::Running,
                phase: phase.to_owned(),
                progress: None,
                started_at: crate::clock::rfc3339(started),
                finished_at: None,
                error: None,
            };
            let summary = OperationSummary::from(&operation);
            inner.list.push_front(operation);
            inner.list.truncate(KEPT);
            summary
        })
    }

    /// Says what a running operation is doing now.
    pub(crate) fn phase(&self, id: &str, phase: &str) {
        self.edit(id, |operation| {
            if operation.phase != phase {
                phase.clone_into(&mut operation.phase);
                operation.progress = None;
            }
        });
    }

    /// Says how far a running operation is.
    pub(crate) fn progress(&self, id: &str, done: u64, total: Option<u64>, unit: &str) {
        let since = self.with(|inner| {
            // What was there at the first count (of an earlier attempt, say) took no time now.
            let same = inner
                .pace
                .as_ref()
                .is_some_and(|pace| pace.id == id && pace.total == total && pace.from <= done);
            if !same {
                inner.pace = Some(Pace { id: id.to_owned(), total, from: done, since: Instant::now() });
            }
            inner.pace.as_ref().map(|pace| (done - pace.from, pace.since.elapsed()))
        });
        let rate = since.filter(|(_, time)| time.as_millis() >= 200).map(|(done, time)| {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            done.saturating_mul(1000) / millis
        });
        self.edit(id, |operation| {
            operation.progress = Some(Progress { done, total, unit: unit.to_owned(), rate });
        });
    }

    /// Ends an operation.
    pub(crate) fn finish(&self, id: &str, state: OperationState, error: Option<String>) {
        self.edit(id, |operation| {
            operation.state = state;
            operation.error = error;
            operation.finished_at = Some(crate::clock::now_rfc3339());
        });
    }

    /// The operation that runs, if one does.
    pub(crate) fn running(&self) -> Option<Operation> {
        self.with(|inner| inner.list.iter().find(|o| o.state == OperationState::Running).cloned())
    }

    /// Newest first.
    pub(crate) fn list(&self) -> Vec<Operation> {
        self.with(|inner| inner.list.iter().cloned().collect())
    }

    /// By id.
    pub(crate) fn get(&self, id: &str) -> Option<Operation> {
        self.with(|inner| inner.list.iter().find(|o| o.id == id).cloned())
    }

    fn edit(&self, id: &str, change: impl FnOnce(&mut Operation)) {
        self.with(|inner| {
            if let Some(operation) =
                inner.list.iter_mut().find(|o| o.id == id && o.state == OperationState::Running)
            {
                change(operation);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
