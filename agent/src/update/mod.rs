//! The agent's own updates: looked for, verified like everything else, tried before they take
//! over, and taken back when the new version does not answer.
//!
//! ```text
//! catalog ─► fetch (verified) ─► releases/<v>/ ─► its self-test
//!                                                       │
//!      the old process lets go and stays guardian, the new one starts and answers
//!                  │ it does not, within seconds            │ it does
//!                  ▼                                        ▼
//!      the old one runs again                              current ──► releases/<v>, and the old ends
//! ```
//!
//! Workloads have shims of their own and notice nothing of it.

mod guardian;
mod release;
mod successor;
mod withdrawn;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slog::{Logger, info, warn};
use tokio::sync::mpsc;
use zlh_api::{
    ErrorCode, OperationKind, OperationState, OperationSummary, Problem, UpdateMode, UpdateRequest,
    UpdateState, UpdateStatus,
};
use zlh_catalog::{AgentRelease, LookupError, check_component, compare_versions};
use zlh_shim::durable;

pub(crate) use self::guardian::{announce, is_to_leave, stand_guard, stand_in};
use self::release::{Releases, SelfTestError};
pub(crate) use self::successor::launch;
use crate::config::AgentConfig;
use crate::errors::chain;
use crate::install::{self, InstallError, Source, Step};
use crate::journal::What;
use crate::paths::Paths;
use crate::version;
use crate::workload::{Handle, Outcome, Shelf, Verb};

/// Looks for updates, and makes them.
#[derive(Clone)]
pub(crate) struct Updater(Arc<Inner>);

struct Inner {
    handle: Handle,
    paths: Paths,
    config: Arc<AgentConfig>,
    log: Logger,
    known: Mutex<Known>,
    hand_over: mpsc::Sender<HandOver>,
}

/// What is known without looking.
#[derive(Default)]
struct Known {
    latest: Option<String>,
    checked_at: Option<String>,
    /// Why the last look failed.
    error: Option<String>,
    doing: Option<(UpdateState, OperationSummary)>,
}

/// The last update, `state/update.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub from: String,
    pub to: String,
    /// RFC 3339.
    pub at: String,
    pub outcome: Option<Result<(), String>>,
    /// How often in a row it ended by something that says nothing about that version.
    #[serde(default)]
    pub interrupted: u32,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The new version runs.
    TookOver,
    /// It is no good here.
    Failed(String),
    /// Something came in between that says nothing about the new version.
    Interrupted(String),
}

impl Record {
    fn ended(self, how: Ended) -> Self {
        let at = now();
        match how {
            Ended::TookOver => Self { outcome: Some(Ok(())), at, ..self },
            Ended::Failed(why) => Self { outcome: Some(Err(why)), at, interrupted: 0, ..self },
            Ended::Interrupted(why) => {
                let interrupted = self.interrupted.saturating_add(1);
                Self { outcome: Some(Err(why)), at, interrupted, ..self }
            }
        }
    }

    /// Whether an agent tries it again by itself. What failed once is for a person; what was only
    /// interrupted is not, unless that happens every time.
    fn is_tried_again(&self) -> bool {
        match self.outcome {
            Some(Err(_)) => (1..INTERRUPTIONS).contains(&self.interrupted),
            Some(Ok(())) | None => true,
        }
    }
}

/// The running process is to let go, and the new version to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandOver {
    pub record: Record,
    /// Where `current` led before; none if there was no such link.
    pub before: Option<PathBuf>,
}

/// Why there was no update. Nothing was changed.
#[derive(Debug, thiserror::Error)]
enum UpdateError {
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("the catalog offers no agent in the channel {0}: publish one, or name a version")]
    NothingOffered(String),
    #[error("{0} is older than {running}, which runs: send \"force\": true to go back to it", running = version())]
    Older(String),
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    #[error("cannot {step}")]
    Io {
        step: String,
        #[source]
        source: std::io::Error,
    },
}

const SCHEMA: u32 = 1;

/// Interruptions in a row after which a version is no longer tried without being asked.
const INTERRUPTIONS: u32 = 3;

/// For whoever holds the workload to let go.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Before the first look: nothing at a start is more urgent than the workload.
const FIRST_LOOK: Duration = Duration::from_secs(15);

