//! Where things lie in the demo's folder.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::atomic;
use crate::exit::Hint;
use crate::fleet::Fleet;

/// Absolute paths below the demo's folder.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    dir: PathBuf,
    /// The folder as it was typed, for people.
    typed: PathBuf,
    /// npm's packages, the server's launcher, the bot.
    pub(crate) npm: PathBuf,
    /// What is served.
    pub(crate) artifacts: PathBuf,
    /// What the archives in it were made of.
    pub(crate) packed: PathBuf,
    pub(crate) secret_key: PathBuf,
    /// The agent's `--root`.
    pub(crate) root: PathBuf,
    pub(crate) agent_log: PathBuf,
    /// Which process the agent is.
    pub(crate) agent_process: PathBuf,
    pub(crate) fleet: PathBuf,
}

impl Layout {
    /// Makes the folders.
    pub(crate) fn create(typed: &Path) -> Result<Self> {
        let make = |path: &Path| {
            fs::create_dir_all(path)
                .with_context(|| format!("cannot make the folder `{}`", path.display()))
                .hint("take another one with --dir DIR")
        };
        make(typed)?;
        let dir = fs::canonicalize(typed).with_context(|| format!("`{}`", typed.display()))?;
        let layout = Self {
            typed: typed.to_owned(),
            npm: dir.join("npm"),
            artifacts: dir.join("artifacts"),
            packed: dir.join("packed.json"),
            secret_key: dir.join("keys/catalog.key"),
            root: dir.join("root"),
            agent_log: dir.join("agent.log"),
            agent_process: dir.join("agent.json"),
            fleet: dir.join("fleet.toml"),
            dir,
        };
        for path in [&layout.npm, &layout.artifacts, &layout.root, &layout.dir.join("keys")] {
            make(path)?;
        }
        fs::set_permissions(layout.dir.join("keys"), Permissions::from_mode(0o700))
            .context("cannot make the folder of the keys private")?;
        Ok(layout)
    }

    /// One demo per folder; nothing when another process has the lock, which ends with it.
    pub(crate) fn lock(&self) -> Result<Option<File>> {
        let path = self.dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock `{}`", path.display())),
        }
    }

    /// Address of the agent in the demo's fleet file.
    pub(crate) fn fleet_url(&self) -> Result<String> {
        let fleet = Fleet::load(&self.fleet)?;
        Ok(fleet.get(super::NAME).context("it is still being set up")?.url.clone())
    }

    /// A `zlhctl` that knows the demo's fleet, short to type.
    pub(crate) fn write_wrapper(&self) -> Result<()> {
        let exe = std::env::current_exe().context("cannot tell where zlhctl lies")?;
        let quote = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let script = format!("#!/bin/sh\nexec {} --fleet {} \"$@\"\n", quote(&exe), quote(&self.fleet));
        let path = self.dir.join("zlhctl");
        atomic::write_public(&path, script.as_bytes())
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// How the wrapper is typed from here.
    pub(crate) fn wrapper_shown(&self) -> String {
        let path = self.typed.join("zlhctl").display().to_string();
        if path.contains(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '/' | '.' | '-' | '_')) {
            format!("'{}'", path.replace('\'', r"'\''"))
        } else if path.contains('/') {
            path
        } else {
            format!("./{path}")
        }
    }

    /// The folder as it was typed.
    pub(crate) fn shown(&self) -> String {
        self.typed.display().to_string()
    }

    /// The Node that the agent installed.
    pub(crate) fn installed_node(&self) -> PathBuf {
        self.root.join("opt/zlh/runtimes/node").join(super::store::NODE_VERSION).join("bin/node")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_demo_per_folder_and_again_after_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(&folder.path().join("it's here")).unwrap();
        let lock = layout.lock().unwrap();
        assert!(lock.is_some());
        assert!(layout.lock().unwrap().is_none());
        drop(lock);
        assert!(layout.lock().unwrap().is_some());
        layout.write_wrapper().unwrap();
        assert!(layout.wrapper_shown().ends_with(r"it'\''s here/zlhctl'"));
        let mode = fs::metadata(layout.secret_key.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
