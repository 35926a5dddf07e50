//! All jars of a server folder, kept from scan to scan.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::Limits;
use super::jar::Jar;
use super::packages::package_of;
use super::text::file_name;
use super::zip::Source;
use crate::folder::{Folder, Stamp, dir_at, entries, file_at};
use crate::{AddonInfo, AddonLoader, AddonLookup};

/// The mods and plugins of one server folder.
///
/// It is a cache: a jar whose path, size and time are the same is not opened again. Its
/// serde form can be kept over restarts; one of another format reads as empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddonIndex {
    /// See [`FORMAT`].
    format: u32,
    jars: BTreeMap<String, Known>,
    /// What is wrong with the folders themselves.
    notes: Vec<JarNote>,
    /// The loader most jars are made for.
    loader: AddonLoader,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    jar: Jar,
}

/// A scan in progress.
struct Round<'a> {
    scan: Scan,
    old: BTreeMap<String, Known>,
    limits: &'a Limits,
    until: Instant,
    names: usize,
    memory: usize,
}

type ReadJar = fn(Source<'_>, &str, &Limits, Instant) -> Jar;

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

/// What a scan did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    /// Mods and plugins that are known now.
    pub jars: usize,
    /// Jars that were opened for it, libraries of the server too.
    pub opened: usize,
    /// Whether time or another ceiling ended it before everything was seen.
    pub cut: bool,
}

impl AddonIndex {
    /// Brings the index up to date with `mods/` and `plugins/` below `root`.
    ///
    /// # Errors
    /// Only when the server folder itself cannot be opened; the index is empty then.
    pub fn rescan(&mut self, root: &Path, limits: &Limits) -> io::Result<Scan> {
        let mut old = std::mem::take(self);
        if old.format != FORMAT {
            old = Self::default();
        }
        self.format = FORMAT;
        let folder = Folder::open(root)?;
        let mut round = Round {
            scan: Scan::default(),
            old: old.jars,
            limits,
            until: Instant::now() + limits.time,
            names: limits.names,
            memory: limits.memory,
        };
        for place in ["mods", "plugins"] {
            match folder.dir(place) {
                Ok(dir) => self.place(&dir, place, &mut round),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => self.note(place, "it is no directory, and was not looked into"),
            }
        }
        round.scan.jars = self.jars.len();
        self.libraries(&folder, &mut round);
        self.loader = self.most_common_loader();
        if round.scan.cut {
            self.note("", "there is more than is looked at");
        }
        Ok(round.scan)
    }

    /// The jars of a mods or plugins folder.
    fn place(&mut self, dir: &OwnedFd, place: &str, round: &mut Round<'_>) {
        let Ok((found, cut)) = entries(dir, &mut round.names) else {
            self.note(place, "it cannot be listed");
            return;
        };
        round.scan.cut |= cut;
        for entry in found {
            let name = entry.name.to_bytes();
            let file = format!("{place}/{}", file_name(name));
            match entry.kind {
                // Forge up to 1.12 also loads `mods/1.12.2/`.
                FileType::Directory if place == "mods" && name[0].is_ascii_digit() => {
                    if let Ok(below) = dir_at(dir, &entry.name) {
                        self.place(&below, &file, round);
                    }
                }
                FileType::RegularFile if is_jar(name) => {
                    if self.jars.len() >= round.limits.jars {
                        round.scan.cut = true;
                        return;
                    }
                    self.jar(dir, &entry.name, file, round, Jar::read);
                }
                FileType::Directory => {}
                _ if is_jar(name) => self.note(&file, "it is no regular file, and was not opened"),
                _ => {}
            }
        }
    }

    /// The packages of the server itself: whoever carries them too is not to blame for them.
    fn libraries(&mut self, folder: &Folder, round: &mut Round<'_>) {
        let mut waiting = Vec::new();
        for (place, depth) in [("libraries", LIBRARY_DEPTH), ("versions", 2), ("", 0)] {
            if let Ok(dir) = folder.dir(place) {
                waiting.push((dir, place.to_owned(), depth));
            }
        }
        let mut left = MAX_LIBRARIES;
        while let Some((dir, place, depth)) = waiting.pop() {
            let Ok((found, cut)) = entries(&dir, &mut round.names) else { continue };
            round.scan.cut |= cut;
            for entry in found {
                let name = entry.name.to_bytes();
                let file = format!("{place}/{}", file_name(name));
                let file = file.trim_start_matches('/').to_owned();
                match entry.kind {
                    FileType::RegularFile if is_jar(name) => {
                        if left == 0 {
                            round.scan.cut = true;
                            return;
                        }
                        left -= 1;
                        self.jar(&dir, &entry.name, file, round, Jar::read_library);
                    }
                    FileType::Directory if depth > 0 => {
                        if let Ok(below) = dir_at(&dir, &entry.name) {
                            waiting.push((below, file, depth - 1));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// One jar: as it was known, or read anew.
    fn jar(&mut self, dir: &OwnedFd, name: &CStr, file: String, round: &mut Round<'_>, read: ReadJar) {
        let (jar, stamp) = match file_at(dir, name) {
            Ok(opened) => opened,
            Err(error) => return self.note(&file, &format!("it cannot be opened: {error}")),
        };
        let old = round.old.remove(&file).filter(|known| known.stamp == stamp);
        let mut known = match old {
            Some(known) => known,
            None => {
                let now = Instant::now();
                if now >= round.until {
                    round.scan.cut = true;
                    return self.note(&file, "it could not be read in time");
                }
                round.scan.opened += 1;
                let deadline = round.until.min(now + round.limits.jar_time);
                let read = read(Source::File(&jar, stamp.size), &file, round.limits, deadline);
                // What changed meanwhile, or was not read to its end, is read again the next time.
                let same = file_at(dir, name).is_ok_and(|(_, after)| after == stamp) && !read.unfinished;
                Known { stamp: if same { stamp } else { Stamp::default() }, jar: read }
            }
        };
        if known.jar.weight() > round.memory {
            known.jar.thin();
        }
        round.memory = round.memory.saturating_sub(known.jar.weight() + 2 * file.len());
        self.jars.insert(file, known);
    }

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

    fn note(&mut self, file: &str, why: &str) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(JarNote { file: file.to_owned(), broken: false, why: why.to_owned() });
        }
    }

    /// The loader of the jars that are made for one only.
    fn most_common_loader(&self) -> AddonLoader {
        let mut counts = BTreeMap::<AddonLoader, usize>::new();
        for known in self.jars.values() {
            let mut loaders = known.jar.addons.iter().map(|addon| addon.loader);
            if let Some(first) = loaders.next()
                && first != AddonLoader::Unknown
                && loaders.all(|loader| loader == first)
            {
                *counts.entry(first).or_default() += 1;
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map_or_else(AddonLoader::default, |(most, _)| most)
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

fn is_jar(name: &[u8]) -> bool {
    // Java's loaders compare so; a `.jar.disabled` is none.
    name.len() > 4 && name[name.len() - 4..].eq_ignore_ascii_case(b".jar") && name[0] != b'.'
}

/// Changes with the form in which it is kept.
const FORMAT: u32 = 1;
/// `libraries/GROUP/…/NAME/VERSION/FILE`
const LIBRARY_DEPTH: usize = 10;
const MAX_LIBRARIES: usize = 1_000;
/// Notes about files that are no jars.
const MAX_NOTES: usize = 100;