impl Updater {
    /// And where it is heard that the process is to let go.
    pub(crate) fn new(
        handle: Handle,
        paths: Paths,
        config: Arc<AgentConfig>,
        log: &Logger,
    ) -> (Self, mpsc::Receiver<HandOver>) {
        let (hand_over, heard) = mpsc::channel(1);
        let log = crate::log::component(log, "update");
        let known = Mutex::default();
        (Self(Arc::new(Inner { handle, paths, config, log, known, hand_over })), heard)
    }

    /// `GET /agent/update/status`.
    pub(crate) fn status(&self) -> UpdateStatus {
        let record = self.0.last();
        let known = self.0.known();
        let outcome = record.as_ref().and_then(|record| record.outcome.clone());
        let failed = record.as_ref().zip(outcome.as_ref()).and_then(|(record, outcome)| {
            let why = outcome.as_ref().err()?;
            let how = if record.interrupted > 0 { "was interrupted" } else { "failed" };
            Some(format!("the update to {} {how}: {why}; {} runs", record.to, record.from))
        });
        UpdateStatus {
            current: version().to_owned(),
            update_available: known.latest.as_ref().is_some_and(|latest| is_newer(latest)),
            latest: known.latest.clone(),
            update_status: match (&known.doing, &outcome) {
                (Some((state, _)), _) => *state,
                (None, Some(Ok(()))) => UpdateState::Succeeded,
                (None, Some(Err(_))) => UpdateState::Failed,
                // Started by a guardian a moment ago, and not through with it.
                (None, None) if record.is_some() => UpdateState::Switching,
                (None, None) => UpdateState::Idle,
            },
            mode: self.0.config.update.mode,
            channel: self.0.config.artifacts.channel.clone(),
            checked_at: known.checked_at.clone(),
            updated_at: record
                .as_ref()
                .filter(|record| record.outcome.is_some())
                .map(|record| record.at.clone()),
            previous: record.filter(|record| record.outcome == Some(Ok(()))).map(|record| record.from),
            error: known.error.clone().or(failed),
        }
    }

    /// `POST /agent/update`.
    pub(crate) fn update(&self, request: UpdateRequest) -> Result<Outcome, Problem> {
        if let Some(version) = &request.version {
            check_component("version", version)
                .map_err(|error| Problem::new(ErrorCode::InvalidRequest, error.to_string()))?;
            if !request.force && !is_newer(version) {
                let what = if *version == *crate::version() {
                    "runs already"
                } else {
                    "is older than the one that runs"
                };
                let detail =
                    format!("{version} {what} ({}): send \"force\": true to install it", crate::version());
                return Err(Problem::new(ErrorCode::WrongState, detail));
            }
        }
        let operation = {
            let mut known = self.0.known();
            if let Some((_, operation)) = &known.doing {
                let detail = "an update is under way; GET /agent/update/status says how far it is";
                return Err(
                    Problem::new(ErrorCode::OperationInProgress, detail).with_operation(operation.clone())
                );
            }
            let operation = self.0.handle.told().begin(OperationKind::Update, "reading the catalog");
            known.doing = Some((UpdateState::Checking, operation.clone()));
            operation
        };
        let (id, kind) = (operation.id.clone(), operation.kind);
        self.0.handle.journal().record(What::OperationBegan { id, kind });
        let state = self.0.handle.changes().borrow().state;
        let (inner, begun) = (Arc::clone(&self.0), operation.clone());
        tokio::spawn(async move { inner.run(&begun, &request).await });
        Ok(Outcome { state, operation: Some(operation) })
    }

    /// Looks from time to time, as the mode says.
    pub(crate) async fn watch(self) {
        let update = self.0.config.update;
        if update.mode == UpdateMode::Off || self.0.config.artifacts_url.is_none() {
            return;
        }
        let mut pause = FIRST_LOOK;
        loop {
            tokio::time::sleep(pause + jitter(update.interval / 10)).await;
            pause = update.interval;
            let latest = self.0.look().await;
            let tried =
                |latest: &str| self.0.last().is_none_or(|last| last.to != latest || last.is_tried_again());
            match latest {
                Some(latest) if is_newer(&latest) && update.mode == UpdateMode::Auto && tried(&latest) => {
                    let request = UpdateRequest { version: Some(latest), force: false };
                    if let Err(problem) = self.update(request) {
                        warn!(self.0.log, "no update by itself"; "why" => &problem.detail);
                    }
                }
                Some(latest) if is_newer(&latest) => {
                    info!(self.0.log, "a newer agent is offered: POST /agent/update"; "latest" => latest);
                }
                _ => {}
            }
        }
    }
}

