//! A store that can be edited: a folder with `catalog.json`, its signature, key lists, and
//! every file that the catalog names.
//!
//! ```text
//! put      file ──► .incoming/… ──fsync──► rename to its place
//! publish  .next/{catalog.json, .minisig} ──► rename signature ──► rename catalog ──► views
//! ```
//!
//! Files come first and the catalog last, and a path that the published catalog names never
//! gets other bytes: a kill at any moment leaves a catalog whose every word is true. Once
//! `.next` stands, the publication is decided; whoever opens the store next completes it. One
//! editor at a time holds `.lock`.

mod edit;
mod gc;
mod layout;
mod lists;
mod mirror;
mod offer;
mod views;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use jiff::{SignedDuration, Timestamp};
use rustix::fs::FlockOperation;
use serde_json::Value;
use zlh_artifacts::hash_file;
use zlh_catalog::{Catalog, RelPath, SecretKey, Sha256};

pub(crate) use self::edit::release;
pub(crate) use self::gc::{collect, garbage};
pub(crate) use self::layout::known_programs;
pub(crate) use self::lists::Chain;
pub(crate) use self::mirror::{PROGRESS, copy};
pub(crate) use self::offer::{Added, Item, Offer, agent_binary};
use crate::exit::Hint;

/// A store, held by this process alone.
#[derive(Debug)]
pub(crate) struct Depot {
    root: PathBuf,
    /// What is published; `None` in a new store.
    published: Option<Catalog>,
    /// What is to be published.
    pub(crate) catalog: Catalog,
    _lock: File,
    /// How many more moments a test lets pass.
    #[cfg(test)]
    moments: std::cell::Cell<u32>,
}

/// How a catalog is published.
pub(crate) struct Publication<'a> {
    pub key: Option<&'a SecretKey>,
    /// How long it is current.
    pub lifetime: Duration,
    /// Write the manifest that deployed agents update themselves by.
    pub publish_agent: bool,
}

