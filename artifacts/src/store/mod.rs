//! Installed trees, several versions side by side.
//!
//! ```text
//! <root>/node/22.23.3 ──► ../.store/node-22.23.3-0123456789ab   (renamed there when complete)
//! <root>/node/current ──► ../.store/node-22.23.3-0123456789ab   (the one that is used, if one was chosen)
//! <root>/node/previous ─► ../.store/node-22.22.0-ba9876543210   (what a rollback goes back to)
//! <root>/.store/.staging-…                                      (0700, being unpacked)
//! <root>/.store/.replaced-…                                     (a directory we did not make)
//! ```
//!
//! A tree is installed when its mark is there and names the archive; a directory without
//! one is debris. The path under `<root>/<name>/` is a link that is switched atomically. The
//! store is locked while something is installed; what a killed installer left is removed
//! at the next [`Store::open`] or [`Store::install`]. A real directory in place of the link
//! (installed by an older agent) is set aside, never deleted.

mod active;
mod executable;
mod manifest;
mod mark;

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use thiserror::Error;
use zlh_catalog::{Artifact, NameError, RelPath, Sha256, check_component, compare_versions};

use crate::beneath::{exchange, free_bytes, rename, sync_dir, unique};
use crate::unpack::{Limits, Progress, UnpackError, unpack};
use mark::{Mark, SCHEMA};

pub use active::Inspected;
pub(crate) use manifest::NAME as MANIFEST;
pub use manifest::{Drift, DriftKind};
pub(crate) use mark::NAME as MARK;

/// A directory of installed trees.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What is to be installed.
#[derive(Debug, Clone, Copy)]
pub struct Install<'a> {
    /// For example `node`.
    pub name: &'a str,
    /// For example `22.23.3`.
    pub version: &'a str,
    /// The catalog's entry of the archive.
    pub artifact: &'a Artifact,
    /// The archive, fetched and verified.
    pub archive: &'a Path,
    /// Leading path components of every entry to drop.
    pub strip_components: u8,
    /// Programs that must be there and be executable.
    pub executables: &'a [&'a RelPath],
    /// Ceilings for the archive.
    pub limits: Limits,
}

/// A complete tree of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledTree {
    /// For example `node`.
    pub name: String,
    /// For example `22.23.3`.
    pub version: String,
    /// Where it is.
    pub dir: PathBuf,
    /// Of the archive it came from.
    pub sha256: Sha256,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether the deployed path of its version leads to it.
    pub current: bool,
    /// Whether it is the version that was chosen.
    pub active: bool,
    /// Whether a rollback goes back to it.
    pub previous: bool,
    /// When it was installed.
    pub installed: Option<std::time::SystemTime>,
}

