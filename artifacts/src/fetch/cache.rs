//! The cache of verified files: `sha256/<hex>` (0444), and `tmp/` for those under way.
//!
//! A file in `sha256/` was complete and right when it was renamed there; it is hashed
//! again at its first use in a process and whenever it changed since. A file in `tmp/` is
//! locked by whoever writes it, so what is not locked is debris.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, FlockOperation};
use zlh_catalog::{Artifact, Sha256};

use super::FetchError;
use crate::beneath::{free_bytes, unique};
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
    /// What was hashed in this process: inode, size, change time (s, ns).
    verified: Mutex<HashMap<Sha256, Fingerprint>>,
}

type Fingerprint = (u64, u64, i64, i64);

/// A file under way; removed when dropped before [`Part::publish`].
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Cache {
    /// Creates what is missing and clears away what nobody is writing any more.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, FetchError> {
        for sub in ["sha256", "tmp"] {
            let path = dir.join(sub);
            std::fs::create_dir_all(&path).map_err(FetchError::io("create", &path))?;
        }
        let cache = Self { dir, verified: Mutex::default() };
        cache.sweep().map_err(FetchError::io("clean up", cache.dir.join("tmp")))?;
        Ok(cache)
    }

    pub(crate) fn path_of(&self, sha256: &Sha256) -> PathBuf {
        self.dir.join("sha256").join(sha256.to_string())
    }

    /// The verified file, if it is there. One that is wrong is removed. Blocks.
    pub(crate) fn find(
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

    /// What is wrong with a cached file.
    fn check(&self, file: &File, artifact: &Artifact) -> io::Result<Option<String>> {
        let fingerprint = fingerprint(file)?;
        if fingerprint.1 != artifact.size {
            return Ok(Some(format!("{} bytes instead of {}", fingerprint.1, artifact.size)));
        }
        if self.memory().get(&artifact.sha256) == Some(&fingerprint) {
            return Ok(None);
        }
        let (_, got) = hash_reader(file)?;
        if got != artifact.sha256 {
            return Ok(Some(format!("hash {got}")));
        }
        self.memory().insert(artifact.sha256, fingerprint);
        Ok(None)
    }

    /// Starts a file of that size. Blocks.
    pub(crate) fn begin(&self, artifact: &Artifact) -> Result<Part, FetchError> {
        let dir = self.dir.join("tmp");
        let no_space = |free| FetchError::NoSpace { dir: dir.clone(), needed: artifact.size, free };
        let free = free_bytes(&dir).map_err(FetchError::io("look at", &dir))?;
        if free < artifact.size.saturating_add(SPARE_BYTES) {
            return Err(no_space(free));
        }
        let path = dir.join(format!("{}.{}.part", artifact.sha256, unique()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(FetchError::io("create", &path))?;
        let part = Part { path, file, published: false };
        rustix::fs::flock(&part.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| FetchError::io("lock", &part.path)(error.into()))?;
        match rustix::fs::fallocate(&part.file, FallocateFlags::KEEP_SIZE, 0, artifact.size) {
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(no_space(free)),
            // Not every file system can reserve; then a full disk shows at a write.
            _ => Ok(part),
        }
    }

    /// Makes a complete file durable and visible. Its bytes were checked. Blocks.
    pub(crate) fn publish(&self, mut part: Part, sha256: &Sha256) -> Result<PathBuf, FetchError> {
        let path = self.path_of(sha256);
        let failed = FetchError::io("store", &path);
        let stored = || -> io::Result<Fingerprint> {
            part.file.set_permissions(std::fs::Permissions::from_mode(0o444))?;
            part.file.sync_all()?;
            std::fs::rename(&part.path, &path)?;
            part.published = true;
            File::open(self.dir.join("sha256"))?.sync_all()?;
            fingerprint(&part.file)
        };
        let fingerprint = { stored }().map_err(failed)?;
        self.memory().insert(*sha256, fingerprint);
        Ok(path)
    }

    pub(crate) fn io_error(&self, size: u64, error: io::Error) -> FetchError {
        let dir = self.dir.join("tmp");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                FetchError::NoSpace { free: free_bytes(&dir).unwrap_or(0), needed: size, dir }
            }
            _ => FetchError::io("write into", dir)(error),
        }
    }

    fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.dir.join("tmp"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "part") && is_abandoned(&path) {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<Sha256, Fingerprint>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    pub(crate) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.published {
            // Nothing can be done about a failure; the next start sweeps.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    OpenOptions::new()
        .write(true)
        .custom_flags(O_NOFOLLOW)
        .open(path)
        .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

fn fingerprint(file: &File) -> io::Result<Fingerprint> {
    let meta = file.metadata()?;
    Ok((meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
}

/// What stays free beside a file, for everybody else on the disk.
const SPARE_BYTES: u64 = 16 << 20;
const O_NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
