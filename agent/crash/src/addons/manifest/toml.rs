//! TOML, and what is left of it when it is broken.

use serde_json::{Map, Value, json};

/// The value, and what is wrong with it.
pub(super) fn read(text: &str) -> (Value, Option<String>) {
    match ::toml::from_str::<::toml::Table>(text) {
        Ok(table) => (serde_json::to_value(table).unwrap_or_default(), None),
        Err(error) => {
            let why = error.message().lines().next().unwrap_or_default();
            (lines(text), Some(format!("it is no TOML: {}", super::cut(why, 120))))
        }
    }
}

/// Section heads and `key = value` lines, as far as they make sense each on its own.
fn lines(text: &str) -> Value {
    let mut mods: Vec<Map<String, Value>> = Vec::new();
    let mut depends: Map<String, Value> = Map::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(head) = line.strip_prefix("[[") {
            section = head
                .split("]]")
                .next()
                .unwrap_or_default()
                .trim_end_matches(']')
                .trim()
                .replace(['"', '\''], "");
            if section == "mods" {
                mods.push(Map::new());
            } else if let Some(id) = section.strip_prefix("dependencies.")
                && let Value::Array(all) = depends.entry(id).or_insert_with(|| json!([]))
            {
                all.push(json!({}));
            }
        } else if line.starts_with('[') {
            section.clear();
        } else if let Some((key, value)) = line.split_once('=') {
            let target = match section.strip_prefix("dependencies.") {
                Some(id) => {
                    depends.get_mut(id).and_then(|all| all.as_array_mut()?.last_mut()?.as_object_mut())
                }
                None if section == "mods" => mods.last_mut(),
                None => None,
            };
            if let Some(target) = target {
                target.insert(key.trim().to_owned(), Value::String(scalar(value)));
            }
        }
    }
    json!({ "mods": mods, "dependencies": depends })
}

fn scalar(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote) {
            return inner.split(quote).next().unwrap_or_default().to_owned();
        }
    }
    value.split('#').next().unwrap_or_default().trim().to_owned()
}
