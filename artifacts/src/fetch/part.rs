//! A file under way: `tmp/<sha256>.part`, locked by whoever writes it, and beside it where
//! its bytes come from.
//!
//! It stays when a transfer ends early, so that the next one goes on from there. What it
//! holds is not trusted: the hash is over the whole file, from its first byte.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use zlh_catalog::Sha256;

use super::source::Resume;
use crate::hash::HashingWriter;

/// A file under way. Dropped, it stays if it is worth to be gone on with.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
    /// Bytes that are written.
    len: u64,
    published: bool,
}

/// Which server the bytes came from, and what it called the file.
#[derive(Debug, Serialize, Deserialize)]
struct Origin {
    server: String,
    tag: Option<String>,
}

impl Part {
    /// Opens or creates it. `Err(bytes)`: another process is writing it, and is that far.
    pub(super) fn open(dir: &Path, sha256: &Sha256) -> io::Result<Result<Self, u64>> {
        let path = dir.join(format!("{sha256}.part"));
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(O_NOFOLLOW)
                .open(&path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Err(file.metadata()?.len())),
                Err(error) => return Err(error.into()),
            }
            // It may have been published or removed between the two calls.
            let meta = file.metadata()?;
            match std::fs::symlink_metadata(&path) {
                Ok(there) if there.ino() == meta.ino() => {
                    return Ok(Ok(Self { path, file, len: meta.len(), published: false }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// From where a transfer of `size` bytes can go on, and what that server called it.
    pub(super) fn resume(&self, server: &str, size: u64) -> Option<Resume> {
        if self.len == 0 || self.len >= size {
            return None;
        }
        let origin = std::fs::read(self.origin()).ok();
        let origin = origin.and_then(|text| serde_json::from_slice::<Origin>(&text).ok());
        // Of another mirror the tag says nothing; that it is the same file the hash will say.
        let tag = origin.filter(|origin| origin.server == server).and_then(|origin| origin.tag);
        Some(Resume { offset: self.len, size, tag })
    }

    /// Notes where the bytes come from. Without the note a resumed transfer may be in vain.
    pub(super) fn note(&self, server: &str, tag: Option<&str>) {
        let origin = Origin { server: server.to_owned(), tag: tag.map(str::to_owned) };
        if let Ok(text) = serde_json::to_vec(&origin) {
            let _ = std::fs::write(self.origin(), text);
        }
    }

    /// A writer behind the first `begins` bytes, which are hashed again. The rest is cut off.
    pub(super) fn writer(&mut self, begins: u64) -> io::Result<HashingWriter<File>> {
        self.len = begins.min(self.len);
        self.file.set_len(self.len)?;
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        let mut writer = HashingWriter::new(file.try_clone()?);
        let mut left = self.len;
        let mut buffer = vec![0; HASH_BYTES];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(HASH_BYTES).min(HASH_BYTES);
            let read = file.read(&mut buffer[..want])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            writer.hash_only(&buffer[..read]);
            left -= read as u64;
        }
        Ok(writer)
    }

    /// How many bytes are written now.
    pub(super) fn wrote(&mut self, len: u64) {
        self.len = len;
    }

    /// Forgets its bytes.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.len = 0;
        self.file.set_len(0)
    }

    /// Renames it to its final place.
    pub(super) fn rename(&mut self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)?;
        self.published = true;
        let _ = std::fs::remove_file(self.origin());
        Ok(())
    }

    fn origin(&self) -> PathBuf {
        self.path.with_extension(ORIGIN)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        // Nothing can be done about a failure; the next start sweeps.
        if self.len < WORTH_BYTES {
            let _ = std::fs::remove_file(self.origin());
            let _ = std::fs::remove_file(&self.path);
        } else {
            // Gives back what was reserved behind its end.
            let _ = self.file.set_len(self.len);
        }
    }
}

/// Removes what nobody is writing any more and nobody will go on with.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let stale = match extension {
            Some(PART) => is_stale(&path),
            Some(ORIGIN) => !path.with_extension(PART).exists(),
            _ => false,
        };
        if stale {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn is_stale(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new().write(true).custom_flags(O_NOFOLLOW).open(path) else { return false };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    let ours =
        path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.parse::<Sha256>().is_ok());
    let Ok(meta) = file.metadata() else { return false };
    let age = meta.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
    !ours || meta.len() < WORTH_BYTES || age > KEPT
}

const PART: &str = "part";
const ORIGIN: &str = "origin";
const HASH_BYTES: usize = 128 << 10;
/// Less than this is not worth a request with a range.
pub(super) const WORTH_BYTES: u64 = 64 << 10;
/// An unfinished file that nobody asked for again.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
const O_NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
