//! What a tree is made of, entry by entry: written when it is installed, compared later.
//!
//! One JSON object a line, sorted by path; the mark has the hash of the whole, so that a
//! manifest that was changed together with the tree is noticed.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zlh_catalog::Sha256;

use super::MARK;
use crate::hash::{HashingWriter, hash_file};

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum What {
    File { mode: u32, size: u64, sha256: Sha256 },
    Dir { mode: u32 },
    Link { target: String },
}

/// One difference between a tree and what was installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Relative to the tree.
    pub path: String,
    /// What is different.
    pub what: DriftKind,
}

/// How something is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftKind {
    /// It is gone.
    Missing,
    /// It was not installed.
    Extra,
    /// It has another content.
    Content,
    /// It has another mode.
    Mode,
    /// It is of another type, or a link to somewhere else.
    Type,
}

impl std::fmt::Display for DriftKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::Extra => "was not installed",
            Self::Content => "has another content",
            Self::Mode => "has another mode",
            Self::Type => "is something else",
        })
    }
}

/// Writes the manifest of a tree into it; the answer is its hash.
pub(super) fn write(tree: &Path) -> io::Result<Sha256> {
    let file = File::options().write(true).create_new(true).open(tree.join(NAME))?;
    let mut out = HashingWriter::new(BufWriter::new(file));
    for (path, meta) in walk(tree)? {
        let what = look(&tree.join(&path), &meta)?;
        serde_json::to_writer(&mut out, &Entry { path, what })?;
        out.write_all(b"\n")?;
    }
    let (mut file, _, sha256) = out.finish();
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(sha256)
}

/// How a tree differs from its manifest, in the order of paths; at most [`MAX_DRIFTS`].
pub(super) fn compare(tree: &Path, expected: Sha256) -> io::Result<Vec<Drift>> {
    let drift = |path: &str, what| Drift { path: path.to_owned(), what };
    let (_, found) = match hash_file(&tree.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(vec![drift(NAME, DriftKind::Missing)]);
        }
        found => found?,
    };
    if found != expected {
        return Ok(vec![drift(NAME, DriftKind::Content)]);
    }
    let mut text = String::new();
    File::open(tree.join(NAME))?.take(MAX_BYTES).read_to_string(&mut text)?;
    let entries = text.lines().map(serde_json::from_str::<Entry>).collect::<Result<Vec<_>, _>>()?;
    let mut there = walk(tree)?;
    let mut drifts = Vec::new();
    for entry in &entries {
        let Some(meta) = there.remove(&entry.path) else {
            drifts.push(drift(&entry.path, DriftKind::Missing));
            continue;
        };
        if let Some(what) = differs(&tree.join(&entry.path), &meta, &entry.what)? {
            drifts.push(drift(&entry.path, what));
        }
    }
    drifts.extend(there.into_keys().map(|path| Drift { path, what: DriftKind::Extra }));
    drifts.sort_by(|a, b| a.path.cmp(&b.path));
    drifts.truncate(MAX_DRIFTS);
    Ok(drifts)
}

/// The cheap things first: a file of another size is not read.
fn differs(path: &Path, meta: &Metadata, expected: &What) -> io::Result<Option<DriftKind>> {
    let size = |what: &What| if let What::File { size, .. } = what { Some(*size) } else { None };
    if meta.is_file() && size(expected).is_some_and(|size| size != meta.len()) {
        return Ok(Some(DriftKind::Content));
    }
    Ok(match (look(path, meta)?, expected) {
        (found, expected) if found == *expected => None,
        (What::File { sha256, .. }, What::File { sha256: wanted, .. }) if sha256 != *wanted => {
            Some(DriftKind::Content)
        }
        (What::File { .. }, What::File { .. }) | (What::Dir { .. }, What::Dir { .. }) => {
            Some(DriftKind::Mode)
        }
        _ => Some(DriftKind::Type),
    })
}

fn look(path: &Path, meta: &Metadata) -> io::Result<What> {
    let mode = meta.permissions().mode() & 0o7777;
    if meta.is_symlink() {
        return Ok(What::Link { target: text(&std::fs::read_link(path)?)? });
    }
    if meta.is_dir() {
        return Ok(What::Dir { mode });
    }
    if !meta.is_file() {
        // Nothing that was unpacked: it differs from whatever is expected.
        return Ok(What::Link { target: String::new() });
    }
    let (size, sha256) = hash_file(path)?;
    Ok(What::File { mode, size, sha256 })
}

/// Everything below a tree but our own two files; links are not followed.
fn walk(tree: &Path) -> io::Result<BTreeMap<String, Metadata>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(tree.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if folder.as_os_str().is_empty() && [MARK, NAME].iter().any(|ours| path == Path::new(ours)) {
                continue;
            }
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(path.clone());
            }
            found.insert(text(&path)?, meta);
            if found.len() > MAX_ENTRIES {
                return Err(io::Error::other("there are too many files in it"));
            }
        }
    }
    Ok(found)
}

/// Archives have names in UTF-8 only; whatever else came into a tree is shown as it can be.
fn text(path: &Path) -> io::Result<String> {
    Ok(path.to_string_lossy().into_owned())
}

pub(crate) const NAME: &str = ".zlh-manifest";
const MAX_BYTES: u64 = 256 << 20;
const MAX_ENTRIES: usize = 1_000_000;
const MAX_DRIFTS: usize = 1000;
