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

#[test]
fn a_version_is_chosen_and_gone_back_to() {
    let bench = Bench::new();
    let version = |name: &str| {
        let trees = bench.store.list().unwrap();
        trees.into_iter().find(|tree| tree.version == name).unwrap()
    };
    let chosen = || {
        let trees = bench.store.list().unwrap();
        let named = |which: fn(&InstalledTree) -> bool| {
            trees.iter().find(|tree| which(tree)).map(|tree| tree.version.clone()).unwrap_or_default()
        };
        (named(|tree| tree.active), named(|tree| tree.previous))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    for name in ["1", "2", "3"] {
        bench.install(name, &[file("bin/node", name)]).unwrap();
    }
    assert_eq!(chosen(), pair("", ""), "an installation chooses nothing");
    assert!(matches!(bench.store.roll_back("node"), Err(InstallError::NoPrevious(_))));
    bench.store.activate(&version("1")).unwrap();
    assert_eq!(chosen(), pair("1", ""));
    assert!(matches!(bench.store.roll_back("node"), Err(InstallError::NoPrevious(_))));
    bench.store.activate(&version("2")).unwrap();
    bench.store.activate(&version("2")).unwrap();
    assert_eq!(chosen(), pair("2", "1"), "twice the same is once");
    let current = bench.temp.path().join("runtimes/node/current/bin/node");
    assert_eq!(std::fs::read_to_string(&current).unwrap(), "2");
    assert_eq!(bench.store.roll_back("node").unwrap(), std::fs::canonicalize(&version("1").dir).unwrap());
    assert_eq!((chosen(), std::fs::read_to_string(&current).unwrap()), (pair("1", "2"), "1".to_owned()));
    bench.store.roll_back("node").unwrap();
    assert_eq!(chosen(), pair("2", "1"));
    bench.store.activate(&version("3")).unwrap();
    assert_eq!(chosen(), pair("3", "2"));
    // One that is to be installed again keeps its place, and what it is gone back to.
    bench.store.make_way(&version("3")).unwrap();
    assert_eq!(chosen(), pair("", "2"));
    bench.install("3", &[file("bin/node", "3")]).unwrap();
    assert_eq!(chosen(), pair("3", "2"));
    // So it does when other bytes take its place: what is gone is nothing to go back to.
    bench.store.make_way(&version("3")).unwrap();
    bench.install("3", &[file("bin/node", "3, published anew")]).unwrap();
    bench.store.activate(&version("3")).unwrap();
    assert_eq!(chosen(), pair("3", "2"));
    bench.store.remove(&version("2")).unwrap();
    assert_eq!(chosen(), pair("3", ""));
    assert!(matches!(bench.store.roll_back("node"), Err(InstallError::NoPrevious(_))));
    assert!(bench.store.roll_back("../x").is_err());
    assert!(matches!(bench.install("current", &node()), Err(InstallError::Name(_))));
}

#[test]
fn a_tree_has_to_be_the_one_its_publisher_saw() {
    let bench = Bench::new();
    let data = gz(&tar(&node()));
    let archive = bench.temp.path().join("node.tar.gz");
    std::fs::write(&archive, &data).unwrap();
    let inspect = |data: &[u8]| {
        let archive = bench.temp.path().join("inspected.tar.gz");
        std::fs::write(&archive, data).unwrap();
        bench.store.inspect(&archive, zlh_catalog::MediaType::TarGz, 0, &[], &Limits::default())
    };
    let seen = inspect(&data).unwrap();
    assert_eq!((seen.entries, seen.bytes), (3, 12));
    // The same entries in another order and compression are the same tree; one letter is not.
    let mut other = node();
    other.reverse();
    assert_eq!(inspect(&gz(&tar(&other))).unwrap().tree_sha256, seen.tree_sha256);
    for change in [
        vec![file("bin/node", "Program").mode(0o755), file("README", "hello"), link(b'2', "bin/npm", "node")],
        vec![
            file("bin/node", "program").mode(0o755),
            file("README", "hello").mode(0o755),
            link(b'2', "bin/npm", "node"),
        ],
        vec![
            file("bin/node", "program").mode(0o755),
            file("README", "hello"),
            link(b'2', "bin/npm", "../README"),
        ],
        vec![
            file("bin/node", "program").mode(0o755),
            file("README", "hello"),
            link(b'2', "bin/npm", "node"),
            dir("x"),
        ],
        vec![file("bin/node", "program").mode(0o755), file("README", "hello"), file("bin/npm", "program")],
    ] {
        let changed = inspect(&gz(&tar(&change))).unwrap();
        assert_ne!(changed.tree_sha256, seen.tree_sha256);
        let mut wanted = artifact("node.tar.gz", &data);
        wanted.tree_sha256 = Some(changed.tree_sha256);
        let install = Install {
            name: "node",
            version: "1",
            artifact: &wanted,
            archive: &archive,
            strip_components: 0,
            executables: &[],
            limits: Limits::default(),
        };
        let error = bench.store.install(&install, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, InstallError::Tree { .. }), "{error:?}");
        assert_eq!(bench.store.list().unwrap(), []);
    }
    let mut wanted = artifact("node.tar.gz", &data);
    wanted.tree_sha256 = Some(seen.tree_sha256);
    let install = Install {
        name: "node",
        version: "1",
        artifact: &wanted,
        archive: &archive,
        strip_components: 0,
        executables: &[],
        limits: Limits::default(),
    };
    bench.store.install(&install, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(inspect(b"no archive"), Err(InstallError::Unpack { .. })));
    let program = zlh_catalog::RelPath::new("bin/node").unwrap();
    let media_type = zlh_catalog::MediaType::TarGz;
    let error = bench.store.inspect(&archive, media_type, 0, &[&program], &Limits::default()).unwrap_err();
    assert!(matches!(error, InstallError::Executable { .. }), "{error:?}");
}
