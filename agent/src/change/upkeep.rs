//! Proving what is installed of a game server, putting it right, and taking away what is not
//! needed any more. One at a time, and never during a change of version.
//!
//! A repair has everything that it needs, verified, before it takes anything damaged away. Killed
//! in the middle of it or of a removal, the next start installs what is not there. Worlds are not
//! touched; a copy of one goes only when it is named.

use std::collections::BTreeSet;
use std::sync::Arc;

use slog::info;
use tokio::sync::oneshot;
use zlh_api::{ErrorCode, OperationKind, OperationSummary, Problem};
use zlh_artifacts::{InstalledTree, Store};

use super::copies::{Copies, Copy};
use super::{Changer, Failed, Inner};
use crate::errors::chain;
use crate::game::payload::GameRequest;
use crate::game::plan::Installed;
use crate::install::server::{self, Findings};
use crate::install::{Damaged, InstallError, Job as Installation, Step, collected, installed, named_few};
use crate::workload::{Outcome, Verb};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Compare with what was installed.
    Verify,
    /// Compare, and install again what is not the same.
    Repair,
    /// Take a version away. `force`: also the configured one, and one that a rollback goes to.
    Remove { version: String, force: bool },
    /// Take a copy of a world away. `force`: also the one that a rollback goes to.
    RemoveCopy { id: String, force: bool },
    /// Take away every unpacked server that nobody uses.
    Collect,
}

/// A chore that was admitted, with what it needs.
enum Job {
    Verify(GameRequest, Installed),
    Repair(GameRequest, Installed),
    RemoveConfigured(GameRequest, Installed),
    RemoveTrees(Vec<InstalledTree>),
    RemoveCopy(Copies, Copy),
    Collect,
}

impl Job {
    fn kind(&self) -> OperationKind {
        match self {
            Self::Verify(..) => OperationKind::Verify,
            Self::Repair(..) => OperationKind::Repair,
            Self::RemoveConfigured(..) | Self::RemoveTrees(_) | Self::RemoveCopy(..) | Self::Collect => {
                OperationKind::Remove
            }
        }
    }

    /// Its first words.
    fn phase(&self) -> String {
        match self {
            Self::Verify(request, _) => format!("reading {}", request.label()),
            Self::Repair(request, _) => format!("repairing {}", request.label()),
            Self::RemoveConfigured(request, _) => format!("removing {}", request.label()),
            Self::RemoveTrees(trees) => format!("removing {}", labels(trees)),
            Self::RemoveCopy(_, copy) => format!("removing the copy {}", copy.id),
            Self::Collect => "removing what nobody uses".to_owned(),
        }
    }

    /// Whether nothing may run meanwhile.
    fn at_rest(&self) -> bool {
        matches!(self, Self::Repair(..) | Self::RemoveConfigured(..))
    }
}

impl Changer {
    /// Begins a chore, or says why not.
    pub(crate) async fn tend(&self, chore: Chore) -> Result<Outcome, Problem> {
        self.0.handle.check_free()?;
        let job = self.0.admitted(&chore).await?;
        self.0.handle.request(Verb::Reread { at_rest: job.at_rest() }).await?;
        let operation = self.0.handle.take_hold(job.kind(), &job.phase())?;
        // From here on it is let go by whoever holds it, also when nobody waits for us any more.
        let (told, admitted) = oneshot::channel();
        let (inner, summary) = (Arc::clone(&self.0), operation.clone());
        tokio::spawn(async move { inner.see_through(&summary, chore, told).await });
        let gone = |_| Problem::new(ErrorCode::Internal, "the agent is shutting down");
        admitted.await.map_err(gone)??;
        let state = self.0.handle.changes().borrow().state;
        Ok(Outcome { state, operation: Some(operation) })
    }
}

impl Inner {
    /// Whoever has the hold does it, and lets go.
    async fn see_through(
        self: &Arc<Self>,
        operation: &OperationSummary,
        chore: Chore,
        told: oneshot::Sender<Result<(), Problem>>,
    ) {
        // Somebody may have been quicker, and everything different since it was looked at.
        let job = async {
            let job = self.admitted(&chore).await?;
            self.handle.request_held(Verb::Reread { at_rest: job.at_rest() }).await?;
            Ok(job)
        };
        let job = match job.await {
            Ok(job) => job,
            Err(problem) => {
                let problem: Problem = problem;
                self.finish(operation, Err(Failed::Stopped(problem.detail.clone())));
                // Whoever asked may have gone.
                let _ = told.send(Err(problem));
                return;
            }
        };
        info!(self.log, "{}", job.phase(); "operation" => &operation.id);
        let _ = told.send(Ok(()));
        let changes = job.at_rest();
        let mut result = self.do_chore(operation, job).await;
        // Whatever became of it: the driver goes by what is installed now.
        if changes && let Err(problem) = self.handle.request_held(Verb::Reread { at_rest: true }).await {
            result = result.and(Err(Failed::Error(problem.detail)));
        }
        self.finish(operation, result);
    }

