//! All jars of a server folder, kept from scan to scan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::jar::Jar;
use super::packages::package_of;
use crate::folder::Stamp;
use crate::{AddonInfo, AddonLoader, AddonLookup};

/// The mods and plugins of one server folder.
///
/// It is a cache: a jar whose path, size and time are the same is not opened again. Its
/// serde form can be kept over restarts; one of another format reads as empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddonIndex {
    /// See [`FORMAT`].
    pub(super) format: u32,
    pub(super) jars: BTreeMap<String, Known>,
    /// What is wrong with the folders themselves.
    pub(super) notes: Vec<JarNote>,
    /// The loader most jars are made for.
    pub(super) loader: AddonLoader,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub stamp: Stamp,
    pub jar: Jar,
}

/// What is wrong with a file in a mods or plugins folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JarNote {
    /// Relative to the server folder.
    pub file: String,
    /// The game cannot use it as it is; otherwise only we left something out.
    pub broken: bool,
    /// What is wrong, to follow "FILE: ".
    pub why: String,
}

impl AddonIndex {
    /// What is wrong with files: damaged jars, links, manifests that no loader reads.
    #[must_use]
    pub fn notes(&self) -> Vec<JarNote> {
        let of_jar = |(file, known): (&String, &Known)| {
            let broken = known.jar.broken.iter().map(|why| (true, why));
            let note = known.jar.note.iter().map(|why| (false, why));
            let make =
                |(broken, why): (bool, &String)| JarNote { file: file.clone(), broken, why: why.clone() };
            broken.chain(note).map(make).collect::<Vec<_>>()
        };
        self.notes.iter().cloned().chain(self.jars.iter().flat_map(of_jar)).collect()
    }

    /// Every mod and plugin that has a jar of its own, by path. One entry a mod.
    pub fn addons(&self) -> impl Iterator<Item = &AddonInfo> {
        self.jars.values().flat_map(|known| self.shown(known))
    }

    /// The mod or plugin that a jar mainly is, by its path below the server folder.
    #[must_use]
    pub fn main_of(&self, file: &str) -> Option<&AddonInfo> {
        let known = self.jars.get(file)?;
        self.shown(known).into_iter().next()
    }

    /// What a jar is here: of several manifests for one id, that of the loader in use.
    fn shown<'a>(&self, known: &'a Known) -> Vec<&'a AddonInfo> {
        self.unique(&known.jar.addons)
    }

    fn unique<'a>(&self, addons: &'a [AddonInfo]) -> Vec<&'a AddonInfo> {
        let mut all: Vec<&AddonInfo> = addons.iter().collect();
        all.sort_by_key(|addon| addon.loader != self.loader);
        let mut shown: Vec<&AddonInfo> = Vec::with_capacity(all.len());
        for addon in all {
            if !shown.iter().any(|other| other.id.eq_ignore_ascii_case(&addon.id)) {
                shown.push(addon);
            }
        }
        shown
    }

    /// With the jars within.
    fn all(&self) -> impl Iterator<Item = &AddonInfo> {
        self.jars.values().flat_map(|known| {
            let nested = known.jar.nested.iter().flat_map(|nested| self.unique(&nested.addons));
            self.shown(known).into_iter().chain(nested)
        })
    }
}

impl AddonLookup for AddonIndex {
    fn owners_of_package(&self, class: &str) -> Vec<&AddonInfo> {
        let Some(package) = package_of(class) else { return Vec::new() };
        let library = |known: &Known| known.jar.library && known.jar.packages.contains(package);
        if self.jars.values().any(library) {
            return Vec::new();
        }
        let owner = |known| owner_in(self, known, package, class);
        self.jars.values().filter_map(owner).collect()
    }

    fn by_id(&self, id: &str) -> Vec<&AddonInfo> {
        let by = |matches: &dyn Fn(&AddonInfo) -> bool| -> Vec<&AddonInfo> {
            let mut found: Vec<&AddonInfo> = self.all().filter(|addon| matches(addon)).collect();
            // A jar of its own comes before one within another.
            found.sort_by_key(|addon| addon.nested.is_some());
            found
        };
        let named = by(&|addon| addon.id.eq_ignore_ascii_case(id));
        if !named.is_empty() {
            return named;
        }
        let named = by(&|addon| addon.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(id)));
        if !named.is_empty() {
            return named;
        }
        by(&|addon| addon.provides.iter().any(|other| other.eq_ignore_ascii_case(id)))
    }

    fn by_file(&self, file: &str) -> Vec<&AddonInfo> {
        let file = file.trim_start_matches("./");
        let same = |path: &str| {
            path.eq_ignore_ascii_case(file)
                || path.rsplit('/').next().is_some_and(|name| name.eq_ignore_ascii_case(file))
        };
        let outer: Vec<&AddonInfo> = self.addons().filter(|addon| same(&addon.file)).collect();
        if !outer.is_empty() {
            return outer;
        }
        self.all().filter(|addon| addon.nested.as_deref().is_some_and(same)).collect()
    }
}

/// Whose a package is within one jar: the jar's own, or a jar's within it.
fn owner_in<'a>(index: &AddonIndex, known: &'a Known, package: u64, class: &str) -> Option<&'a AddonInfo> {
    let nearest = |addons: Vec<&'a AddonInfo>| {
        // Several mods in one jar: the one whose main class is nearest, else the first.
        let near = |addon: &&AddonInfo| {
            let main = addon.main.as_deref().unwrap_or_default();
            main.bytes().zip(class.bytes()).take_while(|(a, b)| a == b || (*a, *b) == (b'.', b'/')).count()
        };
        let best = addons.iter().map(near).max()?;
        addons.into_iter().find(|addon| near(addon) == best)
    };
    if known.jar.packages.contains(package) {
        return nearest(index.shown(known));
    }
    let nested = known.jar.nested.iter().find(|nested| nested.packages.contains(package))?;
    nearest(index.unique(&nested.addons))
}

/// Changes with the form in which it is kept.
pub(super) const FORMAT: u32 = 1;
