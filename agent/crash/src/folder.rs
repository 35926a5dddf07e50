//! A server folder whose inside belongs to somebody hostile, opened for reading only.
//!
//! The folder itself is named by the operator and may be a link. Below it nothing is
//! followed: paths are resolved with `openat2(RESOLVE_BENEATH | NO_SYMLINKS |
//! NO_MAGICLINKS)`, or component by component with `O_NOFOLLOW` where the kernel or a
//! filter lacks that call. Only regular files are opened, never in a way that could block:
//! what is looked at is the open descriptor, so a swap between look and read changes
//! nothing.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// An open server folder.
#[derive(Debug)]
pub(crate) struct Folder {
    root: OwnedFd,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Time of the last change of the content, nanoseconds since 1970.
    pub mtime: i64,
}

/// Something in a directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: CString,
    pub kind: FileType,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// Opens a directory below; `""` is the folder itself.
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
            if name == ".." {
                return Err(Errno::XDEV.into());
            }
            here = rustix::fs::openat(&here, name, DIRECTORY, Mode::empty())?;
        }
        Ok(here)
    }

    /// Opens a regular file below, by a path without `..`.
    pub(crate) fn file(&self, path: &str) -> io::Result<(File, Stamp)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
        file_at(self.dir(parent)?, &name)
    }
}

/// Opens a regular file in a directory.
pub(crate) fn file_at(dir: impl AsFd, name: &CStr) -> io::Result<(File, Stamp)> {
    // Asked first: opening a device can do something.
    let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    regular(&stat)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file: File = rustix::fs::openat(dir, name, flags, Mode::empty())?.into();
    let stat = rustix::fs::fstat(&file)?;
    regular(&stat)?;
    Ok((file, Stamp::of(&stat)))
}

/// When the entry itself was last changed in any way, milliseconds since 1970: later than
/// the file's own time where a copy kept that.
pub(crate) fn placed_ms(dir: impl AsFd, name: &CStr) -> u64 {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.map_or(0, |stat| u64::try_from(stat.st_ctime).unwrap_or(0).saturating_mul(1_000))
}

/// The kind of an entry and, for a regular file, its stamp.
pub(crate) fn look(dir: impl AsFd, name: &CStr) -> io::Result<(FileType, Stamp)> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((FileType::from_raw_mode(stat.st_mode), Stamp::of(&stat)))
}

/// Opens a directory in a directory.
pub(crate) fn dir_at(dir: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?)
}

/// The entries of a directory, at most as many as the budget allows, in the order of their
/// names. The second value says whether some were left out.
pub(crate) fn entries(dir: impl AsFd, budget: &mut usize) -> io::Result<(Vec<Entry>, bool)> {
    let mut found = Vec::new();
    let mut cut = false;
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if *budget == 0 {
            cut = true;
            break;
        }
        *budget -= 1;
        let kind = match entry.file_type() {
            // File systems that do not say it in the listing.
            FileType::Unknown => look(&dir, name).map_or(FileType::Unknown, |(kind, _)| kind),
            known => known,
        };
        found.push(Entry { name: name.to_owned(), kind });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok((found, cut))
}

/// The first bytes of a file, at most `limit`; the file's position is left alone.
pub(crate) fn head(file: &File, limit: usize) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    // One byte more, to see the end without another call when the file does not grow.
    let mut bytes = vec![0; limit.min(size.saturating_add(1))];
    let got = fill(file, &mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// Reads from `offset` until the buffer is full or the file ends.
pub(crate) fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        // Saturates in the year 2262; a tenant can set any time.
        let nanos = stat.st_mtime.saturating_mul(1_000_000_000);
        let nanos = nanos.saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0));
        Self { size: u64::try_from(stat.st_size).unwrap_or(0), mtime: nanos }
    }

    /// When it was changed; a time before 1970 counts as 1970.
    pub(crate) fn changed(&self) -> SystemTime {
        let nanos = u64::try_from(self.mtime.max(0)).unwrap_or(u64::MAX);
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }
}

fn regular(stat: &Stat) -> io::Result<()> {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Symlink => "it is a symbolic link",
        FileType::Directory => "it is a directory",
        FileType::Fifo => "it is a pipe",
        FileType::Socket => "it is a socket",
        _ => "it is a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::addons::fixtures::while_swapping;

    #[test]
    fn nothing_is_followed_and_nothing_blocks() {
        let temp = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::fs::write(temp.path().join("a/b/file"), "12345").unwrap();
        symlink(outside.path(), temp.path().join("out")).unwrap();
        symlink("b", temp.path().join("a/in")).unwrap();
        symlink(outside.path().join("secret"), temp.path().join("leaf")).unwrap();
        rustix::fs::mkfifoat(CWD, temp.path().join("pipe"), Mode::RWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("socket")).unwrap();
        let folder = Folder::open(temp.path()).unwrap();
        let (file, stamp) = folder.file("a/b/file").unwrap();
        assert_eq!(stamp.size, 5);
        assert_eq!(head(&file, 3).unwrap(), b"123");
        assert_eq!(head(&file, 30).unwrap(), b"12345");
        for bad in
            ["out/secret", "leaf", "a/in/file", "pipe", "socket", "a", "", "..", "../x", "a/../../x", "none"]
        {
            assert!(folder.file(bad).is_err(), "{bad}");
        }
        for bad in ["out", "a/in", "..", "a/../..", "pipe"] {
            assert!(folder.dir(bad).is_err(), "{bad}");
            assert!(folder.walk(bad).is_err(), "{bad}");
        }
        folder.walk("a/b").unwrap();
        assert!(folder.file("/etc/passwd").is_err());
        let device = Folder::open(Path::new("/dev")).unwrap().file("null").unwrap_err();
        assert_eq!(device.to_string(), "it is a device");
    }

    #[test]
    fn a_link_or_a_pipe_in_its_place_between_look_and_open_is_not_read() {
        let temp = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        std::fs::write(temp.path().join("d/file"), "mine").unwrap();
        symlink(outside.path().join("secret"), temp.path().join("d/link")).unwrap();
        rustix::fs::mkfifoat(CWD, temp.path().join("d/pipe"), Mode::RWXU).unwrap();
        let folder = Folder::open(temp.path()).unwrap();
        for other in ["d/link", "d/pipe"] {
            while_swapping(&temp.path().join("d/file"), &temp.path().join(other), || {
                let mut read = 0;
                for _ in 0..20_000 {
                    if let Ok((file, _)) = folder.file("d/file") {
                        read += 1;
                        assert_eq!(head(&file, 10).unwrap(), b"mine");
                    }
                }
                assert!(read > 0);
            });
            // The swaps may have ended either way.
            if std::fs::symlink_metadata(temp.path().join(other)).unwrap().is_file() {
                std::fs::rename(temp.path().join(other), temp.path().join("d/file")).unwrap();
            }
        }
    }

    #[test]
    fn a_listing_has_a_ceiling() {
        let temp = tempfile::tempdir().unwrap();
        for at in 0..50 {
            std::fs::write(temp.path().join(at.to_string()), "x").unwrap();
        }
        let folder = Folder::open(temp.path()).unwrap();
        let mut budget = 20;
        let (found, cut) = entries(folder.dir("").unwrap(), &mut budget).unwrap();
        assert!(cut && found.len() == 20 && budget == 0);
    }
}
