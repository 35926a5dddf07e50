//! The fleet file: which agents there are, by name.
//!
//! ```toml
//! [[agents]]
//! name = "lobby"
//! url = "http://10.0.0.11:18888"
//! labels = { game = "minecraft", site = "fra" }
//! token_file = "/etc/zlh/lobby.token"
//! ```
//!
//! Invariants: names are unique and never look like an address; unknown keys are
//! refused with their line; a token stands in a file of its own, or inline in a
//! fleet file that nobody else may read. Errors never show a token.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

mod edit;

pub(crate) use edit::{add, remove};

/// Everything the file says, in its order.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) agents: Vec<Member>,
}

/// One agent of the fleet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Relative paths are relative to the fleet file.
    #[serde(default)]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) token: Option<Secret>,
}

/// A token that does not show itself.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

/// Why a fleet or token file will not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("`{}`, line {line}: {reason}", path.display())]
    Invalid { path: PathBuf, line: usize, reason: String },
    #[error("`{}`: {reason}", path.display())]
    Refused { path: PathBuf, reason: String },
    #[error("`{}` holds a token and others may read it (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    Readable { path: PathBuf, mode: u32 },
    #[error("`{}` does not hold a token: one line of printable characters is expected", path.display())]
    NotAToken { path: PathBuf },
}

impl Fleet {
    /// Reads `path`; a file that does not exist is an empty fleet.
    pub(crate) fn load(path: &Path) -> Result<Self, FleetError> {
        match read(path, MAX_FLEET_BYTES) {
            Ok((text, mode)) => Self::parse(path, &text, mode),
            Err(FleetError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    fn parse(path: &Path, text: &str, mode: u32) -> Result<Self, FleetError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Document {
            #[serde(default)]
            agents: Vec<toml::Spanned<Member>>,
        }
        let invalid = |at: usize, reason: String| FleetError::Invalid {
            path: path.to_owned(),
            line: line_of(text, at),
            reason,
        };
        let document: Document = toml::from_str(text).map_err(|error| {
            invalid(error.span().map_or(0, |span| span.start), error.message().to_owned())
        })?;
        let mut agents: Vec<Member> = Vec::with_capacity(document.agents.len());
        for entry in document.agents {
            let at = entry.span().start;
            let mut member = entry.into_inner();
            check_name(&member.name).map_err(|reason| invalid(at, reason))?;
            if agents.iter().any(|other| other.name == member.name) {
                return Err(invalid(at, format!("there are two agents called `{}`", member.name)));
            }
            if member.token.is_some() && member.token_file.is_some() {
                return Err(invalid(
                    at,
                    format!("`{}` has both token and token_file: keep one", member.name),
                ));
            }
            if member.token.is_some() && mode & 0o077 != 0 {
                return Err(FleetError::Readable { path: path.to_owned(), mode });
            }
            if let (Some(file), Some(folder)) = (&member.token_file, path.parent()) {
                member.token_file = Some(folder.join(file));
            }
            agents.push(member);
        }
        Ok(Self { agents })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Member> {
        self.agents.iter().find(|member| member.name == name)
    }

    /// The name most like `name`, where one is like it at all.
    pub(crate) fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.agents.iter().map(|member| member.name.as_str()))
    }
}

/// The one of `names` that is most like `name`, where one is like it at all.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, nearest) = names.map(|other| (distance(name, other), other)).min()?;
    (distance <= (name.chars().count() / 3).max(1)).then_some(nearest)
}

impl Member {
    /// The token to send, where there is one.
    pub(crate) fn token(&self) -> Result<Option<String>, FleetError> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.0.clone())),
            (None, Some(file)) => read_token(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("********")
    }
}

/// Reads a token file, which must be the operator's alone.
pub(crate) fn read_token(path: &Path) -> Result<String, FleetError> {
    let (text, mode) = read(path, MAX_TOKEN_BYTES)?;
    if mode & 0o077 != 0 {
        return Err(FleetError::Readable { path: path.to_owned(), mode });
    }
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(FleetError::NotAToken { path: path.to_owned() });
    }
    Ok(token.to_owned())
}

/// A name must not be mistaken for an address, an option or a path.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let head = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let body = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !head || !body || name.len() > MAX_NAME_BYTES || name.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!(
            "`{}` is not a name: up to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`, a letter or digit first",
            name.chars().take(80).collect::<String>().escape_debug()
        ));
    }
    Ok(())
}

/// `key=value`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{}` is not of the form label=value", text.escape_debug())),
    }
}

