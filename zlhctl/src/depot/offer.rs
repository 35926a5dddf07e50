//! One version on its way into a store: looked at, placed, entered into the catalog.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use zlh_artifacts::{InstallError, Limits, Store, hash_file, unpack};
use zlh_catalog::{
    AgentRelease, Artifact, GameVersion, Id, InstallStep, LaunchPlan, MediaType, RelPath, Release,
    Requirement, RuntimeVersion, Sha256, check_component,
};

use super::{Depot, edit, layout};
use crate::exit::Hint;

/// A version and its file.
pub(crate) struct Offer<'a> {
    pub item: Item,
    pub version: &'a str,
    /// Where the file is now.
    pub file: &'a Path,
    /// What it is called; its end says what it is.
    pub file_name: &'a str,
    /// The only channel it is for; `None` is `stable`.
    pub channel: Option<&'a Id>,
    /// Whether it may take the place of other bytes of the same version.
    pub replace: bool,
}

/// What is offered.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Runtime {
        id: Id,
        strip: u8,
        programs: BTreeMap<Id, RelPath>,
    },
    Addon {
        id: Id,
        strip: u8,
        programs: BTreeMap<Id, RelPath>,
    },
    Game {
        game: Id,
        variant: Id,
        requires: Option<Requirement>,
        launch: Option<Box<LaunchPlan>>,
        prepared: bool,
    },
    Agent,
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Added {
    /// The entry's name.
    pub entry: String,
    pub artifact: Artifact,
    /// `added`, `replaced` or `unchanged`.
    pub what: &'static str,
}

fn unpacked(
    version: String,
    archive: Artifact,
    strip_components: u8,
    executables: BTreeMap<Id, RelPath>,
    release: Release,
) -> RuntimeVersion {
    RuntimeVersion { version, archive, strip_components, executables, release }
}

impl Item {
    /// The name that the entry has in the catalog.
    pub(crate) fn entry(&self, version: &str) -> String {
        match self {
            Self::Runtime { id, .. } => format!("{id} {version}"),
            Self::Addon { id, .. } => format!("addon/{id} {version}"),
            Self::Game { game, variant, .. } => format!("{game}/{variant} {version}"),
            Self::Agent => format!("agent {version}"),
        }
    }

    fn path(&self, version: &str, file_name: &str) -> String {
        match self {
            Self::Runtime { id, .. } => layout::runtime(id, version, file_name),
            Self::Addon { id, .. } => layout::addon(id, version, file_name),
            Self::Game { game, variant, .. } => layout::game(game, variant, version, file_name),
            Self::Agent => layout::agent(version),
        }
    }
}

impl Depot {
    /// Looks at the file, puts it to its place, and enters it into the catalog, which is not
    /// published by this. Blocks.
    pub(crate) fn add(&mut self, offer: &Offer<'_>) -> Result<Added> {
        check_component("version", offer.version)?;
        let entry = offer.item.entry(offer.version);
        let shown = offer.file.display();
        let meta = fs::metadata(offer.file).with_context(|| format!("cannot read `{shown}`"))?;
        anyhow::ensure!(meta.is_file(), "`{shown}` is not a file");
        anyhow::ensure!(meta.len() > 0, "`{shown}` is empty");
        let pinned = hash_file(offer.file).with_context(|| format!("cannot read `{shown}`"))?;
        let old = edit::existing(&self.catalog, &entry);
        let same = old.as_ref().is_some_and(|(old, _)| (old.size, old.sha256) == pinned);
        if let Some((old, _)) = old.as_ref().filter(|_| !same && !offer.replace) {
            return Err(anyhow!(
                "{entry} is in the catalog, with other bytes (SHA-256 {})",
                old.sha256.short()
            ))
            .hint("the bytes of a version do not change by themselves: --replace puts these in their place");
        }
        let mut artifact = self.artifact(offer, pinned)?;
        if let Some((old, _)) = old.as_ref().filter(|_| same) {
            artifact.path = old.path.clone();
        }
        artifact.tree_sha256 = self.inspect(offer, &artifact)?;
        self.put(offer.file, &artifact.path, pinned)?;
        let release = match (&old, offer.channel) {
            (Some((_, release)), None) if same => release.clone(),
            _ => release(offer.channel),
        };
        let before = self.catalog.clone();
        self.enter(offer, artifact.clone(), release);
        let what = match old {
            None => "added",
            Some(_) if before == self.catalog => "unchanged",
            Some(_) => "replaced",
        };
        if let Err(error) = self.catalog.validate() {
            self.catalog = before;
            return Err(error)
                .with_context(|| format!("{entry} cannot be entered"))
                .hint(remedy(&offer.item));
        }
        Ok(Added { entry, artifact, what })
    }

