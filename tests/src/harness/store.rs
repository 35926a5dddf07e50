//! An artifact store in a temporary directory: files, one signed catalog, and
//! every way to make them wrong.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zlh_catalog::{KeyList, SecretKey};

use super::archive::{Member, tar_gz};
use super::paths;

/// A store. The catalog on disk is the one of the last [`Store::publish`].
pub struct Store {
    dir: TempDir,
    key: SecretKey,
    /// Who signs instead of the key that agents are configured with.
    pub signer: Option<SecretKey>,
    /// The catalog, to be changed at will before it is published.
    pub catalog: Value,
}

/// How the fake game of a store is started and watched.
#[derive(Debug, Clone)]
pub struct FakePlan {
    /// Flags of `zlh-fake-game`.
    pub flags: Vec<String>,
    /// Readiness timeout, seconds.
    pub ready_s: u64,
    /// From the stop command to SIGTERM, seconds.
    pub grace_s: u64,
    /// From SIGTERM to SIGKILL, seconds.
    pub term_s: u64,
    /// From the stop to SIGTERM at the latest, seconds.
    pub cap_s: u64,
    /// What is typed before a stop, seconds before it.
    pub warn: Vec<(u64, String)>,
}

impl FakePlan {
    /// A well-behaved server, but for these flags.
    pub fn new(flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self { flags, ready_s: 30, grace_s: 20, term_s: 10, cap_s: 600, warn: Vec::new() }
    }
}

impl Store {
    /// A store that has nothing.
    pub fn empty() -> Result<Self> {
        let catalog = json!({
            "schema": 1, "serial": 0, "issued": "2026-01-01T00:00:00Z", "expires": "2099-01-01T00:00:00Z",
            "games": [{ "id": "minecraft", "variants": [] }], "runtimes": [],
        });
        Ok(Self { dir: tempfile::tempdir()?, key: SecretKey::generate()?, signer: None, catalog })
    }

    /// A published store with the fake game as minecraft/fake 1.18.2.
    pub fn fake(plan: &FakePlan) -> Result<Self> {
        let mut store = Self::empty()?;
        store.add_fake_runtime()?;
        let server = store.put(SERVER, b"not really a jar", "application/java-archive")?;
        store.add_version(VARIANT, fake_version(VERSION, server, plan));
        store.publish()?;
        Ok(store)
    }

    /// Adds the runtime `fakert`, which holds the fake game's binary.
    pub fn add_fake_runtime(&mut self) -> Result<()> {
        let packed = packed_fake_game()?;
        fs::create_dir_all(self.path(RUNTIME).parent().context("a path with a folder")?)?;
        // The same file for every store of a machine; a link costs nothing.
        fs::hard_link(&packed, self.path(RUNTIME))
            .or_else(|_| fs::copy(&packed, self.path(RUNTIME)).map(drop))?;
        let archive = self.describe(RUNTIME, "application/x-tar+gzip")?;
        self.add_runtime(
            "fakert",
            json!({
                "version": "1.0.0", "archive": archive, "executables": { "game": "bin/zlh-fake-game" },
            }),
        );
        Ok(())
    }

    /// Adds a runtime version.
    pub fn add_runtime(&mut self, id: &str, version: Value) {
        insert(&mut self.catalog["runtimes"], id, version);
    }

    /// Adds a version of a Minecraft variant.
    pub fn add_version(&mut self, variant: &str, version: Value) {
        insert(&mut self.catalog["games"][0]["variants"], variant, version);
    }

    /// Writes a file and describes it as the catalog does.
    pub fn put(&self, path: &str, content: &[u8], media_type: &str) -> Result<Value> {
        let file = self.path(path);
        fs::create_dir_all(file.parent().context("a path with a folder")?)?;
        // Not in place: other stores may have the same file.
        if file.exists() {
            fs::remove_file(&file)?;
        }
        fs::write(file, content)?;
        self.describe(path, media_type)
    }

    /// Describes a file of the store as the catalog does.
    pub fn describe(&self, path: &str, media_type: &str) -> Result<Value> {
        let (size, sha256) = digest(&self.path(path))?;
        Ok(json!({ "path": path, "size": size, "sha256": sha256, "media_type": media_type }))
    }

    /// Signs and writes the catalog as it stands, with the next serial.
    pub fn publish(&mut self) -> Result<()> {
        let serial = self.catalog["serial"].as_u64().unwrap_or(0) + 1;
        self.catalog["serial"] = json!(serial);
        let bytes = serde_json::to_vec_pretty(&self.catalog)?;
        fs::write(self.path("catalog.json.minisig"), self.signer().sign(&bytes, serial)?)?;
        fs::write(self.path("catalog.json"), bytes)?;
        Ok(())
    }

