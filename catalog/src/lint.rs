//! What an operator should know of a catalog before it is signed: mistakes that agents
//! would refuse, and what only looks like one.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::lookup::distance;
use crate::{Catalog, CatalogError, Expiry, compare_versions};

/// One remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// Whether agents would refuse the catalog for it.
    pub fatal: bool,
    /// Which entry.
    pub at: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// A catalog that expires this soon is worth a remark.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Reads a catalog and says everything that there is to say of it at `now`. The catalog is
/// there if agents would take it.
pub fn lint(bytes: &[u8], now: Timestamp) -> (Option<Catalog>, Vec<Lint>) {
    let fatal = |at: &str, what: String| Lint { fatal: true, at: at.to_owned(), what };
    match Catalog::parse(bytes) {
        Err(CatalogError::Invalid(problems)) => {
            // It reads: what looks wrong may be what is wrong.
            let mut found: Vec<Lint> =
                problems.into_iter().map(|problem| fatal(&problem.at, problem.what)).collect();
            if let Ok(catalog) = serde_json::from_slice::<Catalog>(bytes) {
                found.extend(remarks(&catalog, now));
            }
            (None, found)
        }
        Err(error) => {
            let mut what = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                what = format!("{what}: {source}");
            }
            (None, vec![fatal("catalog", what)])
        }
        Ok(catalog) => {
            let mut found = remarks(&catalog, now);
            if let Expiry::TooOld(at) = catalog.expiry(now) {
                let what = "more than a week ago: agents install nothing new from it; publish it anew";
                found.insert(0, fatal("catalog", format!("it expired on {at:.0}, {what}")));
                return (None, found);
            }
            (Some(catalog), found)
        }
    }
}

fn remarks(catalog: &Catalog, now: Timestamp) -> Vec<Lint> {
    let mut found = Vec::new();
    let mut remark = |at: &str, what: String| found.push(Lint { fatal: false, at: at.to_owned(), what });
    match (catalog.expires, catalog.expiry(now)) {
        (None, _) => remark(
            "catalog",
            "it has no `expires`: whoever holds an old one back from agents is not noticed".to_owned(),
        ),
        (_, Expiry::Expired(at)) => {
            remark("catalog", format!("it expired on {at:.0}: publish it anew within a week of that"));
        }
        (Some(expires), Expiry::Current) if expires.duration_since(now) < SOON => {
            remark("catalog", format!("it expires on {expires:.0}"));
        }
        // What is too old is refused, not remarked on.
        (_, Expiry::Current | Expiry::TooOld(_)) => {}
    }
    if catalog.issued > now {
        remark("catalog", format!("`issued` is in the future: {:.0}", catalog.issued));
    }
    // What is served for a variant that is built in carries its name; a name that is nearly
    // another one is a typo, whichever of the two was meant.
    let known = ["vanilla", "paper", "purpur", "fabric", "forge", "neoforge"];
    let games: Vec<&str> = catalog.games.iter().map(|game| game.id.as_str()).collect();
    let runtimes: Vec<&str> = catalog.runtimes.iter().map(|runtime| runtime.id.as_str()).collect();
    let addons: Vec<&str> = catalog.addons.iter().map(|addon| addon.id.as_str()).collect();
    for (at, names) in [("games", &games), ("runtimes", &runtimes), ("addons", &addons)] {
        similar(at, names, &[], &mut remark);
    }
    for game in &catalog.games {
        let names: Vec<&str> = game.variants.iter().map(|variant| variant.id.as_str()).collect();
        similar(game.id.as_str(), &names, &known, &mut remark);
        for variant in game.variants.iter().filter(|variant| variant.versions.is_empty()) {
            remark(&format!("{}/{}", game.id, variant.id), "it has no versions".to_owned());
        }
    }
    for kind in catalog.runtimes.iter().chain(&catalog.addons).filter(|kind| kind.versions.is_empty()) {
        remark(kind.id.as_str(), "it has no versions".to_owned());
    }
    let mut contents = BTreeMap::new();
    let entries = catalog.entries();
    for entry in &entries {
        for file in &entry.files {
            let artifact = file.artifact;
            if artifact.size == 0 {
                remark(&entry.name, format!("{} has no bytes", artifact.path));
            }
            if artifact.media_type.is_archive() && artifact.tree_sha256.is_none() {
                remark(
                    &entry.name,
                    format!(
                        "{} has no `tree_sha256`: agents check the archive, and not what comes out of it; `zlhctl artifacts add` pins the tree",
                        artifact.path
                    ),
                );
            }
            let first = contents.entry(artifact.sha256).or_insert((artifact.path.as_str(), &entry.name));
            if first.0 != artifact.path.as_str() {
                remark(
                    &entry.name,
                    format!("{} is the same file as {} of {}", artifact.path, first.0, first.1),
                );
            }
        }
    }
    for (index, one) in entries.iter().enumerate() {
        let same = |other: &&crate::Entry<'_>| {
            other.kind == one.kind
                && other.name != one.name
                && stem(&other.name) == stem(&one.name)
                && reads_the_same(one.version, other.version)
        };
        if let Some(other) = entries.get(index + 1..).unwrap_or_default().iter().find(same) {
            remark(&one.name, format!("its version reads the same as {}", other.version));
        }
    }
    found
}

