//! `plugin.yml`, `paper-plugin.yml`, `bungee.yml` and `velocity-plugin.json`.

use serde_json::Value;

use super::{MAX_NEEDS, MAX_VERSION, id, needs, string, strings, yes};
use crate::{AddonInfo, AddonLoader, AddonNeed, NeedKind};

pub(super) fn bukkit(value: &Value) -> Vec<AddonInfo> {
    let mut addon = named(value, AddonLoader::Bukkit);
    addon.depends.extend(needs(strings(value.get("depend")), NeedKind::Required));
    addon.depends.extend(needs(strings(value.get("softdepend")), NeedKind::Optional));
    vec![addon]
}

pub(super) fn paper(value: &Value) -> Vec<AddonInfo> {
    let mut addon = named(value, AddonLoader::Paper);
    let all = &value["dependencies"];
    match all {
        // The form of its first months: a list.
        Value::Array(list) => addon.depends.extend(
            list.iter()
                .take(MAX_NEEDS)
                .filter_map(|one| Some(paper_need(id(one.get("name").or(Some(one)))?, one, false))),
        ),
        _ => {
            for section in ["server", "bootstrap"] {
                let Some(map) = all[section].as_object() else { continue };
                addon.depends.extend(map.iter().take(MAX_NEEDS).filter_map(|(name, one)| {
                    Some(paper_need(id(Some(&Value::String(name.clone())))?, one, true))
                }));
            }
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    addon.depends.retain(|need| seen.insert(need.id.clone()));
    vec![addon]
}

fn paper_need(id: String, value: &Value, otherwise: bool) -> AddonNeed {
    let required = yes(value.get("required")).unwrap_or(otherwise);
    AddonNeed { id, range: None, kind: if required { NeedKind::Required } else { NeedKind::Optional } }
}

pub(super) fn bungee(value: &Value) -> Vec<AddonInfo> {
    let mut addon = named(value, AddonLoader::Bungee);
    addon.depends.extend(needs(strings(value.get("depends")), NeedKind::Required));
    addon.depends.extend(needs(strings(value.get("softDepends")), NeedKind::Optional));
    vec![addon]
}

pub(super) fn velocity(value: &Value) -> Vec<AddonInfo> {
    let mut addon = named(value, AddonLoader::Velocity);
    if let Some(id) = id(value.get("id")) {
        addon.name = Some(std::mem::replace(&mut addon.id, id)).filter(|name| !name.is_empty());
    }
    if let Some(list) = value["dependencies"].as_array() {
        addon.depends.extend(list.iter().take(MAX_NEEDS).filter_map(|one| {
            let optional = yes(one.get("optional")) == Some(true);
            let kind = if optional { NeedKind::Optional } else { NeedKind::Required };
            Some(AddonNeed { id: id(one.get("id"))?, range: None, kind })
        }));
    }
    vec![addon]
}

fn named(value: &Value, loader: AddonLoader) -> AddonInfo {
    AddonInfo {
        id: id(value.get("name")).unwrap_or_default(),
        version: string(value.get("version"), MAX_VERSION),
        loader,
        provides: strings(value.get("provides")),
        game: string(value.get("api-version"), MAX_VERSION),
        main: id(value.get("main")),
        ..AddonInfo::default()
    }
}
