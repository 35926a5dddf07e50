//! The published state of a workload: one value that `/status`, `/ready` and
//! later events and metrics all read, so that they cannot disagree.

use zlh_api::{Artifacts, Config, CrashRecord, OperationState, Ready, RestartBudget, State, Status};

use super::maintenance::Maintenance;
use super::operations::Operations;

/// Everything the driver publishes, with a generation that rises at every change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    /// Rises with every publication.
    pub generation: u64,
    /// The deployed word for the state.
    pub state: State,
    /// Pid and start (RFC 3339) of the living process.
    pub process: Option<(i32, String)>,
    /// Whether it accepts users.
    pub ready: bool,
    /// How readiness is known.
    pub ready_source: String,
    /// Why it is not ready, empty when fine.
    pub ready_error: String,
    /// RFC 3339.
    pub last_ready_at: Option<String>,
    /// The step shown to users while installing.
    pub install_step: String,
    /// Crashes on the ladder.
    pub crash_count: u32,
    /// Crashes since the configuration.
    pub crashes_total: u32,
    /// The last unexpected exit.
    pub last_crash: Option<CrashRecord>,
    /// What a person has to look at.
    pub error: Option<String>,
    /// The stored payload, unmasked.
    pub config: Option<Config>,
    /// Nothing is started until it is over.
    pub maintenance: Option<Maintenance>,
    /// Whether it is meant to run.
    pub wanted: bool,
    /// RFC 3339.
    pub next_restart_at: Option<String>,
    /// Automatic restarts left.
    pub restart_budget: Option<RestartBudget>,
    /// The port users join.
    pub port: Option<u16>,
    /// Where the installed files came from.
    pub artifacts: Option<Artifacts>,
    /// Things that work, but not as the operator may think.
    pub warnings: Vec<String>,
    /// The workload's folder, for resource figures.
    pub root: Option<std::path::PathBuf>,
    /// The tree of the runtime that what is configured runs with.
    pub runtime: Option<std::path::PathBuf>,
}

impl Snapshot {
    /// Before anything is known.
    pub(crate) fn initial() -> Self {
        Self {
            generation: 0,
            state: State::Idle,
            process: None,
            ready: false,
            ready_source: String::new(),
            ready_error: String::new(),
            last_ready_at: None,
            install_step: String::new(),
            crash_count: 0,
            crashes_total: 0,
            last_crash: None,
            error: None,
            config: None,
            maintenance: None,
            wanted: false,
            next_restart_at: None,
            restart_budget: None,
            port: None,
            artifacts: None,
            warnings: Vec::new(),
            root: None,
            runtime: None,
        }
    }

    /// `GET /ready`.
    pub(crate) fn to_ready(&self) -> Ready {
        Ready {
            ready: self.ready,
            state: self.state,
            ready_source: self.ready_source.clone(),
            reason: if self.ready { String::new() } else { self.reason() },
        }
    }

    /// `GET /maintenance`.
    pub(crate) fn to_maintenance(&self) -> zlh_api::Maintenance {
        let maintenance = self.maintenance.as_ref();
        zlh_api::Maintenance {
            active: maintenance.is_some(),
            since: maintenance.and_then(|it| it.since.clone()),
            reason: maintenance.and_then(|it| it.reason.clone()),
            starts_afterwards: maintenance.is_some() && self.wanted && self.state != State::Error,
            operation: None,
        }
    }

    /// `GET /status`.
    pub(crate) fn to_status(&self, operations: &Operations) -> Status {
        let crash = self.last_crash.as_ref();
        let operation = operations.running().filter(|o| o.state == OperationState::Running);
        Status {
            state: self.state,
            process_running: self.process.is_some(),
            ready: self.ready,
            ready_source: self.ready_source.clone(),
            ready_error: self.ready_error.clone(),
            last_ready_at: self.last_ready_at.clone(),
            install_step: self.install_step.clone(),
            crash_count: self.crash_count,
            crashes_total: self.crashes_total,
            last_crash_time: crash.map(|c| c.time.clone()),
            last_crash_exit_code: crash.and_then(|c| c.exit_code),
            last_crash_signal: crash.map_or(0, |c| c.signal),
            last_crash_signal_name: crash.and_then(|c| c.signal_name.clone()),
            last_crash_uptime_seconds: crash.map(|c| c.uptime_seconds),
            last_crash_log_tail: crash.map(|c| last_lines(&c.log_tail)).unwrap_or_default(),
            last_crash_classification: crash.map(|c| c.classification.clone()),
            last_crash: crash.cloned(),
            error: self.error.clone(),
            config: self.config.as_ref().map(zlh_api::Config::masked),
            timestamp: u64::try_from(crate::clock::now().as_second()).unwrap_or(0),
            operation_in_progress: operation.is_some(),
            operation_type: operation.as_ref().map(|o| o.kind),
            maintenance: self.maintenance.is_some(),
            maintenance_since: self.maintenance.as_ref().and_then(|it| it.since.clone()),
            maintenance_reason: self.maintenance.as_ref().and_then(|it| it.reason.clone()),
            operation_started_at: operation.as_ref().map(|o| o.started_at.clone()),
            operation_message: operation.as_ref().map(|o| o.phase.clone()),
            next_restart_at: self.next_restart_at.clone(),
            restart_budget: self.restart_budget,
            pid: self.process.as_ref().map(|(pid, _)| *pid),
            started_at: self.process.as_ref().map(|(_, started)| started.clone()),
            port: self.port,
            resources: self
                .process
                .as_ref()
                .and_then(|(pid, _)| crate::observe::resources(*pid, self.root.as_deref())),
            artifacts: self.artifacts.clone(),
            warnings: self.warnings.clone(),
            agent_version: crate::version().to_owned(),
            generation: self.generation,
        }
    }

    /// State and reason on one line.
    pub(crate) fn line(&self) -> String {
        if self.ready {
            format!("{}: ready", self.state)
        } else {
            format!("{}: {}", self.state, self.reason())
        }
    }

    fn reason(&self) -> String {
        if !self.ready_error.is_empty() {
            return self.ready_error.clone();
        }
        if let (State::Idle | State::Crashed, Some(maintenance)) = (self.state, &self.maintenance) {
            return maintenance.words();
        }
        if let Some(error) = &self.error {
            return match (self.state, &self.next_restart_at) {
                (State::Crashed, Some(at)) => format!("{error}; tried again at {at}"),
                _ => error.clone(),
            };
        }
        match self.state {
            State::Idle => "nothing is running".to_owned(),
            State::Installing => format!("installing: {}", self.install_step),
            State::Starting => "the server has not answered yet".to_owned(),
            State::Running => "the server does not answer".to_owned(),
            State::Stopping => "stopping".to_owned(),
            State::Crashed => match &self.next_restart_at {
                Some(at) => format!("crashed, starts again at {at}"),
                None => "crashed".to_owned(),
            },
            State::Error => "error".to_owned(),
        }
    }
}

/// As many lines as deployed callers show.
fn last_lines(tail: &[String]) -> Vec<String> {
    tail[tail.len().saturating_sub(DEPLOYED_TAIL)..].to_vec()
}

const DEPLOYED_TAIL: usize = 40;
