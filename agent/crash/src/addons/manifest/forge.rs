//! `mods.toml` of Forge and NeoForge, and `mcmod.info` of Forge up to 1.12.

use serde_json::Value;

use super::{Kind, MAX_ADDONS, MAX_NEEDS, MAX_VERSION, id, range, string, strings, yes};
use crate::{AddonInfo, AddonLoader, AddonNeed, AddonSide, NeedKind};

pub(super) fn mods_toml(kind: Kind, value: &Value) -> Vec<AddonInfo> {
    let client_only = yes(value.get("clientSideOnly")) == Some(true);
    let Some(mods) = value["mods"].as_array() else { return Vec::new() };
    let one = |entry: &Value| {
        let id = id(entry.get("modId"))?;
        let depends: Vec<AddonNeed> = dependencies(&value["dependencies"], &id).filter_map(need).collect();
        let minecraft = depends.iter().find(|need| need.id == "minecraft");
        let neo = kind == Kind::NeoForge || depends.iter().any(|need| need.id == "neoforge");
        Some(AddonInfo {
            name: super::id(entry.get("displayName")),
            version: string(entry.get("version"), MAX_VERSION),
            loader: if neo { AddonLoader::NeoForge } else { AddonLoader::Forge },
            side: if client_only { AddonSide::Client } else { AddonSide::Both },
            game: minecraft.and_then(|need| need.range.clone()),
            depends,
            id,
            ..AddonInfo::default()
        })
    };
    mods.iter().take(MAX_ADDONS).filter_map(one).collect()
}

/// `[[dependencies.id]]`; some write `[[dependencies]]` where there is one mod only.
fn dependencies<'a>(value: &'a Value, id: &str) -> impl Iterator<Item = &'a Value> {
    let list = match value {
        Value::Array(all) => Some(all),
        Value::Object(map) => {
            let own = map.iter().find(|(key, _)| key.eq_ignore_ascii_case(id));
            own.and_then(|(_, value)| value.as_array())
        }
        _ => None,
    };
    list.into_iter().flatten().take(MAX_NEEDS)
}

fn need(value: &Value) -> Option<AddonNeed> {
    let kind = match value["type"].as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("incompatible") => NeedKind::Excluded,
        Some("optional" | "discouraged") => NeedKind::Optional,
        Some(_) => NeedKind::Required,
        None if yes(value.get("mandatory")) == Some(false) => NeedKind::Optional,
        None => NeedKind::Required,
    };
    // What only the player's computer needs is no need here.
    let client = value["side"].as_str().is_some_and(|side| side.eq_ignore_ascii_case("client"));
    let kind = if client && kind == NeedKind::Required { NeedKind::Optional } else { kind };
    Some(AddonNeed { id: id(value.get("modId"))?, range: range(value.get("versionRange")), kind })
}

/// A list of mods, or `{modList: […]}`, or one mod alone.
pub(super) fn mcmod_info(value: &Value) -> Vec<AddonInfo> {
    let list = value.get("modList").or_else(|| value.get("modlist")).unwrap_or(value);
    let one = |entry: &Value| {
        let mut depends: Vec<AddonNeed> =
            strings(entry.get("requiredMods")).iter().map(|text| legacy(text, NeedKind::Required)).collect();
        depends
            .extend(strings(entry.get("dependencies")).iter().map(|text| legacy(text, NeedKind::Optional)));
        Some(AddonInfo {
            id: id(entry.get("modid").or_else(|| entry.get("modId")).or_else(|| entry.get("id")))?,
            name: id(entry.get("name")),
            version: string(entry.get("version"), MAX_VERSION),
            loader: AddonLoader::LegacyForge,
            game: string(entry.get("mcversion"), MAX_VERSION).filter(|version| !version.contains("${")),
            depends,
            ..AddonInfo::default()
        })
    };
    match list {
        Value::Array(all) => all.iter().take(MAX_ADDONS).filter_map(one).collect(),
        single => one(single).into_iter().collect(),
    }
}

/// `id@[range]`, with `required-after:` and the like before it.
fn legacy(text: &str, kind: NeedKind) -> AddonNeed {
    let (order, rest) = text.split_once(':').unwrap_or(("", text));
    let kind = if order.contains("required") { NeedKind::Required } else { kind };
    let (id, range) = rest.split_once('@').unwrap_or((rest, ""));
    let range = (!range.is_empty()).then(|| range.to_owned());
    AddonNeed { id: id.trim().to_owned(), range, kind }
}
