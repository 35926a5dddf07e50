//! The workload state machine: pure, without I/O and without a clock of its own.
//!
//! ```text
//!            configure                 installed              spawned             answers
//!   Idle ───────────────► Installing ───────────► Spawning ───────────► Starting ─────────► Running
//!    ▲  ◄── stop ───────────┘ │ failed              │ failed              │ too late          │
//!    │                        ▼                     ▼                     ▼                   │
//!    │                      Error ◄────────────── Error             Error (alive) ─answers─►──┤
//!    │                                                                                        │
//!    │ ended        stop / restart (from Spawning, Starting, Running, Error alive)            │
//!    └─ Stopping ◄────────────────────────────────────────────────────────────────────────────┤
//!         └─ restart: ended ─► Spawning                                                       │
//!                                                       exit nobody asked for                 │
//!   Error ◄─ budget spent ─ Crashed ◄─────────────────────────────────────────────────────────┘
//!         ◄─ certain again ────┤   ▲
//!                              │   └── failed, of a start that nobody asked for
//!                              └─ backoff over ─► Spawning
//! ```
//!
//! [`Machine::command`] answers accepted, already so, or refused. [`Machine::observe`]
//! takes what was *seen*; a state never changes because something was intended. Both
//! return the effects for the driver to perform, in order. An observation that does not
//! fit the state (it was under way while the state changed) has no effect.
//!
//! While it is held (maintenance), no arrow leads to `Spawning`: a start is refused, and what
//! would have ended in one ends in `Idle`; what has crashed stays so until it is over.

use std::time::Duration;

use zlh_api::State;

use super::policy::{Decision, Limits, Policy};

/// Why a restart ends with its stop.
pub(crate) const HELD: &str = "maintenance has begun meanwhile: it is started when that is over";

/// What callers ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Install something and start it. `same`: it is what is configured already.
    Configure { same: bool },
    /// Start what is configured.
    Start,
    /// Stop whatever is going on.
    Stop,
    /// Stop, then start.
    Restart,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Observation {
    /// Everything is in place.
    Installed,
    /// The installation failed.
    InstallFailed(String),
    /// The installation has let go after a cancel.
    InstallCancelled,
    /// The main process exists (started, or found alive by a new agent).
    Spawned,
    /// It could not be started; nothing runs.
    SpawnFailed(String),
    /// It accepts users.
    Answers,
    /// It does not accept users (any more).
    Silent(String),
    /// The readiness timeout is over.
    ReadinessTimedOut(String),
    /// The main process has ended.
    Exited(Ended),
    /// The pause before an automatic restart is over.
    BackoffOver,
    /// The last crash was explained, or its explanation amended.
    Explained(Explained),
}

/// What an explanation means for restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explained {
    /// Id of the crash.
    pub crash: String,
    /// Its fingerprint, if a restart can only repeat it.
    pub useless: Option<String>,
    /// What a person has to know, if nothing is tried any more.
    pub reason: String,
}

/// How the main process ended, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Somebody asked for it: an operator, a container shutdown, or a player in the game.
    pub intended: bool,
    /// It never ran at all; restarting changes nothing.
    pub never_ran: Option<String>,
    /// How long it lived.
    pub uptime: Duration,
    /// How long it was ready.
    pub ready_for: Duration,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Begin an installation.
    Install,
    /// Make the installation let go.
    CancelInstall,
    /// Start the workload.
    Spawn,
    /// Begin the stop ladder.
    Stop,
    /// Begin to ask whether it accepts users.
    Probe,
    /// Count the time a start may take.
    ArmReadiness,
    /// Stop counting it.
    DisarmReadiness,
    /// Count the pause before a restart.
    ArmBackoff(Duration),
    /// Stop counting it.
    DisarmBackoff,
    /// What runs now was asked for and has ended as asked.
    Succeeded,
    /// What runs now was asked for and has failed.
    Failed(String),
    /// What runs now gives way to a stop.
    Cancelled,
}

/// An accepted command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// These effects carry it out.
    Accepted(Vec<Effect>),
    /// Nothing to do.
    AlreadySo,
}

/// A refused command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing is configured.
    NotConfigured,
    /// Another operation is running.
    Busy,
    /// The workload runs.
    Running,
    /// It is held: nothing is started.
    Held,
}

/// Where the workload is. Each variant holds what exists only there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing runs and nothing is meant to.
    Idle,
    /// An installation runs. `cancelled`: it was told to let go.
    Installing { cancelled: bool },
    /// A start was begun, no process was seen yet.
    Spawning,
    /// The process runs and has not answered yet.
    Starting,
    /// It has answered. `silent` says why it does not any more.
    Running { silent: Option<String> },
    /// The stop ladder runs.
    Stopping { restart: bool },
    /// A restart is planned. `failed`: it was tried by itself and could not be started.
    Crashed { failed: Option<String> },
    /// A person has to look. `alive`: the process still runs.
    Error { reason: String, alive: bool },
}

