//! Everything that a catalog has, entry by entry, for tools that look at all of it.

use crate::{Artifact, Catalog, InstallStep, RelPath, Release, Runtime};

/// One version of a game's variant, a runtime, an addon or the agent.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// For people, and unique: `minecraft/paper 1.21.7`, `java 21.0.3`, `addon/code-server
    /// 4.1.0`, `agent 1.4.0`.
    pub name: String,
    /// Runtime or game server.
    pub kind: EntryKind,
    /// Its version.
    pub version: &'a str,
    /// Whom it is meant for.
    pub release: &'a Release,
    /// Its files.
    pub files: Vec<EntryFile<'a>>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A runtime.
    Runtime,
    /// A tool of a workspace.
    Addon,
    /// A release of the agent.
    Agent,
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
    /// Every entry, runtimes first and games last, in the catalog's order.
    pub fn entries<'a>(&'a self) -> Vec<Entry<'a>> {
        let unpacked = |kind, prefix: &'static str, all: &'a [Runtime]| {
            all.iter().flat_map(move |runtime| {
                runtime.versions.iter().map(move |version| Entry {
                    name: format!("{prefix}{} {}", runtime.id, version.version),
                    kind,
                    version: &version.version,
                    release: &version.release,
                    files: vec![EntryFile {
                        artifact: &version.archive,
                        strip_components: version.strip_components,
                        executables: version.executables.values().collect(),
                    }],
                })
            })
        };
        let agents = self.agents.iter().map(|agent| Entry {
            name: format!("agent {}", agent.version),
            kind: EntryKind::Agent,
            version: &agent.version,
            release: &agent.release,
            files: vec![EntryFile { artifact: &agent.binary, strip_components: 0, executables: Vec::new() }],
        });
        let games = self.games.iter().flat_map(|game| {
            game.variants.iter().flat_map(move |variant| {
                variant.versions.iter().map(move |version| Entry {
                    name: format!("{}/{} {}", game.id, variant.id, version.version),
                    kind: EntryKind::Game,
                    version: &version.version,
                    release: &version.release,
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
        unpacked(EntryKind::Runtime, "", &self.runtimes)
            .chain(unpacked(EntryKind::Addon, "addon/", &self.addons))
            .chain(agents)
            .chain(games)
            .collect()
    }
}
