//! Paths that a console or an argument names, and whether they lie in the server folder.

use std::path::{Component, Path};

use crate::Text;

/// The crash reports that a console names, last first, at most a few. Anybody may have
/// written such a line: it is only where to look.
pub(super) fn reports(console: &[Text<'_>]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in console.iter().rev() {
        for line in text.bytes.rsplit(|&byte| byte == b'\n') {
            // A cheap look before anything is decoded.
            if line.len() > 2_000 || !line.windows(6).any(|part| part == b"saved ") {
                continue;
            }
            let line = String::from_utf8_lossy(line);
            let Some(path) = MARKS.iter().find_map(|mark| Some(line.split_once(mark)?.1)) else { continue };
            let path = path.trim_start_matches(['#', '@', '!', ' ']).trim_end();
            if !path.is_empty() && !found.iter().any(|other| other == path) {
                found.push(path.to_owned());
            }
            if found.len() == MAX_NAMED {
                return found;
            }
        }
    }
    found
}

/// The last `-XX:ErrorFile=` for a process.
pub(super) fn error_file(arguments: &[&str], pid: u32) -> Option<String> {
    let pattern = arguments.iter().rev().find_map(|argument| argument.strip_prefix("-XX:ErrorFile="))?;
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().chars().next()) {
            ('%', Some('p')) => out.push_str(&pid.to_string()),
            ('%', Some('%')) => out.push('%'),
            (c, _) => {
                out.push(c);
                continue;
            }
        }
        chars.next();
    }
    Some(out)
}

/// A path relative to the server folder, if it lies in there: without `..`, and behind the
/// folder's own name (as it was given, or where it really is) if it is absolute.
pub(super) fn inside(root: &Path, path: &str) -> Option<String> {
    let path = Path::new(path);
    let relative = if path.is_absolute() {
        match path.strip_prefix(root) {
            Ok(relative) => relative,
            Err(_) => path.strip_prefix(root.canonicalize().ok()?).ok()?,
        }
    } else {
        path
    };
    let mut parts = Vec::new();
    for component in relative.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

const MARKS: [&str; 3] =
    ["This crash report has been saved to:", "Crash report saved to:", "Crash report saved to "];
const MAX_NAMED: usize = 4;
