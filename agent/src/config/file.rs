//! `agent.toml` as text: reading it, and telling people exactly what is wrong with it.
//!
//! A key that nobody knows is refused with its line and the nearest key there
//! is: a silently ignored `trusted_network` would be found out at the worst time.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// The file's content, nothing checked yet but types.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Document {
    pub(super) listen: Option<String>,
    pub(super) token: Option<String>,
    pub(super) token_file: Option<String>,
    pub(super) trusted_networks: Vec<String>,
    pub(super) allowed_origins: Vec<String>,
    pub(super) allowed_hosts: Vec<String>,
    pub(super) artifacts_url: Option<String>,
    pub(super) catalog_keys: Vec<String>,
    pub(super) accept_eula: bool,
    pub(super) vmid: Option<u32>,
    pub(super) artifacts: ArtifactsTable,
    pub(super) update: UpdateTable,
    pub(super) restart: RestartTable,
    pub(super) stop: StopTable,
    pub(super) shell: ShellTable,
    pub(super) stop_on_agent_shutdown: bool,
    pub(super) game_user: Option<String>,
    pub(super) workload_units: Option<bool>,
    pub(super) container_shutdown_s: Option<u32>,
}

/// `[restart]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RestartTable {
    pub(super) cause_aware: Option<bool>,
    pub(super) crash_budget: Option<u32>,
    pub(super) stable_s: Option<u64>,
}

/// `[artifacts]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ArtifactsTable {
    pub(super) mirrors: Vec<String>,
    pub(super) cache_mb: Option<u64>,
    pub(super) channel: Option<String>,
    pub(super) allow_unsigned: Option<bool>,
    pub(super) allow_unpinned: Option<bool>,
}

/// `[update]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UpdateTable {
    pub(super) mode: Option<String>,
    pub(super) interval: Option<String>,
}

/// `[stop]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StopTable {
    pub(super) grace_s: Option<u64>,
    pub(super) term_s: Option<u64>,
    pub(super) cap_s: Option<u64>,
    pub(super) warn: Option<bool>,
}

/// `[shell]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ShellTable {
    pub(super) user: Option<String>,
    pub(super) detached_s: Option<u64>,
    pub(super) sessions: Option<usize>,
}

/// Parses a file's text; `path` is only for the message.
pub(super) fn parse(path: &Path, text: &str) -> Result<Document, ConfigError> {
    let syntax = |error: &toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().trim().to_owned(),
    };
    let table = DeTable::parse(text).map_err(|error| syntax(&error))?;
    known_keys(path, text, table.get_ref())?;
    toml::from_str(text).map_err(|error| syntax(&error))
}

