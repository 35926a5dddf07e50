//! A scan of a server folder: what is new is read, what is known is kept.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::fs::FileType;

use super::index::{FORMAT, Known};
use super::jar::Jar;
use super::text::file_name;
use super::zip::Source;
use super::{AddonIndex, JarNote, Limits};
use crate::AddonLoader;
use crate::folder::{Folder, Stamp, dir_at, entries, file_at};

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
}

fn is_jar(name: &[u8]) -> bool {
    // Java's loaders compare so; a `.jar.disabled` is none.
    name.len() > 4 && name[name.len() - 4..].eq_ignore_ascii_case(b".jar") && name[0] != b'.'
}

/// `libraries/GROUP/…/NAME/VERSION/FILE`
const LIBRARY_DEPTH: usize = 10;
const MAX_LIBRARIES: usize = 1_000;
/// Notes about files that are no jars.
const MAX_NOTES: usize = 100;
