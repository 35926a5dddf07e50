//! What mods and plugins say about themselves, in nine kinds of manifest.
//!
//! Whatever the format, the text first becomes a [`Value`] by a tolerant reader; what is
//! taken from it is plain text of bounded length. A manifest that its own loader would
//! refuse is broken; as much of it as can be read is still used, so that the jar has a
//! name.

mod fabric;
mod forge;
mod json;
mod plugin;
mod text;
mod toml;
mod yaml;

use serde_json::Value;

pub(super) use text::implementation_version;

use super::text::{cut, decode};
use crate::{AddonInfo, AddonNeed, NeedKind};

/// The kinds of manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NeoForge,
    Forge,
    Fabric,
    Quilt,
    LegacyForge,
    Paper,
    Bukkit,
    Velocity,
    Bungee,
}

/// What one manifest says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Without `file` and `nested`.
    pub addons: Vec<AddonInfo>,
    /// Why its loader would refuse it.
    pub broken: Option<String>,
}

impl Kind {
    /// In the order in which they are believed where a jar has several.
    pub(super) const ALL: [(Self, &'static str); 9] = [
        (Self::NeoForge, "META-INF/neoforge.mods.toml"),
        (Self::Forge, "META-INF/mods.toml"),
        (Self::Fabric, "fabric.mod.json"),
        (Self::Quilt, "quilt.mod.json"),
        (Self::Paper, "paper-plugin.yml"),
        (Self::Bukkit, "plugin.yml"),
        (Self::Velocity, "velocity-plugin.json"),
        (Self::Bungee, "bungee.yml"),
        (Self::LegacyForge, "mcmod.info"),
    ];

    /// Reads a manifest. `version` is the one in `META-INF/MANIFEST.MF`.
    pub(super) fn parse(self, bytes: &[u8], version: Option<&str>) -> Parsed {
        let text = decode(bytes);
        let (value, mut broken) = match self {
            Self::NeoForge | Self::Forge => toml::read(&text),
            Self::Paper | Self::Bukkit | Self::Bungee => (yaml::read(&text), None),
            Self::Fabric | Self::Quilt | Self::Velocity | Self::LegacyForge => json::read(&text),
        };
        let mut addons = match self {
            Self::NeoForge | Self::Forge => forge::mods_toml(self, &value),
            Self::LegacyForge => forge::mcmod_info(&value),
            Self::Fabric => fabric::fabric(&value),
            Self::Quilt => fabric::quilt(&value),
            Self::Bukkit => plugin::bukkit(&value),
            Self::Paper => plugin::paper(&value),
            Self::Bungee => plugin::bungee(&value),
            Self::Velocity => plugin::velocity(&value),
        };
        addons.retain(|addon| !addon.id.is_empty());
        addons.truncate(MAX_ADDONS);
        // An empty mcmod.info is common beside a manifest that counts.
        if addons.is_empty() && broken.is_none() && self != Self::LegacyForge {
            broken = Some("it names no id".to_owned());
        }
        for addon in &mut addons {
            // `${file.jarVersion}`, and what a build should have filled in and did not.
            if addon.version.as_deref().is_none_or(|version| version.contains("${") || version.contains('@'))
            {
                addon.version = version.map(str::to_owned);
            }
            addon.depends.truncate(MAX_NEEDS);
            addon.provides.truncate(MAX_PROVIDES);
            if addon.name.as_ref() == Some(&addon.id) {
                addon.name = None;
            }
        }
        Parsed { addons, broken }
    }
}

/// A text value; numbers and the like count as text. Empty is none.
fn string(value: Option<&Value>, max: usize) -> Option<String> {
    let text = match value? {
        Value::String(text) => cut(text, max),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn id(value: Option<&Value>) -> Option<String> {
    string(value, MAX_NAME)
}

/// One text or a list of them.
fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(all)) => all.iter().take(MAX_NEEDS).filter_map(|one| id(Some(one))).collect(),
        one => id(one).into_iter().collect(),
    }
}

/// A version range, or several that are as good.
fn range(value: Option<&Value>) -> Option<String> {
    let all = match value {
        Some(Value::Array(all)) => {
            let all: Vec<String> =
                all.iter().take(16).filter_map(|one| string(Some(one), MAX_RANGE)).collect();
            cut(&all.join(" || "), MAX_RANGE)
        }
        one => string(one, MAX_RANGE)?,
    };
    (!all.is_empty() && all != "*").then_some(all)
}

fn yes(value: Option<&Value>) -> Option<bool> {
    match value? {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn needs(ids: Vec<String>, kind: NeedKind) -> impl Iterator<Item = AddonNeed> {
    ids.into_iter().map(move |id| AddonNeed { id, range: None, kind })
}

/// Longest id or name, characters.
const MAX_NAME: usize = 100;
/// Longest version, characters.
const MAX_VERSION: usize = 64;
/// Longest version range, characters.
const MAX_RANGE: usize = 120;
/// Mods in one manifest.
const MAX_ADDONS: usize = 64;
/// Needs of one mod.
const MAX_NEEDS: usize = 128;
/// Other ids of one mod.
const MAX_PROVIDES: usize = 32;

#[cfg(test)]
mod tests;
