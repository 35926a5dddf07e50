//! From bytes to a catalog that can be relied upon.
//!
//! After [`Catalog::parse`] every reference inside the document resolves: ids and
//! versions are unique, one path has one hash, launch plans name existing files and
//! executables, and every requirement is met by a runtime of the same catalog. A
//! catalog with one mistake is refused as a whole, with every mistake named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::check_plan::{Context, check_plan};
use crate::name::check_component;
use crate::{
    Artifact, Audience, Catalog, GameVersion, Id, MediaType, Release, Runtime, Sha256, SignatureError,
    Variant,
};

/// Why a catalog was not accepted.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// The signature did not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Larger than any catalog should be.
    #[error("the catalog has {bytes} bytes, more than the {MAX_BYTES} allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The deployed form, which pins nothing.
    #[error("this catalog pins no hashes (it has the `_catalog.json` form): run `zlhctl artifacts import`")]
    Unpinned,
    /// A format this program does not know.
    #[error("the catalog has schema {found}, this program reads schema {SCHEMA}: update it")]
    Schema {
        /// What the document says.
        found: u64,
    },
    /// Not JSON, a missing field, or a value that breaks its rule. The source says where.
    #[error("the catalog could not be read")]
    Malformed(#[source] serde_json::Error),
    /// It reads, but contradicts itself.
    #[error("the catalog is invalid: {}", Problems(.0))]
    Invalid(Vec<Problem>),
}

/// One contradiction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which entry, for example `minecraft/paper/1.21.7`.
    pub at: String,
    /// What is wrong with it.
    pub what: String,
}

impl Catalog {
    /// Reads and validates a catalog whose signature was checked, or that comes from a
    /// trusted place.
    pub fn parse(bytes: &[u8]) -> Result<Self, CatalogError> {
        if bytes.len() > MAX_BYTES {
            return Err(CatalogError::TooLarge { bytes: bytes.len() });
        }
        check_form(bytes)?;
        let catalog: Self = serde_json::from_slice(bytes).map_err(CatalogError::Malformed)?;
        catalog.validate()?;
        Ok(catalog)
    }

    /// Checks a catalog that was put together in memory, as [`Catalog::parse`] does.
    pub fn validate(&self) -> Result<(), CatalogError> {
        if self.schema != SCHEMA {
            return Err(CatalogError::Schema { found: self.schema.into() });
        }
        let mut check = Check { catalog: self, problems: Vec::new(), paths: BTreeMap::new() };
        if self.serial > MAX_SERIAL {
            check.problem(
                "serial",
                format!("at most {MAX_SERIAL}: begin with a small one again, under a new key"),
            );
        }
        if self.expires.is_some_and(|expires| expires <= self.issued) {
            check.problem("expires", "it must be later than `issued`");
        }
        for (what, kinds) in [("runtimes", &self.runtimes), ("addons", &self.addons)] {
            check.unique(what, kinds.iter().map(|kind| kind.id.as_str()));
            kinds.iter().for_each(|kind| check.runtime(what, kind));
        }
        check.agents();
        check.unique("games", self.games.iter().map(|game| game.id.as_str()));
        for game in &self.games {
            check.unique(game.id.as_str(), game.variants.iter().map(|variant| variant.id.as_str()));
            game.variants.iter().for_each(|variant| check.variant(&game.id, variant));
        }
        match check.problems {
            problems if problems.is_empty() => Ok(()),
            problems => Err(CatalogError::Invalid(problems)),
        }
    }
}

