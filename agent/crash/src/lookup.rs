//! What an analysis asks about the mods and plugins on disk. Who answers does not matter
//! here: the index of the jars does in the agent, a table does in tests.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Answers about mods and plugins on disk.
pub trait AddonLookup: fmt::Debug {
    /// Who brings the package of a class (`a.b.C`, `a/b/C`, inner classes and lambdas too).
    /// One: it is theirs. Several: a library that each of them carries, nobody's fault.
    /// One answer a jar, however many mods are in it.
    fn owners_of_package(&self, class: &str) -> Vec<&AddonInfo>;

    /// All with this id, or with this name where nobody has the id; case does not matter.
    /// Several jars with the same id are several answers.
    fn by_id(&self, id: &str) -> Vec<&AddonInfo>;

    /// All that are in a jar: by its path below the server folder or by its file name
    /// alone, also the name of a jar inside a jar. Case does not matter.
    fn by_file(&self, file: &str) -> Vec<&AddonInfo>;
}

/// A mod or plugin, as its manifest describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddonInfo {
    /// Mod id, or plugin name where a plugin has no id.
    pub id: String,
    /// Name for people, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The jar on disk, relative to the server folder.
    pub file: String,
    /// The jar inside that jar that it comes in, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested: Option<String>,
    /// Its version, placeholders resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who loads it.
    pub loader: AddonLoader,
    /// Where it is meant to run.
    pub side: AddonSide,
    /// What it says it needs or excludes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends: Vec<AddonNeed>,
    /// Other ids it stands for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub provides: Vec<String>,
    /// The version of the game or of its interface it says it is made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub game: Option<String>,
    /// A class it starts with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main: Option<String>,
}

/// One thing a mod or plugin says about another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddonNeed {
    /// The other's id; also `minecraft`, `java` and the loaders.
    pub id: String,
    /// Version range in the loader's own spelling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// What about it.
    pub kind: NeedKind,
}

/// How two mods or plugins go together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeedKind {
    /// It does not load without.
    #[default]
    Required,
    /// Nice to have, or only a matter of order.
    Optional,
    /// It does not load with it.
    Excluded,
}

/// Who loads a mod or plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // Their names say all there is.
pub enum AddonLoader {
    Fabric,
    Quilt,
    Forge,
    NeoForge,
    /// Forge up to 1.12.
    LegacyForge,
    Bukkit,
    Paper,
    Bungee,
    Velocity,
    /// No manifest that we know.
    #[default]
    Unknown,
}

/// Where a mod is meant to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddonSide {
    /// Anywhere, or nothing said.
    #[default]
    Both,
    /// Players' computers only.
    Client,
    /// Servers only.
    Server,
}