    async fn admitted(self: &Arc<Self>, chore: &Chore) -> Result<Job, Problem> {
        let (inner, chore) = (Arc::clone(self), chore.clone());
        let admitted = tokio::task::spawn_blocking(move || inner.admit(chore));
        admitted.await.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?
    }

    fn admit(&self, chore: Chore) -> Result<Job, Problem> {
        match chore {
            Chore::Verify => self.configured().map(|(_, request, installed)| Job::Verify(request, installed)),
            Chore::Repair => self.configured().map(|(_, request, installed)| Job::Repair(request, installed)),
            Chore::Remove { version, force } => self.admit_removal(&version, force),
            Chore::RemoveCopy { id, force } => {
                let (_, request) = self.request()?;
                let copies = self.copies(&request);
                let all = copies.all();
                let copy = all.iter().find(|copy| copy.id == id).ok_or_else(|| {
                    let detail = format!("there is no copy `{id}`; GET /game/version lists what there is");
                    Problem::new(ErrorCode::NotFound, detail)
                })?;
                let next = all.iter().find(|other| other.world == copy.world && !other.failed);
                if next == Some(copy) && !force {
                    let detail = format!(
                        "a rollback goes back to {id}: without it there is no way back to {} and its world. \
                         Remove it with force if nobody needs one",
                        copy.version
                    );
                    return Err(Problem::new(ErrorCode::WrongState, detail));
                }
                Ok(Job::RemoveCopy(copies, copy.clone()))
            }
            Chore::Collect => self.request().map(|_| Job::Collect),
        }
    }

    fn admit_removal(&self, version: &str, force: bool) -> Result<Job, Problem> {
        let (_, request) = self.request()?;
        let in_place = self.shelf.installed().0.filter(|installed| installed.serves(&request));
        if let Some(installed) = in_place.filter(|_| request.version == version) {
            if force {
                return Ok(Job::RemoveConfigured(request, installed));
            }
            let detail = format!(
                "{} is what is configured to run: remove it with force, and the next start installs it again",
                request.label()
            );
            return Err(Problem::new(ErrorCode::WrongState, detail));
        }
        let trees: Vec<_> =
            self.trees(&request)?.into_iter().filter(|tree| tree.version == version).collect();
        if trees.is_empty() {
            let detail = format!(
                "nothing of {}/{} {version} is installed; GET /game/version lists what is",
                request.game, request.variant
            );
            return Err(Problem::new(ErrorCode::NotFound, detail));
        }
        let mut copies = self.copies(&request).all().into_iter();
        let back_to = copies.find(|copy| copy.version == version && !copy.failed);
        if let Some(copy) = back_to.filter(|_| !force) {
            let detail = format!(
                "a rollback to the copy {} starts {version} again: remove the copy first, or remove the version \
                 with force, and the rollback installs it again",
                copy.id
            );
            return Err(Problem::new(ErrorCode::WrongState, detail));
        }
        Ok(Job::RemoveTrees(trees))
    }

    /// Unpacked servers of a variant.
    pub(super) fn trees(&self, request: &GameRequest) -> Result<Vec<InstalledTree>, Problem> {
        let name = store_name(&request.game, &request.variant);
        let all = installed(self.paths.servers()).map_err(|error| {
            Problem::new(ErrorCode::Internal, format!("what is installed cannot be read: {}", chain(&error)))
        })?;
        Ok(all.into_iter().filter(|tree| tree.name == name).collect())
    }

    async fn do_chore(self: &Arc<Self>, operation: &OperationSummary, job: Job) -> Result<String, Failed> {
        match job {
            Job::Verify(request, installed) => {
                let found = self.inspect(operation, &request, &installed).await?;
                match found.drifts.as_slice() {
                    [] => Ok(format!("{} is as it was installed", request.label())),
                    drifts => Err(Failed::Error(format!(
                        "{} is not as it was installed: {}; stop it and repair it",
                        request.label(),
                        named_few(drifts)
                    ))),
                }
            }
            Job::Repair(request, installed) => self.put_right(operation, request, installed).await,
            Job::RemoveConfigured(request, installed) => {
                let inner = Arc::clone(self);
                let label = request.label();
                blocking(move || inner.remove_configured(&request, &installed)).await?;
                Ok(format!("{label} is removed, its world is not; the next start installs it again"))
            }
            Job::RemoveTrees(trees) => {
                let (label, store) = (labels(&trees), self.paths.servers());
                blocking(move || {
                    let store = Store::open(store)?;
                    trees.iter().try_for_each(|tree| store.remove(tree))
                })
                .await?;
                Ok(format!("{label} is removed"))
            }
            Job::RemoveCopy(copies, copy) => {
                let done = format!("the copy {} is removed", copy.id);
                blocking(move || copies.remove(&copy.id)).await?;
                Ok(done)
            }
            Job::Collect => {
                let inner = Arc::clone(self);
                let (count, bytes) = blocking(move || inner.collect()).await?;
                Ok(collected(count, bytes))
            }
        }
    }