/// Why a tree could not be installed. What was installed before is untouched.
#[derive(Debug, Error)]
pub enum InstallError {
    /// A name that cannot be part of a path.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The archive was refused.
    #[error("{name} {version} cannot be unpacked")]
    Unpack {
        /// What was to be installed.
        name: String,
        /// Its version.
        version: String,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// What was unpacked is not what its publisher saw.
    #[error(
        "{name} {version} is not the tree its publisher pinned: expected {expected}, got {got}; publish it again"
    )]
    Tree {
        /// What was to be installed.
        name: String,
        /// Its version.
        version: String,
        /// Hash in the catalog.
        expected: Sha256,
        /// Hash of what was unpacked.
        got: Sha256,
    },
    /// There is nothing to go back to.
    #[error("there is no earlier version of {0} to go back to: install one and upgrade to it")]
    NoPrevious(String),
    /// A program that launch plans need is missing or unusable.
    #[error("{name} {version} lacks the program `{program}`: {why}")]
    Executable {
        /// What was to be installed.
        name: String,
        /// Its version.
        version: String,
        /// Path inside the tree.
        program: RelPath,
        /// What is wrong.
        why: String,
    },
    /// The disk is full.
    #[error("no room in `{}`: at least {needed} bytes needed, {free} free", .dir.display())]
    NoSpace {
        /// The store.
        dir: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The store itself cannot be used.
    #[error("cannot {what} `{}`", .path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Store {
    /// Opens or creates the store, and removes what killed installers left. Blocks.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, InstallError> {
        let store = Self { root: root.into() };
        for dir in [store.root.clone(), store.trees()] {
            create_dir(&dir).map_err(InstallError::io("create", &dir))?;
        }
        // Whoever holds the lock is installing: then its staging directory is no debris.
        if store.lock(FlockOperation::NonBlockingLockExclusive)?.is_some() {
            store.sweep()?;
        }
        Ok(store)
    }

    /// The tree of that archive, if it is completely installed.
    pub fn find(&self, name: &str, version: &str, sha256: &Sha256) -> Option<PathBuf> {
        check_names(name, version).ok()?;
        let tree = self.tree(name, version, sha256);
        let mark = Mark::read(&tree)?;
        let same =
            mark.schema == SCHEMA && mark.name == name && mark.version == version && mark.sha256 == *sha256;
        same.then_some(tree)
    }

    /// Where the deployed path of a version is: a link to its tree.
    pub fn link(&self, name: &str, version: &str) -> PathBuf {
        self.root.join(name).join(version)
    }

    /// Installs a tree, unless it is there, and points its deployed path at it. Returns the
    /// tree itself, which never changes. Blocks, also while another process installs into
    /// this store. `progress` gets the bytes of the archive that were read; breaking ends
    /// the install with [`UnpackError::Cancelled`].
    pub fn install(
        &self,
        install: &Install<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<PathBuf, InstallError> {
        let Install { name, version, artifact, .. } = *install;
        check_names(name, version)?;
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let tree = match self.find(name, version, &artifact.sha256) {
            Some(tree) => tree,
            None => {
                self.sweep()?;
                let staging = Staging::create(&self.trees())?;
                self.stage(install, &staging, progress)?;
                self.publish(install, staging)?
            }
        };
        self.switch(name, version, &tree)?;
        Ok(tree)
    }

    /// Every complete tree, by name and version.
    pub fn list(&self) -> Result<Vec<InstalledTree>, InstallError> {
        let trees = self.trees();
        let entries = std::fs::read_dir(&trees).map_err(InstallError::io("read", &trees))?;
        let mut found = Vec::new();
        for entry in entries {
            let dir = entry.map_err(InstallError::io("read", &trees))?.path();
            let hidden = dir.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            let Some(mark) = Mark::read(&dir).filter(|mark| !hidden && mark.schema == SCHEMA) else {
                continue;
            };
            if check_names(&mark.name, &mark.version).is_err()
                || self.tree(&mark.name, &mark.version, &mark.sha256) != dir
            {
                continue;
            }
            let real = std::fs::canonicalize(&dir).ok();
            let leads = |link: &str| {
                let linked = std::fs::canonicalize(self.link(&mark.name, link)).ok();
                linked.is_some() && linked == real
            };
            let installed = dir.join(MARK).metadata().and_then(|meta| meta.modified()).ok();
            found.push(InstalledTree {
                current: leads(&mark.version),
                active: leads(active::CURRENT),
                previous: leads(active::PREVIOUS),
                name: mark.name,
                version: mark.version,
                sha256: mark.sha256,
                entries: mark.entries,
                bytes: mark.bytes,
                installed,
                dir,
            });
        }
        found.sort_by(|a, b| {
            (&a.name, &a.dir).cmp(&(&b.name, &b.dir)).then_with(|| compare_versions(&a.version, &b.version))
        });
        Ok(found)
    }

    /// How a tree differs from what was installed; nothing when it is as it was. Blocks, and
    /// reads every file.
    pub fn verify(&self, tree: &InstalledTree) -> Result<Vec<Drift>, InstallError> {
        let cannot = || InstallError::io("read", &tree.dir);
        match Mark::read(&tree.dir).map(|mark| mark.manifest) {
            Some(Some(expected)) => manifest::compare(&tree.dir, expected).map_err(cannot()),
            // Installed before there were manifests: nothing is known of what it was.
            _ => Ok(vec![Drift { path: MANIFEST.to_owned(), what: DriftKind::Missing }]),
        }
    }

    /// Takes a tree away: first its link, then the whole of it at once; killed in between, the
    /// next open removes the rest. Blocks.
    pub fn remove(&self, tree: &InstalledTree) -> Result<(), InstallError> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let links = [
            (tree.current, tree.version.as_str()),
            (tree.active, active::CURRENT),
            (tree.previous, active::PREVIOUS),
        ];
        for (_, name) in links.into_iter().filter(|(leads, _)| *leads) {
            let link = self.link(&tree.name, name);
            match std::fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(InstallError::io("remove", &link)(error));
                }
                _ => {}
            }
        }
        // The folder of the name goes with its last version; one that is not empty stays.
        let _ = std::fs::remove_dir(self.root.join(&tree.name));
        let aside = self.set_aside(tree)?;
        remove_tree(&aside).map_err(InstallError::io("remove", &aside))
    }

    /// Takes a tree away that is to be installed again, at once: what leads to it (the version that
    /// is used, the one before) leads to the new one, and nowhere until then. The installation
    /// removes what is left of it.
    pub fn make_way(&self, tree: &InstalledTree) -> Result<(), InstallError> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        self.set_aside(tree).map(drop)
    }

    /// Renames it to what is debris. Only under the lock.
    fn set_aside(&self, tree: &InstalledTree) -> Result<PathBuf, InstallError> {
        let aside = self.trees().join(format!("{STAGING}{}", unique()));
        std::fs::rename(&tree.dir, &aside).map_err(InstallError::io("move away", &tree.dir))?;
        sync_dir(File::open(self.trees()).map_err(InstallError::io("open", self.trees()))?)
            .map_err(InstallError::io("sync", self.trees()))?;
        Ok(aside)
    }

    fn stage(
        &self,
        install: &Install<'_>,
        staging: &Staging,
        progress: &mut Progress<'_>,
    ) -> Result<(), InstallError> {
        let (name, version) = (install.name.to_owned(), install.version.to_owned());
        let dir = self.trees();
        let free = free_bytes(&dir).map_err(InstallError::io("look at", &dir))?;
        if free < install.artifact.size {
            return Err(InstallError::NoSpace { dir, needed: install.artifact.size, free });
        }
        let strip_components = install.strip_components;
        let media_type = install.artifact.media_type;
        let unpacked =
            unpack(install.archive, media_type, &staging.path, strip_components, &install.limits, progress)
                .map_err(|source| match source {
                UnpackError::NoSpace { dir, needed, free } => InstallError::NoSpace { dir, needed, free },
                source => InstallError::Unpack { name: name.clone(), version: version.clone(), source },
            })?;
        check_reserved(&staging.path).map_err(|source| InstallError::Unpack {
            name: name.clone(),
            version: version.clone(),
            source,
        })?;
        for program in install.executables {
            if let Some(why) = executable::defect(&staging.path.join(program.as_str())) {
                let program = (*program).clone();
                return Err(InstallError::Executable { name, version, program, why });
            }
        }
        let manifest = manifest::write(&staging.path).map_err(InstallError::io("finish", &staging.path))?;
        if let Some(expected) = install.artifact.tree_sha256.filter(|expected| *expected != manifest) {
            return Err(InstallError::Tree { name, version, expected, got: manifest });
        }
        let written = (|| {
            // Everything below is on disk before the mark says so.
            rustix::fs::syncfs(File::open(&staging.path)?)?;
            let mark = Mark {
                schema: SCHEMA,
                name,
                version,
                sha256: install.artifact.sha256,
                strip_components,
                entries: unpacked.entries,
                bytes: unpacked.bytes,
                manifest: Some(manifest),
            };
            mark.write(&staging.path)?;
            std::fs::set_permissions(&staging.path, Permissions::from_mode(0o755))
        })();
        written.map_err(InstallError::io("finish", &staging.path))
    }

    fn publish(&self, install: &Install<'_>, staging: Staging) -> Result<PathBuf, InstallError> {
        let tree = self.tree(install.name, install.version, &install.artifact.sha256);
        let moved = (|| {
            if tree.symlink_metadata().is_ok() {
                // No mark, or it would have been found: debris under the final name.
                std::fs::rename(&tree, self.trees().join(format!("{STAGING}{}", unique())))?;
            }
            std::fs::rename(&staging.path, &tree)?;
            sync_dir(File::open(self.trees())?)
        })();
        moved.map_err(InstallError::io("move into", &tree))?;
        staging.keep();
        self.sweep()?;
        Ok(tree)
    }

    /// Points `<name>/<version>` at the tree.
    fn switch(&self, name: &str, version: &str, tree: &Path) -> Result<(), InstallError> {
        let dir = self.root.join(name);
        let link = dir.join(version);
        let target = Path::new("..").join(TREES).join(tree.file_name().unwrap_or_default());
        let switched = || -> io::Result<()> {
            create_dir(&dir)?;
            if std::fs::read_link(&link).is_ok_and(|old| old == target) {
                return Ok(());
            }
            let open = File::open(&dir)?;
            let temp = format!(".switch-{}", unique());
            std::os::unix::fs::symlink(&target, dir.join(&temp))?;
            if link.symlink_metadata().is_ok_and(|old| !old.is_symlink()) {
                exchange(&open, &temp, version)?;
                let aside = self.trees().join(format!("{REPLACED}{name}-{version}-{}", unique()));
                std::fs::rename(dir.join(&temp), aside)?;
            } else {
                rename(&open, &temp, version)?;
            }
            sync_dir(&open)
        };
        switched().map_err(InstallError::io("switch", &link))
    }

    /// Removes staging directories. Only under the lock.
    fn sweep(&self) -> Result<(), InstallError> {
        let trees = self.trees();
        let entries = std::fs::read_dir(&trees).map_err(InstallError::io("read", &trees))?;
        for entry in entries {
            let entry = entry.map_err(InstallError::io("read", &trees))?;
            if entry.file_name().to_string_lossy().starts_with(STAGING) {
                remove_tree(&entry.path()).map_err(InstallError::io("remove", entry.path()))?;
            }
        }
        Ok(())
    }

    /// The lock is held as long as the file is open. `None` when somebody else has it and
    /// the operation does not wait.
    fn lock(&self, operation: FlockOperation) -> Result<Option<File>, InstallError> {
        let path = self.trees().join(".lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(InstallError::io("open", &path))?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(InstallError::io("lock", &path)(error.into())),
            }
        }
    }

    fn trees(&self) -> PathBuf {
        self.root.join(TREES)
    }

    fn tree(&self, name: &str, version: &str, sha256: &Sha256) -> PathBuf {
        self.trees().join(format!("{name}-{version}-{}", sha256.short()))
    }
}

