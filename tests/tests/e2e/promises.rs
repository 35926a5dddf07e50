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

/// A test, and the folders and modules that it is in.
struct Test {
    within: BTreeSet<String>,
    name: String,
}

/// Every function that is marked as a test.
fn tests(workspace: &Path) -> Vec<Test> {
    let mut files = Vec::new();
    for folder in SOURCES {
        sources(&workspace.join(folder), &mut files);
    }
    let mut tests = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(workspace).unwrap().with_extension("");
        let mut within: BTreeSet<String> =
            path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap();
        within.extend(stem.strip_suffix("_tests").map(str::to_owned));
        let modules = text.lines().filter_map(|line| line.trim_start().strip_prefix("mod "));
        within.extend(modules.filter_map(|rest| rest.strip_suffix(" {")).map(str::to_owned));
        // A module of tests may be a file of its own.
        within.insert("tests".to_owned());
        let mut marked = false;
        for line in text.lines().map(str::trim_start) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                marked = true;
            } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| marked) {
                let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
                tests.push(Test { within: within.clone(), name: name.to_owned() });
                marked = false;
            }
        }
    }
    tests
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
    let tests = tests(&workspace);
    assert!(tests.len() > 1000, "only {} tests were found", tests.len());
    let mut missing = Vec::new();
    let mut named = 0;
    for document in DOCUMENTS {
        let text = fs::read_to_string(workspace.join(document)).unwrap();
        // Where the test before was; `…` stands for it.
        let mut before: Vec<&str> = Vec::new();
        for quoted in text.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::")) {
            let (place, pattern) = quoted.rsplit_once("::").unwrap();
            if pattern.is_empty() || pattern == "…" {
                continue; // How they are written is said there.
            }
            before = match place.strip_prefix('…') {
                Some(deeper) => [before, deeper.split("::").skip(1).collect()].concat(),
                None => place.split("::").collect(),
            };
            named += 1;
            let inside = |test: &Test, place: &[&str]| place.iter().all(|part| test.within.contains(*part));
            let fit = |test: &Test| inside(test, &before) && fits(pattern, &test.name);
            // A module may stand for all that is in it.
            let whole: Vec<&str> = before.iter().copied().chain([pattern]).collect();
            if !tests.iter().any(|test| fit(test) || inside(test, &whole)) {
                missing.push(format!("{document}: {quoted} (in {})", before.join("::")));
            }
        }
    }
    assert!(missing.is_empty(), "there is no\n{}", missing.join("\n"));
    assert!(named > 200, "only {named} were found");
}

/// A shim is small because there is nothing in it.
#[test]
fn a_shim_has_no_async_runtime() {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--locked", "-p", "zlh-shim", "-e", "normal", "--prefix", "none"]);
    let output = cargo.current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("rustix"), "{crates:?}");
    for runtime in ["tokio", "async-std", "smol", "mio", "futures-executor", "async-io"] {
        assert!(!crates.contains(runtime), "{runtime}");
    }
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