    /// Publishes list number `serial` of keys, signed by `key`.
    pub fn publish_keys(&self, serial: u64, keys: &[&SecretKey], key: &SecretKey) -> Result<()> {
        let keys = keys.iter().map(|key| key.public()).collect::<Result<_, _>>()?;
        let text = KeyList { serial, keys }.to_json();
        let path = self.path(&KeyList::path(serial));
        fs::create_dir_all(path.parent().context("a path with a folder")?)?;
        fs::write(
            self.path(&format!("{}.minisig", KeyList::path(serial))),
            key.sign(text.as_bytes(), serial)?,
        )?;
        fs::write(path, text)?;
        Ok(())
    }

    /// Whoever signs the catalog now.
    pub fn signer(&self) -> &SecretKey {
        self.signer.as_ref().unwrap_or(&self.key)
    }

    /// What agents trust.
    pub fn public_key(&self) -> Result<String> {
        Ok(self.key.public()?.to_string())
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file of the store.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
}

/// A catalog entry that runs the fake game.
pub fn fake_version(version: &str, mut server: Value, plan: &FakePlan) -> Value {
    server["name"] = json!("server");
    let fixed = ["{exec:game}", "--events", "{root}/fake-events.jsonl"].map(str::to_owned);
    let argv: Vec<String> = fixed.into_iter().chain(plan.flags.clone()).chain(["nogui".to_owned()]).collect();
    let warn = |(before_s, command): &(u64, String)| json!({ "before_s": before_s, "command": command });
    let warn: Vec<Value> = plan.warn.iter().map(warn).collect();
    json!({
        "version": version,
        "files": [server],
        "requires": { "runtime": "fakert", "version": ">=1" },
        "launch": {
            "install": [{ "step": "place", "file": "server", "to": "server.jar" }],
            "argv": argv,
            "files": [{
                "path": "server.properties", "format": "properties",
                "set": { "server-port": "{port}", "level-name": "{world}" },
            }],
            "readiness": { "probe": "minecraft_ping", "timeout_s": plan.ready_s },
            "stop": {
                "command": "stop", "grace_s": plan.grace_s, "term_s": plan.term_s, "cap_s": plan.cap_s, "warn": warn,
            },
            "save": { "off": "save-off", "flush": "save-all flush", "flushed": "Saved the game", "on": "save-on" },
        },
    })
}

fn insert(list: &mut Value, id: &str, version: Value) {
    let Some(list) = list.as_array_mut() else { return };
    match list.iter_mut().find(|entry| entry["id"] == id) {
        Some(entry) => {
            if let Some(versions) = entry["versions"].as_array_mut() {
                versions.push(version);
            }
        }
        None => list.push(json!({ "id": id, "versions": [version] })),
    }
}

/// The fake game's binary as an archive, packed once per build of it.
fn packed_fake_game() -> Result<PathBuf> {
    let binary = paths::binary("zlh-fake-game")?;
    let (_, sha256) = digest(&binary)?;
    let dir = paths::target_dir()?.join("zlh-fixtures");
    let packed = dir.join(format!("fake-{}.tar.gz", &sha256[..16]));
    if !packed.exists() {
        fs::create_dir_all(&dir)?;
        let members = [Member::dir("bin/"), Member::program("bin/zlh-fake-game", fs::read(&binary)?)];
        let mut staged = tempfile::NamedTempFile::new_in(&dir)?;
        staged.write_all(&tar_gz(&members)?)?;
        // Several tests may get here at once: all of them write the same file.
        staged.persist(&packed)?;
    }
    Ok(packed)
}

/// Size and SHA-256 in hexadecimal.
pub(super) fn digest(path: &Path) -> Result<(u64, String)> {
    use std::fmt::Write as _;
    let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let mut hex = String::new();
    for byte in Sha256::digest(&content) {
        write!(hex, "{byte:02x}")?;
    }
    Ok((content.len() as u64, hex))
}

/// The fake variant.
pub const VARIANT: &str = "fake";
/// Its version.
pub const VERSION: &str = "1.18.2";
/// Where its server file lies.
pub const SERVER: &str = "minecraft/fake/1.18.2/server.jar";
/// Where its runtime lies.
pub const RUNTIME: &str = "fakert/1.0.0.tar.gz";
