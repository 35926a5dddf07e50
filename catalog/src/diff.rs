//! What is different between two catalogs, for whoever publishes the newer one.

use std::collections::BTreeMap;

use crate::{Catalog, Entry};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What became of the entry.
    pub kind: DifferenceKind,
    /// Which entry, or which field of the catalog.
    pub at: String,
    /// What is different.
    pub what: String,
    /// Why it should be looked at twice.
    pub danger: Option<&'static str>,
}

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another one.
    Changed,
}

/// From `old` to `new`, in the order of `new`; what is gone comes last.
pub fn diff(old: &Catalog, new: &Catalog) -> Vec<Difference> {
    let mut found = Vec::new();
    let serial = format!("{} to {}", old.serial, new.serial);
    if new.serial <= old.serial {
        let danger = Some("agents that saw the old one refuse it: raise the serial");
        found.push(Difference {
            kind: DifferenceKind::Changed,
            at: "serial".to_owned(),
            what: serial,
            danger,
        });
    }
    if new.expires != old.expires {
        let show = |at: Option<jiff::Timestamp>| at.map_or("never".to_owned(), |at| format!("{at:.0}"));
        let danger =
            (new.expires < old.expires && new.expires.is_some()).then_some("it ends earlier than before");
        let what = format!("{} to {}", show(old.expires), show(new.expires));
        found.push(Difference { kind: DifferenceKind::Changed, at: "expires".to_owned(), what, danger });
    }
    let (before, after) = (old.entries(), new.entries());
    let by_name: BTreeMap<&str, &Entry<'_>> =
        before.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    for entry in &after {
        match by_name.get(entry.name.as_str()) {
            None => found.push(Difference {
                kind: DifferenceKind::Added,
                at: entry.name.clone(),
                what: files(entry),
                danger: None,
            }),
            Some(earlier) => {
                if let Some((what, danger)) = changed(earlier, entry) {
                    found.push(Difference {
                        kind: DifferenceKind::Changed,
                        at: entry.name.clone(),
                        what,
                        danger,
                    });
                }
            }
        }
    }
    for entry in before.iter().filter(|entry| !after.iter().any(|other| other.name == entry.name)) {
        found.push(Difference {
            kind: DifferenceKind::Removed,
            at: entry.name.clone(),
            what: files(entry),
            danger: Some("servers that use it cannot be installed again"),
        });
    }
    found
}

fn files(entry: &Entry<'_>) -> String {
    entry.files.iter().map(|file| file.artifact.path.as_str()).collect::<Vec<_>>().join(", ")
}

/// Other bytes under the same version are what an attacker would publish, too.
fn changed(old: &Entry<'_>, new: &Entry<'_>) -> Option<(String, Option<&'static str>)> {
    let mut what = Vec::new();
    let mut other_bytes = false;
    for file in &new.files {
        match old.files.iter().find(|one| one.artifact.name == file.artifact.name) {
            None => what.push(format!("{} is new", file.artifact.path)),
            Some(one) if one.artifact.sha256 != file.artifact.sha256 => {
                other_bytes = true;
                let sizes = (one.artifact.size, file.artifact.size);
                what.push(format!(
                    "{} has other bytes ({} then, {} now)",
                    file.artifact.path, sizes.0, sizes.1
                ));
            }
            Some(one) if one.artifact.path != file.artifact.path => {
                what.push(format!("{} was {}", file.artifact.path, one.artifact.path));
            }
            Some(_) => {}
        }
    }
    let gone =
        |file: &&crate::EntryFile<'_>| !new.files.iter().any(|one| one.artifact.name == file.artifact.name);
    what.extend(old.files.iter().filter(gone).map(|file| format!("{} is gone", file.artifact.path)));
    let mut danger = other_bytes.then_some("the version is the same, its bytes are not: is that meant?");
    if old.release != new.release {
        let (before, after) = (old.release, new.release);
        if before.channels != after.channels {
            what.push(format!("channels {} to {}", channels(before), channels(after)));
        }
        for (name, before, after) in [
            ("deprecated", &before.deprecated, &after.deprecated),
            ("withdrawn", &before.withdrawn, &after.withdrawn),
        ] {
            match (before, after) {
                (None, Some(why)) => what.push(format!("{name}: {why}")),
                (Some(_), None) => {
                    what.push(format!("no longer {name}"));
                    if name == "withdrawn" {
                        danger = danger.or(Some("agents install it again"));
                    }
                }
                (Some(before), Some(why)) if before != why => what.push(format!("{name}: {why}")),
                _ => {}
            }
        }
    }
    if what.is_empty() {
        return None;
    }
    Some((what.join("; "), danger))
}

/// `stable`, `stable 10 %, beta`.
fn channels(release: &crate::Release) -> String {
    if release.channels.is_empty() {
        return crate::STABLE.to_owned();
    }
    let told = release.channels.iter().map(|(id, part)| match part {
        100 => id.to_string(),
        part => format!("{id} {part} %"),
    });
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn edited(change: impl FnOnce(&mut serde_json::Value)) -> Catalog {
        let mut catalog = serde_json::to_value(fixtures::catalog()).unwrap();
        change(&mut catalog);
        serde_json::from_value(catalog).unwrap()
    }

    #[test]
    fn nothing_is_different_from_the_next_serial_of_the_same() {
        let old = fixtures::catalog();
        let mut new = old.clone();
        new.serial += 1;
        assert_eq!(diff(&old, &new), []);
        let same = diff(&old, &old);
        assert!(same[0].at == "serial" && same[0].danger.is_some(), "{same:?}");
    }

    #[test]
    fn a_promotion_and_a_withdrawal_are_told() {
        let old = edited(|catalog| {
            catalog["runtimes"][0]["versions"][0]["channels"] = serde_json::json!({"beta": 100});
            catalog["runtimes"][0]["versions"][1]["withdrawn"] = "CVE-2026-1".into();
        });
        let new = edited(|catalog| {
            catalog["serial"] = 8.into();
            catalog["runtimes"][0]["versions"][0]["channels"] =
                serde_json::json!({"beta": 100, "stable": 10});
        });
        let found = diff(&old, &new);
        let told: Vec<_> = found.iter().map(|one| (one.at.as_str(), one.what.as_str(), one.danger)).collect();
        assert_eq!(
            told,
            [
                ("java 17.0.9", "channels beta to beta, stable 10 %", None),
                ("java 21.0.10", "no longer withdrawn", Some("agents install it again")),
            ]
        );
    }

    #[test]
    fn other_bytes_under_one_version_are_dangerous() {
        let old = fixtures::catalog();
        let new = edited(|catalog| {
            catalog["serial"] = (old.serial + 1).into();
            catalog["runtimes"][0]["versions"][0]["archive"]["sha256"] = "cd".repeat(32).into();
        });
        let found = diff(&old, &new);
        assert_eq!((found.len(), found[0].kind), (1, DifferenceKind::Changed));
        assert!(
            found[0].danger.unwrap().contains("bytes") && found[0].what.contains("other bytes"),
            "{found:?}"
        );
    }

    #[test]
    fn what_came_and_what_went_is_told() {
        let old = fixtures::catalog();
        let new = edited(|catalog| {
            catalog["serial"] = (old.serial + 1).into();
            let versions = catalog["runtimes"][0]["versions"].as_array_mut().unwrap();
            versions[0]["version"] = "99.1".into();
        });
        let kinds: Vec<_> =
            diff(&old, &new).into_iter().map(|one| (one.kind, one.danger.is_some())).collect();
        assert_eq!(kinds, [(DifferenceKind::Added, false), (DifferenceKind::Removed, true)]);
    }
}
