//! What becomes of installed trees: listed, found to have changed, taken away.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use support::*;
use tempfile::TempDir;
use zlh_artifacts::{DriftKind, Install, InstallError, InstalledTree, Limits, Store, UnpackError};

struct Bench {
    temp: TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path().join("runtimes")).unwrap();
        Self { temp, store }
    }

    fn install(&self, version: &str, entries: &[Raw]) -> Result<PathBuf, InstallError> {
        let data = gz(&tar(entries));
        let archive = self.temp.path().join(format!("{version}.tar.gz"));
        std::fs::write(&archive, &data).unwrap();
        let artifact = artifact("node.tar.gz", &data);
        let install = Install {
            name: "node",
            version,
            artifact: &artifact,
            archive: &archive,
            strip_components: 0,
            executables: &[],
            limits: Limits::default(),
        };
        self.store.install(&install, &mut |_| ControlFlow::Continue(()))
    }

    fn only(&self) -> InstalledTree {
        let mut all = self.store.list().unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn drifts(&self) -> Vec<(String, DriftKind)> {
        let drifts = self.store.verify(&self.only()).unwrap();
        drifts.into_iter().map(|drift| (drift.path, drift.what)).collect()
    }
}

fn node() -> Vec<Raw> {
    vec![file("bin/node", "program").mode(0o755), file("README", "hello"), link(b'2', "bin/npm", "node")]
}

#[test]
fn every_change_of_a_tree_is_found_and_named() {
    let bench = Bench::new();
    let tree = bench.install("22.1.0", &node()).unwrap();
    assert_eq!(bench.drifts(), []);
    let readme = tree.join("README");
    let changes: [(&dyn Fn(), &str, DriftKind); 7] = [
        (&|| std::fs::write(&readme, "hallo").unwrap(), "README", DriftKind::Content),
        (&|| std::fs::write(&readme, "longer").unwrap(), "README", DriftKind::Content),
        (&|| std::fs::remove_file(&readme).unwrap(), "README", DriftKind::Missing),
        (&|| std::fs::write(tree.join("bin/new"), "x").unwrap(), "bin/new", DriftKind::Extra),
        (
            &|| std::fs::set_permissions(&readme, PermissionsExt::from_mode(0o4755)).unwrap(),
            "README",
            DriftKind::Mode,
        ),
        (
            &|| {
                std::fs::remove_file(tree.join("bin/npm")).unwrap();
                symlink("/bin/sh", tree.join("bin/npm")).unwrap();
            },
            "bin/npm",
            DriftKind::Type,
        ),
        (
            &|| {
                std::fs::remove_file(&readme).unwrap();
                std::fs::create_dir(&readme).unwrap();
            },
            "README",
            DriftKind::Type,
        ),
    ];
    for (change, path, what) in changes {
        change();
        assert_eq!(bench.drifts(), [(path.to_owned(), what)]);
        bench.store.remove(&bench.only()).unwrap();
        bench.install("22.1.0", &node()).unwrap();
        assert_eq!(bench.drifts(), [], "and put right by installing it again");
    }
}

#[test]
fn a_manifest_that_was_changed_with_its_tree_is_noticed() {
    let bench = Bench::new();
    let tree = bench.install("22.1.0", &node()).unwrap();
    let manifest = tree.join(".zlh-manifest");
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    std::fs::write(tree.join("bin/extra"), "x").unwrap();
    std::fs::write(&manifest, text.replace("bin/npm", "bin/pmn")).unwrap();
    assert_eq!(bench.drifts(), [(".zlh-manifest".to_owned(), DriftKind::Content)]);
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(bench.drifts(), [(".zlh-manifest".to_owned(), DriftKind::Missing)]);
}

#[test]
fn an_archive_that_brings_a_manifest_is_refused() {
    let bench = Bench::new();
    let error = bench.install("1", &[file(".zlh-manifest", "{}")]).unwrap_err();
    assert!(matches!(error, InstallError::Unpack { source: UnpackError::Refused { .. }, .. }), "{error:?}");
    assert_eq!(bench.store.list().unwrap(), []);
}

#[test]
fn trees_are_listed_and_taken_away_one_by_one() {
    let bench = Bench::new();
    for version in ["22.1.0", "9.0.0", "22.10.0"] {
        bench.install(version, &node()).unwrap();
    }
    // The same version from another archive: the older tree stays, the link moves on.
    bench.install("9.0.0", &[file("bin/node", "another")]).unwrap();
    let all = bench.store.list().unwrap();
    let mut current: Vec<&str> = all.iter().filter(|tree| tree.current).map(|tree| &*tree.version).collect();
    current.sort_unstable();
    assert_eq!((all.len(), current), (4, vec!["22.1.0", "22.10.0", "9.0.0"]));
    let old = all.iter().find(|tree| !tree.current).unwrap();
    bench.store.remove(old).unwrap();
    assert!(bench.store.link("node", "9.0.0").join("bin/node").exists(), "the current one stays");
    for tree in bench.store.list().unwrap() {
        assert!(tree.current);
        bench.store.remove(&tree).unwrap();
    }
    assert!(!bench.temp.path().join("runtimes/node").exists());
    assert!(bench.store.remove(old).is_err(), "twice is an error");
    // What is no tree of ours is none.
    std::fs::create_dir_all(bench.temp.path().join("runtimes/.store/foreign")).unwrap();
    assert_eq!(bench.store.list().unwrap(), []);
}
