//! Changes to a catalog in memory.

use anyhow::{Result, anyhow};
use zlh_catalog::{
    AgentRelease, Artifact, Catalog, Game, GameVersion, Id, Release, Runtime, RuntimeVersion, Variant,
    compare_versions,
};

use crate::exit::Hint;

/// The channels and marks of an entry, by the name that [`Catalog::entries`] gives it.
pub(crate) fn release<'a>(catalog: &'a mut Catalog, name: &str) -> Result<&'a mut Release> {
    let names: Vec<String> = catalog.entries().into_iter().map(|entry| entry.name).collect();
    let found = match name.split_once(' ') {
        _ if !names.iter().any(|known| known == name) => None,
        Some(("agent", version)) => {
            catalog.agents.iter_mut().find(|agent| agent.version == version).map(|agent| &mut agent.release)
        }
        Some((what, version)) => match what.split_once('/') {
            Some(("addon", id)) => in_runtimes(&mut catalog.addons, id, version),
            Some((game, variant)) => {
                let game = catalog.games.iter_mut().find(|one| one.id == *game);
                let variant = game.and_then(|game| game.variants.iter_mut().find(|one| one.id == *variant));
                let entry = variant
                    .and_then(|variant| variant.versions.iter_mut().find(|one| one.version == version));
                entry.map(|entry| &mut entry.release)
            }
            None => in_runtimes(&mut catalog.runtimes, what, version),
        },
        None => None,
    };
    found.ok_or_else(|| anyhow!("the catalog has no entry `{name}`")).hint(unknown(name, &names))
}

fn in_runtimes<'a>(all: &'a mut [Runtime], id: &str, version: &str) -> Option<&'a mut Release> {
    let runtime = all.iter_mut().find(|one| one.id == *id)?;
    runtime.versions.iter_mut().find(|one| one.version == version).map(|one| &mut one.release)
}

/// What may have been meant: the nearest name, or the versions of what was named.
fn unknown(name: &str, names: &[String]) -> String {
    let same = |known: &&String| {
        let stem = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
        stem(known) == stem(name)
    };
    let versions: Vec<&str> = names.iter().filter(same).map(String::as_str).take(MAX_LISTED).collect();
    if let Some(nearest) = crate::fleet::nearest(name, names.iter().map(String::as_str)) {
        format!("did you mean '{nearest}'?")
    } else if !versions.is_empty() {
        format!("it has: {}", versions.join(", "))
    } else if names.is_empty() {
        "it has no entries at all".to_owned()
    } else {
        "`zlhctl catalog show STORE/catalog.json` lists the entries".to_owned()
    }
}

/// The runtimes, or the tools of workspaces.
pub(super) fn set_runtime(all: &mut Vec<Runtime>, id: &Id, version: RuntimeVersion) {
    let at = match all.iter().position(|one| one.id == *id) {
        Some(at) => at,
        None => {
            all.push(Runtime { id: id.clone(), name: None, versions: Vec::new() });
            all.len() - 1
        }
    };
    if let Some(runtime) = all.get_mut(at) {
        set(&mut runtime.versions, version, |one| &one.version);
    }
}

pub(super) fn set_game(catalog: &mut Catalog, game: &Id, variant: &Id, version: GameVersion) {
    let at = match catalog.games.iter().position(|one| one.id == *game) {
        Some(at) => at,
        None => {
            catalog.games.push(Game { id: game.clone(), name: None, variants: Vec::new() });
            catalog.games.len() - 1
        }
    };
    let Some(game) = catalog.games.get_mut(at) else { return };
    let at = match game.variants.iter().position(|one| one.id == *variant) {
        Some(at) => at,
        None => {
            game.variants.push(Variant { id: variant.clone(), name: None, versions: Vec::new() });
            game.variants.len() - 1
        }
    };
    if let Some(variant) = game.variants.get_mut(at) {
        set(&mut variant.versions, version, |one| &one.version);
    }
}

pub(super) fn set_agent(catalog: &mut Catalog, release: AgentRelease) {
    set(&mut catalog.agents, release, |one| &one.version);
}

/// In place of the same version, else where it belongs by order.
fn set<T>(all: &mut Vec<T>, new: T, version: impl Fn(&T) -> &str) {
    match all.iter().position(|one| version(one) == version(&new)) {
        Some(at) => {
            if let Some(old) = all.get_mut(at) {
                *old = new;
            }
        }
        None => {
            let later = |one: &T| compare_versions(version(one), version(&new)).is_gt();
            let at = all.iter().position(later).unwrap_or(all.len());
            all.insert(at, new);
        }
    }
}

/// The first file and the marks of the entry of that name.
pub(super) fn existing(catalog: &Catalog, name: &str) -> Option<(Artifact, Release)> {
    let entries = catalog.entries();
    let entry = entries.iter().find(|entry| entry.name == name)?;
    Some((entry.files.first()?.artifact.clone(), entry.release.clone()))
}

const MAX_LISTED: usize = 8;
