//! Two snapshots compared, what matters most first.

use serde::{Deserialize, Serialize};

use super::snapshot::{FileState, Snapshot};

/// What changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// At most [`MAX_CHANGES`], what matters most first.
    pub changes: Vec<Change>,
    /// How many more there are.
    pub left_out: usize,
    /// Whether everything was compared.
    pub complete: bool,
}

/// One thing that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The file, relative to the server folder; for a fact its name.
    pub path: String,
    /// How.
    pub kind: ChangeKind,
    /// What it is.
    pub what: ChangeWhat,
    /// When, milliseconds since 1970; none where nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_ms: Option<u64>,
    /// Id of the mod or plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The version, or a fact's value, that was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The one that is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The file it replaced, where that had another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
}

/// How something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // Their names say all there is.
pub enum ChangeKind {
    Added,
    Updated,
    Removed,
}

/// What can change, what matters most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeWhat {
    /// A mod or plugin.
    Addon,
    /// What the caller knows: versions, arguments.
    Fact,
    /// A jar in the server folder itself.
    Server,
    /// A data pack.
    DataPack,
    /// A file in the server folder itself.
    Settings,
    /// A script of KubeJS, CraftTweaker and the like.
    Script,
    /// Configuration of mods and plugins.
    Config,
}

pub(super) fn diff(before: &Snapshot, after: &Snapshot) -> Changes {
    let complete = [before, after].iter().all(|one| !one.cut && one.partial.is_empty());
    let mut changes = Vec::new();
    for (path, new) in &after.files {
        let when_ms = when(before, after, new);
        match before.files.get(path) {
            Some(old) if old.same(new) => {}
            Some(old) => changes.push(Change {
                before: version(old),
                after: version(new),
                ..change(path, ChangeKind::Updated, new, when_ms)
            }),
            // What an incomplete snapshot did not have may have been there.
            None if before.may_hide(path) && when_ms.is_none() => {}
            None => {
                let added = change(path, ChangeKind::Added, new, when_ms);
                changes.push(Change { after: version(new), ..added });
            }
        }
    }
    for (path, old) in &before.files {
        if !after.files.contains_key(path) && !after.may_hide(path) {
            let removed = change(path, ChangeKind::Removed, old, None);
            changes.push(Change { before: version(old), ..removed });
        }
    }
    pair(before, after, &mut changes);
    changes.extend(facts(before, after));
    changes.sort_by(|a, b| {
        let key = |change: &Change| (change.what, change.kind, std::cmp::Reverse(change.when_ms));
        key(a).cmp(&key(b)).then_with(|| a.path.cmp(&b.path))
    });
    let left_out = changes.len().saturating_sub(MAX_CHANGES);
    changes.truncate(MAX_CHANGES);
    Changes { since_ms: before.taken_ms, changes, left_out, complete }
}

fn change(path: &str, kind: ChangeKind, file: &FileState, when_ms: Option<u64>) -> Change {
    Change {
        path: path.to_owned(),
        kind,
        what: file.what,
        when_ms,
        name: file.addon.as_ref().map(|addon| addon.id.clone()),
        before: None,
        after: None,
        old_path: None,
    }
}

fn version(file: &FileState) -> Option<String> {
    file.addon.as_ref()?.version.clone()
}

/// When a file got as it is: its own time, or where a copy kept that, the time it was put
/// there. None if neither lies between the snapshots.
fn when(before: &Snapshot, after: &Snapshot, file: &FileState) -> Option<u64> {
    let written = u64::try_from(file.stamp.mtime / 1_000_000).unwrap_or(0);
    // The file system counts in ticks, and one of the times in seconds.
    let between = |ms: &u64| *ms + 1_000 >= before.taken_ms && *ms <= after.taken_ms + 1_000;
    [written, file.placed_ms].into_iter().find(between)
}

/// A mod that went under one name and came under another was updated; with the same
/// content it was only renamed, which changes nothing.
fn pair(before: &Snapshot, after: &Snapshot, changes: &mut Vec<Change>) {
    let gone = |change: &Change| change.kind == ChangeKind::Removed && change.name.is_some();
    let mut removed: Vec<Change> = changes.extract_if(.., |change| gone(change)).collect();
    changes.retain_mut(|added| {
        let Some(name) = added.name.as_ref().filter(|_| added.kind == ChangeKind::Added) else { return true };
        let same = |old: &Change| old.name.as_ref().is_some_and(|other| other.eq_ignore_ascii_case(name));
        let Some(at) = removed.iter().position(same) else { return true };
        let old = removed.swap_remove(at);
        let hash = |all: &Snapshot, path| all.files.get(path).and_then(|file| file.hash);
        if hash(before, &old.path).is_some_and(|hash_before| hash(after, &added.path) == Some(hash_before)) {
            return false;
        }
        added.kind = ChangeKind::Updated;
        added.before = old.before;
        added.old_path = Some(old.path);
        true
    });
    changes.append(&mut removed);
}

fn facts(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let names: std::collections::BTreeSet<&String> = before.facts.keys().chain(after.facts.keys()).collect();
    let one = |name: &String| {
        let (old, new) = (before.facts.get(name), after.facts.get(name));
        let kind = match (old, new) {
            (old, new) if old == new => return None,
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Updated,
        };
        let (before, after) = (old.cloned(), new.cloned());
        let path = name.clone();
        Some(Change {
            path,
            kind,
            what: ChangeWhat::Fact,
            when_ms: None,
            name: None,
            before,
            after,
            old_path: None,
        })
    };
    names.into_iter().filter_map(one).collect()
}

/// Changes that are listed.
pub const MAX_CHANGES: usize = 40;
