//! Runtimes by themselves: installed ahead of a game, proved, put right, taken away.
//!
//! A repair has the verified archive in its hands before it takes the damaged tree away, and
//! a tree is taken away at once, by its name: killed anywhere, a version is whole, damaged as
//! before, or absent, and a start installs what is absent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use slog::Logger;
use zlh_artifacts::{Fetcher, InstalledTree, Store};
use zlh_catalog::{Catalog, RelPath, RuntimeVersion};

use super::{InstallError, Step, Tree, blocking, catalog, fetch, say};
use crate::config::AgentConfig;
use crate::paths::Paths;

/// Differences that are named in an error.
const NAMED: usize = 3;

/// What is to be done with the runtimes of this container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tend {
    /// Install a version.
    Install { id: String, version: String },
    /// Compare a tree with what was installed.
    Verify(Box<InstalledTree>),
    /// Compare, and install it again if it differs.
    Repair(Box<InstalledTree>),
    /// Take a tree away. `force`: also the one that is configured.
    Remove { tree: Box<InstalledTree>, force: bool },
    /// Take away what nobody uses.
    Collect,
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
}

/// One such job.
pub(crate) struct TendJob {
    pub paths: Paths,
    pub config: Arc<AgentConfig>,
    pub log: Logger,
    pub tend: Tend,
    /// The tree that is in use.
    pub used: Option<PathBuf>,
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
        match &self.tend {
            Tend::Install { id, version } => {
                self.install(id, version, None, &report).await?;
                Ok(format!("{id} {version} is installed"))
            }
            Tend::Verify(tree) => match self.drift(tree, &report).await? {
                None => Ok(format!("{} {} is as it was installed", tree.name, tree.version)),
                Some(what) => {
                    Err(TendError::Drift { name: tree.name.clone(), version: tree.version.clone(), what })
                }
            },
            Tend::Repair(tree) => {
                if self.drift(tree, &report).await?.is_none() {
                    return Ok(format!("{} {} is as it was installed", tree.name, tree.version));
                }
                self.install(&tree.name, &tree.version, Some(tree), &report).await?;
                Ok(format!("{} {} is installed again", tree.name, tree.version))
            }
            Tend::Remove { tree, .. } => {
                say(&report, &format!("removing {} {}", tree.name, tree.version));
                self.remove(vec![(**tree).clone()]).await?;
                Ok(format!("{} {} is removed", tree.name, tree.version))
            }
            Tend::Collect => {
                say(&report, "removing what nobody uses");
                let (store, used) = (self.paths.runtimes(), self.used.clone());
                let unused = blocking(move || installed(store)).await??.into_iter();
                let unused: Vec<_> = unused.filter(|tree| !is(tree, used.as_deref())).collect();
                let (count, bytes) = (unused.len(), unused.iter().map(|tree| tree.bytes).sum::<u64>());
                self.remove(unused).await?;
                Ok(format!("{count} versions ({} MiB) are removed", bytes >> 20))
            }
        }
    }

    /// What is different, in a few words.
    async fn drift(
        &self,
        tree: &InstalledTree,
        report: &(impl Fn(Step) + Clone),
    ) -> Result<Option<String>, InstallError> {
        say(report, &format!("reading {} {}", tree.name, tree.version));
        let (root, tree) = (self.paths.runtimes(), tree.clone());
        let drifts = blocking(move || Store::open(root)?.verify(&tree)).await??;
        let named: Vec<String> =
            drifts.iter().take(NAMED).map(|drift| format!("{} {}", drift.path, drift.what)).collect();
        let more = match drifts.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Ok((!drifts.is_empty()).then(|| named.join(", ") + &more))
    }

    async fn remove(&self, trees: Vec<InstalledTree>) -> Result<(), InstallError> {
        let root = self.paths.runtimes();
        blocking(move || {
            let store = Store::open(root)?;
            trees.iter().try_for_each(|tree| store.remove(tree))
        })
        .await??;
        Ok(())
    }

    /// From the catalog; `instead`: of this damaged tree, once everything else is here.
    async fn install(
        &self,
        id: &str,
        version: &str,
        instead: Option<&InstalledTree>,
        report: &(impl Fn(Step) + Clone + Send + Sync + 'static),
    ) -> Result<(), InstallError> {
        let url = self.config.artifacts_url.clone().ok_or(InstallError::NoServer)?;
        let cache = self.paths.cache();
        let fetcher = blocking(move || Fetcher::new(&url, cache)).await??;
        say(report, "reading the catalog");
        let loaded = catalog::load(&fetcher, &self.config.catalog_keys, &self.paths.state()).await?;
        let entry = find(&loaded.catalog, id, version)?;
        let archive = fetch(&self.log, &fetcher, &entry.archive, report).await?;
        if let Some(damaged) = instead {
            self.remove(vec![damaged.clone()]).await?;
        }
        let executables: Vec<RelPath> = entry.executables.values().cloned().collect();
        let tree = Tree {
            store: self.paths.runtimes(),
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

fn find<'c>(catalog: &'c Catalog, id: &str, version: &str) -> Result<&'c RuntimeVersion, InstallError> {
    Ok(catalog.runtime_version(id, version)?)
}

/// Whether that tree is the one in use.
pub(crate) fn is(tree: &InstalledTree, used: Option<&Path>) -> bool {
    used == Some(tree.dir.as_path())
}
