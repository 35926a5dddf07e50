//! All jars of a server folder, kept from scan to scan.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::Limits;
use super::jar::Jar;
use super::packages::package_of;
use super::text::file_name;
use super::zip::Source;
use crate::folder::{Folder, Stamp, entries, file_at};
use crate::{AddonInfo, AddonLoader, AddonLookup};

/// The mods and plugins of one server folder.
///
/// It is a cache: a jar whose path, size and time are the same is not opened again. Its
/// serde form can be kept over restarts; one of another format reads as empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddonIndex {
    /// Changes when what is read from a jar changes.
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
    /// The name it goes by when no manifest gives it one.
    unnamed: Option<Box<AddonInfo>>,
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

/// What a scan did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    /// Jars that are known now.
    pub jars: usize,
    /// Jars that were opened for it.
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
        let started = Instant::now();
        let mut old = std::mem::take(self);
        if old.format != FORMAT {
            old = Self::default();
        }
        self.format = FORMAT;
        let folder = Folder::open(root)?;
        let mut scan = Scan::default();
        let (mut names, mut memory) = (limits.names, limits.memory);
        for place in PLACES {
            let dir = match folder.dir(place) {
                Ok(dir) => dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => {
                    self.note(place, "it is no directory, and was not looked into");
                    continue;
                }
            };
            let Ok((found, cut)) = entries(&dir, &mut names) else {
                self.note(place, "it cannot be listed");
                continue;
            };
            scan.cut |= cut;
            for entry in found.iter().filter(|entry| is_jar(entry.name.to_bytes())) {
                let file = format!("{place}/{}", file_name(entry.name.to_bytes()));
                if entry.kind != FileType::RegularFile {
                    if entry.kind != FileType::Directory {
                        self.note(&file, "it is no regular file, and was not opened");
                    }
                    continue;
                }
                if self.jars.len() >= limits.jars {
                    scan.cut = true;
                    break;
                }
                let (jar, stamp) = match file_at(&dir, &entry.name) {
                    Ok(opened) => opened,
                    Err(error) => {
                        self.note(&file, &format!("it cannot be opened: {error}"));
                        continue;
                    }
                };
                let known = match old.jars.remove(&file).filter(|known| known.stamp == stamp) {
                    Some(known) => known,
                    None => {
                        let now = Instant::now();
                        if now.duration_since(started) >= limits.time {
                            scan.cut = true;
                            self.note(&file, "it could not be read in time");
                            continue;
                        }
                        scan.opened += 1;
                        let left = limits.time.saturating_sub(now.duration_since(started));
                        let deadline = now + limits.jar_time.min(left);
                        let read = Jar::read(Source::File(&jar, stamp.size), &file, limits, deadline);
                        // What changes while it is read is read again the next time.
                        let after = file_at(&dir, &entry.name).map(|(_, after)| after);
                        let same = after.is_ok_and(|after| after == stamp);
                        Known::new(if same { stamp } else { Stamp::default() }, read, &file)
                    }
                };
                self.keep(file, known, &mut memory);
            }
        }
        scan.jars = self.jars.len();
        self.loader = self.most_common_loader();
        if scan.cut {
            self.note("", "there is more than is looked at");
        }
        Ok(scan)
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

    fn keep(&mut self, file: String, mut known: Known, memory: &mut usize) {
        if known.jar.weight() > *memory {
            known.jar.thin();
        }
        *memory = memory.saturating_sub(known.jar.weight() + 2 * file.len());
        self.jars.insert(file, known);
    }

    /// The loader of the jars that are made for one only.
    fn most_common_loader(&self) -> AddonLoader {
        let mut counts = BTreeMap::<AddonLoader, usize>::new();
        for known in self.jars.values() {
            let mut loaders = known.jar.addons.iter().map(|addon| addon.loader);
            if let Some(first) = loaders.next()
                && loaders.all(|loader| loader == first)
            {
                *counts.entry(first).or_default() += 1;
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map_or_else(AddonLoader::default, |(most, _)| most)
    }

    /// What a jar is here: of several manifests for one id, that of the loader in use.
    fn shown<'a>(&self, known: &'a Known) -> Vec<&'a AddonInfo> {
        let shown = self.unique(&known.jar.addons);
        if shown.is_empty() { known.unnamed.as_deref().into_iter().collect() } else { shown }
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

impl Known {
    fn new(stamp: Stamp, jar: Jar, file: &str) -> Self {
        let unnamed = jar.addons.is_empty().then(|| {
            let name = file.rsplit('/').next().unwrap_or(file);
            let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
            Box::new(AddonInfo { id: stem.to_owned(), file: file.to_owned(), ..AddonInfo::default() })
        });
        Self { stamp, jar, unnamed }
    }
}

impl AddonLookup for AddonIndex {
    fn owners_of_package(&self, class: &str) -> Vec<&AddonInfo> {
        let Some(package) = package_of(class) else { return Vec::new() };
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

/// Where servers keep them.
const PLACES: [&str; 2] = ["mods", "plugins"];
const FORMAT: u32 = 1;
/// Notes about files that are no jars.
const MAX_NOTES: usize = 100;
