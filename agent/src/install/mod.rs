//! Installing what a payload asks for: from the signed catalog to files in place.
//!
//! ```text
//! catalog.json + signature ─► entry, plan, runtime ─► fetch (verified) ─► runtime, server tree
//!                                                                      ─► files in the game's folder
//!                                                                      ─► installer, as the game's user
//!                                                                      ─► installed.json (last)
//! ```
//!
//! Nothing is placed in the game's folder before every file was fetched and verified;
//! what is installed is what the record says, written last. Dropping the future
//! cancels it.

mod catalog;
mod installer;
mod pins;
pub(crate) mod server;
mod source;
mod tend;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slog::Logger;
use zlh_artifacts::{
    FetchError, Install, InstallError as StoreError, InstalledTree, Limits, Owner, PlaceError, Store,
    place_file,
};
use zlh_catalog::{
    Artifact, Audience, GameVersion, Id, InstallStep, LaunchPlan, LookupError, RelPath, Release, Requirement,
    RuntimeVersion, Sha256, VersionRange,
};

pub(crate) use self::source::Source;
pub(crate) use self::tend::{Act, Kind, Tend, TendJob, collected, described, installed, is, named_few};
use crate::config::AgentConfig;
use crate::game::payload::GameRequest;
use crate::game::plan::{Installed, InstalledRuntime, JAVA};
use crate::paths::Paths;
use crate::users::UserError;
use crate::workload::{Shelf, game_user, make_game_root};

