//! Everything that a catalog has, entry by entry, for tools that look at all of it.

use crate::{Artifact, Catalog, InstallStep, RelPath};

/// One version of a game's variant or of a runtime.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// For people, and unique: `minecraft/paper 1.21.7`, `java 21.0.3`.
    pub name: String,
    /// Runtime or game server.
    pub kind: EntryKind,
    /// Its version.
    pub version: &'a str,
    /// Its files.
    pub files: Vec<EntryFile<'a>>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A runtime.
    Runtime,
    /// A game server.
    Game,
}

/// A file of an entry, and what has to come out of it.
#[derive(Debug, Clone)]
pub struct EntryFile<'a> {
    /// The file.
    pub artifact: &'a Artifact,
    /// Leading path components to drop, if it is unpacked.
    pub strip_components: u8,
    /// Programs that must be there and be executable afterwards.
    pub executables: Vec<&'a RelPath>,
}

impl Catalog {
    /// Every entry, runtimes first, in the catalog's order.
    pub fn entries(&self) -> Vec<Entry<'_>> {
        let runtimes = self.runtimes.iter().flat_map(|runtime| {
            runtime.versions.iter().map(|version| Entry {
                name: format!("{} {}", runtime.id, version.version),
                kind: EntryKind::Runtime,
                version: &version.version,
                files: vec![EntryFile {
                    artifact: &version.archive,
                    strip_components: version.strip_components,
                    executables: version.executables.values().collect(),
                }],
            })
        });
        let games = self.games.iter().flat_map(|game| {
            game.variants.iter().flat_map(move |variant| {
                variant.versions.iter().map(move |version| Entry {
                    name: format!("{}/{} {}", game.id, variant.id, version.version),
                    kind: EntryKind::Game,
                    version: &version.version,
                    files: version
                        .files
                        .iter()
                        .map(|artifact| EntryFile {
                            artifact,
                            strip_components: version
                                .launch
                                .iter()
                                .flat_map(|plan| &plan.install)
                                .find_map(|step| match step {
                                    InstallStep::Unpack { file, strip_components }
                                        if *file == artifact.name =>
                                    {
                                        Some(*strip_components)
                                    }
                                    _ => None,
                                })
                                .unwrap_or(0),
                            executables: Vec::new(),
                        })
                        .collect(),
                })
            })
        });
        runtimes.chain(games).collect()
    }
}
