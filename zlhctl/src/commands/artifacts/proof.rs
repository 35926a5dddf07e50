//! Proving a store: each file of the catalog once, several at a time.
//!
//! A file of a folder is read where it lies; one of a server is fetched as an agent fetches
//! it. What is an archive is unpacked as an agent unpacks it, into a folder that goes
//! away again: the tree has to be the pinned one, if one is, and the programs that its entry
//! promises are looked at (and run, if asked).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures_util::{StreamExt, stream};
use zlh_artifacts::{Fetcher, Install, InstallError, Limits, Store, hash_file};
use zlh_catalog::{Artifact, Catalog, EntryFile, PublicKey, RelPath, Sha256, open_signed, version_arguments};

use crate::commands::catalog;
use crate::exit::Hint;

/// What is to be proved, and how.
pub(super) struct Proof {
    pub source: Source,
    /// Also run each program with `--version`.
    pub run: bool,
    /// Files at a time.
    pub jobs: usize,
}

/// What became of one file.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub path: String,
    /// Which entries it belongs to.
    pub entries: Vec<String>,
    pub size: u64,
    pub sha256: String,
    /// Why an agent would not take it.
    pub defect: Option<String>,
    pub took: Duration,
}

/// Where the store is.
pub(super) enum Source {
    Dir(PathBuf),
    Server { fetcher: Fetcher, _cache: tempfile::TempDir },
}

impl Source {
    pub(super) fn new(text: &str) -> Result<Self> {
        let path = text.strip_prefix("file://").unwrap_or(text);
        if !path.contains("://") {
            let dir = PathBuf::from(path);
            if !dir.is_dir() {
                return Err(anyhow!("`{path}` is no folder")).hint("give a folder, or http://HOST:PORT");
            }
            return Ok(Self::Dir(dir));
        }
        let cache = tempfile::tempdir().context("cannot make a temporary folder")?;
        let fetcher = Fetcher::new(text, cache.path().join("cache"))?;
        Ok(Self::Server { fetcher, _cache: cache })
    }

    /// Reads the catalog, and checks its signature if there are keys to check it with.
    pub(super) async fn catalog(&self, keys: &[String]) -> Result<Catalog> {
        let keys: Vec<PublicKey> = keys.iter().map(|key| catalog::public(key)).collect::<Result<_>>()?;
        let bytes = self.small("catalog.json", MAX_CATALOG).await?;
        if keys.is_empty() {
            return Ok(Catalog::parse(&bytes)?);
        }
        let signature = self.small("catalog.json.minisig", MAX_SIGNATURE).await?;
        Ok(open_signed(&bytes, &String::from_utf8_lossy(&signature), &keys)?)
    }

    async fn small(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        match self {
            Self::Dir(dir) => {
                let path = dir.join(name);
                let read = || {
                    std::fs::File::open(&path).and_then(|file| {
                        let mut bytes = Vec::new();
                        std::io::Read::read_to_end(&mut std::io::Read::take(file, limit + 1), &mut bytes)?;
                        Ok(bytes)
                    })
                };
                let bytes = read().with_context(|| format!("cannot read `{}`", path.display()))?;
                anyhow::ensure!(
                    bytes.len() as u64 <= limit,
                    "`{}` is larger than {limit} bytes",
                    path.display()
                );
                Ok(bytes)
            }
            Self::Server { fetcher, .. } => Ok(fetcher.get_small(&RelPath::new(name)?, limit).await?),
        }
    }

    /// The file with the right size and hash, or why there is none.
    async fn file(&self, artifact: &Artifact) -> Result<PathBuf, String> {
        match self {
            Self::Dir(dir) => {
                let (path, wanted) = (dir.join(artifact.path.as_str()), (artifact.size, artifact.sha256));
                tokio::task::spawn_blocking(move || in_place(&path, wanted).map(|()| path))
                    .await
                    .map_err(|error| error.to_string())?
            }
            Self::Server { fetcher, .. } => {
                let fetched = fetcher.fetch(artifact, |_| {}).await;
                fetched.map(|fetched| fetched.path).map_err(|error| crate::exit::message(&error.into()))
            }
        }
    }

    /// A fetched copy is not needed any more.
    fn forget(&self, path: &Path) {
        if let Self::Server { .. } = self {
            // What cannot be removed goes with the folder.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn in_place(path: &Path, (size, sha256): (u64, Sha256)) -> Result<(), String> {
    let meta = path.symlink_metadata().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "it is not there".to_owned(),
        _ => error.to_string(),
    })?;
    if !meta.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if meta.len() != size {
        return Err(format!("it has {} bytes, the catalog says {size}", meta.len()));
    }
    match hash_file(path) {
        Ok((_, found)) if found == sha256 => Ok(()),
        Ok((_, found)) => Err(format!("its SHA-256 is {found}, the catalog says {sha256}")),
        Err(error) => Err(error.to_string()),
    }
}

