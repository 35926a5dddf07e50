//! Where things lie. Every absolute path goes through here, so that `--root DIR`
//! relocates all of them and tests and the demo need no privileges.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zlh_shim::durable;

/// The tree below one root.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: PathBuf,
}

/// A directory the agent needs and cannot have.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}: {source}; run the agent as root, or give it a folder of its own with --root DIR")]
pub(crate) struct Unusable {
    path: PathBuf,
    source: io::Error,
}

impl Paths {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes the fixed directories. What holds secrets or state is 0700, what games read 0755.
    pub(crate) fn prepare(&self) -> Result<(), Unusable> {
        for (path, mode) in [
            (self.agent(), 0o755),
            (self.agent().join("config"), 0o700),
            (self.state(), 0o700),
            (self.agent().join("run"), 0o700),
            (self.root.join("opt/zlh"), 0o755),
            (self.cache(), 0o755),
            (self.runtimes(), 0o755),
            (self.servers(), 0o755),
            (self.addons(), 0o755),
            (self.root.join("run/zlh-agent"), 0o755),
        ] {
            make_dir(&path, mode).map_err(|source| Unusable { path: path.clone(), source })?;
            match rustix::fs::access(&path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
                // It was good once: what runs can still be watched and stopped.
                Ok(()) | Err(rustix::io::Errno::ROFS) => {}
                Err(errno) => return Err(Unusable { path, source: errno.into() }),
            }
        }
        Ok(())
    }

    /// Removes the temporary files of writers that were killed. For the one agent of this root,
    /// before it writes anything.
    pub(crate) fn sweep(&self) {
        durable::sweep(&self.root.join("run/zlh-agent"));
        let mut dirs = vec![self.agent().join("config"), self.state(), self.runs()];
        while let Some(dir) = dirs.pop() {
            durable::sweep(&dir);
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            dirs.extend(inner.map(|entry| entry.path()));
        }
    }

    fn agent(&self) -> PathBuf {
        self.root.join("opt/zlh-agent")
    }

    /// The stored payload.
    pub(crate) fn payload(&self) -> PathBuf {
        self.agent().join("config/payload.json")
    }

    /// Records of the agent.
    pub(crate) fn state(&self) -> PathBuf {
        self.agent().join("state")
    }

    /// A change of the game's version that is under way, or was interrupted.
    pub(crate) fn change(&self) -> PathBuf {
        self.state().join("change.json")
    }

    /// The home of programs of that kind that are only tried, while they are.
    pub(crate) fn probe_home(&self, kind: &str) -> PathBuf {
        self.root.join("run/zlh-agent").join(format!("probe-{kind}"))
    }

    /// A workload's journal.
    pub(crate) fn journal(&self, workload: &str) -> PathBuf {
        self.state().join("journal").join(workload)
    }

    /// A workload's last crashes.
    pub(crate) fn crashes(&self, workload: &str) -> PathBuf {
        self.state().join("crashes").join(workload)
    }

    /// A workload's run directory, shared with its shim.
    pub(crate) fn run(&self, workload: &str) -> PathBuf {
        self.agent().join("run").join(workload)
    }

    /// The run directories of workloads and shells.
    pub(crate) fn runs(&self) -> PathBuf {
        self.agent().join("run")
    }

    /// Verified files.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("opt/zlh/cache")
    }

    /// Installed runtimes.
    pub(crate) fn runtimes(&self) -> PathBuf {
        self.root.join("opt/zlh/runtimes")
    }

    /// Installed addons of a workspace.
    pub(crate) fn addons(&self) -> PathBuf {
        self.root.join("opt/zlh/addons")
    }

    /// Releases of the agent, and the link to the one that runs.
    pub(crate) fn releases(&self) -> PathBuf {
        self.agent().join("releases")
    }

    /// The link to the release that the unit starts.
    pub(crate) fn current_release(&self) -> PathBuf {
        self.agent().join("current")
    }

    /// Installed server trees.
    pub(crate) fn servers(&self) -> PathBuf {
        self.root.join("opt/zlh/servers")
    }

    /// A game's folder: what the server reads and writes.
    pub(crate) fn game_root(&self, game: &str, variant: &str, world: &str) -> PathBuf {
        self.root.join("opt/zlh").join(game).join(variant).join(world)
    }

    /// Copies of the folders of a variant's worlds, beside them.
    pub(crate) fn copies(&self, game: &str, variant: &str) -> PathBuf {
        self.root.join("opt/zlh").join(game).join(variant).join(".copies")
    }

    /// Game, variant and folder of all copies there are.
    pub(crate) fn all_copies(&self) -> Vec<(String, String, PathBuf)> {
        let folders = |path: PathBuf| {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        };
        let games = folders(self.root.join("opt/zlh"));
        let variants =
            games.flat_map(|(game, path)| folders(path).map(move |(variant, _)| (game.clone(), variant)));
        let copies = variants.map(|(game, variant)| {
            let copies = self.copies(&game, &variant);
            (game, variant, copies)
        });
        copies.filter(|(_, _, copies)| copies.is_dir()).collect()
    }

    /// Holds the address the agent listens on.
    pub(crate) fn listen_file(&self) -> PathBuf {
        self.root.join("run/zlh-agent/listen")
    }

    /// Holds the pid of a new version, from its start until it is read.
    pub(crate) fn launch_note(&self) -> PathBuf {
        self.root.join("run/zlh-agent/launched")
    }

    /// Held locked by the one agent of this root.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.root.join("run/zlh-agent/lock")
    }

    /// Users of the container.
    pub(crate) fn passwd(&self) -> PathBuf {
        self.root.join("etc/passwd")
    }

    /// Whether this is a container of our own rather than a folder.
    pub(crate) fn is_system(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// Makes a directory and its parents; the mode of the last one is set even if it exists.
pub(crate) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    if std::fs::metadata(path)?.permissions().mode() & 0o7777 != mode {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}
