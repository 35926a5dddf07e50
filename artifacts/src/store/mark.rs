//! The mark of a complete tree: written last, inside the tree, after everything else is
//! on disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zlh_catalog::Sha256;

/// What was installed, and from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) schema: u32,
    pub(crate) name: String,
    pub(crate) version: String,
    /// Of the archive.
    pub(crate) sha256: Sha256,
    pub(crate) strip_components: u8,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Of the manifest; none in trees that older agents installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<Sha256>,
}

pub(crate) const SCHEMA: u32 = 1;

impl Mark {
    pub(crate) fn write(&self, tree: &Path) -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(tree.join(NAME))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        File::open(tree)?.sync_all()
    }

    /// `None` when there is none, or none that can be read: then the tree is debris.
    pub(crate) fn read(tree: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(tree.join(NAME)).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

pub(crate) const NAME: &str = ".zlh-ok";
const MAX_BYTES: u64 = 4096;
