//! Which version of a name is used: chosen by one rename, gone back to by another.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use zlh_catalog::{MediaType, RelPath, Sha256};

use super::{InstallError, InstalledTree, Staging, Store, TREES, executable, manifest};
use crate::beneath::{exchange, rename, sync_dir, unique};
use crate::unpack::{Limits, UnpackError, unpack};

/// What an archive unpacks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// Of its tree; what a catalog pins as `tree_sha256`.
    pub tree_sha256: Sha256,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

impl Store {
    /// Makes an installed tree the one that is used. The one before is kept for
    /// [`Store::roll_back`]. Nothing is copied and nothing is read: two renames.
    pub fn activate(&self, tree: &InstalledTree) -> Result<(), InstallError> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let target = Path::new("..").join(TREES).join(tree.dir.file_name().unwrap_or_default());
        let dir = self.root.join(&tree.name);
        let switched = || -> io::Result<()> {
            std::fs::create_dir_all(&dir)?;
            let before = std::fs::read_link(dir.join(CURRENT)).ok();
            if before.as_ref() == Some(&target) {
                return Ok(());
            }
            // Killed in between, there is nothing to go back to but what is used. Nor is one that is
            // gone anything to go back to.
            if let Some(before) = before.filter(|before| dir.join(before).exists()) {
                point(&dir, PREVIOUS, &before)?;
            }
            point(&dir, CURRENT, &target)?;
            sync_dir(File::open(&dir)?)
        };
        switched().map_err(InstallError::io("switch", dir.join(CURRENT)))
    }

    /// Goes back to the version that was used before, which becomes the one to go back to:
    /// two of them undo each other. Where it leads now.
    pub fn roll_back(&self, name: &str) -> Result<PathBuf, InstallError> {
        zlh_catalog::check_component("name", name)?;
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let dir = self.root.join(name);
        let previous = std::fs::canonicalize(dir.join(PREVIOUS)).ok();
        let current = std::fs::canonicalize(dir.join(CURRENT)).ok();
        let Some(previous) = previous.filter(|previous| Some(previous) != current.as_ref()) else {
            return Err(InstallError::NoPrevious(name.to_owned()));
        };
        let switched = || -> io::Result<()> {
            let open = File::open(&dir)?;
            exchange(&open, PREVIOUS, CURRENT)?;
            sync_dir(&open)
        };
        switched().map_err(InstallError::io("switch", dir.join(CURRENT)))?;
        Ok(previous)
    }

    /// From now on no version is the one that is used.
    pub fn deactivate(&self, name: &str) -> Result<(), InstallError> {
        zlh_catalog::check_component("name", name)?;
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let link = self.root.join(name).join(CURRENT);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(InstallError::io("remove", &link)(error))
            }
            _ => Ok(()),
        }
    }

    /// What an archive unpacks to, as [`Store::install`] would do it; nothing is kept. For
    /// publishers: the hash is what the catalog pins.
    pub fn inspect(
        &self,
        archive: &Path,
        media_type: MediaType,
        strip_components: u8,
        executables: &[&RelPath],
        limits: &Limits,
    ) -> Result<Inspected, InstallError> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let staging = Staging::create(&self.trees())?;
        let named = || ("the archive".to_owned(), archive.display().to_string());
        let mut go_on = |_| ControlFlow::Continue(());
        let unpacked = unpack(archive, media_type, &staging.path, strip_components, limits, &mut go_on)
            .map_err(|source| match source {
                UnpackError::NoSpace { dir, needed, free } => InstallError::NoSpace { dir, needed, free },
                source => {
                    let (name, version) = named();
                    InstallError::Unpack { name, version, source }
                }
            })?;
        for program in executables {
            if let Some(why) = executable::defect(&staging.path.join(program.as_str())) {
                let (name, version) = named();
                return Err(InstallError::Executable { name, version, program: (*program).clone(), why });
            }
        }
        super::check_reserved(&staging.path).map_err(|source| {
            let (name, version) = named();
            InstallError::Unpack { name, version, source }
        })?;
        let tree_sha256 =
            manifest::write(&staging.path).map_err(InstallError::io("finish", &staging.path))?;
        Ok(Inspected { tree_sha256, entries: unpacked.entries, bytes: unpacked.bytes })
    }
}

/// Points `dir/name` at `target`, whatever was there.
fn point(dir: &Path, name: &str, target: &Path) -> io::Result<()> {
    let temp = format!(".switch-{}", unique());
    std::os::unix::fs::symlink(target, dir.join(&temp))?;
    rename(&File::open(dir)?, &temp, name)
}

pub(super) const CURRENT: &str = "current";
pub(super) const PREVIOUS: &str = "previous";
