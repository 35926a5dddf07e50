//! Copying a server's folder: everything in it belongs to a tenant who may be changing it
//! at this moment, and we are root.
//!
//! Every step is taken from an open directory and follows no link. What is neither file,
//! directory nor link is left out. Owners, modes and times are kept, setuid bits are not.
//! Where the file system can share blocks, nothing is copied at all.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::Errno;

/// What a folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes of its files.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

/// Why a folder was not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// Not enough room beside it.
    #[error(
        "no room for a copy of the world: {needed} bytes needed, {free} free; delete old copies or backups"
    )]
    NoRoom { needed: u64, free: u64 },
    /// Somebody said so.
    #[error("copying was cancelled")]
    Cancelled,
    /// A step of it.
    #[error("cannot copy `{path}`")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// What is in a folder. Files that vanish meanwhile are not counted.
pub(super) fn measure(root: &Path) -> Result<Size, CopyError> {
    let dir = open_root(root).map_err(at(""))?;
    let mut size = Size::default();
    measure_dir(&dir, "", &mut size, 0)?;
    Ok(size)
}

/// Copies a folder to `to`, which must not exist. `step` hears the bytes copied so far and
/// says whether to go on. What was begun is left behind after an error.
pub(super) fn copy(root: &Path, to: &Path, step: &mut dyn FnMut(u64) -> bool) -> Result<Size, CopyError> {
    let from = open_root(root).map_err(at(""))?;
    rustix::fs::mkdir(to, Mode::RWXU).map_err(|errno| at("")(errno.into()))?;
    let into = open_root(to).map_err(at(""))?;
    let size = measure(root)?;
    if !shares_blocks(&into) {
        let free = rustix::fs::fstatvfs(&into).map(|fs| fs.f_bavail * fs.f_frsize).unwrap_or(0);
        if free < size.bytes.saturating_add(SPARE_BYTES) {
            return Err(CopyError::NoRoom { needed: size.bytes, free });
        }
    }
    let mut copier = Copier { done: Size::default(), step };
    copier.dir(&from, &into, "", 0)?;
    // It takes the folder's place one day: then it is the game's own, as that is.
    let stat = rustix::fs::fstat(&from).map_err(|errno| at("")(errno.into()))?;
    keep(&into, &stat).map_err(at(""))?;
    rustix::fs::syncfs(&into).map_err(|errno| at("")(errno.into()))?;
    Ok(copier.done)
}

struct Copier<'a> {
    done: Size,
    step: &'a mut dyn FnMut(u64) -> bool,
}

impl Copier<'_> {
    fn dir(&mut self, from: &OwnedFd, into: &OwnedFd, path: &str, depth: usize) -> Result<(), CopyError> {
        let entries = Dir::read_from(from).map_err(|errno| at(path)(errno.into()))?;
        for entry in entries {
            let entry = entry.map_err(|errno| at(path)(errno.into()))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let here = format!("{path}{}{}", if path.is_empty() { "" } else { "/" }, name.to_string_lossy());
            let failed = |errno: Errno| at(&here)(errno.into());
            let stat = match rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
                // It has just gone: a copy a moment later would not have had it either.
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(failed)?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth >= MAX_DEPTH => {
                    return Err(failed(Errno::NAMETOOLONG));
                }
                FileType::Directory => {
                    let inner = rustix::fs::openat(from, name, DIRECTORY, Mode::empty()).map_err(failed)?;
                    rustix::fs::mkdirat(into, name, Mode::RWXU).map_err(failed)?;
                    let made = rustix::fs::openat(into, name, DIRECTORY, Mode::empty()).map_err(failed)?;
                    self.dir(&inner, &made, &here, depth + 1)?;
                    // What was opened is what counts, not what had that name a moment before.
                    let stat = rustix::fs::fstat(&inner).map_err(failed)?;
                    keep(&made, &stat).map_err(at(&here))?;
                }
                FileType::RegularFile => {
                    let source = match rustix::fs::openat(from, name, READ, Mode::empty()) {
                        Err(Errno::NOENT) => continue,
                        file => File::from(file.map_err(failed)?),
                    };
                    let stat = rustix::fs::fstat(&source).map_err(failed)?;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                        continue;
                    }
                    let target = rustix::fs::openat(into, name, CREATE, Mode::RUSR | Mode::WUSR);
                    let target = File::from(target.map_err(failed)?);
                    self.file(source, &target, &here)?;
                    keep(&target, &stat).map_err(at(&here))?;
                }
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(from, name, Vec::new()).map_err(failed)?;
                    rustix::fs::symlinkat(&link, into, name).map_err(failed)?;
                    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
                    chown(rustix::fs::chownat(into, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))
                        .map_err(at(&here))?;
                }
                _ => continue,
            }
            self.done.entries += 1;
        }
        Ok(())
    }

    fn file(&mut self, mut source: File, target: &File, path: &str) -> Result<(), CopyError> {
        if rustix::fs::ioctl_ficlone(target, &source).is_ok() {
            self.done.bytes += source.metadata().map_err(at(path))?.size();
            return self.go_on();
        }
        loop {
            // In pieces, so that it can be ended.
            let mut piece = io::Read::take(&mut source, PIECE_BYTES);
            let copied = io::copy(&mut piece, &mut &*target).map_err(at(path))?;
            if copied == 0 {
                return Ok(());
            }
            self.done.bytes += copied;
            self.go_on()?;
        }
    }

    fn go_on(&mut self) -> Result<(), CopyError> {
        if (self.step)(self.done.bytes) { Ok(()) } else { Err(CopyError::Cancelled) }
    }
}

