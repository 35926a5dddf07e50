//! Waiting for an agent: what has been reached, what never will be.
//!
//! Waiting is level-triggered: the state is looked at again and again, and what
//! it is decides, not which changes were seen. An agent that does not answer for a
//! while is waited for as well (a container that boots); `error` ends the wait.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use zlh_api::client::{Client, ClientError};
use zlh_api::{Operation, OperationState, State, Status};

use crate::exit::Hint;
use crate::ui::units;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The workload accepts users.
    Ready,
    /// State `running`.
    Running,
    /// State `idle`.
    Idle,
    /// No process, and none planned.
    Stopped,
}

/// What a status means for a goal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pending,
    Reached,
    /// It will not get there by itself.
    Failed(String),
}

/// What was last seen, for whoever shows progress.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen<'a> {
    Status(&'a Status, Option<&'a Operation>),
    Unreachable(&'a str),
}

/// How to wait.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) goal: Goal,
    /// The operation that leads there; its failure is ours.
    pub(crate) operation: Option<String>,
    pub(crate) timeout: Duration,
}

impl Goal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
        }
    }

    /// Decides by the status alone.
    pub(crate) fn judge(self, status: &Status) -> Verdict {
        let reached = match self {
            Self::Ready => status.ready,
            Self::Running => status.state == State::Running,
            Self::Idle => status.state == State::Idle,
            Self::Stopped => !status.process_running && matches!(status.state, State::Idle | State::Error),
        };
        match status.state {
            _ if reached => Verdict::Reached,
            State::Error => Verdict::Failed(
                status.error.clone().unwrap_or_else(|| "the agent gives no reason".to_owned()),
            ),
            _ => Verdict::Pending,
        }
    }
}