    fn artifact(&self, offer: &Offer<'_>, (size, sha256): (u64, Sha256)) -> Result<Artifact> {
        let media_type = match offer.item {
            Item::Agent => MediaType::File,
            _ => layout::media_type(offer.file_name),
        };
        let usual = offer.item.path(offer.version, offer.file_name);
        let mut path = RelPath::new(usual.as_str())?;
        let named = self.published.as_ref().and_then(|catalog| super::named(catalog, &path));
        if offer.replace && named.is_some_and(|(_, other)| other != (size, sha256)) {
            path = RelPath::new(layout::beside(&usual, &sha256.short()))?;
        }
        let name = Id::new(match offer.item {
            Item::Agent => "agent",
            _ => "server",
        })?;
        Ok(Artifact { name, path, size, sha256, media_type, tree_sha256: None })
    }

    fn enter(&mut self, offer: &Offer<'_>, artifact: Artifact, release: Release) {
        let version = offer.version.to_owned();
        match offer.item.clone() {
            Item::Runtime { id, strip, programs } => {
                let version = unpacked(version, artifact, strip, programs, release);
                edit::set_runtime(&mut self.catalog.runtimes, &id, version);
            }
            Item::Addon { id, strip, programs } => {
                let version = unpacked(version, artifact, strip, programs, release);
                edit::set_runtime(&mut self.catalog.addons, &id, version);
            }
            Item::Game { game, variant, requires, launch, prepared } => {
                let fetches_upstream = !prepared && zlh_catalog::deployed::fetches_upstream(variant.as_str());
                let entry = GameVersion {
                    version,
                    files: vec![artifact],
                    requires,
                    launch: launch.map(|plan| *plan),
                    stop: None,
                    fetches_upstream,
                    release,
                };
                edit::set_game(&mut self.catalog, &game, &variant, entry);
            }
            Item::Agent => {
                edit::set_agent(&mut self.catalog, AgentRelease { version, binary: artifact, release });
            }
        }
    }

    /// Refuses what agents would refuse, before it is anywhere. The hash of the tree that comes
    /// out of an archive.
    fn inspect(&self, offer: &Offer<'_>, artifact: &Artifact) -> Result<Option<Sha256>> {
        match &offer.item {
            Item::Runtime { strip, programs, .. } | Item::Addon { strip, programs, .. } => {
                if !artifact.media_type.is_archive() {
                    return Err(anyhow!("`{}` is no archive that agents unpack", offer.file_name)).hint(
                        "it has to be a .tar.gz, .tar.zst, .tar.xz or .zip; `zlhctl artifacts pack` makes one of a folder",
                    );
                }
                if programs.is_empty() {
                    return Err(anyhow!("it is not said which programs it has"))
                        .hint("name them: --exec NAME=PATH");
                }
                self.unpacked(offer, artifact, *strip, programs).map(Some)
            }
            Item::Game { launch, .. } if artifact.media_type.is_archive() => {
                let strip = launch.as_deref().map_or(0, strip);
                self.unpacked(offer, artifact, strip, &BTreeMap::new()).map(Some)
            }
            Item::Game { .. } => {
                if artifact.media_type == MediaType::Jar && !head(offer.file)?.starts_with(b"PK\x03\x04") {
                    return Err(anyhow!("`{}` is not a Java archive", offer.file_name))
                        .hint("was an error page saved in its place?");
                }
                Ok(None)
            }
            Item::Agent => agent_binary(offer.file).map(|()| None),
        }
    }

