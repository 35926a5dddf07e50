//! The worlds in a game's folder: where they are, who holds them, whether they are
//! being written.
//!
//! A world is a folder with a `level.dat` or a `session.lock`, at most [`WORLD_DEPTH`]
//! below the game's. Everything in there is the tenant's: directories are entered by
//! handle, links are not followed (but for a world folder itself, which operators like to
//! keep on another disk), and every walk has a ceiling. Nothing is ever written.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

/// How deep below the game's folder a world is looked for.
const WORLD_DEPTH: usize = 3;

/// How deep below a world its files lie: `dimensions/NAMESPACE/NAME/region/FILE`.
const FILE_DEPTH: usize = 8;

/// Entries looked at in one walk: for worlds, and in each of them.
const MAX_ENTRIES: usize = 100_000;

/// As many entries as in so many walks are looked at in all worlds together.
const WALKS: usize = 5;

/// Where a world's chunks are, its dimensions, and everything else: a save is seen there first.
const CHUNKS: [&CStr; 4] = [c"region", c"entities", c"poi", c"data"];
const DIMENSIONS: [&CStr; 3] = [c"DIM-1", c"DIM1", c"dimensions"];

/// Folders that are no part of a world, where no world was found.
const NO_WORLD: [&CStr; 2] = [c"logs", c"crash-reports"];

/// What a world's files take and when they were changed, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Regular files.
    pub files: u64,
    /// Space they take, in blocks of 512 bytes: it grows when bytes are written, not when
    /// a file is touched or its size is set. File systems that allocate late let it grow
    /// once more long after the last write.
    pub blocks: u64,
    /// Their sizes, bytes: grows with the write that makes a file longer.
    pub bytes: u64,
    /// Differs when any file was changed, replaced, added or removed.
    pub changes: u64,
}

/// A `session.lock` that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldLock {
    /// Below the game's folder.
    pub path: PathBuf,
    /// Who holds it; none when that is not known here.
    pub pid: Option<i32>,
}

/// Adds up the worlds below `root`; without any, the whole folder but its logs.
pub(crate) fn tally(root: &Path) -> Tally {
    tally_within(root, MAX_ENTRIES)
}

/// `most`: entries looked at in one walk.
fn tally_within(root: &Path, most: usize) -> Tally {
    let mut tally = Tally::default();
    let Ok(game) = open_dir(CWD, root, true) else { return tally };
    let worlds = find(&game, &mut most.clone());
    let mut left = most.saturating_mul(WALKS);
    for (_, world) in &worlds {
        let granted = left.min(most);
        let mut budget = granted;
        add(world, FILE_DEPTH, &[], &mut budget, &mut tally);
        left -= granted - budget;
    }
    if worlds.is_empty() {
        add(&game, FILE_DEPTH, &NO_WORLD, &mut most.clone(), &mut tally);
    }
    tally
}

/// The locks that other processes hold on the worlds below `root`. The kernel is asked
/// (`F_GETLK`), so a file that was left behind means nothing.
pub(crate) fn held_locks(root: &Path) -> Vec<HeldLock> {
    let Ok(game) = open_dir(CWD, root, true) else { return Vec::new() };
    let worlds = find(&game, &mut MAX_ENTRIES.clone());
    let held = |(path, world): (PathBuf, OwnedFd)| {
        let pid = holder(&world).ok().flatten()?;
        Some(HeldLock { path: path.join("session.lock"), pid: (pid > 0).then_some(pid) })
    };
    worlds.into_iter().filter_map(held).collect()
}

