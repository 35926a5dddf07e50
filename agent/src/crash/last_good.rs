//! What was there when the server was ready last, and the index of its mods and plugins.
//!
//! Both lie on disk and are in memory only while they are used: an idle agent is as good
//! as free. One that cannot be read is as good as none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zlh_crash::changes::{Changes, Snapshot, SnapshotLimits};
use zlh_crash::{AddonIndex, Limits};
use zlh_shim::durable;

/// Largest file that is read back, bytes.
const MAX_BYTES: u64 = 32 << 20;

/// The files behind it.
#[derive(Debug, Clone)]
pub(crate) struct LastGood {
    snapshot: PathBuf,
    index: PathBuf,
}

impl LastGood {
    pub(crate) fn new(state: &Path) -> Self {
        Self { snapshot: state.join("last-good.json"), index: state.join("addons.json") }
    }

    /// The server is ready: that is what was good. Blocking, seconds for a folder of
    /// thousands of files that nobody has looked at before.
    pub(crate) fn remember(&self, root: &Path, facts: BTreeMap<String, String>) -> std::io::Result<()> {
        let index = self.index(root);
        let before: Option<Snapshot> = read(&self.snapshot);
        let now = Snapshot::take(root, &index, facts, before.as_ref(), &SnapshotLimits::default())?;
        if before.as_ref() != Some(&now) {
            write(&self.snapshot, &now)?;
        }
        Ok(())
    }

    /// The index of what is there now. Blocking.
    pub(crate) fn index(&self, root: &Path) -> AddonIndex {
        let mut index: AddonIndex = read(&self.index).unwrap_or_default();
        if index.rescan(root, &Limits::default()).is_ok_and(|scan| scan.opened > 0) {
            // Only a cache: without it the next look is slower.
            let _ = write(&self.index, &index);
        }
        index
    }

    /// What is different since then; none when nothing is known of then. Blocking.
    pub(crate) fn changes(
        &self,
        root: &Path,
        index: &AddonIndex,
        facts: BTreeMap<String, String>,
    ) -> Option<Changes> {
        let before: Snapshot = read(&self.snapshot)?;
        let now = Snapshot::take(root, index, facts, Some(&before), &SnapshotLimits::default()).ok()?;
        Some(before.diff(&now))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&durable::read_bounded(path, MAX_BYTES).ok()?).ok()
}

fn write<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    durable::write(path, &serde_json::to_vec(value)?, 0o600)
}
