//! Launchers and installers that download further files, run once, so that agents get what
//! was pinned and nothing else.
//!
//! ```text
//! jar ──► java, once, in a folder of its own ──► what servers run from ──► tar.zst, launch plan
//! ```
//!
//! | variant | run with | kept |
//! |---|---|---|
//! | paper, purpur | `-Dpaperclip.patchonly=true -jar` | the jar, `versions`, `libraries`, `cache` |
//! | fabric | `-jar … nogui`, the EULA not accepted: it ends by itself | `.fabric/server`, `versions`, `libraries` |
//! | forge, neoforge | `-jar … --installServer .` | `libraries`, jars beside it |
//!
//! Nothing else is packed: no world, no `eula.txt`, no log, no configuration. The same files
//! give the same archive. A run that fails, hangs, or makes no further files is refused.

mod argfile;
mod java;
mod plan;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use zlh_artifacts::{Pack, pack_dir};
use zlh_catalog::{Catalog, GameVersion, Id, MediaType, Release};

use crate::depot::Item;
use crate::exit::Hint;

/// How launchers and installers are run.
pub(crate) struct Preparer {
    /// A program, or its name on the PATH.
    pub java: PathBuf,
    /// How long one may take.
    pub patience: Duration,
}

/// What came of it.
pub(crate) struct Prepared {
    pub item: Item,
    pub archive: PathBuf,
    pub file_name: String,
    /// Files, directories and links in it.
    pub entries: u64,
}

/// How a variant's jar works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Paperclip,
    Fabric,
    Installer,
}

impl Kind {
    fn of(variant: &Id) -> Option<Self> {
        match variant.as_str() {
            "paper" | "purpur" => Some(Self::Paperclip),
            "fabric" => Some(Self::Fabric),
            "forge" | "neoforge" => Some(Self::Installer),
            _ => None,
        }
    }

    fn args(self, jar: &Path) -> Vec<OsString> {
        let (before, after): (&[&str], &[&str]) = match self {
            Self::Paperclip => (&["-Dpaperclip.patchonly=true"], &[]),
            Self::Fabric => (&[], &["nogui"]),
            Self::Installer => (&[], &["--installServer", "."]),
        };
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        [words(before), vec!["-jar".into(), jar.into()], words(after)].concat()
    }

    /// Whether servers run from it; a path in the folder of the run.
    fn keeps(self, path: &str) -> bool {
        let (top, below) = path.split_once('/').unwrap_or((path, ""));
        match top {
            _ if path.ends_with(".log") => false,
            "libraries" => true,
            "versions" => self != Self::Installer,
            "cache" => self == Self::Paperclip,
            ".fabric" => {
                self == Self::Fabric && (["", "server"].contains(&below) || below.starts_with("server/"))
            }
            // Fabric's launcher is not needed once it has run.
            _ => self != Self::Fabric && below.is_empty() && top.ends_with(".jar"),
        }
    }
}

impl Preparer {
    /// Runs the jar of a server in `scratch`, an empty folder; `None` if the variant fetches
    /// nothing. `catalog` is only asked for what is built in.
    pub(crate) async fn prepare(
        &self,
        item: &Item,
        version: &str,
        jar: &Path,
        scratch: &Path,
        catalog: &Catalog,
    ) -> Result<Option<Prepared>> {
        let Item::Game { game, variant, .. } = item else { return Ok(None) };
        let Some(kind) = Kind::of(variant) else { return Ok(None) };
        let (tree, home) = (scratch.join("tree"), scratch.join("home"));
        let place = match kind {
            Kind::Installer => scratch.join("installer.jar"),
            Kind::Paperclip | Kind::Fabric => tree.join(SERVER_JAR),
        };
        let set_up = || {
            fs::create_dir_all(&tree)?;
            fs::create_dir_all(&home)?;
            fs::copy(jar, &place)?;
            match kind {
                Kind::Fabric => fs::write(tree.join("eula.txt"), "eula=false\n"),
                _ => Ok(()),
            }
        };
        set_up().with_context(|| format!("cannot write `{}`", scratch.display()))?;
        java::run(&self.java, &kind.args(&place), &tree, &home, self.patience).await?;
        let built_in = built_in(catalog, variant, version)?;
        let (game, variant, version) = (game.clone(), variant.clone(), version.to_owned());
        let scratch = scratch.to_owned();
        let packed = tokio::task::spawn_blocking(move || {
            let (plan, requires) = built_in;
            let made = files(&tree, kind)?;
            if !made.iter().any(|path| path != SERVER_JAR) {
                return Err(anyhow!("it ran, and made no further files"))
                    .hint("import it without --prepare, or see whether its publisher changed how it works");
            }
            let plan = plan::from_tree(plan, kind, &tree, &version)?;
            let file_name = format!("{variant}-{version}.tar.zst");
            let archive = scratch.join(&file_name);
            let packed = pack_dir(&Pack {
                src: &tree,
                out: &archive,
                media_type: MediaType::TarZst,
                level: None,
                exclude: &|path| !kind.keeps(path),
            })?;
            let launch = Some(Box::new(plan));
            let item = Item::Game { game, variant, requires, launch, prepared: true };
            Ok(Some(Prepared { item, archive, file_name, entries: packed.entries }))
        });
        packed.await?
    }
}

type BuiltIn = (zlh_catalog::LaunchPlan, Option<zlh_catalog::Requirement>);

/// The plan and the runtime of an entry that says nothing of them.
fn built_in(catalog: &Catalog, variant: &Id, version: &str) -> Result<BuiltIn> {
    let entry = GameVersion {
        version: version.to_owned(),
        files: Vec::new(),
        requires: None,
        launch: None,
        stop: None,
        fetches_upstream: false,
        release: Release::default(),
    };
    let requires = catalog.requirement_for(variant, &entry).map(std::borrow::Cow::into_owned);
    Ok((catalog.plan_for(variant, &entry)?.into_owned(), requires))
}

/// The files of the tree that are kept, sorted.
fn files(tree: &Path, kind: Kind) -> Result<Vec<String>> {
    let (mut found, mut todo) = (Vec::new(), vec![String::new()]);
    while let Some(dir) = todo.pop() {
        let folder = tree.join(&dir);
        let cannot = || format!("cannot read `{}`", folder.display());
        for entry in fs::read_dir(&folder).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            // What has a name that cannot be packed is named by the packer.
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            if !kind.keeps(&path) {
                continue;
            }
            match entry.file_type().with_context(cannot)?.is_dir() {
                true => todo.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What the jar is called in the tree.
const SERVER_JAR: &str = "server.jar";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_servers_run_from_is_kept() {
        for (kind, kept) in [
            (Kind::Paperclip, &["server.jar", "versions/1/a.jar", "libraries/a", "cache/mojang.jar"][..]),
            (
                Kind::Fabric,
                &[".fabric", ".fabric/server", ".fabric/server/libraries/a.jar", "versions/1/a.jar"],
            ),
            (Kind::Installer, &["libraries", "libraries/a/b.jar", "forge-1-shim.jar"]),
        ] {
            assert!(kept.iter().all(|path| kind.keeps(path)), "{kind:?}");
            for left in [
                "eula.txt",
                "world",
                "world/level.dat",
                "logs",
                "installer.jar.log",
                "libraries/x.log",
                "server.properties",
                "config",
                "mods/a.jar",
                ".fabric/remappedJars",
                ".cache",
                "run.sh",
                "user_jvm_args.txt",
            ] {
                assert!(!kind.keeps(left), "{kind:?} {left}");
            }
        }
    }
}