impl Depot {
    /// Opens a store that has a catalog.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        if !root.join(CATALOG).is_file() && !root.join(NEXT).is_dir() {
            return Err(anyhow!("`{}` is no artifact store: it has no {CATALOG}", root.display()))
                .hint("`zlhctl artifacts add` and `import` make one");
        }
        Self::open_or_create(root)
    }

    /// Opens a store, or begins one.
    pub(crate) fn open_or_create(root: &Path) -> Result<Self> {
        let lock = lock(root)?;
        recover(root).with_context(|| format!("cannot complete what was begun in `{}`", root.display()))?;
        let path = root.join(CATALOG);
        let published = match fs::read(&path) {
            Ok(bytes) => Some(read(&bytes).with_context(|| format!("`{}`", path.display()))?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        };
        let catalog = published.clone().unwrap_or_else(|| Catalog {
            schema: 1,
            // Seconds: a store that is made anew is not taken for an old one.
            serial: u64::try_from(Timestamp::now().as_second()).unwrap_or_default(),
            issued: Timestamp::now(),
            expires: None,
            games: Vec::new(),
            runtimes: Vec::new(),
            addons: Vec::new(),
            agents: Vec::new(),
        });
        Ok(Self {
            root: root.to_owned(),
            published,
            catalog,
            _lock: lock,
            #[cfg(test)]
            moments: std::cell::Cell::new(u32::MAX),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, path: &RelPath) -> PathBuf {
        self.root.join(path.as_str())
    }

    /// Whether there is anything to publish.
    pub(crate) fn is_changed(&self) -> bool {
        self.published.as_ref() != Some(&self.catalog)
    }

    /// A new place below the store that goes away with the next opening.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir> {
        let folder = self.root.join(INCOMING);
        fs::create_dir_all(&folder)
            .and_then(|()| tempfile::tempdir_in(&folder))
            .with_context(|| format!("cannot make a folder in `{}`", folder.display()))
    }

    /// Puts a file of that size and hash to its place. What the published catalog names is
    /// not replaced.
    pub(crate) fn put(&self, from: &Path, to: &RelPath, pinned: (u64, Sha256)) -> Result<()> {
        let place = self.path(to);
        if self.has(to, pinned) {
            return Ok(());
        }
        let taken = self.published.as_ref().and_then(|catalog| named(catalog, to));
        if let Some((entry, other)) = taken.filter(|(_, other)| *other != pinned) {
            return Err(anyhow!(
                "`{to}` is the file of {entry}, with other bytes (SHA-256 {})",
                other.1.short()
            ))
            .hint("the bytes of a version never change: give another version, or --replace");
        }
        let cannot = |path: &Path| format!("cannot write `{}`", path.display());
        let folder = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).with_context(|| cannot(folder))?;
        let scratch = self.root.join(INCOMING);
        fs::create_dir_all(&scratch).with_context(|| cannot(&scratch))?;
        let temporary = scratch.join(unique());
        fs::copy(from, &temporary)
            .with_context(|| format!("cannot copy `{}` to `{}`", from.display(), temporary.display()))?;
        self.moment()?;
        anyhow::ensure!(
            hash_file(&temporary).with_context(|| cannot(&temporary))? == pinned,
            "`{}` changed while it was copied",
            from.display()
        );
        self.move_in(&temporary, &place)
    }

    /// Moves a complete file of this file system to its place.
    pub(crate) fn move_in(&self, temporary: &Path, place: &Path) -> Result<()> {
        let cannot = || format!("cannot write `{}`", place.display());
        let folder = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).with_context(cannot)?;
        fs::set_permissions(temporary, fs::Permissions::from_mode(0o644)).with_context(cannot)?;
        File::open(temporary).and_then(|file| file.sync_all()).with_context(cannot)?;
        self.moment()?;
        fs::rename(temporary, place).with_context(cannot)?;
        sync(folder).with_context(cannot)?;
        self.moment()
    }

    /// Whether the file is there, with these very bytes.
    pub(crate) fn has(&self, path: &RelPath, (size, sha256): (u64, Sha256)) -> bool {
        let place = self.path(path);
        let is_file = |meta: fs::Metadata| meta.is_file() && meta.len() == size;
        place.symlink_metadata().is_ok_and(is_file)
            && hash_file(&place).is_ok_and(|found| found == (size, sha256))
    }

    /// Files of the catalog that are not there, or not of their size.
    pub(crate) fn missing(&self) -> Vec<String> {
        let entries = self.catalog.entries();
        let files = entries.iter().flat_map(|entry| &entry.files).map(|file| file.artifact);
        let is_there = |file: &&zlh_catalog::Artifact| {
            self.path(&file.path)
                .symlink_metadata()
                .is_ok_and(|meta| meta.is_file() && meta.len() == file.size)
        };
        files.filter(|file| !is_there(file)).map(|file| file.path.to_string()).collect()
    }

    /// Publishes the edited catalog under a new serial, then the views.
    pub(crate) fn publish(&mut self, publication: &Publication<'_>) -> Result<()> {
        let now = Timestamp::now();
        if self.published.is_some() {
            self.catalog.serial += 1;
        }
        self.catalog.issued = self.published.as_ref().map_or(now, |old| old.issued.max(now));
        let lifetime = SignedDuration::try_from(publication.lifetime).context("--expires is too long")?;
        self.catalog.expires =
            Some(now.checked_add(lifetime).context("the clock of this machine is not set")?);
        self.catalog.validate()?;
        let mut bytes = serde_json::to_vec_pretty(&self.catalog)?;
        bytes.push(b'\n');
        let signature = match publication.key {
            Some(key) => Some(key.sign(&bytes, self.catalog.serial)?),
            None => None,
        };
        self.replace(&bytes, signature.as_deref())?;
        self.write_views(publication.publish_agent)
    }

    /// Makes these bytes the catalog, and this its signature, as one.
    pub(crate) fn replace(&mut self, bytes: &[u8], signature: Option<&str>) -> Result<()> {
        let root = self.root.clone();
        let cannot = || format!("cannot write the catalog of `{}`", root.display());
        let draft = self.root.join(DRAFT);
        fs::create_dir_all(&draft).with_context(cannot)?;
        crate::atomic::write_public(&draft.join(CATALOG), bytes).with_context(cannot)?;
        match signature {
            Some(text) => crate::atomic::write_public(&draft.join(SIGNATURE), text.as_bytes()),
            None => crate::atomic::write_public(&draft.join(UNSIGNED), b""),
        }
        .with_context(cannot)?;
        self.moment()?;
        fs::rename(&draft, self.root.join(NEXT)).with_context(cannot)?;
        sync(&self.root).with_context(cannot)?;
        complete(&self.root, &|| self.moment()).with_context(cannot)?;
        self.published = Some(self.catalog.clone());
        Ok(())
    }

    /// Writes what older readers want, from the catalog.
    pub(crate) fn write_views(&self, publish_agent: bool) -> Result<()> {
        views::write(&self.root, &self.catalog, publish_agent, &|| self.moment())
    }

    /// What is named beside the manifest for deployed agents, which is only written on demand.
    pub(crate) fn manifest_is_stale(&self) -> bool {
        views::manifest_is_stale(&self.root, &self.catalog)
    }

    /// A moment at which a test ends it, as a SIGKILL would.
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "it is one only under test")]
    fn moment(&self) -> Result<()> {
        #[cfg(test)]
        {
            let left = self.moments.get();
            anyhow::ensure!(left > 0, "killed");
            self.moments.set(left - 1);
        }
        Ok(())
    }
}

