//! What no entry of the catalog names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::{CATALOG, Depot, SIGNATURE, TRASH, sync, unique, views};

/// A file that nothing refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Garbage {
    /// Below the store.
    pub path: String,
    pub size: u64,
    pub age: Duration,
}

/// Files that neither the catalog nor what is written beside it names, older than `grace`.
/// Links and special files are nobody's business here.
pub(crate) fn garbage(depot: &Depot, grace: Duration) -> Result<Vec<Garbage>> {
    let catalog = &depot.catalog;
    let mut kept: BTreeSet<String> = catalog
        .entries()
        .iter()
        .flat_map(|entry| &entry.files)
        .map(|file| file.artifact.path.to_string())
        .collect();
    kept.extend(views::texts(catalog).into_keys());
    kept.extend(views::aliases(catalog).into_keys());
    kept.extend([CATALOG, SIGNATURE, views::MANIFEST].map(str::to_owned));
    let now = SystemTime::now();
    let mut found = Vec::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        let folder = depot.root().join(&dir);
        let cannot = || format!("cannot read `{}`", folder.display());
        for entry in fs::read_dir(&folder).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            // Ours, or a version control's; and the lists of keys.
            if dir.is_empty() && (name.starts_with('.') || name == KEYS) {
                continue;
            }
            let meta = entry.metadata().with_context(cannot)?;
            if meta.is_dir() {
                todo.push(path);
            } else if meta.is_file() && !kept.contains(&path) {
                let age = meta.modified().ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
                if age >= grace {
                    found.push(Garbage { path, size: meta.len(), age });
                }
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Takes them out of the store at once, then deletes them; killed in between, the next
/// collection deletes the rest.
pub(crate) fn collect(depot: &Depot, garbage: &[Garbage]) -> Result<()> {
    let trash = depot.root().join(TRASH);
    let cannot = || format!("cannot empty `{}`", trash.display());
    fs::create_dir_all(&trash).with_context(cannot)?;
    for one in garbage {
        let place = depot.root().join(&one.path);
        fs::rename(&place, trash.join(unique()))
            .with_context(|| format!("cannot move `{}` away", place.display()))?;
        depot.moment()?;
        remove_empty(depot.root(), place.parent());
    }
    sync(depot.root()).with_context(cannot)?;
    fs::remove_dir_all(&trash).with_context(cannot)
}

/// Folders that have become empty, upwards; one that is not empty stays.
fn remove_empty(root: &Path, mut folder: Option<&Path>) {
    while let Some(path) = folder.filter(|path| *path != root && path.starts_with(root)) {
        if fs::remove_dir(path).is_err() {
            return;
        }
        folder = path.parent();
    }
}

const KEYS: &str = "keys";
