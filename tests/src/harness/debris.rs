//! What no accident may leave behind: records that nobody can read, and files that nobody will
//! look at again. Read with the product's own readers.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use zlh_api::{Config, CrashRecord};
use zlh_shim::durable::{self, ReadError};
use zlh_shim::record::{self, ChildRecord, ExitRecord, ShimRecord};
use zlh_shim::spec::{self, Spec};
use zlh_shim::{files, process};

/// Where the agent and its shims keep what they write down.
const KEPT: [&str; 3] = ["opt/zlh-agent/config", "opt/zlh-agent/state", "opt/zlh-agent/run"];

/// Records without a checksum: without them something is only slower, or less is said.
const BARE: [&str; 2] = ["last-good.json", "addons.json"];

/// What was set aside as broken below an agent's root, and every record that is not whole.
pub fn damage(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in kept(root) {
        let name = name_of(&path);
        if name.contains("broken") {
            found.push(format!("{} was set aside", path.display()));
        } else if durable::writer_of(&name).is_none()
            && let Some(why) = trouble(&path, &name)
        {
            found.push(why);
        }
    }
    found
}

/// Temporary files below an agent's root whose writers are no more.
pub fn leftovers(root: &Path) -> Vec<PathBuf> {
    let mut paths = kept(root);
    let beside = fs::read_dir(root.join("run/zlh-agent")).into_iter().flatten().flatten();
    paths.extend(beside.map(|entry| entry.path()));
    let abandoned = |path: &PathBuf| {
        let name = name_of(path);
        let dead = |pid| !process::stat(pid).is_ok_and(|stat| !stat.is_dead());
        name == "child.new" || durable::writer_of(&name).is_some_and(dead)
    };
    paths.retain(abandoned);
    // Who was done between both looks has put it into place.
    paths.retain(|path| path.exists());
    paths
}

fn kept(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = KEPT.iter().map(|path| root.join(path)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Why a record cannot be read; none for what is no record.
fn trouble(path: &Path, name: &str) -> Option<String> {
    let read = match name {
        files::SPEC => record_of::<Spec>(path, spec::SCHEMA),
        files::SHIM => record_of::<ShimRecord>(path, record::SCHEMA),
        // Not synced: the power may take its words. Without power there is no process to know of either.
        files::CHILD if is_blank(path) => Ok(()),
        files::CHILD => record_of::<ChildRecord>(path, record::SCHEMA),
        files::EXIT => record_of::<ExitRecord>(path, record::SCHEMA),
        // Zeros are a place that nobody needed.
        files::EXIT_SLOT if is_blank(path) => Ok(()),
        files::EXIT_SLOT => record_of::<ExitRecord>(path, record::SCHEMA),
        "payload.json" => json::<Config>(path),
        _ if BARE.contains(&name) => json::<Value>(path),
        _ if !name.ends_with(".json") => Ok(()),
        _ if path.components().any(|part| part.as_os_str() == "crashes") => record_of::<CrashRecord>(path, 1),
        // The agent's own: a checksum that matches its words, whatever they say.
        _ => match record_of::<Value>(path, 1) {
            Err(ReadError::Schema { .. }) => Ok(()),
            read => read,
        },
    };
    match read {
        // Gone since it was listed.
        Ok(()) | Err(ReadError::Missing(_)) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn is_blank(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0))
}

fn record_of<T: DeserializeOwned>(path: &Path, schema: u32) -> Result<(), ReadError> {
    durable::read_record::<T>(path, schema).map(drop)
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<(), ReadError> {
    let bytes = durable::read_bounded(path, 16 << 20)?;
    let damaged =
        |error: serde_json::Error| ReadError::Corrupt { path: path.to_owned(), why: error.to_string() };
    serde_json::from_slice::<T>(&bytes).map(drop).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_damaged_is_found() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let path = root.path().join("opt/zlh-agent").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        let slot = at("run/game/exit.slot");
        durable::write_record(&at("state/workload.json"), 1, &"anything").unwrap();
        fs::write(at("config/agent.toml"), "no record").unwrap();
        fs::write(&slot, [0; 64]).unwrap();
        assert_eq!(damage(root.path()), Vec::<String>::new());
        assert_eq!(leftovers(root.path()), Vec::<PathBuf>::new());

        for path in [
            "state/journal/game/broken-000001767225600",
            "state/crashes/game/1-a.broken",
            "state/workload.json.broken-1",
            "state/change.json",
            "state/last-good.json",
            "state/crashes/game/1-a.json",
            "config/payload.json",
            "run/game/spec.json",
            "run/game/shim.json",
            "run/game/exit.json",
            "run/game/exit.slot",
        ] {
            fs::write(at(path), "{\"half\":").unwrap();
            let found = damage(root.path());
            assert!(found.len() == 1 && found[0].contains(path), "{path}: {found:?}");
            fs::remove_file(at(path)).unwrap();
        }
        // A record of its kind in the place of another is none.
        durable::write_record(&at("run/game/shim.json"), 1, &"anything").unwrap();
        assert_eq!(damage(root.path()).len(), 1);

        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        for pid in [ended.id(), std::process::id()] {
            fs::write(at(&format!("state/.workload.json.{pid}.tmp")), "").unwrap();
        }
        assert_eq!(leftovers(root.path()), [at(&format!("state/.workload.json.{}.tmp", ended.id()))]);
    }
}
