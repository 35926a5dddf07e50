//! The files that decide how a server starts, found within ceilings.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::fs::FileType;

use super::ChangeWhat;
use crate::addons::text::file_name;
use crate::folder::{Entry, Folder, dir_at, entries};

/// A walk through a server folder.
pub(super) struct Walk<'a, F> {
    pub names: usize,
    pub deadline: Instant,
    /// The walk ended before everything was seen.
    pub cut: bool,
    /// Folders of which not everything was seen.
    pub partial: Vec<String>,
    /// Called with each file: its directory, name, path and what it is. False ends the walk.
    pub each: &'a mut F,
}

impl<F: FnMut(&OwnedFd, &CStr, String, ChangeWhat) -> bool> Walk<'_, F> {
    pub(super) fn folder(&mut self, folder: &Folder) -> io::Result<()> {
        let root = folder.dir("")?;
        // What matters most comes first, in case a ceiling is reached.
        for (place, depth, what) in PLACES {
            if let Ok(dir) = folder.dir(place) {
                self.dir(&dir, place, depth, what);
            }
        }
        let mut below = Vec::new();
        for entry in self.list(&root, "") {
            match entry.kind {
                FileType::RegularFile => {
                    let name = file_name(entry.name.to_bytes());
                    let what = if is(&name, &["jar"]) { ChangeWhat::Server } else { ChangeWhat::Settings };
                    let wanted = what == ChangeWhat::Server || is(&name, SETTINGS);
                    if wanted && !OWN.contains(&name.as_str()) && !self.file(&root, &entry.name, name, what) {
                        return Ok(());
                    }
                }
                FileType::Directory => below.push(entry.name),
                _ => {}
            }
        }
        // Worlds bring data packs and configuration.
        for name in below.iter().filter(|name| !OTHER.contains(&name.to_bytes())) {
            let Ok(world) = dir_at(&root, name) else { continue };
            for (place, what) in [(c"datapacks", ChangeWhat::DataPack), (c"serverconfig", ChangeWhat::Config)]
            {
                if let Ok(dir) = dir_at(&world, place) {
                    let path = format!("{}/{}", file_name(name.to_bytes()), place.to_string_lossy());
                    self.dir(&dir, &path, 1, what);
                }
            }
        }
        Ok(())
    }

    fn dir(&mut self, dir: &OwnedFd, path: &str, depth: usize, what: ChangeWhat) {
        let mut below = Vec::new();
        for entry in self.list(dir, path) {
            let name = file_name(entry.name.to_bytes());
            let path = format!("{path}/{name}");
            match entry.kind {
                FileType::RegularFile => {
                    let what = kind(&path, &name, what);
                    if let Some(what) = what
                        && !self.file(dir, &entry.name, path, what)
                    {
                        return;
                    }
                }
                FileType::Directory if depth > 0 && !name.starts_with('.') => below.push((entry.name, path)),
                _ => {}
            }
        }
        for (name, path) in below {
            if self.late() {
                return;
            }
            if let Ok(dir) = dir_at(dir, &name) {
                self.dir(&dir, &path, depth - 1, what);
            }
        }
    }

    fn file(&mut self, dir: &OwnedFd, name: &CStr, path: String, what: ChangeWhat) -> bool {
        if self.late() {
            return false;
        }
        let on = (self.each)(dir, name, path, what);
        self.cut |= !on;
        on
    }

    fn late(&mut self) -> bool {
        let late = Instant::now() > self.deadline;
        self.cut |= late;
        late
    }

    fn list(&mut self, dir: impl AsFd, path: &str) -> Vec<Entry> {
        // One folder full of players' files must not hide all others.
        let mut budget = self.names.min(MAX_IN_FOLDER);
        let before = budget;
        let (found, cut) = entries(dir, &mut budget).unwrap_or_default();
        self.names -= before - budget;
        if cut && self.names > 0 && self.partial.len() < MAX_PARTIAL {
            self.partial.push(format!("{path}/").trim_start_matches('/').to_owned());
        } else {
            self.cut |= cut;
        }
        found
    }
}

/// What a file in a place is; none if it does not decide anything.
fn kind(path: &str, name: &str, place: ChangeWhat) -> Option<ChangeWhat> {
    match place {
        // mods/x.jar, plugins/x.jar and mods/1.12.2/x.jar, but no library that a plugin fetched
        // into its folder.
        ChangeWhat::Addon if is(name, &["jar"]) => {
            let versioned =
                path.strip_prefix("mods/").is_some_and(|path| path.starts_with(|c: char| c.is_ascii_digit()));
            (path.matches('/').count() == 1 || versioned).then_some(ChangeWhat::Addon)
        }
        ChangeWhat::Addon => is(name, SETTINGS).then_some(ChangeWhat::Config),
        ChangeWhat::DataPack => is(name, &["zip", "mcmeta"]).then_some(place),
        _ => is(name, SETTINGS).then_some(place),
    }
}

fn is(name: &str, kinds: &[&str]) -> bool {
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    !stem.is_empty() && kinds.iter().any(|other| kind.eq_ignore_ascii_case(other))
}

/// Names looked at in one folder.
const MAX_IN_FOLDER: usize = 4_000;
const MAX_PARTIAL: usize = 50;

/// Folders, how deep below them, and what is in them.
const PLACES: [(&str, usize, ChangeWhat); 7] = [
    ("mods", 1, ChangeWhat::Addon),
    // plugins/NAME/config.yml; deeper lie players' data.
    ("plugins", 1, ChangeWhat::Addon),
    ("datapacks", 1, ChangeWhat::DataPack),
    ("config", 4, ChangeWhat::Config),
    ("defaultconfigs", 2, ChangeWhat::Config),
    ("scripts", 4, ChangeWhat::Script),
    ("kubejs", 4, ChangeWhat::Script),
];

/// Files that are written by hand.
const SETTINGS: &[&str] = &[
    "properties",
    "yml",
    "yaml",
    "toml",
    "json",
    "json5",
    "jsonc",
    "conf",
    "cfg",
    "ini",
    "xml",
    "txt",
    "args",
    "sh",
    "js",
    "zs",
    "snbt",
];

/// Files in the server folder that servers write by themselves.
const OWN: [&str; 10] = [
    "usercache.json",
    "usernamecache.json",
    "banned-ips.json",
    "banned-players.json",
    "ops.json",
    "whitelist.json",
    "version_history.json",
    "servers.json",
    "wepif.yml",
    "help.yml",
];

/// Folders that are no worlds.
const OTHER: [&[u8]; 12] = [
    b"mods",
    b"plugins",
    b"datapacks",
    b"config",
    b"defaultconfigs",
    b"scripts",
    b"kubejs",
    b"logs",
    b"crash-reports",
    b"libraries",
    b"versions",
    b"cache",
];