/// Tells the deployed form and foreign schemas from a damaged document.
fn check_form(bytes: &[u8]) -> Result<(), CatalogError> {
    let head: Head = serde_json::from_slice(bytes).map_err(CatalogError::Malformed)?;
    match head {
        Head { schema: Some(found), .. } if found != u64::from(SCHEMA) => Err(CatalogError::Schema { found }),
        Head { schema: None, games, runtimes } if games.is_some() || runtimes.is_some() => {
            Err(CatalogError::Unpinned)
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Head {
    schema: Option<u64>,
    games: Option<IgnoredAny>,
    runtimes: Option<IgnoredAny>,
}

/// What is collected on the way through.
struct Check<'a> {
    catalog: &'a Catalog,
    problems: Vec<Problem>,
    paths: BTreeMap<&'a str, (Sha256, u64)>,
}

impl<'a> Check<'a> {
    fn problem(&mut self, at: impl fmt::Display, what: impl fmt::Display) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { at: at.to_string(), what: what.to_string() });
        }
    }

    fn unique<'b>(&mut self, at: &str, names: impl Iterator<Item = &'b str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name) {
                self.problem(at, format_args!("`{name}` is there twice"));
            }
        }
    }

    fn version(&mut self, at: &str, version: &str) {
        if let Err(error) = check_component("version", version) {
            self.problem(at, error);
        } else if ["latest", "current", "previous"].contains(&version) {
            self.problem(at, format_args!("`{version}` is not a version"));
        }
    }

    fn artifact(&mut self, at: &str, artifact: &'a Artifact) {
        if artifact.size == 0 || artifact.size > MAX_ARTIFACT_BYTES {
            let (path, size) = (&artifact.path, artifact.size);
            self.problem(at, format_args!("`{path}` has an impossible size of {size} bytes"));
        }
        if artifact.tree_sha256.is_some() && !artifact.media_type.is_archive() {
            let path = &artifact.path;
            self.problem(at, format_args!("`{path}` is no archive, so `tree_sha256` pins nothing"));
        }
        let pinned = (artifact.sha256, artifact.size);
        if *self.paths.entry(artifact.path.as_str()).or_insert(pinned) != pinned {
            let path = &artifact.path;
            self.problem(at, format_args!("`{path}` is pinned elsewhere to another hash or size"));
        }
    }

    fn release(&mut self, at: &str, release: &Release) {
        release.problems().into_iter().for_each(|what| self.problem(at, what));
    }

    fn agents(&mut self) {
        let agents = &self.catalog.agents;
        self.unique("agents", agents.iter().map(|agent| agent.version.as_str()));
        for agent in agents {
            let at = format!("agents/{}", agent.version);
            self.version(&at, &agent.version);
            self.artifact(&at, &agent.binary);
            self.release(&at, &agent.release);
            if agent.binary.media_type != MediaType::File {
                self.problem(&at, "an agent is one plain binary");
            }
        }
    }

    /// A runtime or an addon.
    fn runtime(&mut self, what: &str, runtime: &'a Runtime) {
        let id = &runtime.id;
        self.unique(id.as_str(), runtime.versions.iter().map(|version| version.version.as_str()));
        for version in &runtime.versions {
            let at = format!("{id}/{}", version.version);
            self.version(&at, &version.version);
            self.artifact(&at, &version.archive);
            self.release(&at, &version.release);
            if !version.archive.media_type.is_archive() {
                self.problem(&at, format_args!("{what} have to be archives"));
            }
            if version.executables.is_empty() {
                self.problem(&at, "it names no executables");
            }
        }
    }

    fn variant(&mut self, game: &Id, variant: &'a Variant) {
        let id = &variant.id;
        let versions = variant.versions.iter().map(|version| version.version.as_str());
        self.unique(&format!("{game}/{id}"), versions);
        for entry in &variant.versions {
            let at = format!("{game}/{id}/{}", entry.version);
            self.version(&at, &entry.version);
            self.release(&at, &entry.release);
            self.entry(&at, variant, entry);
        }
    }

    fn entry(&mut self, at: &str, variant: &'a Variant, entry: &'a GameVersion) {
        if entry.files.is_empty() {
            self.problem(at, "it has no files");
        }
        self.unique(at, entry.files.iter().map(|file| file.name.as_str()));
        entry.files.iter().for_each(|file| self.artifact(at, file));

        let requirement = self.catalog.requirement_for(&variant.id, entry);
        let runtime =
            requirement.as_deref().and_then(|wanted| self.catalog.runtime_for(wanted, &Audience::default()));
        if let (Some(wanted), None) = (requirement.as_deref(), runtime) {
            let (id, version) = (&wanted.runtime, &wanted.version);
            self.problem(at, format_args!("it needs {id} {version}, which is not in the catalog"));
            return;
        }
        let Ok(plan) = self.catalog.plan_for(&variant.id, entry) else {
            self.problem(at, "it has no launch plan and none is built in");
            return;
        };
        let context = Context { files: &entry.files, runtime: runtime.map(|(_, version)| version) };
        for what in check_plan(&plan, &context) {
            self.problem(at, what);
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// The first few, and how many more.
struct Problems<'a>(&'a [Problem]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().take(MAX_SHOWN).enumerate() {
            write!(f, "{}{problem}", if at > 0 { "; " } else { "" })?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// The highest serial: the largest whole number that every reader of JSON can hold.
pub const MAX_SERIAL: u64 = (1 << 53) - 1;

pub(crate) const SCHEMA: u32 = 1;
pub(crate) const MAX_BYTES: usize = 16 << 20;
const MAX_ARTIFACT_BYTES: u64 = 64 << 30;
const MAX_PROBLEMS: usize = 100;
const MAX_SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use serde_json::{Value, json};

    /// Applies a change to the good catalog and returns the refusal.
    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let mut document = fixtures::document();
        change(&mut document);
        let error = Catalog::parse(document.to_string().as_bytes()).expect_err("it should be refused");
        match &error {
            CatalogError::Malformed(source) => format!("{error}: {source}"),
            _ => error.to_string(),
        }
    }

    fn set<P: Into<String>>(pointer: P, value: Value) -> impl FnOnce(&mut Value) + use<P> {
        let pointer = pointer.into();
        move |document| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            match document.pointer_mut(parent).expect(parent) {
                Value::Object(map) => drop(map.insert(key.to_owned(), value)),
                Value::Array(list) if key == "-" => list.push(value),
                Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
                other => panic!("{pointer} is in {other}"),
            }
        }
    }

    const PAPER: &str = "/games/0/variants/0/versions/0";
    const SQUID: &str = "/games/0/variants/2/versions/0";

    #[test]
    fn the_good_one_is_accepted_and_survives_a_round_trip() {
        let catalog = fixtures::catalog();
        let bytes = serde_json::to_vec(&catalog).unwrap();
        assert_eq!(Catalog::parse(&bytes).unwrap(), catalog);
    }

    #[test]
    fn unknown_fields_are_for_newer_readers() {
        let mut document = fixtures::document();
        set("/waves", json!({"a": 1}))(&mut document);
        set(format!("{PAPER}/icon"), json!("x"))(&mut document);
        assert!(Catalog::parse(document.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn the_deployed_forms_are_told_what_to_run() {
        for deployed in [
            r#"{"games":[{"id":"minecraft","variants":[{"id":"paper","versions":["1.21.7"]}]}]}"#,
            r#"{"runtimes":[{"id":"node","versions":["20","22","24"]}]}"#,
        ] {
            let error = Catalog::parse(deployed.as_bytes()).unwrap_err();
            assert!(matches!(error, CatalogError::Unpinned));
            assert!(error.to_string().ends_with("run `zlhctl artifacts import`"), "{error}");
        }
    }

    #[test]
    fn contradictions_are_named_with_their_entry() {
        let paper = |field: &str| format!("{PAPER}/{field}");
        let file = || json!({"path": "x.tar.gz", "size": 1, "sha256": "cd".repeat(32), "media_type": "application/x-tar+gzip"});
        let table = [
            ("/schema".to_owned(), json!(2), "schema 2, this program reads schema 1"),
            ("/serial".to_owned(), json!(1_u64 << 53), "serial: at most 9007199254740991"),
            ("/serial".to_owned(), json!(u64::MAX), "serial: at most 9007199254740991"),
            ("/expires".to_owned(), json!("2020-01-01T00:00:00Z"), "expires: it must be later"),
            (paper("version"), json!("../../x"), "version `../../x` is not allowed"),
            (paper("version"), json!("latest"), "`latest` is not a version"),
            (paper("version"), json!("current"), "`current` is not a version"),
            (paper("version"), json!("1.20.1"), "minecraft/paper: `1.20.1` is there twice"),
            ("/games/0/variants/1/id".to_owned(), json!("paper"), "minecraft: `paper` is there twice"),
            ("/runtimes/1/id".to_owned(), json!("java"), "runtimes: `java` is there twice"),
            (paper("files"), json!([]), "minecraft/paper/1.21.7: it has no files"),
            (paper("files/0/size"), json!(0), "impossible size of 0 bytes"),
            (paper("files/0/path"), json!("/etc/passwd"), "path `/etc/passwd` is not allowed"),
            (paper("files/0/path"), json!("a/../../b"), "path `a/../../b` is not allowed"),
            (paper("files/0/sha256"), json!("AB"), "sha256 `AB` is not allowed"),
            (paper("files/0/media_type"), json!("text/html"), "unknown variant `text/html`"),
            (format!("{PAPER}/files/0/name"), json!("jar"), "which the entry does not have"),
            (format!("{PAPER}/requires"), json!({"runtime":"java","version":">=99"}), "it needs java >=99"),
            (format!("{PAPER}/requires"), json!({"runtime":"java","version":"^1"}), "version range `^1`"),
            ("/games/0/variants/0/id".to_owned(), json!("spigot"), "no launch plan and none is built in"),
            (
                "/runtimes/0/versions/0/archive/media_type".to_owned(),
                json!("application/java-archive"),
                "runtimes have to be archives",
            ),
            (paper("withdrawn"), json!(""), "`withdrawn` has to say why"),
            (paper("channels"), json!({"stable": 0}), "channel stable is for 0 % of the containers"),
            (paper("channels"), json!({"../x": 5}), "`../x` is not allowed"),
            (
                "/addons".to_owned(),
                json!([{"id": "vim", "versions": [{"version": "9", "archive": file(), "executables": {}}]}]),
                "vim/9: it names no executables",
            ),
            (
                "/agents".to_owned(),
                json!([{"version": "1", "binary": file()}]),
                "agents/1: an agent is one plain binary",
            ),
            ("/agents".to_owned(), json!([{"version": "../1", "binary": file()}]), "agents/../1: version"),
            ("/runtimes/0/versions/0/executables".to_owned(), json!({}), "it names no executables"),
            (format!("{SQUID}/launch/argv"), json!([]), "flying-squid/1.18.2: the command is empty"),
        ];
        for (pointer, value, expected) in table {
            let text = refusal(set(pointer, value));
            assert!(text.contains(expected), "{text}\nshould contain: {expected}");
        }
    }

    #[test]
    fn one_path_has_one_hash() {
        let text = refusal(|document| {
            let path = document.pointer("/runtimes/0/versions/0/archive/path").unwrap().clone();
            set(format!("{PAPER}/files/0/path"), path)(document);
            set(format!("{PAPER}/files/0/sha256"), json!("ff".repeat(32)))(document);
        });
        assert!(text.contains("pinned elsewhere to another hash"), "{text}");
    }

    #[test]
    fn a_missing_hash_is_a_refusal_and_never_skipped() {
        let text = refusal(|document| {
            let file = document.pointer_mut(&format!("{PAPER}/files/0")).unwrap();
            file.as_object_mut().unwrap().remove("sha256");
        });
        assert!(text.contains("missing field `sha256`"), "{text}");
    }

    #[test]
    fn floods_end_at_a_ceiling() {
        let huge = vec![b' '; MAX_BYTES + 1];
        assert!(matches!(Catalog::parse(&huge), Err(CatalogError::TooLarge { .. })));
        let deep = "[".repeat(100_000);
        assert!(matches!(Catalog::parse(deep.as_bytes()), Err(CatalogError::Malformed(_))));
        let deep = format!(r#"{{"schema":1,"serial":1,"issued":"2026-01-01T00:00:00Z","x":{deep}"#);
        assert!(matches!(Catalog::parse(deep.as_bytes()), Err(CatalogError::Malformed(_))));
        let text = refusal(|document| {
            let versions =
                document.pointer_mut("/games/0/variants/0/versions").unwrap().as_array_mut().unwrap();
            let first = versions[0].clone();
            versions.extend(std::iter::repeat_n(first, 500));
        });
        assert!(text.len() < 500 && text.contains("and 97 more"), "{text}");
    }
}
