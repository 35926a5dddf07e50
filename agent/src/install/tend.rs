//! Runtimes and addons by themselves: installed ahead of whoever uses them, proved, put
//! right, upgraded, gone back from, taken away.
//!
//! ```text
//! upgrade:  install beside ─► run its programs ─► switch ─► run them through the switch
//!                                 │ fails                       │ fails
//!                                 ▼                             ▼
//!                           nothing changed              switched back
//! ```
//!
//! A repair has the verified archive in its hands before it takes the damaged tree away, and
//! a tree is taken away at once, by its name: killed anywhere, a version is whole, damaged as
//! before, or absent, and a start installs what is absent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use slog::{Logger, warn};
use zlh_api::InstalledRuntime;
use zlh_artifacts::{InstalledTree, Store};
use zlh_catalog::{
    Audience, Catalog, Id, LookupError, RelPath, RuntimeVersion, compare_versions, version_arguments,
};

use super::{InstallError, Source, Step, Tree, blocking, check_release, installer, say};
use crate::config::AgentConfig;
use crate::errors::chain;
use crate::paths::Paths;
use crate::workload::game_user;

/// Differences that are named in an error.
const NAMED: usize = 3;

/// For a program to say which version it is.
const PROBE: Duration = Duration::from_secs(20);

/// What is installed beside games.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Runtimes,
    Addons,
}

/// What is to be done with the runtimes or addons of this container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tend {
    pub kind: Kind,
    pub act: Act,
}

/// See [`Tend`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Install a version.
    Install { id: String, version: String },
    /// Compare a tree with what was installed.
    Verify(Box<InstalledTree>),
    /// Compare, and install it again if it differs.
    Repair(Box<InstalledTree>),
    /// Take a tree away. `force`: also one that is configured or chosen.
    Remove { tree: Box<InstalledTree>, force: bool },
    /// Take away what nobody uses.
    Collect,
    /// Choose a version, the newest that is offered if none is named; install it before.
    Upgrade { id: String, version: Option<String> },
    /// Choose the version before.
    RollBack { id: String },
}

impl Tend {
    /// Whether a runtime may be gone meanwhile, which a game could be started with.
    pub(crate) fn takes_away(&self) -> bool {
        self.kind == Kind::Runtimes && matches!(self.act, Act::Repair(_) | Act::Remove { .. } | Act::Collect)
    }
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TendError {
    /// A step of an installation.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// It is not as it was installed.
    #[error("{name} {version} is not as it was installed: {what}; repair it")]
    Drift { name: String, version: String, what: String },
    /// Nothing of it is offered.
    #[error("the catalog offers no version of {id} in the channel {channel}: name a version, or promote one")]
    NothingOffered { id: String, channel: String },
    /// A program of the new version does not run.
    #[error("{name} {version} does not run, so nothing was changed: `{program}` {why}")]
    Unhealthy { name: String, version: String, program: String, why: String },
    /// Somebody chose it meanwhile.
    #[error("{name} {version} is the version that is used by now: upgrade to another one first")]
    Chosen { name: String, version: String },
    /// It stopped running when it was chosen.
    #[error("{name} {version} did not run once it was chosen (`{program}` {why}): {before}")]
    Returned { name: String, version: String, program: String, why: String, before: String },
}

/// One such job.
pub(crate) struct TendJob {
    pub paths: Paths,
    pub config: Arc<AgentConfig>,
    pub log: Logger,
    pub tend: Tend,
    pub audience: Audience,
    /// The tree that what is configured runs with.
    pub used: Option<PathBuf>,
}

impl Kind {
    /// Where they are installed.
    pub(crate) fn store(self, paths: &Paths) -> PathBuf {
        match self {
            Self::Runtimes => paths.runtimes(),
            Self::Addons => paths.addons(),
        }
    }

    fn find<'c>(
        self,
        catalog: &'c Catalog,
        id: &str,
        version: &str,
    ) -> Result<&'c RuntimeVersion, LookupError> {
        match self {
            Self::Runtimes => catalog.runtime_version(id, version),
            Self::Addons => catalog.addon_version(id, version),
        }
    }

    /// The newest version that is offered and not deprecated, else the newest that is offered.
    fn newest<'c>(self, catalog: &'c Catalog, id: &str, audience: &Audience) -> Option<&'c RuntimeVersion> {
        let all = match self {
            Self::Runtimes => &catalog.runtimes,
            Self::Addons => &catalog.addons,
        };
        let one = all.iter().find(|one| one.id.as_str() == id)?;
        let offered = one.versions.iter().filter(|version| version.release.is_offered_to(audience));
        offered.max_by(|a, b| {
            let good = |version: &RuntimeVersion| version.release.deprecated.is_none();
            good(a).cmp(&good(b)).then_with(|| compare_versions(&a.version, &b.version))
        })
    }
}

