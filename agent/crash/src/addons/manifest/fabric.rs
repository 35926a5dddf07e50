//! `fabric.mod.json` and `quilt.mod.json`.

use serde_json::Value;

use super::{MAX_VERSION, id, needs, range, string, strings, yes};
use crate::{AddonInfo, AddonLoader, AddonNeed, AddonSide, NeedKind};

pub(super) fn fabric(value: &Value) -> Vec<AddonInfo> {
    let one = |value: &Value| {
        let mut depends = Vec::new();
        for (key, kind) in [
            ("depends", NeedKind::Required),
            ("requires", NeedKind::Required),
            ("breaks", NeedKind::Excluded),
            ("recommends", NeedKind::Optional),
            ("suggests", NeedKind::Optional),
        ] {
            match &value[key] {
                Value::Object(map) => {
                    depends.extend(map.iter().take(super::MAX_NEEDS).filter_map(|(id, wanted)| {
                        let id = super::id(Some(&Value::String(id.clone())))?;
                        Some(AddonNeed { id, range: range(Some(wanted)), kind })
                    }));
                }
                other => depends.extend(needs(strings(Some(other)), kind)),
            }
        }
        AddonInfo {
            id: id(value.get("id")).unwrap_or_default(),
            name: id(value.get("name")),
            version: string(value.get("version"), MAX_VERSION),
            loader: AddonLoader::Fabric,
            side: side(value.get("environment")),
            provides: strings(value.get("provides")),
            game: game(&depends),
            main: entrypoint(value.get("entrypoints")),
            depends,
            ..AddonInfo::default()
        }
    };
    match value {
        Value::Array(all) => all.iter().take(super::MAX_ADDONS).map(one).collect(),
        value => vec![one(value)],
    }
}

pub(super) fn quilt(value: &Value) -> Vec<AddonInfo> {
    let loader = &value["quilt_loader"];
    let mut depends = Vec::new();
    for (key, kind) in [("depends", NeedKind::Required), ("breaks", NeedKind::Excluded)] {
        match &loader[key] {
            Value::Array(all) => {
                depends.extend(all.iter().take(super::MAX_NEEDS).filter_map(|one| quilt_need(one, kind)));
            }
            one => depends.extend(quilt_need(one, kind)),
        }
    }
    let provides = match &loader["provides"] {
        Value::Array(all) => all.iter().filter_map(|one| id(one.get("id").or(Some(one)))).collect(),
        one => strings(Some(one)),
    };
    vec![AddonInfo {
        id: id(loader.get("id").or_else(|| value.get("id"))).unwrap_or_default(),
        name: id(loader["metadata"].get("name").or_else(|| value.get("name"))),
        version: string(loader.get("version").or_else(|| value.get("version")), MAX_VERSION),
        loader: AddonLoader::Quilt,
        side: side(value["minecraft"].get("environment")),
        provides,
        game: game(&depends),
        main: entrypoint(loader.get("entrypoints")),
        depends,
        ..AddonInfo::default()
    }]
}

/// `"id"`, `"group:id"` or `{id, versions, optional}`.
fn quilt_need(value: &Value, kind: NeedKind) -> Option<AddonNeed> {
    let name = id(value.get("id").or(Some(value)))?;
    let versions = value.get("versions").or_else(|| value.get("version"));
    let versions = versions.map(|all| all.get("any").or_else(|| all.get("all")).unwrap_or(all));
    let kind = if yes(value.get("optional")) == Some(true) { NeedKind::Optional } else { kind };
    let name = name.rsplit(':').next().unwrap_or_default().to_owned();
    Some(AddonNeed { id: name, range: range(versions), kind })
}

fn game(depends: &[AddonNeed]) -> Option<String> {
    let minecraft = |need: &&AddonNeed| need.id == "minecraft" && need.kind == NeedKind::Required;
    depends.iter().find(minecraft).and_then(|need| need.range.clone())
}

fn side(environment: Option<&Value>) -> AddonSide {
    match environment.and_then(Value::as_str) {
        Some("client") => AddonSide::Client,
        Some("server" | "dedicated_server") => AddonSide::Server,
        _ => AddonSide::Both,
    }
}

/// A class among the entrypoints, the common one first.
fn entrypoint(value: Option<&Value>) -> Option<String> {
    let map = value?.as_object()?;
    let first = |value: &Value| -> Option<String> {
        let one = value.as_array().map_or(Some(value), |all| all.first())?;
        let class = id(one.get("value").or(Some(one)))?;
        class.split("::").next().map(str::to_owned)
    };
    ["main", "init", "server", "server_init"]
        .iter()
        .find_map(|key| map.get(*key).and_then(first))
        .or_else(|| map.values().find_map(first))
}