fn measure_dir(dir: &OwnedFd, path: &str, size: &mut Size, depth: usize) -> Result<(), CopyError> {
    for entry in Dir::read_from(dir).map_err(|errno| at(path)(errno.into()))? {
        let entry = entry.map_err(|errno| at(path)(errno.into()))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        size.entries += 1;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => size.bytes += u64::try_from(stat.st_size).unwrap_or(0),
            FileType::Directory if depth < MAX_DEPTH => {
                if let Ok(inner) = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
                    let here = format!("{path}/{}", name.to_string_lossy());
                    measure_dir(&inner, &here, size, depth + 1)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Owner, mode and time of what was copied.
fn keep(target: &impl std::os::fd::AsFd, stat: &Stat) -> io::Result<()> {
    chown(rustix::fs::fchown(target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o777))?;
    let modified =
        Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    let times =
        Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: modified };
    Ok(rustix::fs::futimens(target, &times)?)
}

/// Only root may give files away; whoever is not owns them all.
fn chown(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        other => Ok(other?),
    }
}

/// Whether files of this directory can share their blocks.
fn shares_blocks(dir: &OwnedFd) -> bool {
    let probe = || -> rustix::io::Result<()> {
        let a = rustix::fs::openat(dir, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RWXU)?;
        let b = rustix::fs::openat(dir, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RWXU)?;
        rustix::io::write(&a, &[0; 4096])?;
        rustix::fs::ioctl_ficlone(&b, &a)
    };
    probe().is_ok()
}

fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?)
}

fn at(path: &str) -> impl FnOnce(io::Error) -> CopyError {
    let path = if path.is_empty() { ".".to_owned() } else { path.to_owned() };
    move |source| CopyError::Io { path, source }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A FIFO that takes a file's place must not hold us.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const MAX_DEPTH: usize = 128;
const PIECE_BYTES: u64 = 8 << 20;
/// What stays free beside a copy.
const SPARE_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn everything_is_there_with_its_mode_and_time_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        std::fs::write(&outside, "secret").unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir_all(root.join("world/region")).unwrap();
        let region = root.join("world/region/r.0.0.mca");
        std::fs::write(&region, vec![7; 9 << 20]).unwrap();
        std::fs::set_permissions(&region, std::fs::Permissions::from_mode(0o4640)).unwrap();
        let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        File::open(&region).unwrap().set_modified(then).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink("world", root.join("in")).unwrap();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o751)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&root, Some(1234), Some(4321)).unwrap();
        }
        rustix::fs::mkfifoat(CWD, root.join("fifo"), Mode::RWXU).unwrap();
        let to = temp.path().join("copy");
        let mut seen = Vec::new();
        let size = copy(&root, &to, &mut |bytes| {
            seen.push(bytes);
            true
        })
        .unwrap();
        assert_eq!(size, Size { bytes: 9 << 20, entries: 5 });
        assert_eq!(seen.last(), Some(&(9 << 20)));
        let copied = to.join("world/region/r.0.0.mca");
        assert_eq!(std::fs::read(&copied).unwrap(), vec![7; 9 << 20]);
        let meta = copied.metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.modified().unwrap()), (0o640, then));
        // The folder itself, too: it takes the other's place.
        let [made, was] = [&to, &root].map(|dir| dir.metadata().unwrap());
        assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o751, was.uid(), was.gid()));
        assert_eq!(std::fs::read_link(to.join("out")).unwrap(), outside, "a link stays a link");
        assert!(to.join("in").is_symlink() && !to.join("fifo").exists());
        // Never onto something that is there.
        assert!(copy(&root, &to, &mut |_| true).is_err());
    }

    #[test]
    fn it_can_be_ended_in_the_middle() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir(&root).unwrap();
        for name in ["a", "b"] {
            std::fs::write(root.join(name), vec![1; 20 << 20]).unwrap();
        }
        let error = copy(&root, &temp.path().join("copy"), &mut |bytes| bytes < 16 << 20).unwrap_err();
        assert!(matches!(error, CopyError::Cancelled), "{error:?}");
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("elsewhere")).unwrap();
        symlink("elsewhere", temp.path().join("root")).unwrap();
        assert!(copy(&temp.path().join("root"), &temp.path().join("copy"), &mut |_| true).is_err());
    }
}