/// A private directory that is removed unless it became a tree.
#[derive(Debug)]
struct Staging {
    path: PathBuf,
    kept: bool,
}

impl Staging {
    fn create(trees: &Path) -> Result<Self, InstallError> {
        let path = trees.join(format!("{STAGING}{}", unique()));
        DirBuilder::new().mode(0o700).create(&path).map_err(InstallError::io("create", &path))?;
        Ok(Self { path, kept: false })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a failure; the next install sweeps.
            let _ = remove_tree(&self.path);
        }
    }
}

impl InstallError {
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }
}

/// Our own names cannot be in an archive.
fn check_reserved(tree: &Path) -> Result<(), UnpackError> {
    let taken = [MARK, MANIFEST].into_iter().find(|ours| tree.join(ours).symlink_metadata().is_ok());
    taken.map_or(Ok(()), |ours| Err(UnpackError::refused(ours, "the name is reserved")))
}

fn check_names(name: &str, version: &str) -> Result<(), NameError> {
    check_component("name", name)?;
    check_component("version", version)?;
    if [active::CURRENT, active::PREVIOUS].contains(&version) {
        let (field, value) = ("version".to_owned(), version.to_owned());
        return Err(NameError { field, value, rule: "the name is reserved" });
    }
    Ok(())
}

/// Creates a directory that other users can read, whatever the umask.
fn create_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const TREES: &str = ".store";
const STAGING: &str = ".staging-";
const REPLACED: &str = ".replaced-";