/// Every installed version. Blocks.
pub(crate) fn installed(store: PathBuf) -> Result<Vec<InstalledTree>, InstallError> {
    Ok(Store::open(store)?.list()?)
}

impl TendJob {
    /// Does it; `report` is told each step. What was done, for people.
    pub(crate) async fn run(
        self,
        report: impl Fn(Step) + Clone + Send + Sync + 'static,
    ) -> Result<String, TendError> {
        match &self.tend.act {
            Act::Install { id, version } => {
                let source = self.source(&report).await?;
                let entry = self.tend.kind.find(&source.catalog, id, version).map_err(InstallError::from)?;
                let note = check_release(id, version, &entry.release)?;
                let entry = &source.pinned_runtime(entry, &report).await?;
                self.install(&source, id, entry, None, &report).await?;
                let tree = self.tree_of(id, entry).await?;
                // The first one is chosen; later ones only by an upgrade.
                if !self.trees().await?.iter().any(|other| other.name == *id && other.active) {
                    self.activate(tree).await?;
                }
                Ok(format!("{id} {version} is installed{note}"))
            }
            Act::Verify(tree) => match self.drift(tree, &report).await? {
                None => Ok(format!("{} {} is as it was installed", tree.name, tree.version)),
                Some(what) => {
                    Err(TendError::Drift { name: tree.name.clone(), version: tree.version.clone(), what })
                }
            },
            Act::Repair(tree) => {
                if self.drift(tree, &report).await?.is_none() {
                    return Ok(format!("{} {} is as it was installed", tree.name, tree.version));
                }
                let source = self.source(&report).await?;
                let kind = self.tend.kind;
                let entry =
                    kind.find(&source.catalog, &tree.name, &tree.version).map_err(InstallError::from)?;
                let entry = &source.pinned_runtime(entry, &report).await?;
                self.install(&source, &tree.name, entry, Some(tree), &report).await?;
                if tree.active {
                    self.activate(self.tree_of(&tree.name, entry).await?).await?;
                }
                Ok(format!("{} {} is installed again", tree.name, tree.version))
            }
            Act::Remove { tree, force } => {
                // Links may lead elsewhere since it was asked for.
                let now = self.trees().await?.into_iter().find(|one| one.dir == tree.dir);
                let tree = now.unwrap_or_else(|| (**tree).clone());
                if tree.active && !force {
                    return Err(TendError::Chosen { name: tree.name, version: tree.version });
                }
                say(&report, &format!("removing {} {}", tree.name, tree.version));
                let done = format!("{} {} is removed", tree.name, tree.version);
                self.remove(vec![tree]).await?;
                Ok(done)
            }
            Act::Collect => {
                say(&report, "removing what nobody uses");
                let unused = self.trees().await?.into_iter();
                let unused: Vec<_> = unused
                    .filter(|tree| !tree.active && !tree.previous && !is(tree, self.used.as_deref()))
                    .collect();
                let (count, bytes) = (unused.len(), unused.iter().map(|tree| tree.bytes).sum::<u64>());
                self.remove(unused).await?;
                Ok(collected(count, bytes))
            }
            Act::Upgrade { id, version } => self.upgrade(id, version.as_deref(), &report).await,
            Act::RollBack { id } => {
                let store = self.tend.kind.store(&self.paths);
                let name = id.clone();
                let dir = blocking(move || Store::open(store)?.roll_back(&name))
                    .await?
                    .map_err(InstallError::from)?;
                let version = self.trees().await?.into_iter().find(|tree| tree.active && tree.name == *id);
                let version = version.map_or_else(|| dir.display().to_string(), |tree| tree.version);
                Ok(format!("{id} {version} is used again"))
            }
        }
    }

