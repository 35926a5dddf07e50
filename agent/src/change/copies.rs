//! Copies of server folders, and changing places with them.
//!
//! ```text
//! <game>/<variant>/<world>/              the server's folder
//! <game>/<variant>/.copies/<id>/root/    one as it was, or as a failed change left it
//! <game>/<variant>/.copies/<id>/copy.json
//! ```
//!
//! A copy and the folder change places by one rename, so there is a whole folder at every
//! moment. Which of them is where is known by its inode, whatever else was interrupted.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};
use zlh_shim::durable;

use crate::game::plan::Installed;
use crate::paths::make_dir;

const SCHEMA: u32 = 1;
const RECORD: &str = "copy.json";
const ROOT: &str = "root";

/// What is known of a copy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Copy {
    /// The world's folder it belongs to.
    pub world: String,
    /// The version that ran with it.
    pub version: String,
    /// RFC 3339.
    pub made_at: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// A change left it, which failed: nothing goes back to it by itself.
    pub failed: bool,
    /// What was installed with it: if all of it is still there, no artifact server is needed to go
    /// back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<Box<Installed>>,
    /// Its id.
    #[serde(skip)]
    pub id: String,
}

/// The copies of one variant.
#[derive(Debug, Clone)]
pub(crate) struct Copies(pub PathBuf);

impl Copies {
    /// Where a copy's folder is.
    pub(crate) fn root(&self, id: &str) -> PathBuf {
        self.0.join(id).join(ROOT)
    }

    /// Makes room for a copy.
    pub(super) fn begin(&self, id: &str) -> io::Result<PathBuf> {
        make_dir(&self.0, 0o700)?;
        make_dir(&self.0.join(id), 0o700)?;
        Ok(self.root(id))
    }

    /// Says what a copy is; from then on it is listed.
    pub(super) fn describe(&self, copy: &Copy) -> io::Result<()> {
        durable::write_record(&self.0.join(&copy.id).join(RECORD), SCHEMA, copy)
    }

    /// All of a world, newest first.
    pub(crate) fn list(&self, world: &str) -> Vec<Copy> {
        self.find(|copy| copy.world == world)
    }

    /// Of every world.
    pub(super) fn all(&self) -> Vec<Copy> {
        self.find(|_| true)
    }

    /// Removes a copy, or what was begun of one. Killed or failing in between, what is left is
    /// listed no more, and debris.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        durable::remove(&self.0.join(id).join(RECORD))?;
        match std::fs::remove_dir_all(self.0.join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps the newest few of a world, and takes away what was never finished.
    pub(super) fn prune(&self, world: &str, keep: usize) {
        for copy in self.list(world).into_iter().skip(keep) {
            // What stays is listed again, or taken away as debris the next time.
            let _ = self.remove(&copy.id);
        }
        let _ = self.sweep();
    }

    /// Of what failed changes left of a world, only the newest stays.
    pub(super) fn prune_failed(&self, world: &str) {
        for copy in self.list(world).into_iter().filter(|copy| copy.failed).skip(1) {
            // What stays is listed again.
            let _ = self.remove(&copy.id);
        }
    }

    /// Takes away what was never finished.
    pub(super) fn sweep(&self) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut result = Ok(());
        for entry in entries {
            let path = entry?.path();
            if !path.join(RECORD).exists()
                && let Err(error) = std::fs::remove_dir_all(path)
            {
                result = Err(error);
            }
        }
        result
    }

    fn find(&self, wanted: impl Fn(&Copy) -> bool) -> Vec<Copy> {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return Vec::new() };
        let mut found: Vec<Copy> = entries
            .filter_map(|entry| {
                let id = entry.ok()?.file_name().into_string().ok()?;
                let copy: Copy = durable::read_record(&self.0.join(&id).join(RECORD), SCHEMA).ok()?;
                (wanted(&copy) && self.root(&id).is_dir()).then_some(Copy { id, ..copy })
            })
            .collect();
        found.sort_by(|a, b| (&b.made_at, &b.id).cmp(&(&a.made_at, &a.id)));
        found
    }
}

/// Lets two folders change places.
pub(super) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?;
    for path in [a, b] {
        if let Some(parent) = path.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// What tells a folder from another, whatever its name.
pub(super) fn inode(path: &Path) -> io::Result<u64> {
    Ok(std::fs::symlink_metadata(path)?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_listed_newest_first_and_pruned() {
        let temp = tempfile::tempdir().unwrap();
        let copies = Copies(temp.path().join(".copies"));
        assert_eq!(copies.list("world"), []);
        for (id, world, at) in
            [("a", "world", "2026-01-01"), ("b", "world", "2026-01-03"), ("c", "other", "2026-01-02")]
        {
            let root = copies.begin(id).unwrap();
            std::fs::create_dir(root).unwrap();
            let copy = Copy { world: world.into(), made_at: at.into(), id: id.into(), ..Copy::default() };
            copies.describe(&copy).unwrap();
        }
        std::fs::create_dir(copies.begin("debris").unwrap()).unwrap();
        let ids = |world: &str| copies.list(world).into_iter().map(|copy| copy.id).collect::<Vec<_>>();
        assert_eq!((ids("world"), ids("other")), (vec!["b".into(), "a".into()], vec!["c".to_owned()]));
        copies.prune("world", 1);
        assert_eq!((ids("world"), ids("other")), (vec!["b".into()], vec!["c".to_owned()]));
        assert!(!copies.0.join("debris").exists() && !copies.0.join("a").exists());
    }

    #[test]
    fn two_folders_change_places() {
        let temp = tempfile::tempdir().unwrap();
        let (a, b) = (temp.path().join("a"), temp.path().join("x/b"));
        std::fs::create_dir(&a).unwrap();
        std::fs::create_dir_all(&b).unwrap();
        let (of_a, of_b) = (inode(&a).unwrap(), inode(&b).unwrap());
        exchange(&a, &b).unwrap();
        assert_eq!((inode(&a).unwrap(), inode(&b).unwrap()), (of_b, of_a));
    }
}