/// Bounded; mode and content come from the same open file.
fn read(path: &Path, limit: u64) -> Result<(String, u32), FleetError> {
    let refuse = |source| FleetError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(refuse)?;
    let mode = file.metadata().map_err(refuse)?.permissions().mode() & 0o7777;
    let mut text = String::new();
    let count = file.take(limit + 1).read_to_string(&mut text).map_err(refuse)?;
    if count as u64 > limit {
        return Err(FleetError::TooLarge { path: path.to_owned(), limit });
    }
    Ok((text, mode))
}

/// Replaces `path` as a whole, for its owner only; through a link, what it points at.
fn write(path: &Path, text: &str) -> Result<(), FleetError> {
    let fail = |source| FleetError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    crate::atomic::write_private(path, text.as_bytes()).map_err(fail)
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&b| b == b'\n').count() + 1
}

/// Edits (insert, delete, replace) from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(x != *y)).min(left + 1).min(*above + 1);
            diagonal = std::mem::replace(above, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

const MAX_FLEET_BYTES: u64 = 1 << 20;
const MAX_TOKEN_BYTES: u64 = 4096;
const MAX_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Fleet, FleetError> {
        Fleet::parse(Path::new("/etc/fleet.toml"), text, 0o644)
    }

    #[test]
    fn a_fleet() {
        let fleet = parse(
            "[[agents]]\nname = \"lobby\"\nurl = \"http://10.0.0.1:18888\"\nlabels = { game = \"minecraft\" }\ntoken_file = \"lobby.token\"\n",
        )
        .unwrap();
        let lobby = fleet.get("lobby").unwrap();
        assert_eq!(lobby.labels["game"], "minecraft");
        assert_eq!(lobby.token_file.as_deref(), Some(Path::new("/etc/lobby.token")));
        assert!(parse("").unwrap().agents.is_empty());
    }

    #[test]
    fn refused_with_the_line() {
        for (text, line, reason) in [
            ("\n[[agents]]\nname = \"a\"\nurl = \"x\"\ntokn = \"y\"\n", 5, "unknown field `tokn`"),
            ("\n\ncolour = 1\n", 3, "unknown field `colour`"),
            ("[[agents]]\nname = \"a\"\n", 1, "missing field `url`"),
            ("[[agents]]\nname = \"-a\"\nurl = \"x\"\n", 1, "is not a name"),
            ("[[agents]]\nname = \"10.0.0.1\"\nurl = \"x\"\n", 1, "is not a name"),
            (
                "[[agents]]\nname = \"a\"\nurl = \"x\"\n\n[[agents]]\nname = \"a\"\nurl = \"y\"\n",
                5,
                "two agents",
            ),
            ("agents = 5", 1, "invalid type"),
            ("[[agents]", 1, ""),
        ] {
            let error = parse(text).unwrap_err();
            let FleetError::Invalid { line: at, reason: why, .. } = &error else { panic!("{error}") };
            assert_eq!(*at, line, "{text}: {error}");
            assert!(why.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn an_inline_token_needs_a_private_file_and_is_never_shown() {
        let text = "[[agents]]\nname = \"a\"\nurl = \"x\"\ntoken = \"hunter2hunter2\"\n";
        let error = Fleet::parse(Path::new("f"), text, 0o640).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`f` holds a token and others may read it (mode 0640): run `chmod 600 f`"
        );
        let fleet = Fleet::parse(Path::new("f"), text, 0o600).unwrap();
        assert!(!format!("{fleet:?}").contains("hunter2"));
        assert_eq!(fleet.agents[0].token().unwrap().as_deref(), Some("hunter2hunter2"));
        let broken = text.replace("2\"\n", "2\n");
        assert!(
            !format!("{}", Fleet::parse(Path::new("f"), &broken, 0o600).unwrap_err()).contains("hunter2")
        );
    }

    #[test]
    fn token_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "sesame-sesame\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_token(&path), Err(FleetError::Readable { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_token(&path).unwrap(), "sesame-sesame");
        for bad in ["", "two words", "line\nline"] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(read_token(&path), Err(FleetError::NotAToken { .. })), "{bad:?}");
        }
        fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(matches!(read_token(&path), Err(FleetError::TooLarge { .. })));
    }

    #[test]
    fn a_missing_file_is_an_empty_fleet() {
        assert!(Fleet::load(Path::new("/nonexistent/fleet.toml")).unwrap().agents.is_empty());
        assert!(matches!(Fleet::load(Path::new("/proc/self")), Err(FleetError::Read { .. })));
    }

    #[test]
    fn the_nearest_name() {
        let fleet = parse(
            "[[agents]]\nname = \"lobby\"\nurl = \"x\"\n[[agents]]\nname = \"survival\"\nurl = \"y\"\n",
        )
        .unwrap();
        assert_eq!(fleet.nearest("loby"), Some("lobby"));
        assert_eq!(fleet.nearest("survivla"), Some("survival"));
        assert_eq!(fleet.nearest("creative"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
