//! What the documents say of tests: a promise that no test holds is none.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use zlh_tests::harness::paths::workspace;

/// The documents that name tests.
const DOCUMENTS: [&str; 3] = ["SPECIFICATION.md", "docs/failure-matrix.md", "docs/crash-analysis.md"];

/// Folders of sources.
const SOURCES: [&str; 5] = ["agent", "artifacts", "catalog", "tests", "zlhctl"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "target" {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every word that follows `fn` or `mod`.
fn names(workspace: &Path) -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in SOURCES {
        sources(&workspace.join(folder), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let mut words =
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| !w.is_empty());
        while let Some(word) = words.next() {
            if matches!(word, "fn" | "mod") {
                names.extend(words.next().map(str::to_owned));
            }
        }
    }
    names
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    true
}

#[test]
fn every_test_that_is_named_exists() {
    let workspace = workspace();
    let names = names(&workspace);
    let mut named = 0;
    for document in DOCUMENTS {
        let text = fs::read_to_string(workspace.join(document)).unwrap();
        for quoted in text.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::")) {
            let pattern = quoted.rsplit("::").next().unwrap();
            if pattern.is_empty() || pattern == "…" {
                continue; // How they are written is said there.
            }
            named += 1;
            assert!(names.iter().any(|name| fits(pattern, name)), "{document}: there is no `{quoted}`");
        }
    }
    assert!(named > 200, "only {named} were found");
}

#[test]
fn a_star_stands_for_anything() {
    for (pattern, name, expected) in [
        ("a_stop", "a_stop", true),
        ("a_stop", "a_stop_", false),
        ("a_*", "a_stop", true),
        ("*too_slow*", "a_shim_too_slow_to_begin", true),
        ("*_killed_at_any_point_*", "an_agent_killed_at_any_point_loses_nothing", true),
        ("*_killed_at_any_point_*", "an_agent_killed", false),
        ("a_*_b", "a_c", false),
    ] {
        assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
    }
}
