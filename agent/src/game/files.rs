//! Files a plan writes before a start: single keys of a properties or JSON file.
//!
//! They lie in the game's folder, where a hostile tenant puts links and devices.
//! So everything goes through a directory handle that cannot be left, what is
//! there is read with a ceiling and only if it is a regular file, and the new
//! content replaces the old by a rename. Other keys and comments stay.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use serde_json::{Map, Value};
use zlh_catalog::{FileFormat, FileRule, RelPath, Values};

/// Largest file that is edited, bytes.
const MAX_FILE: u64 = 4 << 20;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The game would not start without it.
    #[error(
        "the game's EULA is not accepted: read it, then set accept_eula = true in the agent's configuration or \"accept_eula\": true in the payload"
    )]
    EulaNotAccepted,
    /// What is there cannot be edited.
    #[error("{path} cannot be edited: {why}; repair or remove it")]
    Unusable {
        /// The file, below the game's folder.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be read or written.
    #[error("cannot write {path} in the game's folder: {source}")]
    Io {
        /// The file, below the game's folder.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A template asks for something this workload does not have.
    #[error(transparent)]
    Template(#[from] zlh_catalog::TemplateError),
}

/// Applies all rules below `root`. New files belong to `owner`.
pub(crate) fn apply(
    root: &Path,
    rules: &[FileRule],
    values: &Values,
    eula: bool,
    owner: Option<(u32, u32)>,
) -> Result<(), FileError> {
    let dir = Dir::open_ambient_dir(root, ambient_authority())
        .map_err(|source| FileError::Io { path: ".".to_owned(), source })?;
    for rule in rules {
        if rule.needs_eula && !eula {
            return Err(FileError::EulaNotAccepted);
        }
        let set = expand(&rule.set, values)?;
        let default = expand(&rule.default, values)?;
        let old = read(&dir, &rule.path)?;
        let new = match rule.format {
            FileFormat::Properties => properties(&old, &set, &default),
            FileFormat::Json => json(&rule.path, &old, &set, &default)?.into_bytes(),
        };
        if new != old {
            replace(&dir, &rule.path, &new, owner)
                .map_err(|source| FileError::Io { path: rule.path.to_string(), source })?;
        }
    }
    Ok(())
}

/// Writes `eula=true` as an operator asked for it, whatever the plan writes.
pub(crate) fn accept_eula(root: &Path, owner: Option<(u32, u32)>) -> Result<(), FileError> {
    let dir = Dir::open_ambient_dir(root, ambient_authority())
        .map_err(|source| FileError::Io { path: ".".to_owned(), source })?;
    let accepted = Keys::from([("eula".to_owned(), "true".to_owned())]);
    let path = RelPath::new("eula.txt")
        .map_err(|error| FileError::Io { path: "eula.txt".to_owned(), source: io::Error::other(error) })?;
    let new = properties(&read(&dir, &path)?, &accepted, &Keys::new());
    replace(&dir, &path, &new, owner).map_err(|source| FileError::Io { path: path.to_string(), source })
}

type Keys = BTreeMap<String, String>;

fn expand(
    templates: &BTreeMap<String, zlh_catalog::Template>,
    values: &Values,
) -> Result<Keys, zlh_catalog::TemplateError> {
    templates.iter().map(|(key, template)| Ok((key.clone(), template.expand(values)?))).collect()
}

fn read(dir: &Dir, path: &RelPath) -> Result<Vec<u8>, FileError> {
    let unusable = |why: &str| FileError::Unusable { path: path.to_string(), why: why.to_owned() };
    let mut options = OpenOptions::new();
    // A FIFO must not block us.
    options.read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW);
    let file = match dir.open_with(path.as_str(), &options) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            return Err(unusable("it is a symbolic link"));
        }
        Err(source) => return Err(FileError::Io { path: path.to_string(), source }),
    };
    let io = |source| FileError::Io { path: path.to_string(), source };
    if !file.metadata().map_err(io)?.is_file() {
        return Err(unusable("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unusable("it is larger than 4 MiB"));
    }
    Ok(bytes)
}

/// A text file of the game's; an empty one when there is none.
pub(crate) fn read_text(root: &Path, path: &str) -> Result<String, FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), source };
    let dir = Dir::open_ambient_dir(root, ambient_authority()).map_err(io)?;
    let path = RelPath::new(path).map_err(|error| io(io::Error::other(error.to_string())))?;
    Ok(String::from_utf8_lossy(&read(&dir, &path)?).into_owned())
}

fn replace(dir: &Dir, path: &RelPath, bytes: &[u8], owner: Option<(u32, u32)>) -> io::Result<()> {
    let path = Path::new(path.as_str());
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty())
        && !dir.is_dir(parent)
    {
        dir.create_dir_all(parent)?;
        // Each new level belongs to the game.
        let mut level = Some(parent);
        while let Some(path) = level.filter(|p| !p.as_os_str().is_empty()) {
            give(&dir.open_dir(path)?, owner)?;
            level = path.parent();
        }
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temp = path.with_file_name(format!(".{name}.zlh-{}", std::process::id()));
    match dir.remove_file(&temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o640);
    let written = (|| {
        let mut file = dir.open_with(&temp, &options)?;
        file.write_all(bytes)?;
        give(&file, owner)?;
        file.sync_all()?;
        dir.rename(&temp, dir, path)
    })();
    if written.is_err() {
        let _ = dir.remove_file(&temp);
    }
    written
}

fn give(file: &impl std::os::fd::AsFd, owner: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(
            file,
            Some(rustix::process::Uid::from_raw(uid)),
            Some(rustix::process::Gid::from_raw(gid)),
        )?;
    }
    Ok(())
}