    async fn upgrade(
        &self,
        id: &str,
        version: Option<&str>,
        report: &(impl Fn(Step) + Clone + Send + Sync + 'static),
    ) -> Result<String, TendError> {
        let source = self.source(report).await?;
        let (kind, catalog) = (self.tend.kind, &source.catalog);
        let entry = match version {
            Some(version) => kind.find(catalog, id, version).map_err(InstallError::from)?,
            None => kind.newest(catalog, id, &self.audience).ok_or_else(|| TendError::NothingOffered {
                id: id.to_owned(),
                channel: self.audience.channel.clone(),
            })?,
        };
        let version = entry.version.as_str();
        let note = check_release(id, version, &entry.release)?;
        let entry = &source.pinned_runtime(entry, report).await?;
        let before = self.trees().await?.into_iter().find(|tree| tree.active && tree.name == id);
        if before.as_ref().is_some_and(|tree| tree.version == version && tree.sha256 == entry.archive.sha256)
        {
            return Ok(format!("{id} {version} is used already{note}"));
        }
        self.install(&source, id, entry, None, report).await?;
        let tree = self.tree_of(id, entry).await?;
        say(report, &format!("trying {id} {version}"));
        if let Err((program, why)) = self.probe(&tree.dir, &entry.executables).await {
            let (name, version) = (id.to_owned(), version.to_owned());
            return Err(TendError::Unhealthy { name, version, program, why });
        }
        let switched = kind.store(&self.paths).join(id).join("current");
        self.activate(tree).await?;
        let _ = zlh_shim::faults::point("upgrade.switched");
        // Once more, as its users find it.
        if let Err((program, why)) = self.probe(&switched, &entry.executables).await {
            let store = kind.store(&self.paths);
            let (name, first) = (id.to_owned(), before.is_none());
            let returned = blocking(move || {
                let store = Store::open(store)?;
                if first { store.deactivate(&name) } else { store.roll_back(&name).map(drop) }
            });
            let before = match (&before, &returned.await?) {
                (Some(before), Ok(())) => format!("{id} {} is used again", before.version),
                (None, Ok(())) => "there was none before it, and none is used".to_owned(),
                (_, Err(error)) => {
                    warn!(self.log, "going back failed"; "error" => chain(error));
                    format!("going back failed: {}", chain(error))
                }
            };
            let (name, version) = (id.to_owned(), version.to_owned());
            return Err(TendError::Returned { name, version, program, why, before });
        }
        Ok(match before {
            Some(before) => format!("{id} {version} is used, {} is kept{note}", before.version),
            None => format!("{id} {version} is used{note}"),
        })
    }

    /// Runs every program of a tree, as nobody who matters.
    async fn probe(&self, tree: &Path, executables: &BTreeMap<Id, RelPath>) -> Result<(), (String, String)> {
        let user = game_user(&self.paths, self.config.game_user.as_deref())
            .map_err(|error| (String::new(), chain(&error)))?;
        let log = self.paths.state().join("probe.log");
        // Of its own kind: the other may be trying something, too.
        let kind = match self.tend.kind {
            Kind::Runtimes => "runtimes",
            Kind::Addons => "addons",
        };
        let home = installer::Home::new(self.paths.probe_home(kind), user.ids.as_ref())
            .map_err(|error| (String::new(), format!("has no home to run in: {error}")))?;
        for path in executables.values() {
            let program = tree.join(path.as_str());
            let bin = program.parent().unwrap_or(tree).display().to_string();
            let env = [
                ("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin")),
                ("HOME", home.path().display().to_string()),
                ("LANG", "C.UTF-8".to_owned()),
                // A tree that is tried is not to be changed by that.
                ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
            ];
            let arguments = version_arguments(path.file_name()).iter().map(|one| (*one).to_owned());
            let run = installer::Installer {
                argv: std::iter::once(program.display().to_string()).chain(arguments).collect(),
                produces: Vec::new(),
                env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                root: Path::new("/"),
                user: user.ids.as_ref(),
                timeout: PROBE,
            };
            if let Err(error) = run.run(&log).await {
                return Err((path.to_string(), error.of_program()));
            }
        }
        Ok(())
    }

    async fn trees(&self) -> Result<Vec<InstalledTree>, InstallError> {
        let store = self.tend.kind.store(&self.paths);
        blocking(move || installed(store)).await?
    }

