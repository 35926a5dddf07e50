//! Running a vendor's installer (Forge, NeoForge): as the game's user, in the game's
//! folder, with an empty environment, a deadline, and proof of what it made.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use zlh_shim::spec::UserIds;

/// Bytes of the installer's output that an error quotes.
const QUOTED: usize = 2000;

/// Why the installer did not install.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be started.
    #[error("the installer could not be started")]
    Start(#[source] io::Error),
    /// It ended badly.
    #[error("the installer ended with {status}; its last lines: {tail}")]
    Failed {
        /// Exit status.
        status: String,
        /// The end of its output.
        tail: String,
    },
    /// It took too long.
    #[error("the installer was ended after {after:?}; its last lines: {tail}")]
    TooLong {
        /// The limit.
        after: Duration,
        /// The end of its output.
        tail: String,
    },
    /// It ended well and did not do its work.
    #[error("the installer ended, but there is no {missing}; its last lines: {tail}")]
    Incomplete {
        /// What should be there.
        missing: String,
        /// The end of its output.
        tail: String,
    },
}

impl Error {
    /// The same of a program that was only tried.
    pub(crate) fn of_program(&self) -> String {
        match self {
            Self::Start(source) => format!("could not be started: {source}"),
            Self::Failed { status, tail } => format!("ended with {status}: {tail}"),
            Self::TooLong { after, .. } => format!("did not answer within {after:?}"),
            Self::Incomplete { missing, .. } => format!("made no {missing}"),
        }
    }
}

/// One run.
pub(crate) struct Installer<'a> {
    pub argv: Vec<String>,
    /// Paths below `root` that must exist afterwards.
    pub produces: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub root: &'a Path,
    pub user: Option<&'a UserIds>,
    pub timeout: Duration,
}

impl Installer<'_> {
    /// Runs it to its end; its output goes to `log`.
    pub(crate) async fn run(&self, log: &Path) -> Result<(), Error> {
        let Some((program, arguments)) = self.argv.split_first() else {
            return Err(Error::Start(io::ErrorKind::InvalidInput.into()));
        };
        let output = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(log)
            .map_err(Error::Start)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(&self.env)
            .current_dir(self.root)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(Error::Start)?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true);
        if let Some(user) = self.user {
            // Without supplementary groups: std drops them when root becomes somebody else.
            command.uid(user.uid).gid(user.gid);
        }
        let mut child = command.spawn().map_err(Error::Start)?;
        // Its children go with it, also when this future is dropped.
        let mut group = Group(child.id());
        let status = match tokio::time::timeout(self.timeout, child.wait()).await {
            Ok(status) => status.map_err(Error::Start)?,
            Err(_) => {
                drop(group);
                return Err(Error::TooLong { after: self.timeout, tail: tail(log) });
            }
        };
        // It was waited for: from now on its number may be somebody else's.
        group.0 = None;
        if !status.success() {
            return Err(Error::Failed { status: status.to_string(), tail: tail(log) });
        }
        match self.produces.iter().find(|path| !self.root.join(path).is_file()) {
            None => Ok(()),
            Some(missing) => Err(Error::Incomplete { missing: missing.clone(), tail: tail(log) }),
        }
    }
}

/// A home for one run of a program that writes one even when it only says its version, as
/// code-server does. Removed when dropped.
pub(crate) struct Home(PathBuf);

impl Home {
    /// Makes it, the user's own; what an agent that was killed left of the last one goes.
    pub(crate) fn new(dir: PathBuf, user: Option<&UserIds>) -> io::Result<Self> {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let home = Self(dir);
        if let Some(user) = user {
            std::os::unix::fs::chown(&home.0, Some(user.uid), Some(user.gid))?;
        }
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The process group of an installer that was not waited for yet; killed when dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|g| i32::try_from(g).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(leader) = leader {
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = crate::console::text::plain(&bytes[bytes.len().saturating_sub(QUOTED)..]);
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(
        script: &str,
        produces: &[&str],
        timeout: Duration,
    ) -> (tempfile::TempDir, Result<(), Error>) {
        let dir = tempfile::tempdir().unwrap();
        let installer = Installer {
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            produces: produces.iter().map(|p| (*p).to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            root: dir.path(),
            user: None,
            timeout,
        };
        let result = installer.run(&dir.path().join("installer.log")).await;
        (dir, result)
    }

    #[tokio::test]
    async fn what_it_claims_is_checked() {
        let minute = Duration::from_secs(60);
        let (dir, done) = run("mkdir -p a && echo x > a/args.txt", &["a/args.txt"], minute).await;
        done.unwrap();
        assert!(dir.path().join("a/args.txt").exists());
        let (_, lied) = run("echo all good", &["a/args.txt"], minute).await;
        let text = lied.unwrap_err().to_string();
        assert!(text.contains("a/args.txt") && text.contains("all good"), "{text}");
        let (_, failed) = run("echo no network >&2; exit 3", &[], minute).await;
        let text = failed.unwrap_err().to_string();
        assert!(text.contains("exit status: 3") && text.contains("no network"), "{text}");
    }

    /// It runs what somebody else wrote: not as root, and with nothing of root's.
    #[tokio::test]
    async fn it_runs_as_its_user_and_has_nothing_of_root() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: only root can become somebody else");
        }
        let dir = tempfile::tempdir().unwrap();
        let user = UserIds { uid: 65534, gid: 65533, groups: Vec::new() };
        std::os::unix::fs::chown(dir.path(), Some(user.uid), Some(user.gid)).unwrap();
        let script = "id -u; id -g; id -G; grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status";
        let installer = Installer {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            produces: Vec::new(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            root: dir.path(),
            user: Some(&user),
            timeout: Duration::from_secs(60),
        };
        let log = dir.path().join("installer.log");
        installer.run(&log).await.unwrap();
        let none = "0".repeat(16);
        let expected = format!("65534\n65533\n65533\nCapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\n");
        assert_eq!(std::fs::read_to_string(log).unwrap(), expected);
    }

    #[tokio::test]
    async fn it_does_not_run_for_ever() {
        let (dir, result) = run("sleep 600 & echo $! > child; wait", &[], Duration::from_secs(15)).await;
        assert!(matches!(result, Err(Error::TooLong { .. })));
        let child: i32 = std::fs::read_to_string(dir.path().join("child")).unwrap().trim().parse().unwrap();
        let gone = || zlh_shim::process::stat(child).is_ok_and(|s| s.state != b'Z');
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while gone() {
            assert!(std::time::Instant::now() < deadline, "its child lives on");
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_home_is_new_each_time_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("home");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("left"), "x").unwrap();
        let home = Home::new(path.clone(), None).unwrap();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        std::fs::write(path.join("written"), "x").unwrap();
        drop(home);
        assert!(!path.exists());
    }
}
