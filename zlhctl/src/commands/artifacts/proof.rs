//! Proving a store: each file of the catalog once, several at a time.
//!
//! A file of a folder is read where it lies; one of a server is fetched as an agent fetches
//! it. What is an archive is unpacked as an agent unpacks it, into a folder that goes
//! away again: the tree has to be the pinned one, if one is, and the programs that its entry
//! promises are looked at (and run, if asked). So is a release of the agent. Before all of it come
//! the lists of keys and the catalog's signature, as agents follow them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures_util::{StreamExt, stream};
use zlh_artifacts::{Fetcher, Install, InstallError, Limits, Store, hash_file};
use zlh_catalog::{
    Artifact, Catalog, Entry, EntryFile, EntryKind, PublicKey, RelPath, Sha256, open_signed,
    version_arguments,
};

use crate::depot::{self, CATALOG, Chain, SIGNATURE};
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

    /// Reads the catalog. If there are keys, it has to be signed as agents that are configured
    /// with them want it; without, the lists of keys only have to follow one another.
    pub(super) async fn catalog(&self, keys: &[PublicKey]) -> Result<Catalog> {
        let lists = self.lists(keys).await?;
        let bytes = self.small(CATALOG, MAX_CATALOG).await?;
        if keys.is_empty() {
            return Ok(Catalog::parse(&bytes)?);
        }
        let signature = self.small(SIGNATURE, MAX_SIGNATURE).await?;
        Ok(open_signed(&bytes, &String::from_utf8_lossy(&signature), lists.keys())?)
    }

    async fn lists(&self, keys: &[PublicKey]) -> Result<Chain> {
        let mut lists = Chain::from(keys);
        loop {
            let (path, signed) = lists.next();
            let Some(bytes) = self.small_if_any(&path, MAX_KEYS).await? else { return Ok(lists) };
            let signature = self.small_if_any(&signed, MAX_SIGNATURE).await?;
            let signature = signature
                .ok_or_else(|| anyhow!("the list of keys `{path}` has no `{signed}`: every agent refuses it"))
                .hint("publish the list again, with its signature")?;
            lists
                .take(&bytes, &signature)
                .with_context(|| format!("agents refuse the list of keys `{path}`"))
                .hint("is --key the key that agents are configured with? if so, put the list right")?;
        }
    }

    async fn small(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let found = self.small_if_any(name, limit).await?;
        found.ok_or_else(|| anyhow!("there is no `{name}`")).hint("agents look for it there: publish it")
    }

    async fn small_if_any(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Dir(dir) => {
                let path = dir.join(name);
                let bytes = match read(&path, limit + 1) {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    read => read.with_context(|| format!("cannot read `{}`", path.display()))?,
                };
                anyhow::ensure!(
                    bytes.len() as u64 <= limit,
                    "`{}` is larger than {limit} bytes",
                    path.display()
                );
                Ok(Some(bytes))
            }
            Self::Server { fetcher, .. } => match fetcher.get_small(&RelPath::new(name)?, limit).await {
                Err(error) if error.is_not_found() => Ok(None),
                read => Ok(Some(read?)),
            },
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

fn read(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn in_place(path: &Path, (size, sha256): (u64, Sha256)) -> Result<(), String> {
    let meta = path.symlink_metadata().map_err(|error| match error.kind() {
        ErrorKind::NotFound => "it is not there".to_owned(),
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
    uses: Vec<(&'a Entry<'a>, &'a EntryFile<'a>)>,
}

impl Found {
    /// What is wrong with the catalog itself.
    pub(super) fn of_catalog(defect: String) -> Self {
        Self {
            path: CATALOG.to_owned(),
            entries: vec!["every entry".to_owned()],
            size: 0,
            sha256: String::new(),
            defect: Some(defect),
            took: Duration::ZERO,
        }
    }
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
                wanted.uses.push((entry, file));
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
        for (entry, file) in &wanted.uses {
            result = match entry.kind {
                EntryKind::Agent => self.release(entry.version, &path).await,
                _ if file.artifact.media_type.is_archive() => self.unpacked(file, &path).await,
                _ => Ok(()),
            };
            if let Err(why) = result {
                result = Err(format!("as {}: {why}", entry.name));
                break;
            }
        }
        self.source.forget(&path);
        result
    }

    /// A release of the agent: a program for its machines and, if it is run, of that version.
    async fn release(&self, version: &str, binary: &Path) -> Result<(), String> {
        depot::agent_binary(binary).map_err(|error| crate::exit::message(&error))?;
        if !self.run {
            return Ok(());
        }
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (from, program) = (binary.to_owned(), folder.path().join("zlh-agent"));
        let to = program.clone();
        let placed = tokio::task::spawn_blocking(move || {
            std::fs::copy(from, &to)?;
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755))
        });
        let placed = placed.await.map_err(|error| error.to_string())?;
        placed.map_err(|error| error.to_string())?;
        let said = runs(&program, &["version"]).await;
        let said = said.map_err(|why| format!("`zlh-agent version` {why}"))?;
        // As agents read it before they change to a new version.
        match said.strip_prefix("zlh-agent v").and_then(|rest| rest.split(' ').next()) {
            Some(found) if found == version => Ok(()),
            Some(found) => Err(format!("it says that it is version {found}")),
            None => Err("it does not say which version it is".to_owned()),
        }
    }

    async fn unpacked(&self, file: &EntryFile<'_>, archive: &Path) -> Result<(), String> {
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
                format!("its `tree_sha256` is {got}, the catalog says {expected}")
            }
            error => crate::exit::message(&error.into()),
        })?;
        if self.run {
            for program in programs {
                let arguments = version_arguments(program.file_name());
                runs(&tree.join(program.as_str()), arguments)
                    .await
                    .map_err(|why| format!("`{program} {}` {why}", arguments.join(" ")))?;
            }
        }
        Ok(())
    }
}

/// What a program answers when it is asked for its version, if it answers.
async fn runs(program: &Path, arguments: &[&str]) -> Result<String, String> {
    // Some write one even then, as code-server does.
    let home = tempfile::tempdir().map_err(|error| format!("has no home to run in: {error}"))?;
    let mut command = tokio::process::Command::new(program);
    // A script may be one for a program beside it, as npm is for node.
    let beside = program.parent().map(|dir| format!("{}:", dir.display())).unwrap_or_default();
    command.args(arguments).env_clear().env("PATH", format!("{beside}/usr/bin:/bin"));
    command.env("HOME", home.path());
    let unheard = |error: std::io::Error| format!("cannot be heard: {error}");
    // A file, not a pipe: what the program leaves running cannot hold it open.
    let mut said = tempfile::tempfile().map_err(unheard)?;
    command.stdout(said.try_clone().map_err(unheard)?);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.status()).await {
        Err(_) => Err(format!("did not end within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => Err(format!("cannot be run: {error}")),
        Ok(Ok(status)) if status.success() => {
            let mut text = Vec::new();
            said.rewind().and_then(|()| said.take(MAX_ANSWER).read_to_end(&mut text)).map_err(unheard)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        Ok(Ok(status)) => Err(format!("failed: {status}")),
    }
}

const MAX_CATALOG: u64 = 16 << 20;
const MAX_SIGNATURE: u64 = 8 << 10;
const MAX_KEYS: u64 = 64 << 10;
const MAX_ANSWER: u64 = 4 << 10;
const PROGRESS: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);