/// The worlds below a game's folder and their paths in it.
fn find(game: &OwnedFd, budget: &mut usize) -> Vec<(PathBuf, OwnedFd)> {
    let mut worlds = Vec::new();
    let mut waiting = VecDeque::new();
    match game.try_clone() {
        Ok(game) => waiting.push_back((PathBuf::new(), game, 0)),
        Err(_) => return worlds,
    }
    while let Some((path, dir, depth)) = waiting.pop_front() {
        let entries = entries(&dir, budget);
        if entries.iter().any(|(name, _)| [c"level.dat", c"session.lock"].contains(&name.as_c_str())) {
            worlds.push((path, dir));
            continue;
        }
        if depth == WORLD_DEPTH {
            continue;
        }
        for (name, kind) in entries {
            // A world may be a link to another disk; nothing deeper may lead anywhere else.
            let follow = depth == 0 && kind == FileType::Symlink;
            if (kind == FileType::Directory || follow)
                && let Ok(below) = open_dir(&dir, name.as_c_str(), follow)
            {
                waiting.push_back((path.join(name.to_string_lossy().as_ref()), below, depth + 1));
            }
        }
    }
    worlds
}

fn add(dir: &OwnedFd, depth: usize, without: &[&CStr], budget: &mut usize, tally: &mut Tally) {
    let mut all = entries(dir, budget);
    all.sort_by_key(|(name, kind)| match *kind {
        FileType::Directory if CHUNKS.contains(&name.as_c_str()) => 0,
        FileType::Directory if DIMENSIONS.contains(&name.as_c_str()) => 1,
        FileType::Directory => 3,
        _ => 2,
    });
    for (name, kind) in all {
        match kind {
            FileType::Directory if depth > 0 && !without.contains(&name.as_c_str()) => {
                if let Ok(below) = open_dir(dir, name.as_c_str(), false) {
                    add(&below, depth - 1, &[], budget, tally);
                }
            }
            FileType::RegularFile => {
                let Ok(stat) = statat(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
                tally.files += 1;
                tally.blocks = tally.blocks.wrapping_add(u64::try_from(stat.st_blocks).unwrap_or(0));
                tally.bytes = tally.bytes.wrapping_add(u64::try_from(stat.st_size).unwrap_or(0));
                let mut hasher = DefaultHasher::new();
                (stat.st_ino, stat.st_mtime, stat.st_mtime_nsec).hash(&mut hasher);
                // A sum, because the order of a directory's entries means nothing.
                tally.changes = tally.changes.wrapping_add(hasher.finish());
            }
            _ => {}
        }
    }
}

/// The entries of a directory, as many as the budget allows.
fn entries(dir: &OwnedFd, budget: &mut usize) -> Vec<(CString, FileType)> {
    let mut found = Vec::new();
    let Ok(listing) = Dir::read_from(dir) else { return found };
    for entry in listing.flatten() {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if *budget == 0 {
            break;
        }
        *budget -= 1;
        let kind = match entry.file_type() {
            // File systems that do not say it in the listing.
            FileType::Unknown => statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            known => known,
        };
        found.push((name.to_owned(), kind));
    }
    found
}

fn open_dir<F: AsFd, P: rustix::path::Arg>(at: F, path: P, follow: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !follow);
    openat(at, path, flags, Mode::empty())
}

/// The pid of whoever holds a lock on a world's `session.lock`; 0 or less for somebody
/// whom this container cannot see. The lock is the kind that a JVM's `tryLock` takes.
fn holder(world: &OwnedFd) -> io::Result<Option<i32>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(world, c"session.lock", flags, Mode::empty())?;
    lock_holder(file.as_fd())
}