/// The machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    phase: Phase,
    policy: Policy,
    limits: Limits,
    configured: bool,
    installed: bool,
    held: bool,
    /// The start under way is nobody's request: if it fails, it is tried again.
    automatic: bool,
}

impl Machine {
    /// At boot: what is configured and installed, the counters of before and their limits.
    pub(crate) fn new(configured: bool, installed: bool, policy: Policy, limits: Limits) -> Self {
        Self { phase: Phase::Idle, policy, limits, configured, installed, held: false, automatic: false }
    }

    /// Whether nothing is started from now on. What runs is not touched by it.
    pub(crate) fn set_held(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether everything is in place, as looked at just now.
    pub(crate) fn set_installed(&mut self, installed: bool) {
        self.installed = installed;
    }

    /// Where it is.
    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The counters.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What they are held to.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The deployed word.
    pub(crate) fn state(&self) -> State {
        match &self.phase {
            Phase::Idle => State::Idle,
            Phase::Installing { .. } => State::Installing,
            Phase::Spawning | Phase::Starting => State::Starting,
            Phase::Running { .. } => State::Running,
            Phase::Stopping { .. } => State::Stopping,
            Phase::Crashed { .. } => State::Crashed,
            Phase::Error { .. } => State::Error,
        }
    }

    /// Whether users are accepted.
    pub(crate) fn ready(&self) -> bool {
        matches!(self.phase, Phase::Running { silent: None })
    }

    /// Admits a command, or refuses it.
    pub(crate) fn command(&mut self, command: Command) -> Result<Admission, Refusal> {
        match command {
            // What is configured already is done already, unless it has failed: then the
            // caller who sends it again wants it tried again.
            Command::Configure { same: true } if self.configured => match self.phase {
                Phase::Error { alive: false, .. } | Phase::Crashed { failed: Some(_) } => self.start(),
                Phase::Idle if !self.installed => self.start(),
                _ => Ok(Admission::AlreadySo),
            },
            Command::Configure { .. } => self.configure(),
            Command::Start => self.start(),
            Command::Stop => Ok(self.stop()),
            Command::Restart => self.restart(),
        }
    }

    fn configure(&mut self) -> Result<Admission, Refusal> {
        if self.held {
            return Err(Refusal::Held);
        }
        let mut effects = match &self.phase {
            Phase::Idle | Phase::Error { alive: false, .. } => vec![],
            Phase::Crashed { .. } => vec![Effect::DisarmBackoff],
            Phase::Running { .. } | Phase::Error { alive: true, .. } => return Err(Refusal::Running),
            Phase::Installing { .. } | Phase::Spawning | Phase::Starting | Phase::Stopping { .. } => {
                return Err(Refusal::Busy);
            }
        };
        self.configured = true;
        self.installed = false;
        self.automatic = false;
        self.policy = Policy::default();
        self.phase = Phase::Installing { cancelled: false };
        effects.push(Effect::Install);
        Ok(Admission::Accepted(effects))
    }

    fn start(&mut self) -> Result<Admission, Refusal> {
        if !self.configured {
            return Err(Refusal::NotConfigured);
        }
        let mut effects = match &self.phase {
            Phase::Idle | Phase::Crashed { .. } | Phase::Error { alive: false, .. } if self.held => {
                return Err(Refusal::Held);
            }
            Phase::Idle | Phase::Error { alive: false, .. } => vec![],
            Phase::Crashed { .. } => vec![Effect::DisarmBackoff],
            Phase::Error { alive: true, .. } => {
                // It runs already: give it its time once more.
                self.phase = Phase::Starting;
                self.policy.forgive();
                return Ok(Admission::Accepted(vec![Effect::ArmReadiness, Effect::Probe]));
            }
            Phase::Installing { cancelled: false }
            | Phase::Spawning
            | Phase::Starting
            | Phase::Running { .. } => {
                return Ok(Admission::AlreadySo);
            }
            Phase::Installing { cancelled: true } | Phase::Stopping { .. } => return Err(Refusal::Busy),
        };
        self.policy.forgive();
        self.automatic = false;
        effects.push(self.launch());
        Ok(Admission::Accepted(effects))
    }

    fn stop(&mut self) -> Admission {
        match &mut self.phase {
            Phase::Idle | Phase::Stopping { restart: false } | Phase::Installing { cancelled: true } => {
                Admission::AlreadySo
            }
            Phase::Stopping { restart } => {
                // The stop is under way already; only what comes after it changes.
                *restart = false;
                Admission::Accepted(vec![Effect::Cancelled])
            }
            Phase::Installing { cancelled } => {
                *cancelled = true;
                Admission::Accepted(vec![Effect::Cancelled, Effect::CancelInstall])
            }
            Phase::Crashed { .. } => {
                self.phase = Phase::Idle;
                self.policy.forgive();
                Admission::Accepted(vec![Effect::DisarmBackoff, Effect::Succeeded])
            }
            Phase::Error { alive: false, .. } => {
                self.phase = Phase::Idle;
                self.policy.forgive();
                Admission::Accepted(vec![Effect::Succeeded])
            }
            Phase::Spawning | Phase::Starting | Phase::Running { .. } | Phase::Error { alive: true, .. } => {
                self.phase = Phase::Stopping { restart: false };
                Admission::Accepted(vec![Effect::Cancelled, Effect::DisarmReadiness, Effect::Stop])
            }
        }
    }

    fn restart(&mut self) -> Result<Admission, Refusal> {
        match &self.phase {
            _ if !self.configured => Err(Refusal::NotConfigured),
            _ if self.held => Err(Refusal::Held),
            Phase::Idle | Phase::Crashed { .. } | Phase::Error { alive: false, .. } => self.start(),
            Phase::Running { .. } | Phase::Error { alive: true, .. } => {
                self.phase = Phase::Stopping { restart: true };
                Ok(Admission::Accepted(vec![Effect::DisarmReadiness, Effect::Stop]))
            }
            Phase::Installing { .. } | Phase::Spawning | Phase::Starting | Phase::Stopping { .. } => {
                Err(Refusal::Busy)
            }
        }
    }

    /// The stop under way becomes the first half of a restart.
    pub(crate) fn restart_after_stop(&mut self) -> Option<Admission> {
        let Phase::Stopping { restart: restart @ false } = &mut self.phase else { return None };
        *restart = true;
        Some(Admission::Accepted(vec![Effect::Cancelled]))
    }

    /// Takes what was seen and answers what to do about it.
    pub(crate) fn observe(&mut self, seen: Observation) -> Vec<Effect> {
        match seen {
            Observation::Installed => match self.phase {
                Phase::Installing { cancelled: false } if !self.held => {
                    self.installed = true;
                    vec![Effect::Succeeded, self.launch()]
                }
                Phase::Installing { .. } => {
                    // It was done before it heard of the cancel: what is there is good.
                    self.installed = true;
                    self.phase = Phase::Idle;
                    vec![Effect::Succeeded]
                }
                _ => vec![],
            },
            Observation::InstallFailed(reason) => match self.phase {
                Phase::Installing { cancelled: true } => self.rest(),
                Phase::Installing { cancelled: false } => self.not_started(reason),
                _ => vec![],
            },
            Observation::InstallCancelled => match self.phase {
                Phase::Installing { .. } => self.rest(),
                _ => vec![],
            },
            Observation::Spawned => match self.phase {
                Phase::Spawning => {
                    self.phase = Phase::Starting;
                    vec![Effect::ArmReadiness, Effect::Probe]
                }
                // Seen before the stop reached it: the ladder needs to hear of it.
                Phase::Stopping { .. } => vec![Effect::Stop],
                _ => vec![],
            },
            Observation::SpawnFailed(reason) => match self.phase {
                Phase::Spawning => self.not_started(reason),
                Phase::Stopping { .. } => self.stopped(),
                _ => vec![],
            },
            Observation::Answers => match &self.phase {
                Phase::Starting | Phase::Error { alive: true, .. } => {
                    self.phase = Phase::Running { silent: None };
                    vec![Effect::DisarmReadiness, Effect::Succeeded]
                }
                Phase::Running { .. } => {
                    self.phase = Phase::Running { silent: None };
                    vec![]
                }
                _ => vec![],
            },
            Observation::Silent(why) => {
                if let Phase::Running { silent } = &mut self.phase {
                    *silent = Some(why);
                }
                vec![]
            }
            Observation::ReadinessTimedOut(reason) => match self.phase {
                Phase::Starting => {
                    // Not a crash, and not ours to kill: it may still make it.
                    self.phase = Phase::Error { reason: reason.clone(), alive: true };
                    vec![Effect::Failed(reason)]
                }
                _ => vec![],
            },
            Observation::Exited(ended) => self.exited(&ended),
            Observation::BackoffOver => match self.phase {
                Phase::Crashed { .. } if !self.held => {
                    self.automatic = true;
                    vec![self.launch()]
                }
                _ => vec![],
            },
            Observation::Explained(explained) => {
                let again = self.policy.explained(&explained.crash, explained.useless.as_deref());
                if !again || !matches!(self.phase, Phase::Crashed { .. }) {
                    return vec![];
                }
                self.phase = Phase::Error { reason: explained.reason.clone(), alive: false };
                vec![Effect::DisarmBackoff, Effect::Failed(explained.reason)]
            }
        }
    }

    fn exited(&mut self, ended: &Ended) -> Vec<Effect> {
        match &self.phase {
            Phase::Stopping { .. } => self.stopped(),
            Phase::Spawning | Phase::Starting | Phase::Running { .. } | Phase::Error { alive: true, .. } => {
                let mut effects = vec![Effect::DisarmReadiness];
                if let Some(reason) = &ended.never_ran {
                    self.phase = Phase::Error { reason: reason.clone(), alive: false };
                    effects.push(Effect::Failed(reason.clone()));
                    return effects;
                }
                if ended.intended {
                    self.phase = Phase::Idle;
                    effects.push(Effect::Failed("it was stopped from inside".to_owned()));
                    return effects;
                }
                match self.policy.crashed(ended.uptime, ended.ready_for, self.limits) {
                    Decision::RestartAfter(pause) => {
                        self.phase = Phase::Crashed { failed: None };
                        effects.push(Effect::Failed("it crashed".to_owned()));
                        effects.push(Effect::ArmBackoff(pause));
                    }
                    Decision::GiveUp(reason) => {
                        self.phase = Phase::Error { reason: reason.clone(), alive: false };
                        effects.push(Effect::Failed(reason));
                    }
                }
                effects
            }
            Phase::Idle
            | Phase::Installing { .. }
            | Phase::Crashed { .. }
            | Phase::Error { alive: false, .. } => {
                vec![]
            }
        }
    }

    /// Whoever asked for it is told, and decides. What was tried by itself is tried again: a port
    /// or a disk may be free by then, and nobody may be there to ask.
    fn not_started(&mut self, reason: String) -> Vec<Effect> {
        let decision = match self.automatic {
            true => self.policy.not_started(&reason, self.limits),
            false => Decision::GiveUp(reason.clone()),
        };
        match decision {
            Decision::RestartAfter(pause) => {
                self.phase = Phase::Crashed { failed: Some(reason.clone()) };
                vec![Effect::ArmBackoff(pause), Effect::Failed(reason)]
            }
            Decision::GiveUp(reason) => {
                self.phase = Phase::Error { reason: reason.clone(), alive: false };
                vec![Effect::Failed(reason)]
            }
        }
    }

    /// The stop ladder has reached its end.
    fn stopped(&mut self) -> Vec<Effect> {
        if matches!(self.phase, Phase::Stopping { restart: true }) {
            self.policy.forgive();
            self.automatic = false;
            if self.held {
                self.phase = Phase::Idle;
                return vec![Effect::Failed(HELD.to_owned())];
            }
            return vec![self.launch()];
        }
        self.rest()
    }

    fn rest(&mut self) -> Vec<Effect> {
        self.phase = Phase::Idle;
        self.policy.forgive();
        vec![Effect::Succeeded]
    }

    /// What a start begins with.
    fn launch(&mut self) -> Effect {
        if self.installed {
            self.phase = Phase::Spawning;
            Effect::Spawn
        } else {
            self.phase = Phase::Installing { cancelled: false };
            Effect::Install
        }
    }

    /// At boot: a process of an earlier agent is alive.
    pub(crate) fn adopt(&mut self) -> Vec<Effect> {
        self.phase = Phase::Starting;
        vec![Effect::ArmReadiness, Effect::Probe]
    }

    /// At boot: nothing runs, and it is meant to.
    pub(crate) fn start_by_itself(&mut self) -> Result<Admission, Refusal> {
        let admission = self.start();
        self.automatic = true;
        admission
    }

    /// At boot: a stop that an earlier agent had begun is still under way.
    pub(crate) fn adopt_stopping(&mut self, restart: bool) {
        self.phase = Phase::Stopping { restart };
    }

    /// At boot: a restart was planned; this much of the pause is left.
    pub(crate) fn adopt_backoff(&mut self, left: Duration, failed: Option<String>) -> Vec<Effect> {
        self.phase = Phase::Crashed { failed };
        vec![Effect::ArmBackoff(left)]
    }

    /// At boot: an earlier agent had given up, or what is stored cannot be used. `alive`: a
    /// process runs all the same, and can be stopped.
    pub(crate) fn adopt_error(&mut self, reason: String, alive: bool) {
        self.phase = Phase::Error { reason, alive };
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod simulation;