/// Which entry names a path, and with which size and hash.
fn named(catalog: &Catalog, path: &RelPath) -> Option<(String, (u64, Sha256))> {
    catalog.entries().into_iter().find_map(|entry| {
        let file = entry.files.iter().find(|file| file.artifact.path == *path)?;
        Some((entry.name, (file.artifact.size, file.artifact.sha256)))
    })
}

/// A catalog that can be written again without losing what this program does not know.
fn read(bytes: &[u8]) -> Result<Catalog> {
    let catalog = Catalog::parse(bytes)?;
    let (before, after) = (serde_json::from_slice(bytes)?, serde_json::to_value(&catalog)?);
    if let Some(field) = lost(&before, &after, "") {
        return Err(anyhow!("it has `{field}`, which this zlhctl would lose"))
            .hint("a newer zlhctl wrote it: update this one");
    }
    Ok(catalog)
}

/// A field of `before` that is not in `after`, unless it says nothing.
fn lost(before: &Value, after: &Value, at: &str) -> Option<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().find_map(|(key, value)| {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            match after.get(key) {
                Some(after) => lost(value, after, &at),
                None if says_nothing(value) => None,
                None => Some(at),
            }
        }),
        (Value::Array(before), Value::Array(after)) => {
            before.iter().zip(after).enumerate().find_map(|(i, (a, b))| lost(a, b, &format!("{at}[{i}]")))
        }
        _ => None,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let cannot = || format!("cannot write `{}`", path.display());
    fs::create_dir_all(root).with_context(cannot)?;
    let file = File::options().create(true).truncate(false).write(true).open(&path).with_context(cannot)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(anyhow!("another zlhctl is editing `{}`", root.display())).hint("wait until it is done")
        }
        Err(error) => Err(error).with_context(cannot),
    }
}

/// Completes a publication that was decided, and clears away what was not.
fn recover(root: &Path) -> Result<()> {
    if root.join(NEXT).is_dir() {
        complete(root, &|| Ok(()))?;
    }
    for debris in [DRAFT, INCOMING] {
        match fs::remove_dir_all(root.join(debris)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(mirror::sweep(root)?)
}

/// From `.next` to the two files; may be done again from any point of it.
fn complete(root: &Path, moment: &dyn Fn() -> Result<()>) -> Result<()> {
    let (next, signature) = (root.join(NEXT), root.join(SIGNATURE));
    let absent = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    moment()?;
    if next.join(UNSIGNED).exists() {
        absent(fs::remove_file(&signature))?;
    } else {
        absent(fs::rename(next.join(SIGNATURE), &signature))?;
    }
    moment()?;
    absent(fs::rename(next.join(CATALOG), root.join(CATALOG)))?;
    moment()?;
    absent(fs::remove_dir_all(&next))?;
    Ok(sync(root)?)
}

fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file name that nobody else of this store's one editor uses.
fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) const CATALOG: &str = "catalog.json";
pub(crate) const SIGNATURE: &str = "catalog.json.minisig";
const UNSIGNED: &str = "unsigned";
const LOCK: &str = ".lock";
const INCOMING: &str = ".incoming";
const MIRROR: &str = ".mirror";
const DRAFT: &str = ".draft";
const NEXT: &str = ".next";
const TRASH: &str = ".trash";

#[cfg(test)]
mod tests;
