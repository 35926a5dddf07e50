//! What a payload must hold before anything is stored: forms, not availability.
//! (Whether a version exists is the catalog's to say, during the installation.)

use zlh_api::{Config, ContainerType, ErrorCode, Problem};
use zlh_catalog::check_component;

/// The world's folder when none is named.
pub(crate) const DEFAULT_WORLD: &str = "world";

/// Memory of the container when none is given, MiB.
const DEFAULT_MEMORY_MB: u32 = 2048;

/// The port when none is given.
const DEFAULT_PORT: u16 = 25565;

/// Least memory a game is started with, MiB.
const LEAST_MEMORY_MB: u32 = 256;

/// Most memory that is believed, MiB (4 TiB).
const MOST_MEMORY_MB: u32 = 4 << 20;

/// Major versions of Java that are believed.
const JAVA_VERSIONS: std::ops::RangeInclusive<u32> = 8..=99;

/// A game container's wish, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GameRequest {
    pub game: String,
    pub variant: String,
    pub version: String,
    pub world: String,
    pub port: u16,
    pub memory_mb: u32,
    pub accept_eula: bool,
    /// Major version of Java, where it is not the catalog's to say.
    pub java_version: Option<u32>,
}

/// Checks a payload. The problem names the field, the value and the rule.
pub(crate) fn check(config: &Config) -> Result<GameRequest, Problem> {
    match config.kind() {
        Some(ContainerType::Game) => {}
        Some(ContainerType::Dev) => {
            return Err(invalid(
                "container_type `dev` is not served by this version of the agent yet; use a game container",
            ));
        }
        None => return Err(invalid("container_type is missing: send `game` or `dev`")),
    }
    let game = required("game", config.game.as_deref())?;
    let variant = required("variant", config.variant.as_deref())?;
    let version = required("version", config.version.as_deref())?;
    let world = config.world.as_deref().filter(|w| !w.is_empty()).unwrap_or(DEFAULT_WORLD);
    check_component("world", world).map_err(|error| invalid(&error.to_string()))?;
    for (field, path) in [("artifact_path", &config.artifact_path), ("java_path", &config.java_path)] {
        if let Some(path) = path.as_deref().filter(|p| !p.is_empty()) {
            zlh_catalog::RelPath::new(path)
                .map_err(|error| invalid(&format!("{field} is not a relative path: {error}")))?;
        }
    }
    let secrets = [
        ("admin_pass", &config.admin_pass),
        ("steam_pass", &config.steam_pass),
        ("steam_auth", &config.steam_auth),
    ];
    if let Some((field, _)) = secrets.iter().find(|(_, value)| value.as_deref() == Some(zlh_api::MASK)) {
        return Err(invalid(&format!(
            "{field} is the mask that /status shows: send the secret itself, or leave it out"
        )));
    }
    let port = match config.ports.first() {
        None => DEFAULT_PORT,
        Some(&port @ 1024..) => port,
        Some(&port) => {
            return Err(invalid(&format!("ports[0] is {port}: use a port from 1024 to 65535")));
        }
    };
    let memory_mb = config.memory_mb.unwrap_or(DEFAULT_MEMORY_MB);
    if !(LEAST_MEMORY_MB..=MOST_MEMORY_MB).contains(&memory_mb) {
        return Err(invalid(&format!(
            "memory_mb is {memory_mb}: use {LEAST_MEMORY_MB} to {MOST_MEMORY_MB} (MiB)"
        )));
    }
    if let Some(java) = config.java_version.filter(|java| !JAVA_VERSIONS.contains(java)) {
        return Err(invalid(&format!(
            "java_version is {java}: use a major version such as 17 or 21, or leave it out"
        )));
    }
    Ok(GameRequest {
        game: game.to_owned(),
        variant: variant.to_owned(),
        version: version.to_owned(),
        world: world.to_owned(),
        port,
        memory_mb,
        accept_eula: config.accept_eula.unwrap_or(false),
        java_version: config.java_version,
    })
}

impl GameRequest {
    /// Heap: the container's memory less what the runtime needs beside it.
    pub(crate) fn heap_mb(&self) -> u64 {
        let memory = u64::from(self.memory_mb);
        let beside = (memory / 5).max(256);
        memory.saturating_sub(beside).max(128)
    }

    /// For people: `minecraft/paper 1.21.7`.
    pub(crate) fn label(&self) -> String {
        format!("{}/{} {}", self.game, self.variant, self.version)
    }
}

fn required<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, Problem> {
    match value {
        None | Some("") => Err(invalid(&format!("{field} is missing"))),
        Some(value) => {
            check_component(field, value).map_err(|error| invalid(&error.to_string()))?;
            Ok(value)
        }
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::new(ErrorCode::InvalidConfig, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: &str) -> Config {
        let mut value: serde_json::Value = serde_json::json!({
            "vmid": 5001, "game": "minecraft", "variant": "paper", "version": "1.21.7", "ports": [25570]
        });
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_old_callers_payload_is_enough() {
        let request = check(&config("{}")).unwrap();
        assert_eq!((request.world.as_str(), request.port, request.memory_mb), ("world", 25570, 2048));
        assert_eq!(request.heap_mb(), 2048 - 409);
    }

    #[test]
    fn what_could_leave_its_place_is_refused_by_name() {
        for (change, field) in [
            (r#"{"world":"../../etc"}"#, "world"),
            (r#"{"world":"/etc"}"#, "world"),
            (r#"{"world":"-rf"}"#, "world"),
            (r#"{"version":".."}"#, "version"),
            (r#"{"version":"1.21 && rm"}"#, "version"),
            (r#"{"variant":"-Dx=y"}"#, "variant"),
            (r#"{"variant":"a/b"}"#, "variant"),
            (r#"{"game":"../x"}"#, "game"),
            (r#"{"artifact_path":"/etc/shadow"}"#, "artifact_path"),
            (r#"{"java_path":"java/../../x"}"#, "java_path"),
            (r#"{"ports":[80]}"#, "ports"),
            (r#"{"memory_mb":3}"#, "memory_mb"),
            (r#"{"java_version":1}"#, "java_version"),
            (r#"{"admin_pass":"********"}"#, "admin_pass"),
            (r#"{"container_type":"dev"}"#, "container_type"),
        ] {
            let problem = check(&config(change)).unwrap_err();
            assert_eq!(problem.status, 400);
            assert!(problem.detail.contains(field), "{change}: {}", problem.detail);
        }
    }

    #[test]
    fn small_containers_keep_a_heap() {
        assert_eq!(check(&config(r#"{"memory_mb":256}"#)).unwrap().heap_mb(), 128);
        assert_eq!(check(&config(r#"{"memory_mb":10000}"#)).unwrap().heap_mb(), 8000);
    }
}
