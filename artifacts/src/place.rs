//! Putting one verified file into a game root, whose owner may be hostile; looking at it later,
//! and taking it away.
//!
//! The copy is made beside the target and renamed over it, so the target is the old file
//! or the new one. No link is followed on the way: a link in place of a directory is an
//! error, a link in place of the file itself is replaced.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;
use zlh_catalog::{RelPath, Sha256};

use crate::beneath::{Beneath, chown, create_new, free_bytes, remove, rename, sync_dir, unique};
use crate::hash::hash_reader;
use crate::store::DriftKind;

/// Whom placed files and created directories belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Why a file could not be placed.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// A link or file stands where a directory has to be.
    #[error("`{}` in `{}` cannot be written: a part of it is a link or not a directory; move it away", .to, .root.display())]
    NotADirectory {
        /// The game root.
        root: PathBuf,
        /// The target.
        to: RelPath,
    },
    /// The disk is full.
    #[error("no room in `{}`: {needed} bytes needed, {free} free", .root.display())]
    NoSpace {
        /// The game root.
        root: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// Anything else.
    #[error("cannot write `{to}` in `{}`", .root.display())]
    Io {
        /// The game root.
        root: PathBuf,
        /// The target.
        to: RelPath,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Copies `src`, a verified file, to `to` below `root`, with mode 0644; shares the blocks
/// where the file system can. Missing directories are made (0755). Blocks.
pub fn place_file(src: &Path, root: &Path, to: &RelPath, owner: Option<Owner>) -> Result<(), PlaceError> {
    let size = std::fs::metadata(src).map_or(0, |meta| meta.len());
    place(src, root, to, owner.map(|owner| (owner.uid, owner.gid))).map_err(|source| {
        match Errno::from_io_error(&source) {
            Some(Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => {
                PlaceError::NotADirectory { root: root.to_owned(), to: to.clone() }
            }
            Some(Errno::NOSPC | Errno::DQUOT) => PlaceError::NoSpace {
                root: root.to_owned(),
                needed: size,
                free: free_bytes(root).unwrap_or(0),
            },
            _ => PlaceError::Io { root: root.to_owned(), to: to.clone(), source },
        }
    })
}

fn place(src: &Path, root: &Path, to: &RelPath, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut from = File::open(src)?;
    let parent = to.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
    let dir = Beneath::open(root)?.create_dirs(parent, 0o755, owner)?;
    let temp = format!(".zlh-place-{}", unique());
    let mut file = create_new(&dir, &temp)?;
    let copied = (|| {
        // Another file system, or one without reflinks: copy.
        if rustix::fs::ioctl_ficlone(&file, &from).is_err() {
            io::copy(&mut from, &mut file)?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
        chown(file.as_fd(), owner)?;
        file.sync_all()?;
        rename(&dir, &temp, to.file_name())?;
        sync_dir(&dir)
    })();
    if copied.is_err() {
        remove(&dir, &temp)?;
    }
    copied
}

/// How a placed file differs from what was placed. Blocks, and reads as many bytes as it had:
/// whoever owns the folder may have made more of it.
pub fn check_placed(
    root: &Path,
    to: &RelPath,
    size: u64,
    expected: &Sha256,
) -> io::Result<Option<DriftKind>> {
    let file = match open_placed(root, to) {
        Ok(file) => file,
        Err(error) => return kind_of(error).map(Some),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(Some(DriftKind::Type));
    }
    if meta.len() != size {
        return Ok(Some(DriftKind::Content));
    }
    let (_, got) = hash_reader(io::Read::take(file, size))?;
    Ok((got != *expected).then_some(DriftKind::Content))
}

/// Takes a placed file away; whatever else stands there stays, and so does what a link leads
/// to. Whether there was one. Blocks.
pub fn remove_placed(root: &Path, to: &RelPath) -> io::Result<bool> {
    let removed = || {
        let dir = parent(root, to)?;
        let stat = rustix::fs::statat(&dir, to.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        rustix::fs::unlinkat(&dir, to.file_name(), AtFlags::empty())?;
        sync_dir(&dir)?;
        Ok(true)
    };
    match removed() {
        Err(error) => kind_of(error).map(|_| false),
        done => done,
    }
}

fn parent(root: &Path, to: &RelPath) -> io::Result<std::os::fd::OwnedFd> {
    let parent = to.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
    Beneath::open(root)?.dir(parent)
}

fn open_placed(root: &Path, to: &RelPath) -> io::Result<File> {
    // A FIFO that takes its place must not hold us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent(root, to)?, to.file_name(), flags, Mode::empty())?.into())
}

/// What an error on the way to a file says about it, unless it is one of the disk.
fn kind_of(error: io::Error) -> io::Result<DriftKind> {
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => Ok(DriftKind::Missing),
        // A link, a socket, a file in place of a folder.
        Some(Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::XDEV) => Ok(DriftKind::Type),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Game {
        temp: tempfile::TempDir,
        outside: tempfile::TempDir,
    }

    impl Game {
        fn new() -> Self {
            let (temp, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            std::fs::create_dir(temp.path().join("root")).unwrap();
            std::fs::write(temp.path().join("src"), "new").unwrap();
            std::fs::write(outside.path().join("canary"), "alive").unwrap();
            Self { temp, outside }
        }

        fn root(&self) -> PathBuf {
            self.temp.path().join("root")
        }

        fn place(&self, to: &str) -> Result<(), PlaceError> {
            place_file(&self.temp.path().join("src"), &self.root(), &RelPath::new(to).unwrap(), None)
        }

        fn assert_outside_untouched(&self) {
            let names: Vec<_> =
                std::fs::read_dir(self.outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["canary"]);
            assert_eq!(std::fs::read_to_string(self.outside.path().join("canary")).unwrap(), "alive");
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = std::fs::read_dir(self.root())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn a_file_is_placed_and_replaced_whole() {
        let game = Game::new();
        game.place("server.jar").unwrap();
        std::fs::write(game.root().join("server.jar"), "edited and longer").unwrap();
        game.place("server.jar").unwrap();
        game.place("a/b/server.jar").unwrap();
        for path in ["server.jar", "a/b/server.jar"] {
            let path = game.root().join(path);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o644);
        }
        assert_eq!(game.names(), ["a", "server.jar"]);
    }

    #[test]
    fn links_are_refused_or_replaced_but_never_followed() {
        let game = Game::new();
        symlink(game.outside.path(), game.root().join("dir")).unwrap();
        symlink(game.outside.path().join("canary"), game.root().join("server.jar")).unwrap();
        symlink(game.outside.path().join("fresh"), game.root().join("dangling")).unwrap();
        let error = game.place("dir/server.jar").unwrap_err();
        assert!(matches!(error, PlaceError::NotADirectory { .. }), "{error:?}");
        game.place("server.jar").unwrap();
        game.place("dangling").unwrap();
        game.assert_outside_untouched();
        assert!(game.root().join("server.jar").symlink_metadata().unwrap().is_file());
        assert_eq!(game.names(), ["dangling", "dir", "server.jar"], "no temporary file stays");
    }

    #[test]
    fn a_directory_in_place_of_the_file_is_an_error_that_leaves_nothing() {
        let game = Game::new();
        std::fs::create_dir(game.root().join("server.jar")).unwrap();
        std::fs::write(game.root().join("file"), "").unwrap();
        for to in ["server.jar", "file/x"] {
            let error = game.place(to).unwrap_err();
            assert!(matches!(error, PlaceError::NotADirectory { .. }), "{to}: {error:?}");
        }
        assert_eq!(game.names(), ["file", "server.jar"]);
    }

    #[test]
    fn what_was_placed_is_looked_at_and_taken_away_without_following_anything() {
        let game = Game::new();
        let path = |to: &str| RelPath::new(to).unwrap();
        let expected = crate::hash::hash_bytes(b"new");
        let look = |to: &str| check_placed(&game.root(), &path(to), 3, &expected).unwrap();
        let take = |to: &str| remove_placed(&game.root(), &path(to)).unwrap();
        game.place("plugins/a.jar").unwrap();
        game.place("server.jar").unwrap();
        assert_eq!((look("plugins/a.jar"), look("server.jar")), (None, None));
        std::fs::write(game.root().join("server.jar"), "old").unwrap();
        assert_eq!(look("server.jar"), Some(DriftKind::Content));
        // Nobody reads eight terabytes of nothing.
        File::options().write(true).open(game.root().join("server.jar")).unwrap().set_len(1 << 43).unwrap();
        assert_eq!(look("server.jar"), Some(DriftKind::Content));
        assert_eq!(look("none.jar"), Some(DriftKind::Missing));
        assert_eq!(look("server.jar/x"), Some(DriftKind::Type));
        // The same content, but behind a link; a folder; a pipe that nobody writes to.
        std::fs::write(game.outside.path().join("canary"), "new").unwrap();
        symlink(game.outside.path().join("canary"), game.root().join("link.jar")).unwrap();
        symlink(game.outside.path(), game.root().join("dir")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, game.root().join("fifo"), Mode::RWXU).unwrap();
        for to in ["link.jar", "dir/canary", "plugins", "fifo"] {
            assert_eq!(look(to), Some(DriftKind::Type), "{to}");
            assert!(!take(to), "{to}");
        }
        assert!(!take("none.jar") && !take("server.jar/x"));
        assert!(take("server.jar") && take("plugins/a.jar"));
        assert_eq!(game.names(), ["dir", "fifo", "link.jar", "plugins"]);
        assert!(game.outside.path().join("canary").exists());
    }

    #[test]
    fn a_root_that_is_a_link_is_refused() {
        let game = Game::new();
        std::fs::remove_dir(game.root()).unwrap();
        symlink(game.outside.path(), game.root()).unwrap();
        assert!(game.place("x").is_err());
        game.assert_outside_untouched();
    }
}