impl Inner {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> Option<Record> {
        last(&self.paths)
    }

    /// The newest that is offered, and what else there is to know of it.
    async fn look(&self) -> Option<String> {
        let source = self.source(|_| ()).await;
        let audience = self.audience();
        let found = source
            .map(|source| source.catalog.newest_agent(&audience).map(|release| release.version.clone()))
            .map_err(|error| chain(&error));
        let mut known = self.known();
        known.checked_at = Some(crate::clock::now_rfc3339());
        match found {
            Ok(latest) => {
                (known.latest, known.error) = (latest.clone(), None);
                latest
            }
            Err(error) => {
                known.error = Some(error);
                None
            }
        }
    }

    /// The catalog; what it says of what is installed is passed on.
    async fn source(&self, report: impl Fn(Step)) -> Result<Source, InstallError> {
        let source = Source::open(&self.config, &self.paths, &self.log, &report).await?;
        let shelf = Shelf::new(&self.paths);
        // Without the record nothing is known to be installed.
        let installed = blocking(move || Ok(shelf.installed().0)).await.ok().flatten();
        let found = installed.map(|installed| withdrawn::of(&source.catalog, &installed)).unwrap_or_default();
        for one in &found {
            warn!(self.log, "{}", one.warning);
        }
        self.handle.tell_withdrawn(found);
        Ok(source)
    }

    fn audience(&self) -> zlh_catalog::Audience {
        let vmid = self.handle.changes().borrow().config.as_ref().and_then(|config| config.vmid);
        self.config.audience(vmid)
    }

    async fn run(&self, operation: &OperationSummary, request: &UpdateRequest) {
        let prepared = async {
            let hand_over = self.prepare(operation, request).await?;
            self.alone(operation).await;
            // Written as late as this: who is restarted while he waits has not begun.
            let written = durable::write_record(&self.paths.state().join(RECORD), SCHEMA, &hand_over.record);
            written.map(|()| hand_over).map_err(|source| {
                self.handle.let_go();
                UpdateError::Io { step: "write down the update".to_owned(), source }
            })
        };
        match prepared.await {
            Ok(hand_over) => {
                info!(self.log, "handing over"; "to" => &hand_over.record.to);
                self.say(operation, UpdateState::Switching, &format!("{} takes over", hand_over.record.to));
                // Whoever polls the operation meets another process from here on.
                drop(self.hand_over.send(hand_over).await);
            }
            Err(error) => {
                let error = chain(&error);
                warn!(self.log, "no update"; "error" => &error);
                {
                    let mut known = self.known();
                    known.doing = None;
                    known.error = Some(error.clone());
                }
                let (id, kind) = (operation.id.clone(), operation.kind);
                let state = OperationState::Failed;
                self.handle.journal().record(What::OperationEnded {
                    id,
                    kind,
                    state,
                    error: Some(error.clone()),
                });
                self.handle.told().finish(&operation.id, state, Some(error));
            }
        }
    }