/// One file with everything that its entries want of it.
struct Wanted<'a> {
    artifact: &'a Artifact,
    entries: Vec<String>,
    /// Each way in which it is unpacked.
    uses: Vec<(String, &'a EntryFile<'a>)>,
}

impl Proof {
    /// Proves every file; `progress` is told now and then.
    pub(super) async fn all(&self, catalog: &Catalog, progress: impl Fn(usize, usize)) -> Result<Vec<Found>> {
        let entries = catalog.entries();
        let mut files: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
        for entry in &entries {
            for file in &entry.files {
                let artifact = file.artifact;
                let wanted = files.entry(artifact.path.as_str()).or_insert_with(|| Wanted {
                    artifact,
                    entries: Vec::new(),
                    uses: Vec::new(),
                });
                if !wanted.entries.contains(&entry.name) {
                    wanted.entries.push(entry.name.clone());
                }
                wanted.uses.push((entry.name.clone(), file));
            }
        }
        let count = files.len();
        let mut running = stream::iter(files.into_values())
            .map(|wanted| async move {
                let began = Instant::now();
                let defect = self.one(&wanted).await.err();
                Found {
                    path: wanted.artifact.path.to_string(),
                    entries: wanted.entries,
                    size: wanted.artifact.size,
                    sha256: wanted.artifact.sha256.to_string(),
                    defect,
                    took: began.elapsed(),
                }
            })
            .buffer_unordered(self.jobs.max(1));
        let (mut found, mut told) = (Vec::new(), Instant::now());
        while let Some(one) = running.next().await {
            found.push(one);
            if told.elapsed() > PROGRESS && found.len() < count {
                told = Instant::now();
                progress(found.len(), count);
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    async fn one(&self, wanted: &Wanted<'_>) -> Result<(), String> {
        let path = self.source.file(wanted.artifact).await?;
        let mut result = Ok(());
        if wanted.artifact.media_type.is_archive() {
            for (entry, file) in &wanted.uses {
                result = self.unpacked(entry, file, &path).await;
                if result.is_err() {
                    break;
                }
            }
        }
        self.source.forget(&path);
        result
    }

    async fn unpacked(&self, entry: &str, file: &EntryFile<'_>, archive: &Path) -> Result<(), String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (artifact, archive) = (file.artifact.clone(), archive.to_owned());
        let programs: Vec<RelPath> = file.executables.iter().map(|path| (*path).clone()).collect();
        let (strip_components, store) = (file.strip_components, folder.path().join("store"));
        let wanted = programs.clone();
        let tree = tokio::task::spawn_blocking(move || {
            let executables: Vec<&RelPath> = wanted.iter().collect();
            Store::open(&store)?.install(
                &Install {
                    name: "proof",
                    version: "1",
                    artifact: &artifact,
                    archive: &archive,
                    strip_components,
                    executables: &executables,
                    limits: Limits::default(),
                },
                &mut |_| ControlFlow::Continue(()),
            )
        });
        let tree = tree.await.map_err(|error| error.to_string())?.map_err(|error| match error {
            InstallError::Tree { expected, got, .. } => {
                format!("as {entry}: its `tree_sha256` is {got}, the catalog says {expected}")
            }
            error => format!("as {entry}: {}", crate::exit::message(&error.into())),
        })?;
        if self.run {
            for program in programs {
                let arguments = version_arguments(program.file_name());
                runs(&tree.join(program.as_str()), arguments)
                    .await
                    .map_err(|why| format!("as {entry}: `{program} {}` {why}", arguments.join(" ")))?;
            }
        }
        Ok(())
    }
}

/// Whether a program answers when it is asked for its version.
async fn runs(program: &Path, arguments: &[&str]) -> Result<(), String> {
    // Some write one even then, as code-server does.
    let home = tempfile::tempdir().map_err(|error| format!("has no home to run in: {error}"))?;
    let mut command = tokio::process::Command::new(program);
    // A script may be one for a program beside it, as npm is for node.
    let beside = program.parent().map(|dir| format!("{}:", dir.display())).unwrap_or_default();
    command.args(arguments).env_clear().env("PATH", format!("{beside}/usr/bin:/bin"));
    command.env("HOME", home.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.status()).await {
        Err(_) => Err(format!("did not end within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => Err(format!("cannot be run: {error}")),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("failed: {status}")),
    }
}

const MAX_CATALOG: u64 = 16 << 20;
const MAX_SIGNATURE: u64 = 8 << 10;
const PROGRESS: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);
