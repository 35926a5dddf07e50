//! What the files of the working directory say, read as Minecraft reads them.

use std::path::Path;

/// `server.properties`, with Minecraft's defaults.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) port: u16,
    pub(crate) level_name: String,
    pub(crate) motd: String,
    pub(crate) max_players: u32,
    /// Port and password, where it is enabled.
    pub(crate) rcon: Option<(u16, String)>,
}

impl Properties {
    /// A missing file is an empty one.
    pub(crate) fn read(dir: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(dir.join("server.properties")).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        // The last assignment wins, as in Java.
        let get = |key: &str| {
            let pairs = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', '!']));
            pairs
                .rev()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim())
        };
        Self {
            port: get("server-port").and_then(|value| value.parse().ok()).unwrap_or(25565),
            level_name: get("level-name").unwrap_or("world").to_owned(),
            motd: get("motd").unwrap_or("A Minecraft Server").to_owned(),
            max_players: get("max-players").and_then(|value| value.parse().ok()).unwrap_or(20),
            rcon: (get("enable-rcon") == Some("true")).then(|| {
                let port = get("rcon.port").and_then(|value| value.parse().ok()).unwrap_or(25575);
                (port, get("rcon.password").unwrap_or_default().to_owned())
            }),
        }
    }
}

/// Whether `eula.txt` says so.
pub(crate) fn eula_accepted(dir: &Path) -> bool {
    let text = std::fs::read_to_string(dir.join("eula.txt")).unwrap_or_default();
    text.lines().any(|line| line.trim().eq_ignore_ascii_case("eula=true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_earlier_assignments_do_not_count() {
        let read = Properties::parse("#server-port=1\nserver-port=2\nserver-port = 30001\nmotd=a=b\n");
        let expected = Properties {
            port: 30001,
            level_name: "world".into(),
            motd: "a=b".into(),
            max_players: 20,
            rcon: None,
        };
        assert_eq!(read, expected);
    }
}