/// Java properties: `key=value` lines; ours are replaced where they stand, or appended.
/// Everything else stays byte for byte: older servers write Latin-1.
fn properties(old: &[u8], set: &Keys, default: &Keys) -> Vec<u8> {
    let mut left = set.clone();
    let mut absent = default.clone();
    let mut out = Vec::with_capacity(old.len() + 256);
    for line in old.split_inclusive(|&byte| byte == b'\n') {
        if let Some(key) = property_key(line) {
            absent.remove(key);
            if let Some(value) = set.get(key) {
                // A key that stands twice is decided by its last line: every one says ours.
                left.remove(key);
                push_property(&mut out, key, value);
                continue;
            }
        }
        out.extend_from_slice(line);
    }
    if out.last().is_some_and(|&byte| byte != b'\n') {
        out.push(b'\n');
    }
    absent.retain(|key, _| !set.contains_key(key));
    for (key, value) in left.iter().chain(&absent) {
        push_property(&mut out, key, value);
    }
    out
}

/// The key of a line, if it is one that could be ours: plain text.
fn property_key(line: &[u8]) -> Option<&str> {
    let line = line.trim_ascii();
    if line.starts_with(b"#") || line.starts_with(b"!") {
        return None;
    }
    let end = line.iter().position(|byte| matches!(byte, b'=' | b':' | b' ' | b'\t'))?;
    std::str::from_utf8(&line[..end]).ok()
}

fn push_property(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    for c in value.chars() {
        // A value is one line of ASCII that is read back as it is, in whatever encoding.
        match c {
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' | '\r' => out.push(b' '),
            c if c.is_ascii() => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    out.push(b'\n');
}

fn json(path: &RelPath, old: &[u8], set: &Keys, default: &Keys) -> Result<String, FileError> {
    let unusable = |why: String| FileError::Unusable { path: path.to_string(), why };
    let mut map: Map<String, Value> = if old.trim_ascii().is_empty() {
        Map::new()
    } else {
        serde_json::from_slice(old).map_err(|error| unusable(format!("it is not a JSON object ({error})")))?
    };
    for (key, value) in default {
        map.entry(key).or_insert_with(|| json_value(value));
    }
    for (key, value) in set {
        map.insert(key.clone(), json_value(value));
    }
    let mut text = serde_json::to_string_pretty(&map).map_err(|error| unusable(error.to_string()))?;
    text.push('\n');
    Ok(text)
}

/// What reads as a boolean, number, list or object is one; everything else is text.
fn json_value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn keys(pairs: &[(&str, &str)]) -> Keys {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn other_keys_and_comments_stay_and_a_second_time_changes_nothing() {
        let old =
            b"#Minecraft server properties\nmotd=hi = there\nserver-port=1\n server-port : 2\nlevel-seed=\n";
        let set = keys(&[("server-port", "25570")]);
        let default = keys(&[("motd", "other"), ("max-players", "20")]);
        let new = properties(old, &set, &default);
        assert_eq!(
            String::from_utf8_lossy(&new),
            "#Minecraft server properties\nmotd=hi = there\nserver-port=25570\nserver-port=25570\nlevel-seed=\nmax-players=20\n"
        );
        assert_eq!(properties(&new, &set, &default), new);
    }

    #[test]
    fn bytes_that_are_no_utf8_stay_and_ours_are_ascii() {
        let old = b"motd=\xa7aHallo \xe4";
        let new = properties(old, &keys(&[("level-name", "w\u{f6}rld \u{1f600}")]), &Keys::new());
        assert_eq!(new, b"motd=\xa7aHallo \xe4\nlevel-name=w\\u00f6rld \\ud83d\\ude00\n");
    }

    #[test]
    fn json_types_are_kept_and_foreign_keys_survive() {
        let path = RelPath::new("config/settings.json").unwrap();
        let new = json(
            &path,
            br#"{"motd":"x","plugins":{}}"#,
            &keys(&[("port", "25570"), ("online-mode", "false"), ("version", "1.18.2")]),
            &Keys::new(),
        )
        .unwrap();
        let value: Value = serde_json::from_str(&new).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"motd":"x","plugins":{},"port":25570,"online-mode":false,"version":"1.18.2"})
        );
        assert!(matches!(
            json(&path, b"{broken", &Keys::new(), &Keys::new()),
            Err(FileError::Unusable { .. })
        ));
    }

    fn rule(path: &str, needs_eula: bool) -> FileRule {
        FileRule {
            path: RelPath::new(path).unwrap(),
            format: FileFormat::Properties,
            set: [("eula".to_owned(), zlh_catalog::Template::parse("true").unwrap())].into(),
            needs_eula,
            default: BTreeMap::new(),
        }
    }

    #[test]
    fn links_and_pipes_of_a_tenant_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "eula=false\n").unwrap();
        symlink(&secret, root.join("leaf")).unwrap();
        symlink(dir.path(), root.join("out")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in ["leaf", "out/secret", "pipe"] {
            let result = apply(&root, &[rule(path, false)], &Values::default(), true, None);
            assert!(result.is_err(), "{path} was written");
        }
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "eula=false\n");
    }

    #[test]
    fn the_eula_is_never_accepted_for_anybody() {
        let dir = tempfile::tempdir().unwrap();
        let result = apply(dir.path(), &[rule("eula.txt", true)], &Values::default(), false, None);
        assert!(matches!(result, Err(FileError::EulaNotAccepted)));
        assert!(!dir.path().join("eula.txt").exists());
        apply(dir.path(), &[rule("eula.txt", true)], &Values::default(), true, None).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("eula.txt")).unwrap(), "eula=true\n");
    }
}
