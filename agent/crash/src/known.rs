//! Mods and plugins that the log itself lists: what a loader prints at its start, and the
//! tables in crash reports. A name's file and version can be told without the jars.

use std::collections::HashMap;

use crate::log::Log;

/// One that the log lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub id: String,
    pub name: Option<String>,
    pub file: Option<String>,
    pub version: Option<String>,
}

/// All that the log lists.
#[derive(Debug, Default)]
pub(crate) struct KnownAddons {
    by_id: HashMap<String, Known>,
    by_file: HashMap<String, String>,
    by_name: HashMap<String, String>,
}

const MAX: usize = 4000;

impl KnownAddons {
    pub(crate) fn read(log: &Log) -> Self {
        let mut known = Self::default();
        for line in &log.lines {
            let message = line.message();
            let found = valid_mod_file(message)
                .or_else(|| state_line(message))
                .or_else(|| table(message))
                .or_else(|| fabric_list(message))
                .or_else(|| plugin(message));
            for one in found.into_iter().flatten() {
                known.insert(one);
            }
        }
        known
    }

    fn insert(&mut self, one: Known) {
        if self.by_id.len() >= MAX || one.id.is_empty() || one.id.len() > 100 {
            return;
        }
        let id = one.id.to_ascii_lowercase();
        if let Some(file) = &one.file {
            self.by_file.insert(file.to_ascii_lowercase(), id.clone());
        }
        if let Some(name) = &one.name {
            self.by_name.insert(name.to_ascii_lowercase(), id.clone());
        }
        let entry = self.by_id.entry(id).or_insert_with(|| Known { id: one.id.clone(), ..Known::default() });
        entry.name = entry.name.take().or(one.name);
        entry.file = entry.file.take().or(one.file);
        entry.version = entry.version.take().or(one.version);
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Known> {
        self.by_id.get(&id.to_ascii_lowercase())
    }

    pub(crate) fn by_file(&self, file: &str) -> Option<&Known> {
        self.by_id.get(self.by_file.get(&file.to_ascii_lowercase())?)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Known> {
        self.by_id.get(self.by_name.get(&name.to_ascii_lowercase())?)
    }

    /// The one whose id stands in a package: `mekanism.common…`, `de.maxhenkel.pipez…`.
    pub(crate) fn of_package(&self, class: &str) -> Option<&Known> {
        let parts: Vec<&str> = class.split('.').collect();
        let packages = &parts[..parts.len().saturating_sub(1)];
        packages.iter().rev().filter(|part| part.len() > 2).find_map(|part| {
            self.by_id(part).or_else(|| {
                let plain = plain(part);
                self.by_id.values().find(|known| {
                    self::plain(&known.id) == plain
                        || known.name.as_deref().is_some_and(|name| self::plain(name) == plain)
                })
            })
        })
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn text(value: &str) -> Option<String> {
    let value = value.trim();
    (!value.is_empty() && value.len() < 200).then(|| value.to_owned())
}

/// `Found valid mod file FILE with {a,b} mods - versions {1,2}`
fn valid_mod_file(message: &str) -> Option<Vec<Known>> {
    let (_, rest) = message.split_once("Found valid mod file ")?;
    let (file, rest) = rest.split_once(" with {")?;
    let (ids, rest) = rest.split_once('}')?;
    let versions = rest.split_once('{').and_then(|(_, v)| v.split_once('}')).map_or("", |(v, _)| v);
    let mut versions = versions.split(',');
    Some(
        ids.split(',')
            .map(|id| Known {
                id: id.trim().to_owned(),
                name: None,
                file: text(file),
                version: versions.next().and_then(text),
            })
            .collect(),
    )
}

/// `UCHI<tab>id{1.0} [Name] (file.jar)`
fn state_line(message: &str) -> Option<Vec<Known>> {
    let (states, rest) = message.trim().split_once(char::is_whitespace)?;
    if states.is_empty() || states.len() > 12 || !states.chars().all(|c| "ULCHIJADE".contains(c)) {
        return None;
    }
    let (id, rest) = rest.trim().split_once('{')?;
    let (version, rest) = rest.split_once('}')?;
    let (name, rest) = rest.trim().strip_prefix('[')?.split_once(']')?;
    let file = rest.trim().strip_prefix('(').and_then(|file| file.strip_suffix(')')).unwrap_or("");
    Some(vec![Known { id: id.to_owned(), name: text(name), file: text(file), version: text(version) }])
}

/// `| LC | id | 1.0 | file.jar | signature |`, and since 1.13
/// `file.jar |Name |id |1.0 |DONE |Manifest: …`
fn table(message: &str) -> Option<Vec<Known>> {
    let cells: Vec<&str> = message.split('|').map(str::trim).collect();
    if cells.len() >= 6
        && cells[0].is_empty()
        && cells[1].chars().all(|c| c.is_ascii_uppercase())
        && !cells[1].is_empty()
    {
        return Some(vec![Known {
            id: cells[2].to_owned(),
            name: None,
            file: text(cells[4]),
            version: text(cells[3]),
        }]);
    }
    if cells.len() >= 4 && cells[0].ends_with(".jar") && !cells[0].contains("  ") && !cells[2].contains(' ') {
        return Some(vec![Known {
            id: cells[2].to_owned(),
            name: text(cells[1]),
            file: text(cells[0]),
            version: text(cells[3]),
        }]);
    }
    None
}

/// `<tab>- id 1.0`, and in crash reports `<tab>id: Name 1.0`
fn fabric_list(message: &str) -> Option<Vec<Known>> {
    if !message.starts_with(['\t', ' ']) {
        return None;
    }
    let trimmed = message.trim();
    if let Some(rest) = trimmed
        .strip_prefix("- ")
        .or_else(|| trimmed.strip_prefix("|-- "))
        .or_else(|| trimmed.strip_prefix("\\-- "))
    {
        let (id, version) = rest.split_once(' ')?;
        let id = id.trim_end_matches(':');
        let plain = id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
        let numbered = version.starts_with(|c: char| c.is_ascii_digit());
        return (plain && numbered && !version.contains(' '))
            .then(|| vec![Known { id: id.to_owned(), version: text(version), ..Known::default() }]);
    }
    let (id, rest) = trimmed.split_once(": ")?;
    let (name, version) = rest.rsplit_once(' ')?;
    let plain = !id.is_empty()
        && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
    (message.starts_with("\t\t") && plain && version.starts_with(|c: char| c.is_ascii_digit()))
        .then(|| vec![Known { id: id.to_owned(), name: text(name), version: text(version), file: None }])
}

/// `[WorldEdit] Enabling WorldEdit v7.3`, `[WorldEdit] Loading server plugin WorldEdit v7.3`
fn plugin(message: &str) -> Option<Vec<Known>> {
    let (name, rest) = message.strip_prefix('[')?.split_once("] ")?;
    let rest = ["Enabling ", "Loading server plugin ", "Loading "]
        .iter()
        .find_map(|verb| rest.strip_prefix(verb))?;
    let version = rest.strip_prefix(name)?.trim().strip_prefix('v')?;
    Some(vec![Known { id: name.to_owned(), version: text(version), ..Known::default() }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Text;

    #[test]
    fn lists_of_all_loaders() {
        let log = "[1:1:1] [main/DEBUG] [x/LOADING]: Found valid mod file A-1.jar with {aa,ab} mods - versions {1.0,2.0}\n\
            UC\txm{1.16} [Xaero's Minimap] (Xaeros.jar) \n\
            | LC    | bb   | 1.5.2   | B-1.jar   | None |\n\
            \t\tcc-1.16.jar    |Cee Mod    |ccm  |1.0   |DONE      |Manifest: NOSIGNATURE\n\
            \t- dd 0.3.1\n\t\tee: Eee Mod 1.2\n[1:1:1 INFO]: [WorldEdit] Enabling WorldEdit v7.3\n";
        let text = Text { name: "console", bytes: log.as_bytes(), first_line: 1 };
        let known = KnownAddons::read(&Log::read(&[text], &[], None));
        assert_eq!(known.by_id("AB").unwrap().version.as_deref(), Some("2.0"));
        assert_eq!(known.by_file("xaeros.jar").unwrap().id, "xm");
        assert_eq!(known.by_name("cee mod").unwrap().file.as_deref(), Some("cc-1.16.jar"));
        for id in ["bb", "dd", "ee", "worldedit"] {
            assert!(known.by_id(id).is_some(), "{id}");
        }
        assert_eq!(known.of_package("de.somebody.ccm.blocks.Pipe").unwrap().id, "ccm");
    }
}
