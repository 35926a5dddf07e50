//! A snapshot of what decides how a server starts.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::walk::Walk;
use super::{ChangeWhat, Changes, content, diff};
use crate::folder::{Folder, Stamp, file_at, placed_ms};
use crate::{AddonIndex, AddonLoader};

/// What decided how a server started, at one time. Its serde form is to be kept; one of
/// another format reads as empty and is not compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    format: u32,
    /// When it was taken, milliseconds since 1970.
    pub taken_ms: u64,
    /// Whether a ceiling ended it before everything was seen.
    pub cut: bool,
    /// Folders of which not everything was seen, each with a slash at its end; the server
    /// folder is `""`.
    pub partial: Vec<String>,
    pub(super) facts: BTreeMap<String, String>,
    pub(super) files: BTreeMap<String, FileState>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileState {
    pub what: ChangeWhat,
    pub stamp: Stamp,
    /// When it came to be there, as the file system says.
    pub placed_ms: u64,
    /// Of its content; none where that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<u64>,
    /// The first snapshot that has it as it is.
    pub since_ms: u64,
    /// Id and version of a mod or plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addon: Option<Box<Named>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What a snapshot may cost at most.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotLimits {
    /// Files kept.
    pub files: usize,
    /// Names looked at.
    pub names: usize,
    /// Bytes read to hash what is new.
    pub bytes: u64,
    /// Time in all.
    pub time: Duration,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self { files: 6_000, names: 50_000, bytes: 96 << 20, time: Duration::from_secs(5) }
    }
}

impl Snapshot {
    /// Looks at the folder now. What is the same as in `before` is not read again; ids and
    /// versions come from the index, which should be up to date. `facts` are by names that
    /// a person understands: `Minecraft`, `Java`, `arguments`.
    ///
    /// # Errors
    /// Only when the server folder itself cannot be opened.
    pub fn take(
        root: &Path,
        index: &AddonIndex,
        facts: BTreeMap<String, String>,
        before: Option<&Self>,
        limits: &SnapshotLimits,
    ) -> io::Result<Self> {
        let folder = Folder::open(root)?;
        let taken_ms = now_ms();
        let before = before.filter(|before| before.format == FORMAT);
        let mut files: BTreeMap<String, FileState> = BTreeMap::new();
        let mut bytes = limits.bytes;
        let mut each = |dir: &std::os::fd::OwnedFd, name: &std::ffi::CStr, path: String, what| {
            if files.len() >= limits.files {
                return false;
            }
            let Ok((file, stamp)) = file_at(dir, name) else { return true };
            let old = before.and_then(|before| before.files.get(&path));
            let hash = match old.filter(|old| old.stamp == stamp && old.hash.is_some()) {
                Some(old) => old.hash,
                None if stamp.size.min(content::MAX_READ) > bytes => None,
                None => {
                    bytes -= stamp.size.min(content::MAX_READ);
                    content::hash(&file, stamp.size, path.ends_with(".properties")).ok()
                }
            };
            let addon = index.main_of(&path).filter(|addon| addon.loader != AddonLoader::Unknown);
            let addon = addon.map(|addon| Named { id: addon.id.clone(), version: addon.version.clone() });
            let mut state = FileState {
                what,
                stamp,
                placed_ms: placed_ms(dir, name),
                hash,
                since_ms: taken_ms,
                addon: addon.map(Box::new),
            };
            if let Some(old) = old.filter(|old| old.same(&state)) {
                state.since_ms = old.since_ms;
            }
            files.insert(path, state);
            true
        };
        let deadline = Instant::now() + limits.time;
        let (names, partial) = (limits.names, Vec::new());
        let mut walk = Walk { names, deadline, cut: false, partial, each: &mut each };
        walk.folder(&folder)?;
        let (cut, partial) = (walk.cut, walk.partial);
        Ok(Self { format: FORMAT, taken_ms, cut, partial, facts, files })
    }

    /// What is different in `after`; nothing if one of them is of another format.
    #[must_use]
    pub fn diff(&self, after: &Self) -> Changes {
        if self.format != FORMAT || after.format != FORMAT {
            return Changes { complete: false, ..Changes::default() };
        }
        diff::diff(self, after)
    }

    /// Since when a file has been there as it is: the first snapshot that had it so,
    /// milliseconds since 1970.
    #[must_use]
    pub fn since_ms(&self, path: &str) -> Option<u64> {
        self.files.get(path).map(|file| file.since_ms)
    }

    /// Whether a file that is not in it may have been there all the same.
    pub(super) fn may_hide(&self, path: &str) -> bool {
        self.cut || self.partial.iter().any(|folder| path.starts_with(folder.as_str()))
    }

    /// How many files are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl FileState {
    /// Whether the content is the same, as far as can be told.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self.hash, other.hash) {
            (Some(a), Some(b)) => a == b,
            _ => self.stamp == other.stamp,
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

const FORMAT: u32 = 1;
