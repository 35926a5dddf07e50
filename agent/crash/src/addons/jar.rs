//! What is in one jar.

use std::ops::ControlFlow;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::manifest::{Kind, implementation_version};
use super::packages::Packages;
use super::zip::{Directory, Record, Source, ZipError, read};
use super::{Limits, clean};
use crate::AddonInfo;

/// What is in one jar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Jar {
    /// What its manifests say, in the order in which they are believed.
    pub addons: Vec<AddonInfo>,
    /// Packages of its own classes.
    pub packages: Packages,
    /// The jars within that have a manifest of their own.
    pub nested: Vec<Nested>,
    /// What is wrong with it: the game cannot use it as it is.
    pub broken: Option<String>,
    /// What was left out.
    pub note: Option<String>,
    /// A part of the server: nobody's packages.
    pub library: bool,
    /// It could not be read to its end this time.
    #[serde(skip)]
    pub unfinished: bool,
}

/// A jar within a jar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Nested {
    /// Its path in the outer jar.
    pub path: String,
    pub addons: Vec<AddonInfo>,
    pub packages: Packages,
}

/// An entry that is read later.
struct Wanted {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    compressed: u64,
    size: u64,
    offset: u64,
}

/// What one walk through a directory finds.
struct Contents {
    manifests: Vec<(Kind, Wanted)>,
    main: Option<Wanted>,
    nested: Vec<Wanted>,
    packages: Packages,
    note: Option<String>,
}

impl Jar {
    /// Looks into a jar. Never fails: what is wrong stands in it.
    pub(super) fn read(source: Source<'_>, file: &str, limits: &Limits, deadline: Instant) -> Self {
        let mut jar = Self::default();
        let contents = match Contents::read(source, limits, deadline) {
            Ok(contents) => contents,
            Err(error) => {
                jar.fail(error);
                jar.addons.push(AddonInfo::unnamed(file));
                return jar;
            }
        };
        jar.note = contents.note.clone();
        jar.manifests(source, &contents, limits, deadline);
        for addon in &mut jar.addons {
            file.clone_into(&mut addon.file);
        }
        if jar.addons.is_empty() {
            jar.addons.push(AddonInfo::unnamed(file));
        }
        jar.packages = contents.packages;
        let mut left = limits.inflated;
        for wanted in &contents.nested {
            let limit = limits.nested_bytes.min(left);
            match nested(source, wanted, file, limits, limit, deadline) {
                Ok((nested, cost)) => {
                    left = left.saturating_sub(cost);
                    jar.nested.extend(nested);
                }
                Err(ZipError::Late) => {
                    jar.fail(ZipError::Late);
                    break;
                }
                // A library that we cannot look into is not worth more than a note.
                Err(error) => jar.note = Some(format!("{}: {error}", clean(&wanted.name, 80))),
            }
        }
        jar
    }

    /// Looks at nothing but the packages.
    pub(super) fn read_library(source: Source<'_>, _: &str, limits: &Limits, deadline: Instant) -> Self {
        let mut jar = Self { library: true, ..Self::default() };
        match Contents::read(source, limits, deadline) {
            Ok(contents) => jar.packages = contents.packages,
            Err(error) => jar.fail(error),
        }
        jar
    }

    fn manifests(&mut self, source: Source<'_>, contents: &Contents, limits: &Limits, deadline: Instant) {
        let main = contents.main.as_ref();
        let main = main.and_then(|wanted| read(source, &wanted.record(), limits.manifest, deadline).ok());
        let version = main.and_then(|bytes| implementation_version(&bytes));
        let mut good = false;
        for (kind, wanted) in &contents.manifests {
            let bytes = match read(source, &wanted.record(), limits.manifest, deadline) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.fail(error);
                    continue;
                }
            };
            let parsed = kind.parse(&bytes, version.as_deref());
            self.addons.extend(parsed.addons);
            match parsed.broken.map(|why| format!("{}: {why}", clean(&wanted.name, 80))) {
                // Old Forge loads a mod all the same.
                Some(why) if *kind == Kind::LegacyForge => self.note = Some(why),
                Some(why) => self.broken = self.broken.take().or(Some(why)),
                None => good = true,
            }
        }
        // For one loader broken, for another not: which one is in use is not known here.
        if good && self.broken.is_some() {
            self.note = self.broken.take();
        }
    }

    fn fail(&mut self, error: ZipError) {
        self.unfinished |= matches!(error, ZipError::Late | ZipError::Io(_));
        match error {
            ZipError::Late | ZipError::TooLarge(_) | ZipError::Io(_) => self.note = Some(error.to_string()),
            damaged => self.broken = Some(damaged.to_string()),
        }
    }

    /// Bytes it takes in memory, about.
    pub(super) fn weight(&self) -> usize {
        let addons = |all: &[AddonInfo]| all.iter().map(weight).sum::<usize>();
        let nested = |one: &Nested| 96 + one.path.len() + addons(&one.addons) + 8 * one.packages.len();
        256 + addons(&self.addons)
            + 8 * self.packages.len()
            + self.nested.iter().map(nested).sum::<usize>()
            + self.broken.as_ref().map_or(0, String::len)
            + self.note.as_ref().map_or(0, String::len)
    }

    /// Keeps no more than the names, for when memory is short.
    pub(super) fn thin(&mut self) {
        self.packages = Packages::default();
        self.nested = Vec::new();
        self.addons.truncate(1);
        for addon in &mut self.addons {
            addon.depends = Vec::new();
            addon.provides = Vec::new();
        }
        self.note = Some("only its name is kept: the index is full".to_owned());
    }
}