    fn unpacked(
        &self,
        offer: &Offer<'_>,
        artifact: &Artifact,
        strip: u8,
        programs: &BTreeMap<Id, RelPath>,
    ) -> Result<Sha256> {
        let folder = self.scratch()?;
        let executables: Vec<&RelPath> = programs.values().collect();
        let inspected = Store::open(folder.path().join("store"))?.inspect(
            offer.file,
            artifact.media_type,
            strip,
            &executables,
            &Limits::default(),
        );
        let entry = offer.item.entry(offer.version);
        match inspected {
            Ok(inspected) => Ok(inspected.tree_sha256),
            Err(InstallError::Executable { program, why, .. }) => Err(anyhow!(
                "{entry} lacks the program `{program}`: {why}"
            ))
            .hint(whereabouts(offer, artifact, strip, &program, folder.path())),
            Err(InstallError::Unpack { source, .. }) => {
                Err(source).with_context(|| format!("agents would not unpack {entry}"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Where the program is, as far as its name says.
fn whereabouts(
    offer: &Offer<'_>,
    artifact: &Artifact,
    strip: u8,
    program: &RelPath,
    folder: &Path,
) -> String {
    let tree = folder.join("tree");
    let listed = fs::create_dir(&tree).is_ok()
        && unpack(offer.file, artifact.media_type, &tree, strip, &Limits::default(), &mut |_| {
            ControlFlow::Continue(())
        })
        .is_ok();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop().filter(|_| listed) {
        let Ok(entries) = fs::read_dir(tree.join(&dir)) else { continue };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(path);
            } else if path != program.as_str() && path.ends_with(&format!("/{program}")) {
                let more = path.split('/').count() - program.components().count();
                return format!("it is at `{path}`: --strip {}", usize::from(strip) + more);
            } else if name == program.file_name() && path != program.as_str() {
                return format!("there is `{path}`: correct --exec or --strip");
            }
        }
    }
    "`tar -tf FILE` lists what is in it; --strip and --exec say where the programs are".to_owned()
}

/// What the plan drops of the path of each entry.
fn strip(plan: &LaunchPlan) -> u8 {
    let unpack = |step: &InstallStep| match step {
        InstallStep::Unpack { strip_components, .. } => Some(*strip_components),
        _ => None,
    };
    plan.install.iter().find_map(unpack).unwrap_or_default()
}

fn remedy(item: &Item) -> &'static str {
    match item {
        Item::Game { .. } => {
            "add the runtime it needs first (`zlhctl artifacts import STORE java@21`); a variant without a built-in plan needs --launch and --requires"
        }
        _ => "`zlhctl catalog lint STORE/catalog.json` says what else is wrong with it",
    }
}

fn release(channel: Option<&Id>) -> Release {
    let channels = channel.filter(|id| id.as_str() != zlh_catalog::STABLE).map(|id| (id.clone(), 100));
    Release { channels: channels.into_iter().collect(), ..Release::default() }
}

/// Whether it is a program for the machines that agents run on, by its first bytes.
pub(crate) fn agent_binary(path: &Path) -> Result<()> {
    let head = head(path)?;
    // ELF, and x86-64 as its machine.
    let fits = head.starts_with(b"\x7fELF") && head.get(18..20) == Some(&[62, 0]);
    if fits {
        return Ok(());
    }
    Err(anyhow!("`{}` is no Linux program for x86-64", path.display()))
        .hint("`make dist` builds dist/zlh-agent")
}

fn head(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(20).read_to_end(&mut head))
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(head)
}