/// The text of a configuration file, none when there is no such file.
pub(super) fn read_text(path: &Path) -> Result<Option<(String, Privacy)>, ConfigError> {
    match read(path, MAX_FILE_BYTES) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

/// The token in a file of its own, without the line end.
pub(super) fn read_token(path: &Path) -> Result<String, ConfigError> {
    let (text, privacy) = read(path, MAX_TOKEN_FILE_BYTES)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if privacy == Privacy::Open {
        return Err(ConfigError::Readable { path: path.to_owned() });
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Who besides its owner may look into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privacy {
    /// Nobody.
    Private,
    /// The group or everybody may read or write it.
    Open,
}

fn read(path: &Path, limit: u64) -> io::Result<(String, Privacy)> {
    // A FIFO in the file's place must not park the start for ever.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = String::new();
    if file.take(limit + 1).read_to_string(&mut text)? as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    let privacy = if metadata.mode() & 0o066 == 0 { Privacy::Private } else { Privacy::Open };
    Ok((text, privacy))
}

fn known_keys(path: &Path, text: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name: &str = key.get_ref();
        if !KEYS.contains(&name) {
            return Err(unknown(path, text, key.span().start, name, KEYS));
        }
        match value.get_ref() {
            DeValue::Table(inner) => {
                let known = match name {
                    "artifacts" => ARTIFACTS_KEYS,
                    "restart" => RESTART_KEYS,
                    "shell" => SHELL_KEYS,
                    "stop" => STOP_KEYS,
                    "update" => UPDATE_KEYS,
                    // Of the wrong type: the parser says so.
                    _ => continue,
                };
                for key in inner.keys() {
                    let name: &str = key.get_ref();
                    if !known.contains(&name) {
                        return Err(unknown(path, text, key.span().start, name, known));
                    }
                }
            }
            DeValue::String(_) => {}
            // The parser's own message would repeat the value.
            _ if name == "token" => {
                return Err(ConfigError::Syntax {
                    path: path.to_owned(),
                    line: line_of(text, key.span().start),
                    message: "`token` must be a text in quotes".to_owned(),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

fn unknown(path: &Path, text: &str, at: usize, key: &str, known: &[&str]) -> ConfigError {
    let nearest = known
        .iter()
        .map(|candidate| (distance(key, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(6) / 3)
        .min();
    let hint = match nearest {
        Some((_, nearest)) => format!("did you mean `{nearest}`?"),
        None => format!("known keys: {}", known.join(", ")),
    };
    ConfigError::UnknownKey { path: path.to_owned(), line: line_of(text, at), key: clip(key), hint }
}

/// Single-character edits between two texts.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().take(MAX_KEY_BYTES).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn clip(key: &str) -> String {
    key.chars().take(MAX_KEY_BYTES).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Counted from 1.
fn line_of(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|byte| *byte == b'\n').count()
}

const KEYS: &[&str] = &[
    "listen",
    "token",
    "token_file",
    "trusted_networks",
    "allowed_origins",
    "allowed_hosts",
    "artifacts_url",
    "catalog_keys",
    "accept_eula",
    "vmid",
    "artifacts",
    "update",
    "restart",
    "stop",
    "shell",
    "stop_on_agent_shutdown",
    "game_user",
    "workload_units",
    "container_shutdown_s",
];
const ARTIFACTS_KEYS: &[&str] = &["mirrors", "cache_mb", "channel", "allow_unsigned", "allow_unpinned"];
const RESTART_KEYS: &[&str] = &["cause_aware", "crash_budget", "stable_s"];
const SHELL_KEYS: &[&str] = &["user", "detached_s", "sessions"];
const STOP_KEYS: &[&str] = &["grace_s", "term_s", "cap_s", "warn"];
const UPDATE_KEYS: &[&str] = &["mode", "interval"];

const MAX_FILE_BYTES: u64 = 256 * 1024;
const MAX_TOKEN_FILE_BYTES: u64 = 4096;
const MAX_KEY_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_key_is_one_the_document_has() {
        let text = r#"
            listen = "127.0.0.1:1"
            token = "a"
            token_file = "b"
            trusted_networks = []
            allowed_origins = []
            allowed_hosts = []
            artifacts_url = "c"
            catalog_keys = []
            accept_eula = true
            vmid = 5001
            game_user = "d"
            stop_on_agent_shutdown = true
            workload_units = true
            container_shutdown_s = 45
            [artifacts]
            mirrors = []
            cache_mb = 64
            channel = "beta"
            allow_unsigned = true
            allow_unpinned = true
            [update]
            mode = "off"
            interval = "1h"
            [restart]
            cause_aware = false
            [stop]
            grace_s = 1
            term_s = 2
            cap_s = 3
            warn = false
            [shell]
            user = "e"
            detached_s = 4
            sessions = 5
        "#;
        let document = parse(Path::new("agent.toml"), text).unwrap();
        assert_eq!(document.restart.cause_aware, Some(false));
        assert_eq!((document.stop.cap_s, document.stop.warn), (Some(3), Some(false)));
        for key in KEYS.iter().chain(STOP_KEYS).chain(SHELL_KEYS).chain(ARTIFACTS_KEYS).chain(UPDATE_KEYS) {
            assert!(text.contains(key), "{key} is missing from this test");
        }
    }

    #[test]
    fn faults_name_file_line_and_remedy() {
        for (text, expected) in [
            (
                "\n\ntrusted_network = []",
                "agent.toml:3: unknown key `trusted_network`, did you mean `trusted_networks`?",
            ),
            (
                "[restart]\ncauseaware = true",
                "agent.toml:2: unknown key `causeaware`, did you mean `cause_aware`?",
            ),
            ("[stop]\ngrace = 5", "agent.toml:2: unknown key `grace`, did you mean `grace_s`?"),
            ("wholly_unrelated_thing = 1", "known keys: listen, token,"),
            ("vmid = \"5001\"", "agent.toml:1: "),
            ("listen = ", "agent.toml:1: "),
            ("vmid = 1\nvmid = 2", "agent.toml:2: "),
        ] {
            let error = parse(Path::new("agent.toml"), text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_token_of_the_wrong_type_is_not_repeated() {
        let error = parse(Path::new("a.toml"), "token = 12345678901234567").unwrap_err().to_string();
        assert!(error.contains("in quotes") && !error.contains("1234567"), "{error}");
    }

    #[test]
    fn a_file_in_disguise_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("agent.toml");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        assert!(matches!(read_text(&fifo), Err(ConfigError::Read { .. })));
        let huge = dir.path().join("huge.toml");
        std::fs::write(&huge, vec![b'#'; 256 * 1024 + 1]).unwrap();
        assert!(matches!(read_text(&huge), Err(ConfigError::Read { .. })));
        assert!(read_text(&dir.path().join("absent.toml")).unwrap().is_none());
    }
}