    /// What was installed of an entry.
    async fn tree_of(&self, id: &str, entry: &RuntimeVersion) -> Result<InstalledTree, InstallError> {
        let found = self.trees().await?.into_iter().find(|tree| {
            tree.name == id && tree.version == entry.version && tree.sha256 == entry.archive.sha256
        });
        found.ok_or_else(|| InstallError::Io {
            step: format!("find {id} {}, which was installed just now", entry.version),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    async fn activate(&self, tree: InstalledTree) -> Result<(), InstallError> {
        let store = self.tend.kind.store(&self.paths);
        Ok(blocking(move || Store::open(store)?.activate(&tree)).await??)
    }

    /// What is different, in a few words.
    async fn drift(
        &self,
        tree: &InstalledTree,
        report: &(impl Fn(Step) + Clone),
    ) -> Result<Option<String>, InstallError> {
        say(report, &format!("reading {} {}", tree.name, tree.version));
        let (root, tree) = (self.tend.kind.store(&self.paths), tree.clone());
        let drifts = blocking(move || Store::open(root)?.verify(&tree)).await??;
        let drifts: Vec<String> =
            drifts.iter().map(|drift| format!("{} {}", drift.path, drift.what)).collect();
        Ok((!drifts.is_empty()).then(|| named_few(&drifts)))
    }

    async fn remove(&self, trees: Vec<InstalledTree>) -> Result<(), InstallError> {
        let root = self.tend.kind.store(&self.paths);
        blocking(move || {
            let store = Store::open(root)?;
            trees.iter().try_for_each(|tree| store.remove(tree))?;
            let _ = zlh_shim::faults::point("runtime.removed");
            Ok::<(), InstallError>(())
        })
        .await?
    }

    async fn source(&self, report: &impl Fn(Step)) -> Result<Source, InstallError> {
        Source::open(&self.config, &self.paths, &self.log, report).await
    }

    /// From the catalog; `instead`: of this damaged tree, once everything else is here.
    async fn install(
        &self,
        source: &Source,
        id: &str,
        entry: &RuntimeVersion,
        instead: Option<&InstalledTree>,
        report: &(impl Fn(Step) + Clone + Send + Sync + 'static),
    ) -> Result<(), InstallError> {
        let archive = source.fetch(&entry.archive, report).await?;
        if let Some(damaged) = instead {
            let (store, damaged) = (self.tend.kind.store(&self.paths), damaged.clone());
            blocking(move || {
                Store::open(store)?.make_way(&damaged)?;
                let _ = zlh_shim::faults::point("runtime.removed");
                Ok::<(), InstallError>(())
            })
            .await??;
        }
        let executables: Vec<RelPath> = entry.executables.values().cloned().collect();
        let tree = Tree {
            store: self.tend.kind.store(&self.paths),
            name: id.to_owned(),
            version: entry.version.clone(),
            artifact: entry.archive.clone(),
            archive,
            strip_components: entry.strip_components,
            executables,
        };
        tree.install(report).await?;
        Ok(())
    }
}

/// The first few of what was found, and how many more there are.
pub(crate) fn named_few(found: &[String]) -> String {
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    found[..found.len().min(NAMED)].join(", ") + &more
}

/// What taking away what nobody uses came to.
pub(crate) fn collected(count: usize, bytes: u64) -> String {
    match count {
        0 => "nothing is removed: everything is in use, or the way back".to_owned(),
        1 => format!("1 version ({} MiB) is removed", bytes >> 20),
        _ => format!("{count} versions ({} MiB) are removed", bytes >> 20),
    }
}

/// A tree as it is listed.
pub(crate) fn described(tree: InstalledTree, used: Option<&Path>) -> InstalledRuntime {
    InstalledRuntime {
        in_use: is(&tree, used),
        path: tree.dir.display().to_string(),
        sha256: tree.sha256.to_string(),
        entries: tree.entries,
        bytes: tree.bytes,
        current: tree.current,
        active: tree.active,
        previous: tree.previous,
        installed_at: tree
            .installed
            .and_then(|at| jiff::Timestamp::try_from(at).ok())
            .map(crate::clock::rfc3339),
        id: tree.name,
        version: tree.version,
    }
}

/// Whether that tree is the one in use.
pub(crate) fn is(tree: &InstalledTree, used: Option<&Path>) -> bool {
    used == Some(tree.dir.as_path())
}