    async fn inspect(
        self: &Arc<Self>,
        operation: &OperationSummary,
        request: &GameRequest,
        installed: &Installed,
    ) -> Result<Findings, Failed> {
        let report = self.reporter(operation);
        let (inner, request, installed) = (Arc::clone(self), request.clone(), installed.clone());
        blocking(move || server::inspect(&inner.paths, &installed, &request, &report)).await
    }

    async fn put_right(
        self: &Arc<Self>,
        operation: &OperationSummary,
        request: GameRequest,
        installed: Installed,
    ) -> Result<String, Failed> {
        let found = self.inspect(operation, &request, &installed).await?;
        if found.drifts.is_empty() {
            return Ok(format!("{} is as it was installed", request.label()));
        }
        self.unless_stopped("nothing was changed")?;
        let job = Installation {
            damaged: Some(Damaged { trees: found.trees, placed: None }),
            ..self.job(&request)
        };
        let report = self.reporter(operation);
        let installed = job.run(report).await.map_err(|error| Failed::error(&error))?;
        // It must have helped.
        let left = self.inspect(operation, &request, &installed).await?.drifts;
        if left.is_empty() {
            let were = named_few(&found.drifts);
            return Ok(format!("{} is installed again ({were})", request.label()));
        }
        let left = named_few(&left);
        Err(Failed::Error(format!("{} was installed again, and still {left}", request.label())))
    }

    fn remove_configured(&self, request: &GameRequest, installed: &Installed) -> Result<(), ChoreError> {
        let store = Store::open(self.paths.servers())?;
        let tree = store.list()?.into_iter().find(|tree| installed.server.as_ref() == Some(&tree.dir));
        tree.map_or(Ok(()), |tree| store.remove(&tree))?;
        self.shelf.forget_installed()?;
        fault("server.forgotten");
        let root = self.paths.game_root(&request.game, &request.variant, &request.world);
        Ok(server::clear(&root, installed, request)?)
    }

    /// How many unpacked servers went, and their bytes.
    fn collect(&self) -> Result<(usize, u64), ChoreError> {
        let installed = self.shelf.installed().0;
        let used = installed.as_ref().and_then(|installed| installed.server.as_deref());
        let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
        let mut result = Ok(());
        for (game, variant, dir) in self.paths.all_copies() {
            let copies = Copies(dir);
            // The rest is not in its way.
            result = result.and(copies.sweep());
            let back_to = copies.all().into_iter().filter(|copy| !copy.failed);
            wanted.extend(back_to.map(|copy| (store_name(&game, &variant), copy.version)));
        }
        if let Ok((_, request)) = self.request() {
            wanted.insert((store_name(&request.game, &request.variant), request.version));
        }
        let store = Store::open(self.paths.servers())?;
        let mut gone = (0, 0);
        for tree in store.list()? {
            let key = (tree.name.clone(), tree.version.clone());
            // Of a version that was published anew, only what the version's path leads to.
            if used == Some(&tree.dir) || (wanted.contains(&key) && tree.current) {
                continue;
            }
            store.remove(&tree)?;
            gone = (gone.0 + 1, gone.1 + tree.bytes);
        }
        Ok(result.map(|()| gone)?)
    }

    /// Says how far an operation is.
    pub(super) fn reporter(
        &self,
        operation: &OperationSummary,
    ) -> impl Fn(Step) + Clone + Send + Sync + 'static {
        let (told, id) = (self.handle.told(), operation.id.clone());
        move |step: Step| {
            told.phase(&id, &step.text);
            if let Some((done, total)) = step.bytes {
                told.progress(&id, done, Some(total), "bytes");
            }
        }
    }
}

/// Why a chore was not done.
#[derive(Debug, thiserror::Error)]
enum ChoreError {
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("cannot change what is installed")]
    Io(#[from] std::io::Error),
}

impl From<zlh_artifacts::InstallError> for ChoreError {
    fn from(error: zlh_artifacts::InstallError) -> Self {
        Self::Install(error.into())
    }
}

/// What a variant's servers are called in their store.
fn store_name(game: &str, variant: &str) -> String {
    format!("{game}-{variant}")
}

fn labels(trees: &[InstalledTree]) -> String {
    let all: BTreeSet<String> = trees.iter().map(|tree| format!("{} {}", tree.name, tree.version)).collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

fn fault(point: &str) {
    // Only where a test kills us.
    let _ = zlh_shim::faults::point(point);
}

async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failed> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failed::Error(error.to_string()))?.map_err(|error| Failed::error(&error))
}
