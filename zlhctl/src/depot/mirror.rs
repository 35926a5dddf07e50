//! A copy of a whole store: files first, then key lists, then catalog and signature.
//!
//! Files under way are in `.mirror`, which stays when a mirror ends early: the next one goes on with
//! them. It is cleared away when one is complete, or nobody has written into it for a week.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use futures_util::{StreamExt, stream};
use zlh_artifacts::{FetchError, Fetcher};
use zlh_catalog::{Artifact, Catalog, KeyListError, PublicKey, RelPath, open_signed};

use super::{CATALOG, Chain, Depot, MIRROR, SIGNATURE};
use crate::atomic;
use crate::exit::Hint;

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    pub serial: u64,
    pub files: usize,
    pub bytes: u64,
    /// Files that had to be transferred, and their bytes.
    pub fetched: usize,
    pub fetched_bytes: u64,
}

/// Brings everything of the store at `url` into `dest`; without keys the signature is copied
/// and not checked. `progress` gets the number of files that are done, and of all.
pub(crate) async fn copy(
    url: &str,
    dest: &Path,
    keys: &[PublicKey],
    jobs: usize,
    publish_agent: bool,
    progress: impl Fn(usize, usize, u64),
) -> Result<Copied> {
    let mut depot = Depot::open_or_create(dest)?;
    let fetcher = Fetcher::new(url, dest.join(MIRROR))?;
    let lists = key_lists(&fetcher, keys).await?;
    let bytes = fetcher.get_small(&RelPath::new(CATALOG)?, MAX_CATALOG).await?;
    let signature = match fetcher.get_small(&RelPath::new(SIGNATURE)?, MAX_SMALL).await {
        Ok(text) => Some(String::from_utf8(text).context("the signature is no text")?),
        Err(FetchError::NotFound { .. }) if keys.is_empty() => None,
        Err(error) => return Err(error.into()),
    };
    let catalog = match (&signature, lists.trusted.as_slice()) {
        (Some(signature), trusted @ [_, ..]) => open_signed(&bytes, signature, trusted)?,
        _ => Catalog::parse(&bytes)?,
    };
    let old = depot.published.as_ref().map_or(0, |old| old.serial);
    if catalog.serial < old {
        return Err(anyhow!(
            "the source has serial {}, `{}` has {old} already",
            catalog.serial,
            dest.display()
        ))
        .hint("is it an old copy? agents that saw the newer one would refuse it");
    }
    let copied = files(&depot, &fetcher, &catalog, jobs, progress).await?;
    for (path, text) in &lists.texts {
        let place = dest.join(path);
        let cannot = || format!("cannot write `{}`", place.display());
        std::fs::create_dir_all(place.parent().unwrap_or(dest)).with_context(cannot)?;
        atomic::write_public(&place, text).with_context(cannot)?;
    }
    depot.catalog = catalog;
    depot.replace(&bytes, signature.as_deref())?;
    depot.write_views(publish_agent)?;
    // Nothing is under way any more; a later opening clears away what cannot be removed now.
    let _ = std::fs::remove_dir_all(dest.join(MIRROR));
    Ok(copied)
}

async fn files(
    depot: &Depot,
    fetcher: &Fetcher,
    catalog: &Catalog,
    jobs: usize,
    progress: impl Fn(usize, usize, u64),
) -> Result<Copied> {
    let entries = catalog.entries();
    let all: BTreeMap<&str, &Artifact> = entries
        .iter()
        .flat_map(|entry| &entry.files)
        .map(|file| (file.artifact.path.as_str(), file.artifact))
        .collect();
    let mut copied = Copied {
        serial: catalog.serial,
        files: all.len(),
        bytes: all.values().map(|artifact| artifact.size).sum(),
        ..Copied::default()
    };
    let mut running = stream::iter(all.into_values())
        .map(|artifact| {
            async move {
                let pinned = (artifact.size, artifact.sha256);
                let (place, wanted) = (depot.path(&artifact.path), artifact.path.clone());
                let there = tokio::task::spawn_blocking({
                    let place = place.clone();
                    move || is_right(&place, pinned)
                });
                if there.await? {
                    return Ok::<u64, anyhow::Error>(0);
                }
                let taken = depot.published.as_ref().and_then(|old| super::named(old, &wanted));
                anyhow::ensure!(
                    taken.is_none_or(|(_, other)| other == pinned),
                    "`{wanted}` has other bytes in the source than in the copy's own catalog: mirror into a new folder"
                );
                let fetched = fetcher.fetch(artifact, |_| {}).await?;
                depot.move_in(&fetched.path, &place)?;
                Ok(artifact.size)
            }
        })
        .buffer_unordered(jobs.max(1));
    let mut done = 0;
    while let Some(size) = running.next().await {
        let size = size?;
        done += 1;
        copied.fetched += usize::from(size > 0);
        copied.fetched_bytes += size;
        progress(done, copied.files, copied.fetched_bytes);
    }
    Ok(copied)
}

fn is_right(place: &Path, pinned: (u64, zlh_catalog::Sha256)) -> bool {
    place.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == pinned.0)
        && zlh_artifacts::hash_file(place).is_ok_and(|found| found == pinned)
}

/// The key lists of a store, and whom they say to trust.
struct Lists {
    texts: Vec<(String, Vec<u8>)>,
    trusted: Vec<PublicKey>,
}

/// Follows the lists as agents do, from the keys that are trusted now.
async fn key_lists(fetcher: &Fetcher, keys: &[PublicKey]) -> Result<Lists> {
    let (mut texts, mut chain) = (Vec::new(), Chain::from(keys));
    // The key that was given may be of a later list.
    let mut met = false;
    loop {
        let (path, signed) = chain.next();
        let bytes = match fetcher.get_small(&RelPath::new(path.as_str())?, MAX_SMALL).await {
            Err(FetchError::NotFound { .. }) => break,
            other => other?,
        };
        let signature = fetcher.get_small(&RelPath::new(signed.as_str())?, MAX_SMALL).await?;
        if keys.is_empty() {
            chain.pass_over();
        } else {
            match chain.take(&bytes, &signature) {
                Ok(()) => met = true,
                Err(KeyListError::OtherKey { .. }) if !met => chain.pass_over(),
                Err(error) => return Err(error).with_context(|| format!("`{path}`")),
            }
        }
        // The signature first: agents look for the list.
        texts.extend([(signed, signature), (path, bytes)]);
    }
    Ok(Lists { texts, trusted: chain.keys().to_vec() })
}

/// Removes what an interrupted mirror left, if nobody has gone on with it.
pub(super) fn sweep(root: &Path) -> std::io::Result<()> {
    let folder = root.join(MIRROR);
    if !folder.is_dir() || last_written(&folder)?.elapsed().is_ok_and(|age| age <= KEPT) {
        return Ok(());
    }
    std::fs::remove_dir_all(folder)
}

/// When anything in the folder was last written.
fn last_written(folder: &Path) -> std::io::Result<SystemTime> {
    let (mut last, mut todo) = (SystemTime::UNIX_EPOCH, vec![folder.to_owned()]);
    while let Some(dir) = todo.pop() {
        last = last.max(dir.metadata()?.modified()?);
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            last = last.max(meta.modified()?);
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(last)
}

/// What an interrupted mirror fetched is kept for this time.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often progress is worth a line.
pub(crate) const PROGRESS: Duration = Duration::from_secs(2);
const MAX_CATALOG: u64 = 16 << 20;
const MAX_SMALL: u64 = 64 << 10;
