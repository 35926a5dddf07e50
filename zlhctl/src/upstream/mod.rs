//! Publishers: what versions they have, and where the file of one is.
//!
//! ```text
//! list versions ──► choose one ──► its file and checksum ──► download ──► verify ──► depot
//! ```
//!
//! Each publisher's answers are read as it documents them. A version that is not there, an
//! answer of another form, a page instead of an answer and a file without its checksum are
//! errors that name the publisher; nothing of it gets into a store.

mod checksum;
mod loaders;
mod minecraft;
mod runtimes;
mod web;
mod workspaces;

use anyhow::{Context, Result, anyhow};
use zlh_catalog::{Id, VersionRange, compare_versions};

pub(crate) use self::checksum::Checksum;
pub(crate) use self::web::Web;
use crate::depot::{Item, known_programs};
use crate::exit::Hint;

/// Everything that can be imported.
pub(crate) const NAMES: [&str; 12] = [
    "vanilla",
    "paper",
    "purpur",
    "fabric",
    "forge",
    "neoforge",
    "java",
    "node",
    "python",
    "go",
    "dotnet",
    "code-server",
];

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub name: &'a str,
    /// A version, or the line it has to be of; the newest one if absent.
    pub version: Option<&'a str>,
    /// Whether a version need not be a stable one.
    pub unstable: bool,
}

/// One version of a publisher, and its file.
#[derive(Debug)]
pub(crate) struct Found {
    pub item: Item,
    pub version: String,
    /// Where the file is.
    pub url: String,
    pub file_name: String,
    /// As far as the publisher says.
    pub size: Option<u64>,
    /// `None` where the publisher has none.
    pub checksum: Option<Checksum>,
}

/// Asks the publisher.
pub(crate) async fn find(web: &Web, wanted: Wanted<'_>) -> Result<Found> {
    let found = match wanted.name {
        "vanilla" => minecraft::vanilla(web, wanted).await,
        "paper" => minecraft::paper(web, wanted).await,
        "purpur" => minecraft::purpur(web, wanted).await,
        "fabric" => loaders::fabric(web, wanted).await,
        "forge" | "neoforge" => loaders::maven(web, wanted).await,
        "java" => runtimes::java(web, wanted).await,
        "node" => runtimes::node(web, wanted).await,
        "go" => runtimes::go(web, wanted).await,
        "python" => workspaces::python(web, wanted).await,
        "dotnet" => workspaces::dotnet(web, wanted).await,
        "code-server" => workspaces::code_server(web, wanted).await,
        other => {
            let hint = match crate::fleet::nearest(other, NAMES.into_iter()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("there are: {}", NAMES.join(", ")),
            };
            return Err(anyhow!("nobody is known to publish `{other}`")).hint(hint);
        }
    };
    found.with_context(|| format!("cannot find {}", wanted.shown()))
}

impl Wanted<'_> {
    fn shown(&self) -> String {
        match self.version {
            Some(version) => format!("{} {version}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The version asked for: that very one, else the newest of its line; without one, the newest.
    fn choose<'a>(&self, versions: impl IntoIterator<Item = &'a str>) -> Result<&'a str> {
        let mut all: Vec<&str> = versions.into_iter().collect();
        all.sort_by(|a, b| compare_versions(b, a));
        let chosen = match self.version {
            None => all.first().copied(),
            Some(version) => all.iter().find(|one| **one == version).copied().or_else(|| {
                let line = VersionRange::parse(version).ok()?;
                all.iter().find(|one| line.matches(one)).copied()
            }),
        };
        let hint = match (self.version, all.as_slice()) {
            (_, []) => "it lists no version at all; --unstable takes those that are not stable".to_owned(),
            (Some(version), all) => match crate::fleet::nearest(version, all.iter().copied()) {
                Some(nearest) => format!("did you mean {nearest}? the newest is {}", all[0]),
                None => format!("there are {}", all.iter().take(8).copied().collect::<Vec<_>>().join(", ")),
            },
            (None, all) => format!("the newest is {}", all[0]),
        };
        chosen.ok_or_else(|| anyhow!("the publisher has no such version")).hint(hint)
    }
}

/// A server of Minecraft, run as its built-in plan says.
fn server(variant: &str) -> Result<Item> {
    let (game, variant) = (Id::new("minecraft")?, Id::new(variant)?);
    Ok(Item::Game { game, variant, requires: None, launch: None, prepared: false })
}

/// A runtime with the programs that are usual for it.
fn runtime(id: &str, strip: u8) -> Result<Item> {
    Ok(Item::Runtime { id: Id::new(id)?, strip, programs: known_programs(id).into_iter().collect() })
}

/// The last part of a URL's path.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().replace("%2B", "+").replace("%2b", "+")
}
