//! Who writes what an archive contains: nobody, even where we are root.
//!
//! ```text
//! root:  dest ──given to──► NOBODY's                            root's again ◄── every entry
//! a thread of its own:      has become NOBODY, for ever ─► writes ─► ends
//! ```
//!
//! The policy refuses what would leave the directory, and the kernel resolves every path
//! beneath it. Should both be wrong, the thread that writes still may write nothing else: it
//! has no capability and no group, and the directory is all that its user owns. Threads have
//! users of their own on Linux; that of the thread ends with it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::beneath::reopen;

/// Runs `work`, which writes into the directory, as a user who may write nowhere else, if we
/// are root; then everything in there is the directory's owner's again. `work` of anybody but
/// root, who has nothing to give up, is only run.
pub(crate) fn confined<T: Send>(dir: impl AsFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if !rustix::process::geteuid().is_root() {
        return Ok(work());
    }
    let dir = reopen(dir)?;
    let before = rustix::fs::fstat(&dir)?;
    let owner = (Uid::from_raw(before.st_uid), Gid::from_raw(before.st_gid));
    match rustix::fs::fchown(&dir, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))) {
        Ok(()) => {}
        // A root of a few users, who does not have this one, or one who may not give anything
        // away: not much of a root.
        Err(Errno::INVAL | Errno::OVERFLOW | Errno::PERM) => return Ok(work()),
        Err(error) => return Err(error.into()),
    }
    let done = thread::scope(|scope| {
        let run = move || -> io::Result<T> {
            become_nobody()?;
            Ok(work())
        };
        let thread = thread::Builder::new().name("unpack".to_owned()).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // What failed is given back, too: whoever removes it need not be root any more.
    let given = give_to(&dir, owner);
    let done = done?;
    given.map(|()| done)
}

/// Of this thread, and of those that it starts. There is no way back.
fn become_nobody() -> io::Result<()> {
    match set_thread_groups(&[]) {
        // A user namespace may keep everybody from changing groups.
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

/// A directory and all that is in it. The directory first: from then on its mode keeps
/// everybody else out.
fn give_to(dir: &OwnedFd, owner: (Uid, Gid)) -> io::Result<()> {
    rustix::fs::fchown(dir, Some(owner.0), Some(owner.1))?;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode).is_dir()
            }
            known => known.is_dir(),
        };
        if is_dir {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            give_to(&rustix::fs::openat(dir, name, flags, Mode::empty())?, owner)?;
        } else {
            rustix::fs::chownat(dir, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

/// Of a range that Debian gives to nobody, above the one that systemd gives to services for the
/// time they run, and within the 65,536 users of a container.
const NOBODY: u32 = 65_521;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// What the kernel says of this thread.
    fn of_this_thread(field: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap().to_owned();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn skip() -> bool {
        let skip = !rustix::process::geteuid().is_root();
        if skip {
            eprintln!("SKIPPED: only root has something to give up");
        }
        skip
    }

    #[test]
    fn the_thread_that_writes_may_write_nowhere_else() {
        if skip() {
            return;
        }
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("file"), "before").unwrap();
        let inside = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(inside.path()).unwrap();
        let work = || {
            for field in ["Uid:", "Gid:"] {
                assert_eq!(of_this_thread(field), "65521 65521 65521 65521");
            }
            assert_eq!(of_this_thread("Groups:"), "");
            for field in ["CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(of_this_thread(field), "0000000000000000", "{field}");
            }
            std::thread::scope(|scope| {
                let inherited = scope.spawn(|| of_this_thread("Uid:"));
                assert_eq!(inherited.join().unwrap(), "65521 65521 65521 65521");
            });
            let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            assert!(std::fs::write(outside.path().join("file"), "after").is_err_and(denied));
            assert!(std::fs::write("/etc/zlh-unpack", "").is_err_and(denied));
            assert!(std::fs::read("/etc/shadow").is_err_and(denied));
            rustix::fs::mkdirat(&dir, "sub", Mode::from_raw_mode(0o755)).unwrap();
            let name = "sub/file";
            rustix::fs::openat(&dir, name, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644))
                .unwrap();
            rustix::fs::symlinkat("/etc/passwd", &dir, "link").unwrap();
            7
        };
        let passwd = std::fs::metadata("/etc/passwd").unwrap();
        assert_eq!(confined(&dir, work).unwrap(), 7);
        assert_eq!(of_this_thread("Uid:"), "0 0 0 0", "and nobody else was changed");
        for path in ["", "sub", "sub/file", "link"] {
            let meta = std::fs::symlink_metadata(inside.path().join(path)).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (0, 0), "{path}");
        }
        assert_eq!(std::fs::metadata("/etc/passwd").unwrap().ctime(), passwd.ctime(), "nothing is followed");
    }

    #[test]
    fn a_panic_is_passed_on() {
        if skip() {
            return;
        }
        let inside = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(inside.path()).unwrap();
        let failed = std::panic::catch_unwind(|| confined::<()>(&dir, || panic!("on purpose")));
        assert_eq!(failed.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
    }
}
