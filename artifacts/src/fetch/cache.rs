//! The cache of verified files: `sha256/<hex>` (0444), and `tmp/` for those under way.
//!
//! A file in `sha256/` was complete and right when it was renamed there; it is hashed
//! again at its first use in a process and whenever it changed since. Above its budget the
//! cache lets go of what was not used for longest.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::FallocateFlags;
use zlh_catalog::{Artifact, Sha256};

use super::FetchError;
use super::part::{self, Part};
use crate::beneath::free_bytes;
use crate::hash::hash_reader;

/// A cached file that was not what its name says, and was removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cached copy of `{path}` was damaged ({why}) and has been fetched again")]
pub struct CacheWarning {
    /// Path on the artifact server.
    pub path: String,
    /// What was wrong with it.
    pub why: String,
}

#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    /// Bytes it may hold.
    budget: u64,
    /// What was hashed in this process: inode, size, change time (s, ns).
    verified: Mutex<HashMap<Sha256, Fingerprint>>,
}

type Fingerprint = (u64, u64, i64, i64);

impl Cache {
    /// Creates what is missing and clears away what nobody will go on with.
    pub(super) fn open(dir: PathBuf, budget: u64) -> Result<Self, FetchError> {
        for sub in ["sha256", "tmp"] {
            let path = dir.join(sub);
            std::fs::create_dir_all(&path).map_err(FetchError::io("create", &path))?;
        }
        let cache = Self { dir, budget, verified: Mutex::default() };
        part::sweep(&cache.tmp()).map_err(FetchError::io("clean up", cache.tmp()))?;
        Ok(cache)
    }

    fn path_of(&self, sha256: &Sha256) -> PathBuf {
        self.dir.join("sha256").join(sha256.to_string())
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// The verified file, if it is there. One that is wrong is removed. Blocks.
    pub(super) fn find(
        &self,
        artifact: &Artifact,
    ) -> Result<Result<PathBuf, Option<CacheWarning>>, FetchError> {
        let path = self.path_of(&artifact.sha256);
        let file = match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(None)),
            Err(error) => return Err(FetchError::io("open", path)(error)),
        };
        let why = match self.check(&file, artifact).map_err(FetchError::io("read", &path))? {
            None => return Ok(Ok(path)),
            Some(why) => why,
        };
        std::fs::remove_file(&path).map_err(FetchError::io("remove", &path))?;
        Ok(Err(Some(CacheWarning { path: artifact.path.to_string(), why })))
    }

    /// What is wrong with a cached file. One that is right is noted as used.
    fn check(&self, file: &File, artifact: &Artifact) -> io::Result<Option<String>> {
        let seen = fingerprint(file)?;
        if seen.1 != artifact.size {
            return Ok(Some(format!("{} bytes instead of {}", seen.1, artifact.size)));
        }
        if self.memory().get(&artifact.sha256) != Some(&seen) {
            let (_, got) = hash_reader(file)?;
            if got != artifact.sha256 {
                return Ok(Some(format!("hash {got}")));
            }
        }
        // Its modification time says when it was last used; a cache on a read-only file
        // system does without.
        let fresh = file.metadata()?.modified()?.elapsed().is_ok_and(|age| age < NOTED);
        if !fresh {
            let _ = file.set_modified(SystemTime::now());
        }
        self.memory().insert(artifact.sha256, fingerprint(file)?);
        Ok(None)
    }

    /// Starts a file of that size, or goes on with it. `Err(bytes)`: another one fetches it
    /// and is that far. Blocks.
    pub(super) fn begin(&self, artifact: &Artifact) -> Result<Result<Part, u64>, FetchError> {
        let dir = self.tmp();
        let part =
            match Part::open(&dir, &artifact.sha256).map_err(FetchError::io("create a file in", &dir))? {
                Ok(part) => part,
                Err(bytes) => return Ok(Err(bytes)),
            };
        self.reserve(&part, artifact.size, &artifact.sha256).map(|()| Ok(part))
    }

    /// Sees to it that there is room for the rest of a part. Blocks.
    pub(super) fn reserve(&self, part: &Part, size: u64, but: &Sha256) -> Result<(), FetchError> {
        let dir = self.tmp();
        let needed = size.saturating_sub(part.len());
        let free = || free_bytes(&dir).map_err(FetchError::io("look at", &dir));
        if free()? < needed.saturating_add(SPARE_BYTES) {
            // The disk is worth more than what can be fetched again.
            self.trim(0, but);
        }
        let free = free()?;
        let no_space = || FetchError::NoSpace { dir: dir.clone(), needed: size, free };
        if free < needed.saturating_add(SPARE_BYTES) {
            return Err(no_space());
        }
        match rustix::fs::fallocate(part.file(), FallocateFlags::KEEP_SIZE, 0, size) {
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(no_space()),
            // Not every file system can reserve; then a full disk shows at a write.
            _ => Ok(()),
        }
    }

    /// Makes a complete file durable and visible. Its bytes were checked. Blocks.
    pub(super) fn publish(&self, mut part: Part, sha256: &Sha256) -> Result<PathBuf, FetchError> {
        let path = self.path_of(sha256);
        let failed = FetchError::io("store", &path);
        let stored = || -> io::Result<Fingerprint> {
            part.file().set_permissions(std::fs::Permissions::from_mode(0o444))?;
            part.file().sync_all()?;
            part.rename(&path)?;
            File::open(self.dir.join("sha256"))?.sync_all()?;
            fingerprint(part.file())
        };
        let fingerprint = { stored }().map_err(failed)?;
        self.memory().insert(*sha256, fingerprint);
        self.trim(self.budget, sha256);
        Ok(path)
    }

    /// Removes what was not used for longest, until the rest fits into `budget`. Not `but`,
    /// and nothing that was used lately: an installation may be about to read it. What
    /// cannot be removed stays.
    fn trim(&self, budget: u64, but: &Sha256) {
        let Ok(entries) = std::fs::read_dir(self.dir.join("sha256")) else { return };
        let but = self.path_of(but);
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let meta = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
                Some((meta.modified().ok()?, meta.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut all: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (used, size, path) in files {
            let lately = used.elapsed().map_or(true, |age| age < LATELY);
            if all > budget && !lately && path != but && std::fs::remove_file(&path).is_ok() {
                all -= size;
            }
        }
    }

    pub(super) fn io_error(&self, size: u64, error: io::Error) -> FetchError {
        let dir = self.tmp();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                FetchError::NoSpace { free: free_bytes(&dir).unwrap_or(0), needed: size, dir }
            }
            _ => FetchError::io("write into", dir)(error),
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<Sha256, Fingerprint>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fingerprint(file: &File) -> io::Result<Fingerprint> {
    let meta = file.metadata()?;
    Ok((meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
}

/// What stays free beside a file, for everybody else on the disk.
const SPARE_BYTES: u64 = 16 << 20;
/// A use is noted once in this time.
const NOTED: Duration = Duration::from_secs(10 * 60);
/// What was used within this time is not removed.
const LATELY: Duration = Duration::from_secs(3600);
const O_NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
