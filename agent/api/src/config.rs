//! `POST /config`: what a container is to run.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What a non-empty secret looks like in every response.
pub const MASK: &str = "********";

/// Whether a container runs a game server or a developer's workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContainerType {
    /// One game server.
    Game,
    /// One developer's workspace.
    Dev,
}

/// The stored payload. Every field is optional on the wire; what a container
/// type needs is checked by the agent, which answers 400 naming the field.
///
/// Unknown fields are ignored, but kept, so that what was sent is what is shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Config {
    /// Proxmox id of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmid: Option<u32>,
    /// Absent in old callers: with `game` set it means a game container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_type: Option<ContainerType>,
    /// Game id of the catalog, for example `minecraft`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub game: Option<String>,
    /// Variant of the game, for example `paper`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the variant (game) or of the runtime (dev).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name of the world's folder; `world` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<String>,
    /// `ports[0]` is the port the server listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Path of the server's artifact, as deployed callers send it. The catalog's own path wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_path: Option<String>,
    /// Path of the Java archive, as deployed callers send it. The catalog's requirement wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub java_path: Option<String>,
    /// Major version of Java to run with; the catalog's requirement when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub java_version: Option<u32>,
    /// Memory of the container in MiB; 2048 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Whether the operator accepted the game's EULA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_eula: Option<bool>,
    /// Administrator to create, where the game knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_user: Option<String>,
    /// Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_pass: Option<String>,
    /// Steam account, where the game needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steam_user: Option<String>,
    /// Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steam_pass: Option<String>,
    /// Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steam_auth: Option<String>,
    /// Dev containers: runtime id of the catalog, for example `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Dev containers: install code-server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_code_server: Option<bool>,
    /// Dev containers: addon ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addons: Vec<String>,
    /// Whatever else was sent.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Map<String, Value>,
}

impl Config {
    /// The container type, with the deployed rule for callers that do not send it.
    pub fn kind(&self) -> Option<ContainerType> {
        self.container_type.or_else(|| self.game.as_ref().map(|_| ContainerType::Game))
    }

    /// A copy fit to be shown: every non-empty secret reads [`MASK`].
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut shown = self.clone();
        for secret in
            [&mut shown.admin_pass, &mut shown.steam_pass, &mut shown.steam_auth].into_iter().flatten()
        {
            mask(secret);
        }
        mask_tree(&mut shown.extra);
        shown
    }
}

fn mask(secret: &mut String) {
    if !secret.is_empty() {
        *secret = MASK.to_owned();
    }
}

/// Unknown fields are the caller's; a name that sounds like a secret is treated as one.
fn mask_tree(map: &mut Map<String, Value>) {
    for (key, value) in map.iter_mut() {
        let key = key.to_ascii_lowercase();
        let secret = ["pass", "secret", "token", "auth", "private_key", "api_key"]
            .iter()
            .any(|word| key.contains(word));
        match value {
            Value::Object(inner) => mask_tree(inner),
            Value::String(text) if secret => mask(text),
            Value::Null | Value::Bool(_) => {}
            other if secret => *other = Value::String(MASK.to_owned()),
            Value::Array(items) => {
                for item in items {
                    if let Value::Object(inner) = item {
                        mask_tree(inner);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_callers_mean_a_game_container() {
        let config: Config = serde_json::from_str(r#"{"vmid":5001,"game":"minecraft"}"#).unwrap();
        assert_eq!(config.kind(), Some(ContainerType::Game));
    }

    #[test]
    fn secrets_are_masked_and_empty_ones_stay_empty() {
        let config: Config = serde_json::from_str(
            r#"{"game":"minecraft","admin_pass":"hunter2","steam_pass":"","rcon_token":"x","nested":{"api_key":5}}"#,
        )
        .unwrap();
        let shown = serde_json::to_value(config.masked()).unwrap();
        assert_eq!(shown["admin_pass"], MASK);
        assert_eq!(shown["steam_pass"], "");
        assert_eq!(shown["rcon_token"], MASK);
        assert_eq!(shown["nested"]["api_key"], MASK);
    }

    #[test]
    fn unknown_fields_survive_a_round_trip() {
        let text = r#"{"game":"minecraft","portal_tag":"blue"}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&config).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn an_unknown_container_type_is_refused_with_the_valid_ones() {
        let error = serde_json::from_str::<Config>(r#"{"container_type":"vm"}"#).unwrap_err().to_string();
        assert!(error.contains("`game` or `dev`"), "{error}");
    }
}
