//! Releases side by side, and the link to the one that the unit starts.
//!
//! ```text
//! /opt/zlh-agent/current ──► releases/1.4.0
//! /opt/zlh-agent/releases/1.4.0/zlh-agent
//! ```

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use zlh_artifacts::hash_file;
use zlh_catalog::Sha256;

use crate::paths::{Paths, make_dir};

/// For a new version to say that it would run here.
const SELF_TEST: Duration = Duration::from_secs(10);

/// Name of the binary in its release.
const BINARY: &str = "zlh-agent";

/// Releases that are kept beside the one that runs.
const KEPT: usize = 3;

/// The releases of this container.
#[derive(Debug, Clone)]
pub(super) struct Releases {
    dir: PathBuf,
    link: PathBuf,
}

/// A new version that does not pass its own test.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelfTestError {
    #[error("the new version cannot be started, so nothing was changed")]
    Start(#[source] io::Error),
    #[error("the new version did not answer its self-test within {} s, so nothing was changed", SELF_TEST.as_secs())]
    TooLong,
    #[error("the new version failed its self-test, so nothing was changed: {0}")]
    Failed(String),
    #[error("the catalog calls it {expected}, but it says that it is {got}; publish the right binary")]
    OtherVersion { expected: String, got: String },
}

impl Releases {
    pub(super) fn new(paths: &Paths) -> Self {
        Self { dir: paths.releases(), link: paths.current_release() }
    }

    pub(super) fn binary(&self, version: &str) -> PathBuf {
        self.dir.join(version).join(BINARY)
    }

    /// Puts a verified binary into its release: whole or not at all.
    pub(super) fn place(&self, version: &str, from: &Path, sha256: Sha256) -> io::Result<PathBuf> {
        let binary = self.binary(version);
        if hash_file(&binary).is_ok_and(|(_, there)| there == sha256) {
            return Ok(binary);
        }
        self.put(version, from)?;
        // What was read back is what will run.
        match hash_file(&binary)? {
            (_, there) if there == sha256 => Ok(binary),
            _ => Err(io::Error::other("it was damaged while it was written")),
        }
    }

    /// Makes sure that the running binary is among the releases.
    pub(super) fn keep_running(&self, version: &str) -> io::Result<()> {
        let running = Path::new("/proc/self/exe");
        let binary = self.binary(version);
        if let (Ok((_, there)), Ok((_, own))) = (hash_file(&binary), hash_file(running))
            && there == own
        {
            return Ok(());
        }
        self.put(version, running)
    }

    fn put(&self, version: &str, from: &Path) -> io::Result<()> {
        make_dir(&self.dir, 0o755)?;
        let release = self.dir.join(version);
        make_dir(&release, 0o755)?;
        let temp = release.join(format!(".{BINARY}.new"));
        let _ = fs::remove_file(&temp);
        let written = (|| {
            let mut to = File::options().write(true).create_new(true).open(&temp)?;
            io::copy(&mut File::open(from)?, &mut to)?;
            to.set_permissions(Permissions::from_mode(0o755))?;
            to.sync_all()?;
            zlh_shim::faults::point("update.placed")?;
            fs::rename(&temp, release.join(BINARY))?;
            File::open(&release)?.sync_all()?;
            File::open(&self.dir)?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temp);
        }
        written
    }

    /// Where the link leads.
    pub(super) fn current(&self) -> Option<PathBuf> {
        fs::read_link(&self.link).ok()
    }

    /// Leads the link to a release.
    pub(super) fn switch(&self, version: &str) -> io::Result<()> {
        self.lead(&Path::new("releases").join(version))
    }

