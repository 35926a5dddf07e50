//! What readers of the deployed forms want, generated from the catalog.
//!
//! | view | for |
//! |---|---|
//! | `_catalog.json`, `devcontainer/_catalog.json` | portals: what can be chosen |
//! | `agents/versions/<v>/zlh-agent-linux-amd64.sha256` | deployed agents: what they check an update by |
//! | `agents/manifest.json` | deployed agents: what to update to; only on demand |
//! | `java/21/OpenJDK21.tar.gz`, `minecraft/paper/1.21.7/server.jar` | payloads with the old paths, as links |
//!
//! Versions are sorted as versions. What is withdrawn is left out, and so is what `stable`
//! does not offer to everybody: these readers know neither channels nor waves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use zlh_catalog::{Artifact, Audience, Catalog, MediaType, Release, compare_versions, deployed};

use crate::atomic;

pub(super) const MANIFEST: &str = "agents/manifest.json";

/// Generated texts by their path.
pub(super) fn texts(catalog: &Catalog) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (deployed::LIST.to_owned(), text(&games(catalog))),
        ("devcontainer/_catalog.json".to_owned(), text(&runtimes(catalog))),
    ]);
    for agent in &catalog.agents {
        let line = format!("{}  {}\n", agent.binary.sha256, agent.binary.path.file_name());
        all.insert(format!("{}.sha256", agent.binary.path), line);
    }
    all
}

fn games(catalog: &Catalog) -> Value {
    let games = catalog.games.iter().filter_map(|game| {
        let variants: Vec<Value> = game
            .variants
            .iter()
            .filter_map(|variant| {
                let all = variant.versions.iter().map(|one| (one.version.as_str(), &one.release));
                let versions = offered(all);
                (!versions.is_empty()).then(|| json!({ "id": variant.id, "versions": versions }))
            })
            .collect();
        (!variants.is_empty()).then(|| json!({ "id": game.id, "variants": variants }))
    });
    json!({ "games": games.collect::<Vec<_>>() })
}

fn runtimes(catalog: &Catalog) -> Value {
    let runtimes = catalog.runtimes.iter().filter_map(|runtime| {
        let versions = offered(runtime.versions.iter().map(|one| (one.version.as_str(), &one.release)));
        (!versions.is_empty()).then(|| json!({ "id": runtime.id, "versions": versions }))
    });
    json!({ "runtimes": runtimes.collect::<Vec<_>>() })
}

/// The manifest of deployed agents; `None` while there is no release for all of them.
pub(super) fn manifest(catalog: &Catalog) -> Option<String> {
    let all = || catalog.agents.iter().map(|one| (one.version.as_str(), &one.release));
    let versions = offered(all());
    let latest = versions.last()?;
    let artifacts: BTreeMap<&str, Value> = catalog
        .agents
        .iter()
        .filter(|one| versions.contains(&one.version.as_str()))
        .map(|one| {
            let binary = json!({ "linux_amd64": { "binary": format!("/{}", one.binary.path) } });
            (one.version.as_str(), binary)
        })
        .collect();
    Some(text(&json!({ "latest": latest, "channels": { "stable": latest }, "artifacts": artifacts })))
}

/// Paths that deployed callers ask for and the catalog does not name, with what lies there.
pub(super) fn aliases(catalog: &Catalog) -> BTreeMap<String, &Artifact> {
    let mut all = BTreeMap::new();
    for runtime in catalog.runtimes.iter().filter(|one| one.id == *"java") {
        let offered = runtime.versions.iter().filter(|one| is_for_all(&one.release));
        let mut versions: Vec<_> = offered.filter(|one| one.archive.media_type == MediaType::TarGz).collect();
        versions.sort_by(|a, b| compare_versions(&a.version, &b.version));
        // A later one takes the place of an earlier one of the same line.
        for version in versions {
            let major = version.version.split(['.', '+', '-']).next().unwrap_or_default();
            all.insert(deployed::java_archive(major), &version.archive);
        }
    }
    for game in &catalog.games {
        for variant in &game.variants {
            let Some(name) = deployed::server_file(variant.id.as_str()) else { continue };
            for version in variant.versions.iter().filter(|one| is_for_all(&one.release)) {
                if let [file] = version.files.as_slice()
                    && file.path.as_str().ends_with(".jar")
                {
                    all.insert(format!("{}/{}/{}/{name}", game.id, variant.id, version.version), file);
                }
            }
        }
    }
    let entries = catalog.entries();
    let named: BTreeSet<&str> =
        entries.iter().flat_map(|entry| &entry.files).map(|file| file.artifact.path.as_str()).collect();
    all.retain(|path, _| !named.contains(path.as_str()));
    all
}

fn offered<'a>(all: impl Iterator<Item = (&'a str, &'a Release)>) -> Vec<&'a str> {
    let mut versions: Vec<&str> =
        all.filter(|(_, release)| is_for_all(release)).map(|(version, _)| version).collect();
    versions.sort_by(|a, b| compare_versions(a, b));
    versions
}

/// Whether everybody who follows `stable` gets it: the default audience is the last of every wave.
fn is_for_all(release: &Release) -> bool {
    release.is_offered_to(&Audience::default())
}

fn text(value: &Value) -> String {
    // Maps, lists and strings: there is nothing to fail on.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// Writes every view that is not as it should be.
pub(super) fn write(
    root: &Path,
    catalog: &Catalog,
    publish_agent: bool,
    moment: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let mut all = texts(catalog);
    if let Some(manifest) = manifest(catalog).filter(|_| publish_agent) {
        all.insert(MANIFEST.to_owned(), manifest);
    }
    for (path, text) in all {
        let place = root.join(&path);
        if fs::read(&place).is_ok_and(|old| old == text.as_bytes()) {
            continue;
        }
        let cannot = || format!("cannot write `{}`", place.display());
        fs::create_dir_all(place.parent().unwrap_or(root)).with_context(cannot)?;
        moment()?;
        atomic::write_public(&place, text.as_bytes()).with_context(cannot)?;
    }
    for (path, artifact) in aliases(catalog) {
        let (place, target) = (root.join(&path), root.join(artifact.path.as_str()));
        let cannot = || format!("cannot link `{}`", place.display());
        if is_same(&place, &target) {
            continue;
        }
        let folder = place.parent().unwrap_or(root);
        fs::create_dir_all(folder).with_context(cannot)?;
        let temporary = folder.join(format!(".{}", super::unique()));
        moment()?;
        // A hard link: static servers and copies of the folder need not know of it.
        match fs::hard_link(&target, &temporary) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            result => result.with_context(cannot)?,
        }
        fs::rename(&temporary, &place).with_context(cannot)?;
    }
    Ok(())
}

/// Whether two names lead to one file.
fn is_same(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| path.symlink_metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    id(a).is_some() && id(a) == id(b)
}

/// Whether deployed agents are told something else than the catalog would tell them.
pub(super) fn manifest_is_stale(root: &Path, catalog: &Catalog) -> bool {
    let found = fs::read_to_string(root.join(MANIFEST)).ok();
    found.is_some() && found != manifest(catalog)
}
