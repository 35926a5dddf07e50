//! A directory whose inside may be changed by somebody hostile while we work in it.
//!
//! Every path below it is opened with `openat2(RESOLVE_BENEATH | NO_SYMLINKS |
//! NO_MAGICLINKS)`; where the kernel or a filter lacks that call, component by component
//! with `O_NOFOLLOW`, which for plain names is as strict, only slower. No operation
//! follows a symbolic link or leaves the directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// An open directory that paths are resolved beneath. Paths are relative, without `.`,
/// `..` or empty components; `""` is the directory itself.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
}

impl Beneath {
    /// Opens a directory that is not itself a symbolic link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { root: rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())? })
    }

    /// Bytes that can still be written in it, also where its path cannot be followed.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Bytes of its file system.
    pub(crate) fn total_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.root)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    /// Opens a directory below.
    pub(crate) fn dir(&self, path: &str) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let target = if path.is_empty() { "." } else { path };
        match rustix::fs::openat2(&self.root, target, DIRECTORY, Mode::empty(), resolve) {
            // EAGAIN: something was renamed meanwhile and the kernel gave up.
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => self.walk(path),
            other => Ok(other?),
        }
    }

    /// The same without `openat2`.
    fn walk(&self, path: &str) -> io::Result<OwnedFd> {
        let mut here = rustix::fs::openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if name == "." || name == ".." {
                return Err(Errno::XDEV.into());
            }
            here = rustix::fs::openat(&here, name, DIRECTORY, Mode::empty())?;
        }
        Ok(here)
    }

    /// Creates a directory and what is missing above it, each with exactly `mode` and,
    /// where one is given, that owner. Existing directories are left alone.
    pub(crate) fn create_dirs(
        &self,
        path: &str,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> io::Result<OwnedFd> {
        let mut done = String::new();
        let mut here = self.dir("")?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let made = match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            if !done.is_empty() {
                done.push('/');
            }
            done.push_str(name);
            here = self.dir(&done)?;
            if made {
                let dir = reopen(&here)?;
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
                chown(dir.as_fd(), owner)?;
            }
        }
        Ok(here)
    }
}

/// Creates a file that does not exist yet, with mode 0600.
pub(crate) fn create_new(dir: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// Renames within one directory, over what may be there.
pub(crate) fn rename(dir: impl AsFd, from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat(&dir, from, &dir, to)?)
}

/// Swaps two names of one directory.
pub(crate) fn exchange(dir: impl AsFd, a: &str, b: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(&dir, a, &dir, b, RenameFlags::EXCHANGE)?)
}

/// Removes a file or link; what is already gone is fine.
pub(crate) fn remove(dir: impl AsFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(reopen(dir)?)?)
}

/// A descriptor that can do more than name the directory.
pub(crate) fn reopen(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, ".", flags, Mode::empty())?)
}

pub(crate) fn chown(file: BorrowedFd<'_>, owner: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Bytes that can still be written where `path` is.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A name nobody else uses, in this process or another.
pub(crate) fn unique() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}-{:08x}", std::process::id(), RandomState::new().build_hasher().finish() >> 32)
}

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn neither_way_follows_a_link_or_leaves() {
        let temp = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        symlink(outside.path(), temp.path().join("out")).unwrap();
        symlink("a", temp.path().join("in")).unwrap();
        std::fs::write(temp.path().join("file"), "").unwrap();
        let root = Beneath::open(temp.path()).unwrap();
        for good in ["", "a", "a/b"] {
            root.dir(good).unwrap();
            root.walk(good).unwrap();
        }
        for bad in ["out", "out/x", "in", "in/b", "file", "..", "a/../..", "none"] {
            assert!(root.dir(bad).is_err(), "{bad}");
            assert!(root.walk(bad).is_err(), "{bad}");
        }
        assert!(Beneath::open(&temp.path().join("in")).is_err());
    }

    #[test]
    fn directories_get_their_mode_whatever_the_umask_and_links_stop_them() {
        let temp = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), temp.path().join("out")).unwrap();
        let root = Beneath::open(temp.path()).unwrap();
        root.create_dirs("x/y", 0o777, None).unwrap();
        let mode = std::fs::metadata(temp.path().join("x/y")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777);
        assert!(root.create_dirs("out/x", 0o755, None).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