fn lock_holder(file: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let small = |value: i32| i16::try_from(value).unwrap_or_default();
    let mut lock = libc::flock {
        l_type: small(libc::F_WRLCK),
        l_whence: small(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((lock.l_type != small(libc::F_UNLCK)).then_some(lock.l_pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn world(root: &Path, path: &str) -> PathBuf {
        let world = root.join(path);
        fs::create_dir_all(world.join("region")).unwrap();
        fs::write(world.join("level.dat"), "x").unwrap();
        fs::write(world.join("region/r.0.0.mca"), vec![1; 8192]).unwrap();
        world
    }

    #[test]
    fn bytes_show_and_touches_and_logs_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path(), "world");
        fs::create_dir(dir.path().join("logs")).unwrap();
        let first = tally(dir.path());
        assert_eq!(first.files, 2);
        fs::write(dir.path().join("logs/latest.log"), vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(tally(dir.path()), first, "a log is no world");
        let region = fs::File::options().write(true).open(world.join("region/r.0.0.mca")).unwrap();
        region.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let touched = tally(dir.path());
        assert_eq!((touched.blocks, touched.bytes), (first.blocks, first.bytes));
        assert_ne!(touched.changes, first.changes);
        fs::write(world.join("region/r.1.0.mca"), vec![1; 1 << 20]).unwrap();
        let grown = tally(dir.path());
        assert!(grown.blocks > touched.blocks && grown.bytes > touched.bytes, "{touched:?} {grown:?}");
        assert_eq!(grown.files, 3);
    }

    #[test]
    fn worlds_are_found_where_servers_keep_them() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        world(dir.path(), "world");
        world(dir.path(), "world_nether");
        world(dir.path(), "worlds/lobby");
        world(elsewhere.path(), "big");
        world(dir.path(), "plugins/cache/a/b/too-deep");
        std::os::unix::fs::symlink(elsewhere.path().join("big"), dir.path().join("linked")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("world/region/root")).unwrap();
        let game = open_dir(CWD, dir.path(), true).unwrap();
        let mut found: Vec<PathBuf> =
            find(&game, &mut MAX_ENTRIES.clone()).into_iter().map(|(path, _)| path).collect();
        found.sort();
        assert_eq!(found, ["linked", "world", "world_nether", "worlds/lobby"].map(PathBuf::from));
        assert_eq!(tally(dir.path()).files, 8, "links inside a world lead nowhere");
    }

    #[test]
    fn a_crowd_beside_or_in_a_world_hides_no_save() {
        const MOST: usize = 40;
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path(), "world");
        world_of_chunks(&world.join("DIM-1"));
        for crowd in ["plugins/Essentials/userdata", "world/advancements", "world/playerdata"] {
            let crowd = dir.path().join(crowd);
            fs::create_dir_all(&crowd).unwrap();
            for at in 0..2 * MOST {
                fs::write(crowd.join(at.to_string()), "x").unwrap();
            }
        }
        for region in ["region/r.1.0.mca", "DIM-1/region/r.1.0.mca"] {
            let before = tally_within(dir.path(), MOST);
            fs::write(world.join(region), vec![1; 1 << 20]).unwrap();
            let after = tally_within(dir.path(), MOST);
            assert!(after.bytes > before.bytes + (1 << 19), "{region}: {before:?} {after:?}");
        }
    }

    #[test]
    fn many_worlds_together_have_a_ceiling() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..20 {
            let world = world(dir.path(), &at.to_string());
            for file in 0..30 {
                fs::write(world.join(file.to_string()), "x").unwrap();
            }
        }
        assert!(tally_within(dir.path(), 100).files <= 500);
        assert_eq!(tally(dir.path()).files, 20 * 32);
    }

    fn world_of_chunks(dimension: &Path) {
        fs::create_dir_all(dimension.join("region")).unwrap();
        fs::write(dimension.join("region/r.0.0.mca"), vec![1; 8192]).unwrap();
    }

    #[test]
    fn a_walk_has_a_ceiling() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..50 {
            fs::write(dir.path().join(at.to_string()), "x").unwrap();
        }
        let game = open_dir(CWD, dir.path(), true).unwrap();
        let mut budget = 20;
        assert_eq!(entries(&game, &mut budget).len(), 20);
        assert_eq!(budget, 0);
        assert!(find(&game, &mut budget).is_empty());
    }

    #[test]
    fn a_lock_file_that_nobody_holds_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path(), "world");
        fs::write(world.join("session.lock"), "\u{2603}").unwrap();
        assert_eq!(held_locks(dir.path()), []);
        // A device or a FIFO in its place neither blocks nor fails.
        fs::remove_file(world.join("session.lock")).unwrap();
        rustix::fs::mkfifoat(CWD, world.join("session.lock"), Mode::RWXU).unwrap();
        assert_eq!(held_locks(dir.path()), []);
    }
}