    /// Waits until nobody changes what is installed: a thread of this process that does might
    /// still be at it when the new one begins.
    async fn alone(&self, operation: &OperationSummary) {
        let idle = Verb::Reread { at_rest: false };
        loop {
            if self.handle.request(idle.clone()).await.is_ok() && self.handle.try_hold(operation) {
                if self.handle.request_held(idle.clone()).await.is_ok() {
                    return;
                }
                self.handle.let_go();
            }
            self.handle.told().phase(&operation.id, "waiting for another operation to end");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn say(&self, operation: &OperationSummary, state: UpdateState, phase: &str) {
        if let Some((doing, _)) = &mut self.known().doing {
            *doing = state;
        }
        self.handle.told().phase(&operation.id, phase);
    }

    /// Everything that can fail without anybody noticing.
    async fn prepare(
        &self,
        operation: &OperationSummary,
        request: &UpdateRequest,
    ) -> Result<HandOver, UpdateError> {
        let told = self.handle.told();
        let report = {
            let id = operation.id.clone();
            move |step: Step| {
                told.phase(&id, &step.text);
                if let Some((done, total)) = step.bytes {
                    told.progress(&id, done, Some(total), "bytes");
                }
            }
        };
        let source = self.source(report.clone()).await?;
        let release = self.choose(&source, request)?;
        install::check_release("agent", &release.version, &release.release)?;
        self.say(operation, UpdateState::Preparing, &format!("fetching {}", release.version));
        let binary = source.fetch(&release.binary, &report).await?;
        let releases = Releases::new(&self.paths);
        let (to, sha256) = (release.version.clone(), release.binary.sha256);
        let io = |step: &str| {
            let step = step.to_owned();
            move |source| UpdateError::Io { step, source }
        };
        let placed = {
            let (releases, to) = (releases.clone(), to.clone());
            blocking(move || releases.place(&to, &binary, sha256))
                .await
                .map_err(io("place the new release"))?
        };
        self.say(operation, UpdateState::Preparing, &format!("trying {to}"));
        release::self_test(&placed, &to).await?;
        let before = blocking(move || {
            // What runs has to be there to go back to.
            releases.keep_running(version())?;
            Ok(releases.current())
        });
        let before = before.await.map_err(io("keep the release that runs"))?;
        let last = self.last().filter(|last| last.to == to && last.outcome != Some(Ok(())));
        let interrupted = last.map_or(0, |last| last.interrupted);
        let from = version().to_owned();
        let record = Record { from, to: to.clone(), at: now(), outcome: None, interrupted };
        Ok(HandOver { record, before })
    }

    fn choose<'c>(
        &self,
        source: &'c Source,
        request: &UpdateRequest,
    ) -> Result<&'c AgentRelease, UpdateError> {
        let catalog = &source.catalog;
        let release = match &request.version {
            Some(version) => catalog.agent_release(version)?,
            None => {
                let audience = self.audience();
                let newest = catalog.newest_agent(&audience);
                newest.ok_or_else(|| UpdateError::NothingOffered(audience.channel.clone()))?
            }
        };
        {
            let mut known = self.known();
            known.checked_at = Some(crate::clock::now_rfc3339());
            known.error = None;
            if request.version.is_none() {
                known.latest = Some(release.version.clone());
            }
        }
        if !request.force && !is_newer(&release.version) {
            return Err(UpdateError::Older(release.version.clone()));
        }
        Ok(release)
    }
}

/// The last update, whatever became of it.
pub(crate) fn last(paths: &Paths) -> Option<Record> {
    durable::read_record(&paths.state().join(RECORD), SCHEMA).ok()
}

/// Writes down what became of it.
pub(crate) fn conclude(paths: &Paths, record: &Record, how: Ended) -> std::io::Result<()> {
    durable::write_record(&paths.state().join(RECORD), SCHEMA, &record.clone().ended(how))
}

fn is_newer(other: &str) -> bool {
    compare_versions(other, version()).is_gt()
}

fn now() -> String {
    crate::clock::now_rfc3339()
}

/// Up to `most`.
fn jitter(most: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish() % 1000;
    most.mul_f64(f64::from(u16::try_from(random).unwrap_or(0)) / 1000.0)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

const RECORD: &str = "update.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_for_a_person_and_what_was_interrupted_is_tried_again_but_not_for_ever() {
        let begun = Record {
            from: "1.0.0".to_owned(),
            to: "1.1.0".to_owned(),
            at: String::new(),
            outcome: None,
            interrupted: 0,
        };
        let why = || "why".to_owned();
        let interrupted = |record: Record| record.ended(Ended::Interrupted(why()));
        assert!(!begun.clone().ended(Ended::Failed(why())).is_tried_again());
        assert!(begun.clone().ended(Ended::TookOver).is_tried_again());
        let once = interrupted(begun);
        let twice = interrupted(once.clone());
        let thrice = interrupted(twice.clone());
        assert_eq!([&once, &twice, &thrice].map(Record::is_tried_again), [true, true, false]);
        // A failure is one, whatever came before it.
        assert!(!twice.ended(Ended::Failed(why())).is_tried_again());
        // An agent of before counted nothing.
        let old = r#"{"from":"1","to":"2","at":"","outcome":{"Err":"why"}}"#;
        assert!(!serde_json::from_str::<Record>(old).unwrap().is_tried_again());
    }
}
