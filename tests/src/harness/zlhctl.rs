//! The operator's command, as a script runs it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use super::paths;
use super::store::Store;

/// Its exit status, and what it said.
pub fn run(arguments: &[&str]) -> (i32, String, String) {
    let binary = paths::binary("zlhctl").expect("zlhctl is built");
    let output = Command::new(binary).args(arguments).output().expect("zlhctl runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("what is said is text");
    (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
}

/// What it said when all went well.
#[track_caller]
pub fn well(arguments: &[&str]) -> String {
    let (code, out, err) = run(arguments);
    assert_eq!(code, 0, "{arguments:?}\n{out}\n{err}");
    out + &err
}

/// The document that it answers.
#[track_caller]
pub fn document(arguments: &[&str]) -> Value {
    let (code, out, err) = run(&[arguments, &["-o", "json"]].concat());
    assert_eq!(code, 0, "{arguments:?}\n{out}\n{err}");
    serde_json::from_str(&out).expect("a document")
}

/// A store that an operator fills, and the key it is signed with.
pub struct Shop {
    /// What agents fetch from.
    pub store: Store,
    scratch: tempfile::TempDir,
    key: PathBuf,
}

impl Shop {
    /// An empty one.
    pub fn open() -> Result<Self> {
        let (store, scratch) = (Store::empty()?, tempfile::tempdir()?);
        let key = scratch.path().join("catalog.key");
        fs::write(&key, store.signer().to_string())?;
        fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        Ok(Self { store, scratch, key })
    }

    /// Packs a folder and puts it into the store as `what` says. What packing it said.
    #[track_caller]
    pub fn put(&self, tree: &Path, id: &str, what: &[&str]) -> Value {
        let archive = self.scratch.path().join(format!("{id}.tar.zst")).display().to_string();
        let (tree, dir) = (tree.display().to_string(), self.store.dir().display().to_string());
        let key = self.key.display().to_string();
        let packed = document(&["artifacts", "pack", &tree, "--out", &archive]);
        well(&[&["artifacts", "add", &dir, &archive, "--key", &key], what].concat());
        // It is in the store now.
        let _ = fs::remove_file(archive);
        packed
    }

    /// Proves everything in it, as CI does.
    #[track_caller]
    pub fn proven(&self) -> Value {
        let dir = self.store.dir().display().to_string();
        let key = self.store.public_key().expect("a key");
        document(&["artifacts", "verify", &dir, "--key", &key, "--run"])
    }

    /// The catalog as it is published.
    pub fn catalog(&self) -> Value {
        let bytes = fs::read(self.store.path("catalog.json")).expect("a catalog");
        serde_json::from_slice(&bytes).expect("a catalog is JSON")
    }
}