    /// Leads the link back to where it led.
    pub(super) fn lead(&self, to: &Path) -> io::Result<()> {
        let temp = self.link.with_extension("new");
        let _ = fs::remove_file(&temp);
        std::os::unix::fs::symlink(to, &temp)?;
        fs::rename(&temp, &self.link)?;
        match self.link.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Takes the link away: there was none before.
    pub(super) fn unlink(&self) -> io::Result<()> {
        match fs::remove_file(&self.link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Removes the oldest releases, never the new one or the one that runs.
    pub(super) fn prune(&self, new: &str) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut versions: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        versions.retain(|version| version != new && version != crate::version());
        versions.sort_by(|a, b| zlh_catalog::compare_versions(b, a));
        for version in versions.into_iter().skip(KEPT) {
            let _ = fs::remove_dir_all(self.dir.join(version));
        }
    }
}

/// Has a new version say that it would run here, with the very arguments of this process.
pub(super) async fn self_test(binary: &Path, version: &str) -> Result<(), SelfTestError> {
    let arguments = std::env::args_os().skip(2);
    let mut command = Command::new(binary);
    command.arg("self-test").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(SELF_TEST, command.output())
        .await
        .map_err(|_| SelfTestError::TooLong)?
        .map_err(SelfTestError::Start)?;
    let text = |bytes: &[u8]| -> String {
        String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(300).collect()
    };
    if !output.status.success() {
        return Err(SelfTestError::Failed(format!("{}, {}", text(&output.stderr), output.status)));
    }
    let said = text(&output.stdout);
    match said.strip_prefix("zlh-agent v").and_then(|rest| rest.split(' ').next()) {
        Some(got) if got == version => Ok(()),
        Some(got) => Err(SelfTestError::OtherVersion { expected: version.to_owned(), got: got.to_owned() }),
        None => Err(SelfTestError::Failed(format!("it said `{said}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn releases(dir: &Path) -> Releases {
        Releases { dir: dir.join("releases"), link: dir.join("current") }
    }

    #[test]
    fn a_release_is_placed_whole_and_led_to_by_one_rename() {
        let temp = tempfile::tempdir().unwrap();
        let (releases, from) = (releases(temp.path()), temp.path().join("from"));
        fs::write(&from, "#!/bin/sh\n").unwrap();
        let (_, sha256) = hash_file(&from).unwrap();
        let placed = releases.place("2.0", &from, sha256).unwrap();
        assert_eq!(fs::metadata(&placed).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(releases.current(), None);
        releases.switch("2.0").unwrap();
        assert_eq!(fs::read(temp.path().join("current/zlh-agent")).unwrap(), fs::read(&from).unwrap());
        // What somebody changed is put right.
        fs::write(&placed, "changed").unwrap();
        releases.place("2.0", &from, sha256).unwrap();
        assert_eq!(fs::read(&placed).unwrap(), fs::read(&from).unwrap());
        // Another content than the catalog pinned is no release.
        assert!(releases.place("3.0", &from, Sha256::from_bytes([0; 32])).is_err());
        releases.lead(Path::new("releases/1.0")).unwrap();
        assert_eq!(releases.current(), Some("releases/1.0".into()));
        releases.keep_running("1.0").unwrap();
        let own = hash_file(Path::new("/proc/self/exe")).unwrap();
        assert_eq!(hash_file(&releases.binary("1.0")).unwrap(), own);
    }

    #[test]
    fn old_releases_go_and_the_newest_stay() {
        let temp = tempfile::tempdir().unwrap();
        let releases = releases(temp.path());
        for version in ["1.9", "1.10", "1.8", "1.7", "1.6", crate::version()] {
            fs::create_dir_all(releases.dir.join(version)).unwrap();
        }
        releases.prune("1.11");
        let mut left: Vec<String> = fs::read_dir(&releases.dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [crate::version(), "1.10", "1.8", "1.9"]);
    }

    #[tokio::test]
    async fn what_fails_its_self_test_says_why() {
        let temp = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = temp.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            path
        };
        let good = script("good", "[ \"$1\" = self-test ] && echo 'zlh-agent v2.0 (x)'");
        self_test(&good, "2.0").await.unwrap();
        let error = self_test(&good, "2.1").await.unwrap_err().to_string();
        assert!(error.contains("calls it 2.1, but it says that it is 2.0"), "{error}");
        let error =
            self_test(&script("bad", "echo no key >&2; exit 3"), "2.0").await.unwrap_err().to_string();
        assert!(error.contains("no key") && error.contains('3'), "{error}");
        let error = self_test(&script("other", "echo hello"), "2.0").await.unwrap_err().to_string();
        assert!(error.contains("hello"), "{error}");
        assert!(matches!(self_test(&temp.path().join("none"), "2.0").await, Err(SelfTestError::Start(_))));
    }
}