impl Wait {
    /// Returns the status that reached the goal.
    ///
    /// # Errors
    /// The agent's error, a failed or cancelled operation, or the timeout.
    pub(crate) async fn run(&self, client: &Client, mut seen: impl FnMut(Seen<'_>)) -> Result<Status> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let last = match self.look(client).await {
                Ok((status, operation)) => {
                    seen(Seen::Status(&status, operation.as_ref()));
                    match self.judge(&status, operation.as_ref()) {
                        Verdict::Reached => return Ok(status),
                        Verdict::Failed(reason) => return Err(anyhow!(reason)).hint(hint_for(client)),
                        Verdict::Pending => describe(&status),
                    }
                }
                Err(error) if is_transient(&error) => {
                    let reason = error.to_string();
                    seen(Seen::Unreachable(&reason));
                    reason
                }
                Err(error) => return Err(error.into()),
            };
            if Instant::now() + POLL > deadline {
                return Err(anyhow!(
                    "not {} after {}: {last}",
                    self.goal.as_str(),
                    units::duration(self.timeout)
                ))
                .hint("wait longer with --timeout, or look at the console with `zlhctl logs NAME`");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn look(&self, client: &Client) -> Result<(Status, Option<Operation>), ClientError> {
        // The operation first: a status read after it ended already shows its result.
        let operation = match &self.operation {
            Some(id) => match client.operation(id).await {
                Ok(operation) => Some(operation),
                // Old operations are forgotten, also by an agent that was replaced meanwhile.
                Err(ClientError::Refused { problem, .. }) if problem.status == 404 => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        let status = client.status().await?;
        if operation.is_some() || !status.operation_in_progress {
            return Ok((status, operation));
        }
        // Ours or somebody else's: what is going on is worth showing. Failing to learn it is not an error.
        let running = client.operations().await.unwrap_or_default();
        Ok((status, running.into_iter().find(|operation| operation.state == OperationState::Running)))
    }

    fn judge(&self, status: &Status, operation: Option<&Operation>) -> Verdict {
        let Some(operation) = operation.filter(|operation| self.operation.as_ref() == Some(&operation.id))
        else {
            return self.goal.judge(status);
        };
        match operation.state {
            // A restart begins ready, an install replaces what is idle: the old state proves nothing.
            OperationState::Running => Verdict::Pending,
            OperationState::Succeeded => self.goal.judge(status),
            OperationState::Failed => Verdict::Failed(
                operation
                    .error
                    .clone()
                    .or_else(|| status.error.clone())
                    .unwrap_or_else(|| "the agent gives no reason".to_owned()),
            ),
            OperationState::Cancelled => match self.goal.judge(status) {
                Verdict::Reached => Verdict::Reached,
                _ => Verdict::Failed("another request took its place, and it was cancelled".to_owned()),
            },
        }
    }
}

/// State and what there is to say about it, in a few words.
pub(crate) fn describe(status: &Status) -> String {
    let detail = [status.operation_message.as_deref(), Some(&status.install_step), Some(&status.ready_error)]
        .into_iter()
        .flatten()
        .find(|text| !text.is_empty());
    match detail {
        Some(detail) => format!("{}: {detail}", status.state),
        None => status.state.to_string(),
    }
}

/// Gone for a moment, as opposed to refusing.
fn is_transient(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Timeout { .. } | ClientError::Broken { .. } => true,
        ClientError::Refused { problem, .. } => problem.status == 503,
        _ => false,
    }
}

fn hint_for(client: &Client) -> String {
    format!("`zlhctl logs {}` shows what the server said", client.agent())
}

/// Between two looks.
const POLL: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::status;
    use zlh_api::OperationKind;

    fn operation(state: OperationState, error: Option<&str>) -> Operation {
        Operation {
            id: "7".to_owned(),
            kind: OperationKind::Restart,
            state,
            phase: "starting".to_owned(),
            progress: None,
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            finished_at: None,
            error: error.map(str::to_owned),
        }
    }

    fn wait(goal: Goal) -> Wait {
        Wait { goal, operation: Some("7".to_owned()), timeout: Duration::from_secs(1) }
    }

    #[test]
    fn goals() {
        use State::*;
        use Verdict::*;
        for (goal, state, ready, process, expected) in [
            (Goal::Ready, Running, true, true, Reached),
            (Goal::Ready, Running, false, true, Pending),
            (Goal::Ready, Crashed, false, false, Pending),
            (Goal::Ready, Idle, false, false, Pending),
            (Goal::Running, Running, false, true, Reached),
            (Goal::Running, Starting, false, true, Pending),
            (Goal::Idle, Stopping, false, true, Pending),
            (Goal::Idle, Idle, false, false, Reached),
            (Goal::Stopped, Crashed, false, false, Pending),
            (Goal::Stopped, Error, false, false, Reached),
            (Goal::Stopped, Error, false, true, Failed("boom".to_owned())),
            (Goal::Ready, Error, false, true, Failed("boom".to_owned())),
            (Goal::Idle, Error, false, false, Failed("boom".to_owned())),
        ] {
            let mut status = status(state);
            (status.ready, status.process_running) = (ready, process);
            status.error = (state == Error).then(|| "boom".to_owned());
            assert_eq!(goal.judge(&status), expected, "{goal:?} {state}");
        }
    }

    #[test]
    fn a_running_operation_outweighs_the_state() {
        let mut ready = status(State::Running);
        ready.ready = true;
        let wait = wait(Goal::Ready);
        assert_eq!(wait.judge(&ready, Some(&operation(OperationState::Running, None))), Verdict::Pending);
        assert_eq!(wait.judge(&ready, Some(&operation(OperationState::Succeeded, None))), Verdict::Reached);
        assert_eq!(wait.judge(&ready, None), Verdict::Reached);
        // The state of an earlier failure does not end a start that has just begun.
        let failed = status(State::Error);
        assert_eq!(wait.judge(&failed, Some(&operation(OperationState::Running, None))), Verdict::Pending);
    }

    #[test]
    fn the_operations_error_is_the_reason() {
        let wait = wait(Goal::Ready);
        let failed = operation(OperationState::Failed, Some("hash mismatch"));
        assert_eq!(
            wait.judge(&status(State::Error), Some(&failed)),
            Verdict::Failed("hash mismatch".to_owned())
        );
        let cancelled = operation(OperationState::Cancelled, None);
        assert!(matches!(wait.judge(&status(State::Idle), Some(&cancelled)), Verdict::Failed(_)));
        assert_eq!(self::wait(Goal::Idle).judge(&status(State::Idle), Some(&cancelled)), Verdict::Reached);
    }

    #[test]
    fn somebody_elses_operation_decides_nothing() {
        let mut other = operation(OperationState::Failed, Some("x"));
        other.id = "8".to_owned();
        let mut ready = status(State::Running);
        ready.ready = true;
        assert_eq!(wait(Goal::Ready).judge(&ready, Some(&other)), Verdict::Reached);
    }
}
