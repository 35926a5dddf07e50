//! The games' own user, created without NSS: a line in `passwd`, `group` and `shadow`.
//!
//! The files are locked the way `passwd(5)` tools lock them (`.pwd.lock`), read again
//! under the lock, and replaced by a rename with owner and mode kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use zlh_shim::durable;

/// Ids that Debian gives to system users, from the top down.
const SYSTEM_IDS: std::ops::RangeInclusive<u32> = 100..=999;

/// How long another tool may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Largest file that is edited, bytes.
const MAX_FILE: u64 = 4 << 20;

/// Creates a system user that cannot log in, with a group of the same name, unless it is there.
pub(super) fn system_user(etc: &Path, name: &str) -> io::Result<()> {
    let _lock = lock(etc)?;
    let passwd = read(&etc.join("passwd"))?;
    let group = read(&etc.join("group"))?;
    if has(&passwd, name) {
        return Ok(());
    }
    let (uids, gids) = (ids(&passwd), ids(&group));
    let id = SYSTEM_IDS
        .rev()
        .find(|id| !uids.contains(id) && !gids.contains(id))
        .ok_or_else(|| io::Error::other("no system user id is free"))?;
    let gid = match group_id(&group, name) {
        Some(gid) => gid,
        None => {
            append(&etc.join("group"), &group, &format!("{name}:x:{id}:\n"))?;
            id
        }
    };
    let shadow = etc.join("shadow");
    if shadow.exists() {
        let text = read(&shadow)?;
        if !has(&text, name) {
            append(&shadow, &text, &format!("{name}:!:::::::\n"))?;
        }
    }
    // Last: from now on it is found, and complete.
    append(
        &etc.join("passwd"),
        &passwd,
        &format!("{name}:x:{id}:{gid}:ZeroLagHub games:/nonexistent:/usr/sbin/nologin\n"),
    )
}

/// `lckpwdf` is a write lock on this file; it ends with the descriptor.
fn lock(etc: &Path) -> io::Result<fs::File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(etc.join(".pwd.lock"))?;
    let whole = nix::libc::flock {
        l_type: i16::try_from(nix::libc::F_WRLCK).map_err(io::Error::other)?,
        l_whence: i16::try_from(nix::libc::SEEK_SET).map_err(io::Error::other)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
            Ok(_) => return Ok(file),
            Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = durable::read_bounded(path, MAX_FILE).map_err(io::Error::other)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn append(path: &Path, old: &str, line: &str) -> io::Result<()> {
    let meta = fs::metadata(path)?;
    let separator = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
    let temp = path.with_extension("zlh-new");
    match fs::remove_file(&temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Complete, with owner and mode, before it takes the old one's place.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
    file.write_all(format!("{old}{separator}{line}").as_bytes())?;
    std::os::unix::fs::fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
    file.set_permissions(fs::Permissions::from_mode(meta.permissions().mode() & 0o7777))?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    path.parent().map_or(Ok(()), durable::sync_dir)
}

fn has(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.split(':').next() == Some(name))
}

fn ids(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
}

fn group_id(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_added_once_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path();
        fs::write(etc.join("passwd"), "root:x:0:0:root:/root:/bin/bash\nold:x:999:999::/:/bin/sh").unwrap();
        fs::write(etc.join("group"), "root:x:0:\nsome:x:998:\n").unwrap();
        fs::write(etc.join("shadow"), "root:*:1::::::\n").unwrap();
        fs::set_permissions(etc.join("shadow"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(etc.join("passwd"), fs::Permissions::from_mode(0o644)).unwrap();
        system_user(etc, "zlh-game").unwrap();
        system_user(etc, "zlh-game").unwrap();
        let text = |name: &str| fs::read_to_string(etc.join(name)).unwrap();
        assert_eq!(
            text("passwd"),
            "root:x:0:0:root:/root:/bin/bash\nold:x:999:999::/:/bin/sh\nzlh-game:x:997:997:ZeroLagHub games:/nonexistent:/usr/sbin/nologin\n"
        );
        assert_eq!(text("group"), "root:x:0:\nsome:x:998:\nzlh-game:x:997:\n");
        assert_eq!(text("shadow"), "root:*:1::::::\nzlh-game:!:::::::\n");
        let mode = |name: &str| fs::metadata(etc.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("shadow"), mode("passwd")), (0o640, 0o644));
    }
}