impl Contents {
    fn read(source: Source<'_>, limits: &Limits, deadline: Instant) -> Result<Self, ZipError> {
        let directory = Directory::find(source)?;
        let mut manifests: Vec<(Kind, Wanted)> = Vec::new();
        let (mut main, mut nested, mut note) = (None, Vec::new(), None);
        let mut packages = Packages::collect();
        let mut count = 0_usize;
        directory.walk(source, |record| {
            count += 1;
            if count > limits.entries {
                return ControlFlow::Break(ZipError::TooLarge(format!(
                    "it has more than {} entries",
                    limits.entries
                )));
            }
            if count.is_multiple_of(1024) && Instant::now() > deadline {
                return ControlFlow::Break(ZipError::Late);
            }
            let name = record.name;
            if let Some((kind, _)) = Kind::ALL.iter().find(|(_, wanted)| wanted.as_bytes() == name) {
                // Of two entries with one name, Java takes the last.
                manifests.retain(|(other, _)| other != kind);
                manifests.push((*kind, Wanted::new(&record)));
            } else if name == b"META-INF/MANIFEST.MF" {
                main = Some(Wanted::new(&record));
            } else if is_nested(name) {
                if nested.len() < limits.nested {
                    nested.push(Wanted::new(&record));
                } else {
                    note = Some(format!("more than {} jars are in it", limits.nested));
                }
            } else {
                packages.add(name);
            }
            ControlFlow::Continue(())
        })?;
        manifests.sort_by_key(|(kind, _)| Kind::ALL.iter().position(|(other, _)| other == kind));
        let (packages, more) = packages.finish(limits.packages);
        if more {
            note = Some(format!("more than {} packages are in it", limits.packages));
        }
        Ok(Self { manifests, main, nested, packages, note })
    }
}

/// `META-INF/jars/x.jar` (Fabric, Quilt), `META-INF/jarjar/x.jar` (Forge, NeoForge).
fn is_nested(name: &[u8]) -> bool {
    let inside = name.strip_prefix(b"META-INF/jars/").or_else(|| name.strip_prefix(b"META-INF/jarjar/"));
    inside.is_some_and(|name| name.ends_with(b".jar"))
}

/// Looks into a jar within; a library without a manifest is none. Also says how many bytes
/// were inflated.
fn nested(
    source: Source<'_>,
    wanted: &Wanted,
    file: &str,
    limits: &Limits,
    limit: u64,
    deadline: Instant,
) -> Result<(Option<Nested>, u64), ZipError> {
    let bytes = read(source, &wanted.record(), limit, deadline)?;
    let cost = bytes.len() as u64;
    let inner = Source::Bytes(&bytes);
    let contents = Contents::read(inner, limits, deadline)?;
    let mut jar = Jar::default();
    jar.manifests(inner, &contents, limits, deadline);
    if jar.addons.is_empty() {
        return Ok((None, cost));
    }
    let path = clean(&wanted.name, 200);
    for addon in &mut jar.addons {
        file.clone_into(&mut addon.file);
        addon.nested = Some(path.clone());
    }
    Ok((Some(Nested { path, addons: jar.addons, packages: contents.packages }), cost))
}

impl Wanted {
    fn new(record: &Record<'_>) -> Self {
        let Record { name, flags, method, crc, compressed, size, offset } = *record;
        Self { name: name.to_vec(), flags, method, crc, compressed, size, offset }
    }

    fn record(&self) -> Record<'_> {
        let Self { ref name, flags, method, crc, compressed, size, offset } = *self;
        Record { name, flags, method, crc, compressed, size, offset }
    }
}

impl AddonInfo {
    /// The name a jar goes by when no manifest gives it one.
    fn unnamed(file: &str) -> Self {
        let name = file.rsplit('/').next().unwrap_or(file);
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        Self { id: stem.to_owned(), file: file.to_owned(), ..Self::default() }
    }
}

fn weight(addon: &AddonInfo) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let AddonInfo { id, name, file, nested, version, depends, provides, game, main, .. } = addon;
    let needs: usize = depends.iter().map(|need| 56 + need.id.len() + text(&need.range)).sum();
    let provides: usize = provides.iter().map(|id| 24 + id.len()).sum();
    size_of::<AddonInfo>()
        + id.len()
        + file.len()
        + [name, nested, version, game, main].into_iter().map(text).sum::<usize>()
        + needs
        + provides
}