/// The name without the version.
fn stem(name: &str) -> &str {
    name.rsplit_once(' ').map_or(name, |(stem, _)| stem)
}

/// `1.21` and `1.21.`, `01.2` and `1.2`: different text, one version for whoever compares.
fn reads_the_same(a: &str, b: &str) -> bool {
    let plain = |text: &str| {
        let pieces = text.split(['.', '-', '_', '+']).filter(|piece| !piece.is_empty());
        pieces.map(|piece| piece.trim_start_matches('0').to_lowercase()).collect::<Vec<_>>()
    };
    compare_versions(a, b).is_ne() && plain(a) == plain(b)
}

/// Names that are nearly each other, or nearly one that is known.
fn similar(at: &str, names: &[&str], known: &[&str], remark: &mut impl FnMut(&str, String)) {
    for (index, name) in names.iter().enumerate() {
        let others = names.get(index + 1..).unwrap_or_default().iter();
        let strangers = known.iter().filter(|known| !names.contains(known));
        let near = |other: &&&str| {
            let shorter = name.chars().count().min(other.chars().count());
            // Short names differ by a letter without being typos.
            let allowed = if shorter >= 8 { 2 } else { usize::from(shorter >= 4) };
            *name != **other && !known.contains(name) && distance(name, other) <= allowed
        };
        for other in others.filter(near) {
            remark(at, format!("`{name}` and `{other}` are nearly the same: is one of them a typo?"));
        }
        for other in strangers.filter(near) {
            remark(at, format!("`{name}` is nearly `{other}`: is it a typo?"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn now() -> Timestamp {
        "2026-01-10T00:00:00Z".parse().unwrap()
    }

    fn told(change: impl FnOnce(&mut serde_json::Value)) -> (bool, Vec<String>) {
        let mut catalog = serde_json::to_value(fixtures::catalog()).unwrap();
        change(&mut catalog);
        let (good, found) = lint(catalog.to_string().as_bytes(), now());
        assert_eq!(good.is_none(), found.iter().any(|lint| lint.fatal), "{found:?}");
        (good.is_some(), found.into_iter().map(|lint| format!("{}: {}", lint.at, lint.what)).collect())
    }

    #[test]
    fn a_typo_in_a_variant_is_found() {
        let (good, found) = told(|catalog| catalog["games"][0]["variants"][1]["id"] = "pupur".into());
        let typo = found.iter().find(|text| text.contains("typo")).unwrap_or_else(|| panic!("{found:?}"));
        assert!(typo.contains("is nearly `purpur`: is it a typo?"), "{good} {typo}");
        let (_, found) = told(|catalog| {
            let mut copy = catalog["runtimes"][0].clone();
            copy["id"] = "javaa".into();
            catalog["runtimes"].as_array_mut().unwrap().push(copy);
        });
        assert!(
            found.iter().any(|text| text.contains("`java` and `javaa` are nearly the same")),
            "{found:?}"
        );
    }

    #[test]
    fn a_typo_in_an_addon_is_found() {
        let (good, found) = told(|catalog| {
            let mut addon = catalog["runtimes"][0].clone();
            addon["id"] = "code-server".into();
            let mut typo = addon.clone();
            typo["id"] = "code-sever".into();
            catalog["addons"] = serde_json::json!([addon, typo, { "id": "debugger", "versions": [] }]);
        });
        let typo = "addons: `code-server` and `code-sever` are nearly the same: is one of them a typo?";
        assert!(good && found.iter().any(|text| text == typo), "{found:?}");
        assert!(found.iter().any(|text| text == "debugger: it has no versions"), "{found:?}");
    }

    #[test]
    fn an_archive_whose_tree_is_not_pinned_is_told() {
        let unpinned = |tree: serde_json::Value| {
            let (good, found) = told(|catalog| {
                catalog["runtimes"][0]["versions"][0]["archive"]["tree_sha256"] = tree;
            });
            let name = "java 17.0.9: ";
            assert!(good, "{found:?}");
            found.iter().any(|text| text.starts_with(name) && text.contains("has no `tree_sha256`"))
        };
        assert!(unpinned(serde_json::Value::Null));
        assert!(!unpinned("ab".repeat(32).into()));
    }

    #[test]
    fn a_good_catalog_has_no_typos() {
        let (good, found) = told(|_| {});
        assert!(good && !found.iter().any(|text| text.contains("typo")), "{found:?}");
    }

    #[test]
    fn the_end_of_a_catalog_is_told_early() {
        for (expires, expected) in [
            ("2026-01-02T00:00:00Z", Some("it expired on 2026-01-02T00:00:00Z, more than a week ago")),
            ("2026-01-09T00:00:00Z", Some("it expired on 2026-01-09T00:00:00Z: publish it anew")),
            ("2026-01-12T00:00:00Z", Some("it expires on")),
            ("2027-01-12T00:00:00Z", None),
        ] {
            let (good, found) = told(|catalog| {
                catalog["issued"] = "2026-01-01T00:00:00Z".into();
                catalog["expires"] = expires.into();
            });
            assert_eq!(good, expires != "2026-01-02T00:00:00Z", "{found:?}");
            let of_time: Vec<_> = found.iter().filter(|text| text.contains("expire")).collect();
            assert_eq!(of_time.len(), usize::from(expected.is_some()), "{found:?}");
            assert!(expected.is_none_or(|expected| of_time[0].contains(expected)), "{of_time:?}");
        }
    }

    #[test]
    fn what_agents_refuse_is_said_with_its_place() {
        let (good, found) =
            told(|catalog| catalog["games"][0]["variants"][0]["versions"][0]["version"] = "../../x".into());
        assert!(!good && found.iter().any(|text| text.contains("../../x")), "{found:?}");
        let (good, found) = lint(b"{\"schema\": 1", now());
        assert!(good.is_none() && found[0].what.contains("EOF"), "{found:?}");
        let (_, found) = lint(br#"{"games":{}}"#, now());
        assert!(found[0].what.contains("pins no hashes"), "{found:?}");
    }

    #[test]
    fn versions_that_read_the_same_are_told() {
        let (_, found) = told(|catalog| {
            let versions = catalog["runtimes"][0]["versions"].as_array_mut().unwrap();
            let mut copy = versions[0].clone();
            copy["version"] = format!("{}.", copy["version"].as_str().unwrap()).into();
            let mut zero = versions[0].clone();
            zero["version"] = format!("0{}", zero["version"].as_str().unwrap()).into();
            versions.push(zero);
        });
        assert!(found.iter().any(|text| text.contains("reads the same as")), "{found:?}");
    }
}
