//! What a crash's remedy lets the agent do in the game's folder and among its own
//! processes. Only when asked.
//!
//! The folder is the tenant's: it is entered by handle, links are not followed, nothing is
//! overwritten. A process is ended only if it is provably of a run of ours: it listens on
//! the port, it carries the mark that every process of a run inherits, and it is held by
//! descriptor before it is looked at for the last time.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, openat, renameat_with, statat};
use rustix::process::Signal;
use zlh_shim::living::Living;
use zlh_shim::process::{ProcessId, carries_mark};

use super::port_owner;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepairError {
    /// The record names something that is no mod or plugin of this server.
    #[error("{0} is no mod or plugin in this server's folder")]
    NotAnAddon(String),
    /// It is gone, or something else by now.
    #[error("{0} cannot be renamed: {1}")]
    Rename(String, #[source] io::Error),
    /// Nobody listens there.
    #[error("nobody listens on port {0} any more: start the server")]
    PortFree(u16),
    /// Somebody else's process.
    #[error("port {0} is used by {1}, which is not a process of this server: stop it yourself")]
    NotOurs(u16, String),
    /// It did not end.
    #[error("{0} did not end")]
    Stubborn(String),
}

/// Renames a mod or plugin so that no loader takes it: `mods/x.jar` → `mods/x.jar.disabled`.
pub(crate) fn disable_addon(root: &Path, file: &str) -> Result<(), RepairError> {
    let no = || RepairError::NotAnAddon(file.to_owned());
    let parts: Vec<Component<'_>> = Path::new(file).components().collect();
    let [Component::Normal(folder), Component::Normal(name)] = parts.as_slice() else { return Err(no()) };
    let (folder, name) = (folder.to_str().ok_or_else(no)?, name.to_str().ok_or_else(no)?);
    if !["mods", "plugins"].contains(&folder) || !name.ends_with(".jar") || name.starts_with('.') {
        return Err(no());
    }
    let failed = |errno: rustix::io::Errno| RepairError::Rename(file.to_owned(), errno.into());
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH;
    let root = openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH, Mode::empty())
        .map_err(failed)?;
    let folder = openat(&root, folder, flags, Mode::empty()).map_err(failed)?;
    let kind = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?.st_mode;
    if FileType::from_raw_mode(kind) != FileType::RegularFile {
        return Err(no());
    }
    renameat_with(&folder, name, &folder, format!("{name}.disabled"), RenameFlags::NOREPLACE).map_err(failed)
}

/// Ends the process of one of `runs` that still listens on a port. Blocking, 15 s at most.
pub(crate) fn free_port(port: u16, runs: &BTreeSet<String>) -> Result<(), RepairError> {
    let pid = port_owner::listener(port).ok_or(RepairError::PortFree(port))?;
    let words = port_owner::words(pid);
    let living = ProcessId::of(pid).ok().and_then(Living::open).ok_or(RepairError::PortFree(port))?;
    // Every process of a run inherits the run's mark. One of another agent's runs is a stranger.
    if !carries_mark(pid, |run| runs.contains(run)) || port_owner::listener(port) != Some(pid) {
        return Err(RepairError::NotOurs(port, words));
    }
    for (signal, patience) in
        [(Signal::TERM, Duration::from_secs(10)), (Signal::KILL, Duration::from_secs(5))]
    {
        // One that has ended in between is what was wanted.
        let _ = living.signal(signal);
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if living.has_ended() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Err(RepairError::Stubborn(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mod_is_renamed_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("server");
        std::fs::create_dir_all(root.join("mods/sub")).unwrap();
        for name in ["server.jar", "mods/bad.jar", "mods/two.jar", "mods/two.jar.disabled", "mods/sub/x.jar"]
        {
            std::fs::write(root.join(name), name).unwrap();
        }
        std::fs::write(dir.path().join("secret.jar"), "secret").unwrap();
        std::os::unix::fs::symlink("../../secret.jar", root.join("mods/link.jar")).unwrap();
        std::os::unix::fs::symlink("..", root.join("plugins")).unwrap();
        disable_addon(&root, "mods/bad.jar").unwrap();
        assert!(root.join("mods/bad.jar.disabled").exists() && !root.join("mods/bad.jar").exists());
        for file in [
            "server.jar",
            "../secret.jar",
            "mods/../server.jar",
            "/etc/passwd.jar",
            "mods/link.jar",
            "mods/sub/x.jar",
            "plugins/secret.jar",
            "mods/sub",
            "mods/none.jar",
            "mods/two.jar",
            "",
            "mods/",
        ] {
            assert!(disable_addon(&root, file).is_err(), "{file}");
        }
        assert_eq!(
            std::fs::read_to_string(root.join("mods/two.jar.disabled")).unwrap(),
            "mods/two.jar.disabled"
        );
        assert!(dir.path().join("secret.jar").exists() && root.join("server.jar").exists());
    }

    #[test]
    fn a_stranger_on_the_port_is_left_alone() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        // This very process listens, and carries no mark.
        let runs = BTreeSet::from(["run-a".to_owned()]);
        assert!(matches!(free_port(port, &runs), Err(RepairError::NotOurs(..))));
        drop(socket);
        assert!(matches!(free_port(port, &runs), Err(RepairError::PortFree(_))));
    }
}