/// Why an installation failed. With its sources it is what users read in `error`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// Nobody said where artifacts come from.
    #[error(
        "no artifact server is configured: set ZLH_ARTIFACTS_URL, or artifacts_url in the agent's configuration"
    )]
    NoServer,
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// What is asked for is not in the catalog.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It must not be installed any more.
    #[error("{what} was withdrawn and is not installed: {why}; choose another version")]
    Withdrawn {
        /// Entry of the catalog.
        what: String,
        /// The publisher's reason.
        why: String,
    },
    /// No version of a runtime will do.
    #[error(
        "the catalog has no {runtime} that satisfies `{range}`, which {what}: add one to the artifact server"
    )]
    NoRuntime {
        /// Runtime.
        runtime: String,
        /// Versions wanted.
        range: String,
        /// Who needs it, with the verb.
        what: String,
    },
    /// A file could not be fetched, or is not what the catalog says.
    #[error("fetching failed")]
    Fetch(#[from] FetchError),
    /// A tree could not be unpacked or installed.
    #[error("unpacking failed")]
    Store(#[from] StoreError),
    /// A file could not be put in place.
    #[error("placing a file failed")]
    Place(#[from] PlaceError),
    /// What was pinned at its first use, and is something else now.
    #[error(
        "`{path}` is not what it was at its first use on {at}; if what lies there now is right, take its entry out of {}",
        .record.display()
    )]
    Changed {
        /// Its path on the artifact server.
        path: String,
        /// When it was pinned.
        at: String,
        /// Where that is recorded.
        record: PathBuf,
        /// What was fetched now.
        #[source]
        source: FetchError,
    },
    /// What was to be pinned, and is something else altogether.
    #[error(
        "`{path}` ({size} bytes) is not of the kind that its name says: is an error page served in its place? Nothing was pinned"
    )]
    NotThat {
        /// Its path on the artifact server.
        path: String,
        /// Bytes.
        size: u64,
    },
    /// Nobody knows any more what was pinned.
    #[error(
        "the record of what was fetched without a catalog's hash cannot be used ({why}); put {} right, or remove it to pin everything anew",
        .path.display()
    )]
    Pins {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The installer.
    #[error(transparent)]
    Installer(#[from] installer::Error),
    /// Somebody else's installer does not run as root.
    #[error(
        "this version comes with an installer, which never runs as root: set game_user in the agent's configuration to an unprivileged user"
    )]
    InstallerAsRoot,
    /// The user games run as.
    #[error(transparent)]
    User(#[from] UserError),
    /// A template of the plan.
    #[error(transparent)]
    Template(#[from] zlh_catalog::TemplateError),
    /// A step of our own.
    #[error("cannot {step}")]
    Io {
        /// What was tried.
        step: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A step, for people, and how far it is.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub text: String,
    /// Bytes done and in all.
    pub bytes: Option<(u64, u64)>,
}

/// One installation.
#[derive(Clone)]
pub(crate) struct Job {
    pub paths: Paths,
    pub config: Arc<AgentConfig>,
    pub shelf: Shelf,
    pub request: GameRequest,
    pub audience: Audience,
    pub log: Logger,
    /// For a repair: what is taken away, as soon as everything is here. What is installed counts
    /// for nothing from then on.
    pub damaged: Option<Damaged>,
}

/// What is to be installed again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Damaged {
    /// Whole trees, and their stores.
    pub trees: Vec<(PathBuf, InstalledTree)>,
    /// Also everything that this one put into the game's folder.
    pub placed: Option<Box<Installed>>,
}

/// Fetched files by the names launch plans use.
type Files = BTreeMap<Id, (Artifact, PathBuf)>;

/// What a request comes to in a catalog.
struct Resolved {
    entry: GameVersion,
    plan: LaunchPlan,
    runtime: Option<(Id, RuntimeVersion)>,
    /// What is to be said of it.
    warnings: Vec<String>,
}

impl Job {
    /// Brings everything here that an installation needs, and changes nothing that runs:
    /// files into the cache, the runtime beside the others.
    pub(crate) async fn prepare(
        &self,
        report: impl Fn(Step) + Clone + Send + Sync + 'static,
    ) -> Result<(), InstallError> {
        let source = Source::open(&self.config, &self.paths, &self.log, &report).await?;
        let resolved = self.resolve(&source, &report).await?;
        if let Some((kind, version)) = &resolved.runtime {
            self.install_runtime(&source, kind, version, &report).await?;
        }
        for artifact in &resolved.entry.files {
            source.fetch(artifact, &report).await?;
        }
        Ok(())
    }

    /// Installs; `report` is told each step.
    pub(crate) async fn run(
        self,
        report: impl Fn(Step) + Clone + Send + Sync + 'static,
    ) -> Result<Installed, InstallError> {
        let source = Source::open(&self.config, &self.paths, &self.log, &report).await?;
        let request = &self.request;
        let Resolved { entry, plan, runtime, warnings: said } = self.resolve(&source, &report).await?;
        let mut warnings = source.warnings.clone();
        warnings.extend(said);

        // Everything is here and verified before anything is put in place.
        if let Some((_, version)) = &runtime {
            source.fetch(&version.archive, &report).await?;
        }
        let mut files = Files::new();
        for artifact in &entry.files {
            let path = source.fetch(artifact, &report).await?;
            files.insert(artifact.name.clone(), (artifact.clone(), path));
        }
        self.make_way(&entry, runtime.as_ref().map(|(_, version)| version)).await?;
        let runtime = match &runtime {
            Some((kind, version)) => Some(self.install_runtime(&source, kind, version, &report).await?),
            None => None,
        };
        let mut installed = Installed {
            game: request.game.clone(),
            variant: request.variant.clone(),
            version: request.version.clone(),
            world: request.world.clone(),
            serial: source.catalog.serial,
            fetches_upstream: entry.fetches_upstream,
            plan,
            runtime,
            java_version: request.java_version,
            server: None,
            files: files.iter().map(|(name, (_, path))| (name.clone(), path.clone())).collect(),
            sizes: files.iter().map(|(name, (artifact, _))| (name.clone(), artifact.size)).collect(),
            warnings,
        };
        self.carry_out(&mut installed, &files, &report).await?;
        say(&report, "recording what is installed");
        let (shelf, record) = (self.shelf, installed.clone());
        blocking(move || shelf.store_installed(&record))
            .await?
            .map_err(|source| InstallError::Io { step: "record what is installed".to_owned(), source })?;
        Ok(installed)
    }

    /// Killed from here on, the next start installs what was damaged.
    async fn make_way(
        &self,
        entry: &GameVersion,
        runtime: Option<&RuntimeVersion>,
    ) -> Result<(), InstallError> {
        let Some(Damaged { mut trees, placed }) = self.damaged.clone() else { return Ok(()) };
        // What is not installed again, since the catalog has another one by now, stays.
        let again: Vec<Sha256> = entry.files.iter().map(|file| file.sha256).collect();
        let again: Vec<Sha256> =
            again.into_iter().chain(runtime.map(|version| version.archive.sha256)).collect();
        trees.retain(|(_, tree)| again.contains(&tree.sha256));
        let request = self.request.clone();
        let root = self.paths.game_root(&request.game, &request.variant, &request.world);
        let shelf = self.shelf.clone();
        let step = "forget what is installed".to_owned();
        blocking(move || {
            for (store, tree) in trees {
                Store::open(store)?.make_way(&tree)?;
            }
            shelf.forget_installed().map_err(|source| InstallError::Io { step, source })?;
            if let Some(installed) = placed {
                let step = format!("replace what is in {}", root.display());
                server::clear(&root, &installed, &request)
                    .map_err(|source| InstallError::Io { step, source })?;
            }
            let _ = zlh_shim::faults::point("server.removed");
            Ok(())
        })
        .await?
    }

    /// Looks everything up before anything is fetched, but what has to be seen to be pinned.
    async fn resolve(
        &self,
        source: &Source,
        report: &(impl Fn(Step) + Clone + Send + Sync + 'static),
    ) -> Result<Resolved, InstallError> {
        let (request, catalog) = (&self.request, &source.catalog);
        let entry = catalog.game_version(&request.game, &request.variant, &request.version)?;
        let mut warnings = Vec::new();
        let note = check_release(&request.label(), "", &entry.release)?;
        if !note.is_empty() {
            warnings.push(format!("{}{note}", request.label()));
        }
        let variant = Id::new(&request.variant).map_err(|error| invalid(&error))?;
        let plan = catalog.plan_for(&variant, entry)?.into_owned();
        let runtime = match catalog.requirement_for(&variant, entry).map(|needed| wished(needed, request)) {
            None => None,
            Some((needed, what)) => {
                let found = catalog.runtime_for(&needed, &self.audience);
                Some(found.ok_or_else(|| InstallError::NoRuntime {
                    runtime: needed.runtime.to_string(),
                    range: needed.version.to_string(),
                    what,
                })?)
            }
        };
        if let Some((kind, version)) = runtime {
            let note = check_release(kind.id.as_str(), &version.version, &version.release)?;
            if !note.is_empty() {
                warnings.push(format!("{} {}{note}", kind.id, version.version));
            }
        }
        if entry.fetches_upstream {
            warnings.push(format!(
                "{} fetches further files by itself when it starts; they are not verified by the catalog",
                request.label()
            ));
        }
        let runtime = match runtime {
            Some((kind, version)) => Some((kind.id.clone(), source.pinned_runtime(version, report).await?)),
            None => None,
        };
        let mut entry = entry.clone();
        for artifact in &mut entry.files {
            *artifact = source.pinned(artifact, report).await?;
        }
        Ok(Resolved { entry, plan, runtime, warnings })
    }

    async fn install_runtime(
        &self,
        source: &Source,
        kind: &Id,
        version: &RuntimeVersion,
        report: &(impl Fn(Step) + Clone + Send + Sync + 'static),
    ) -> Result<InstalledRuntime, InstallError> {
        let archive = source.fetch(&version.archive, report).await?;
        let tree = Tree {
            store: self.paths.runtimes(),
            name: kind.to_string(),
            version: version.version.clone(),
            artifact: version.archive.clone(),
            archive,
            strip_components: version.strip_components,
            executables: version.executables.values().cloned().collect(),
        };
        Ok(InstalledRuntime {
            id: kind.clone(),
            version: version.version.clone(),
            dir: tree.install(report).await?,
            executables: version.executables.clone(),
        })
    }

    /// The plan's own steps, in its order.
    async fn carry_out(
        &self,
        installed: &mut Installed,
        files: &Files,
        report: &(impl Fn(Step) + Clone + Send + Sync + 'static),
    ) -> Result<(), InstallError> {
        let user = game_user(&self.paths, self.config.game_user.as_deref())?;
        installed.warnings.extend(user.warning.clone());
        let owner = user.ids.as_ref().map(|ids| (ids.uid, ids.gid));
        let root = self.paths.game_root(&self.request.game, &self.request.variant, &self.request.world);
        // Trees first: they are invisible to the game until it is started from them.
        for step in &installed.plan.install {
            if let InstallStep::Unpack { file, strip_components } = step {
                let (artifact, path) = named(files, file)?;
                let tree = Tree {
                    store: self.paths.servers(),
                    name: format!("{}-{}", self.request.game, self.request.variant),
                    version: self.request.version.clone(),
                    artifact: artifact.clone(),
                    archive: path.clone(),
                    strip_components: *strip_components,
                    executables: Vec::new(),
                };
                installed.server = Some(tree.install(report).await?);
            }
        }
        make_game_root(&root, owner)
            .map_err(|source| InstallError::Io { step: format!("make {}", root.display()), source })?;
        for step in &installed.plan.install {
            match step {
                InstallStep::Unpack { .. } => {}
                InstallStep::Place { file, to } => {
                    let (_, path) = named(files, file)?;
                    say(report, &format!("placing {to}"));
                    let (path, root, to) = (path.clone(), root.clone(), to.clone());
                    let owner = owner.map(|(uid, gid)| Owner { uid, gid });
                    blocking(move || place_file(&path, &root, &to, owner)).await??;
                }
                InstallStep::Run { argv, produces, timeout_s } => {
                    if user.ids.is_none() && rustix::process::geteuid().is_root() {
                        return Err(InstallError::InstallerAsRoot);
                    }
                    say(report, "running the installer");
                    let values = installed.values(&self.request, &root);
                    let expand = |templates: &[zlh_catalog::Template]| {
                        templates.iter().map(|t| t.expand(&values)).collect::<Result<Vec<_>, _>>()
                    };
                    let run = installer::Installer {
                        argv: expand(argv)?,
                        produces: expand(produces)?,
                        env: crate::game::plan::environment(installed.runtime.as_ref(), &root, &user.name),
                        root: &root,
                        user: user.ids.as_ref(),
                        timeout: std::time::Duration::from_secs(*timeout_s),
                    };
                    run.run(&self.paths.state().join("installer.log")).await?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses what was withdrawn; the rest of a sentence for what is deprecated.
pub(crate) fn check_release(name: &str, version: &str, release: &Release) -> Result<String, InstallError> {
    let what = format!("{name} {version}").trim_end().to_owned();
    match (&release.withdrawn, &release.deprecated) {
        (Some(why), _) => Err(InstallError::Withdrawn { what, why: why.clone() }),
        (None, Some(why)) => Ok(format!(" (deprecated: {why})")),
        (None, None) => Ok(String::new()),
    }
}

/// A tree to be installed into a store.
struct Tree {
    store: PathBuf,
    name: String,
    version: String,
    artifact: Artifact,
    archive: PathBuf,
    strip_components: u8,
    executables: Vec<RelPath>,
}

impl Tree {
    async fn install(
        self,
        report: &(impl Fn(Step) + Clone + Send + Sync + 'static),
    ) -> Result<PathBuf, InstallError> {
        let text = format!("unpacking {} {}", self.name, self.version);
        say(report, &text);
        let report = report.clone();
        // Dropping our future must end the unpacking too.
        let guard = Guard(Arc::new(AtomicBool::new(true)));
        let wanted = Arc::clone(&guard.0);
        let tree = blocking(move || {
            let executables: Vec<&RelPath> = self.executables.iter().collect();
            let size = self.artifact.size;
            let install = Install {
                name: &self.name,
                version: &self.version,
                artifact: &self.artifact,
                archive: &self.archive,
                strip_components: self.strip_components,
                executables: &executables,
                limits: Limits::default(),
            };
            Store::open(&self.store)?.install(&install, &mut |done| {
                report(Step { text: text.clone(), bytes: Some((done, size)) });
                if wanted.load(Ordering::Relaxed) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
        })
        .await?;
        drop(guard);
        Ok(tree?)
    }
}

/// The runtime to run with, and who says so: the catalog, or who configured another Java.
fn wished<'c>(needed: Cow<'c, Requirement>, request: &GameRequest) -> (Cow<'c, Requirement>, String) {
    match request.java_version.map(|java| VersionRange::parse(java.to_string())) {
        Some(Ok(version)) if needed.runtime.as_str() == JAVA => {
            let wish = Requirement { runtime: needed.runtime.clone(), version };
            (Cow::Owned(wish), format!("{} is configured to run with (java_version)", request.label()))
        }
        _ => (needed, format!("{} needs", request.label())),
    }
}

/// Says "not wanted any more" when it is dropped.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn named<'f>(files: &'f Files, name: &Id) -> Result<&'f (Artifact, PathBuf), InstallError> {
    // The catalog was validated: this is for an entry that slipped through.
    files.get(name).ok_or_else(|| InstallError::Io {
        step: format!("find the file `{name}` of the launch plan"),
        source: io::ErrorKind::NotFound.into(),
    })
}

fn say(report: &impl Fn(Step), text: &str) {
    report(Step { text: text.to_owned(), bytes: None });
}

fn invalid(error: &zlh_catalog::NameError) -> InstallError {
    InstallError::Io { step: error.to_string(), source: io::ErrorKind::InvalidInput.into() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, InstallError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| InstallError::Io {
        step: "finish a step".to_owned(),
        source: io::Error::other(error),
    })
}
