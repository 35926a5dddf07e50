//! Installing into a store, being killed in between, and packing what is then installed.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use support::*;
use tempfile::TempDir;
use zlh_artifacts::{
    Install, InstallError, Limits, Pack, PackError, Store, UnpackError, hash_file, pack_dir,
};
use zlh_catalog::{Artifact, MediaType, RelPath};

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

    fn root(&self) -> PathBuf {
        self.temp.path().join("runtimes")
    }

    fn archive(&self, name: &str, entries: &[Raw]) -> (PathBuf, Artifact) {
        let data = gz(&tar(entries));
        let path = self.temp.path().join(name);
        std::fs::write(&path, &data).unwrap();
        (path, artifact(name, &data))
    }

    /// What is in the store, apart from the content of trees.
    fn names(&self) -> Vec<String> {
        let two = |path: &String| path.matches('/').count() - usize::from(path.ends_with('/')) < 2;
        listing(&self.root()).into_iter().filter(|path| two(path) || path.contains(" -> ")).collect()
    }
}

fn node(content: &str) -> Vec<Raw> {
    vec![file("node/bin/node", format!("#!/bin/sh\n{content}")).mode(0o755), file("node/README", "hello")]
}

fn install(store: &Store, archive: &(PathBuf, Artifact), program: &str) -> Result<PathBuf, InstallError> {
    let program = RelPath::new(program).unwrap();
    let install = Install {
        name: "node",
        version: "22.1.0",
        artifact: &archive.1,
        archive: &archive.0,
        strip_components: 1,
        executables: &[&program],
        limits: Limits::default(),
    };
    store.install(&install, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn an_installed_tree_is_marked_linked_and_readable() {
    let bench = Bench::new();
    let archive = bench.archive("a", &node("one"));
    assert_eq!(bench.store.find("node", "22.1.0", &archive.1.sha256), None);
    let tree = install(&bench.store, &archive, "bin/node").unwrap();
    assert_eq!(bench.store.find("node", "22.1.0", &archive.1.sha256).as_deref(), Some(tree.as_path()));
    let short = archive.1.sha256.short();
    let link = format!("node/22.1.0 -> ../.store/node-22.1.0-{short}");
    assert_eq!(
        bench.names(),
        [".store/", ".store/.lock", &format!(".store/node-22.1.0-{short}/"), "node/", &link]
    );
    let linked = bench.store.link("node", "22.1.0");
    assert_eq!(std::fs::canonicalize(&linked).unwrap(), std::fs::canonicalize(&tree).unwrap());
    for path in [&tree, &bench.root(), &bench.root().join("node"), &bench.root().join(".store")] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755, "{}", path.display());
    }
    let inode = tree.metadata().unwrap().ino();
    std::fs::remove_file(&archive.0).unwrap();
    assert_eq!(install(&bench.store, &archive, "bin/node").unwrap(), tree, "no archive is needed any more");
    assert_eq!(tree.metadata().unwrap().ino(), inode);
}

#[test]
fn another_archive_of_the_same_version_is_switched_to_and_the_old_tree_stays() {
    let bench = Bench::new();
    let old = install(&bench.store, &bench.archive("a", &node("one")), "bin/node").unwrap();
    let new = install(&bench.store, &bench.archive("b", &node("two")), "bin/node").unwrap();
    let linked = bench.store.link("node", "22.1.0").join("bin/node");
    assert_eq!(std::fs::read_to_string(linked).unwrap(), "#!/bin/sh\ntwo");
    assert_eq!(std::fs::read_to_string(old.join("bin/node")).unwrap(), "#!/bin/sh\none", "it may be running");
    assert_ne!(old, new);
}

#[test]
fn what_cannot_be_installed_leaves_what_was_there() {
    let bench = Bench::new();
    let good = bench.archive("good", &node("one"));
    let tree = install(&bench.store, &good, "bin/node").unwrap();
    let before = bench.names();
    let evil = bench.archive("evil", &[file("node/bin/node", "#!"), file("node/../../../x", "x")]);
    let planted =
        bench.archive("planted", &[file("node/bin/node", "#!").mode(0o755), file("node/.zlh-ok", "{}")]);
    let plain = bench.archive("plain", &[file("node/bin/node", "#!/bin/sh")]);
    let table: [(&str, &(PathBuf, Artifact), &str, &str); 4] = [
        ("evil", &evil, "bin/node", "archive entry `node/../../../x` is refused"),
        ("planted mark", &planted, "bin/node", "the name is reserved"),
        ("not executable", &plain, "bin/node", "not marked executable"),
        ("missing", &plain, "bin/deno", "`bin/deno`: it is not in the archive"),
    ];
    for (case, archive, program, expected) in table {
        let error = install(&bench.store, archive, program).expect_err(case);
        assert!(chain(&error).contains(expected), "{case}: {}", chain(&error));
        assert_eq!(bench.names(), before, "{case}");
    }
    assert!(bench.store.find("node", "22.1.0", &good.1.sha256).is_some());
    assert!(tree.join("bin/node").exists());
}

#[test]
fn cancelling_removes_the_staging() {
    let bench = Bench::new();
    let before = bench.names();
    let archive = bench.archive("a", &node("one"));
    let install = Install {
        name: "node",
        version: "1",
        artifact: &archive.1,
        archive: &archive.0,
        strip_components: 1,
        executables: &[],
        limits: Limits::default(),
    };
    let error = bench.store.install(&install, &mut |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, InstallError::Unpack { source: UnpackError::Cancelled, .. }), "{error:?}");
    assert_eq!(bench.names(), before);
}

#[test]
fn debris_of_a_killed_install_never_counts_and_is_cleared() {
    let bench = Bench::new();
    let archive = bench.archive("a", &node("one"));
    let trees = bench.root().join(".store");
    let staging = trees.join(".staging-1-0-deadbeef");
    std::fs::create_dir_all(staging.join("bin")).unwrap();
    std::fs::write(staging.join("bin/node"), "#!").unwrap();
    // Killed between unpacking and the mark, with the final name by some accident.
    let tree = trees.join(format!("node-22.1.0-{}", archive.1.sha256.short()));
    std::fs::create_dir_all(tree.join("bin")).unwrap();
    for mark in [None, Some(""), Some("{"), Some(r#"{"schema":1,"name":"node"}"#)] {
        if let Some(mark) = mark {
            std::fs::write(tree.join(".zlh-ok"), mark).unwrap();
        }
        assert_eq!(bench.store.find("node", "22.1.0", &archive.1.sha256), None, "{mark:?}");
    }
    Store::open(bench.root()).unwrap();
    assert!(!staging.exists());
    let installed = install(&bench.store, &archive, "bin/node").unwrap();
    assert_eq!(installed, tree);
    assert_eq!(std::fs::read_to_string(tree.join("README")).unwrap(), "hello");
    assert!(bench.names().iter().all(|name| !name.contains(".staging")), "{:?}", bench.names());
}

#[test]
fn a_mark_of_another_archive_does_not_count() {
    let bench = Bench::new();
    let (one, two) = (bench.archive("a", &node("one")), bench.archive("b", &node("two")));
    let tree = install(&bench.store, &one, "bin/node").unwrap();
    let other = tree.with_file_name(format!("node-22.1.0-{}", two.1.sha256.short()));
    std::fs::rename(&tree, &other).unwrap();
    assert_eq!(bench.store.find("node", "22.1.0", &two.1.sha256), None);
}

#[test]
fn a_directory_of_an_older_agent_is_set_aside() {
    let bench = Bench::new();
    let deployed = bench.root().join("node/22.1.0");
    std::fs::create_dir_all(&deployed).unwrap();
    std::fs::write(deployed.join("precious"), "data").unwrap();
    install(&bench.store, &bench.archive("a", &node("one")), "bin/node").unwrap();
    assert!(deployed.is_symlink() && deployed.join("bin/node").exists());
    let aside: Vec<_> =
        listing(&bench.root()).into_iter().filter(|path| path.ends_with("precious")).collect();
    assert!(
        matches!(aside.as_slice(), [one] if one.starts_with(".store/.replaced-node-22.1.0-")),
        "{aside:?}"
    );
    Store::open(bench.root()).unwrap();
    assert_eq!(listing(&bench.root()).iter().filter(|path| path.ends_with("precious")).count(), 1);
}

#[test]
fn names_that_would_leave_the_store_are_refused() {
    let bench = Bench::new();
    let archive = bench.archive("a", &node("one"));
    for (name, version) in
        [("..", "1"), ("node", "../../x"), ("", "1"), (".store", "1"), ("node", "a/b"), ("-x", "1")]
    {
        let install = Install {
            name,
            version,
            artifact: &archive.1,
            archive: &archive.0,
            strip_components: 1,
            executables: &[],
            limits: Limits::default(),
        };
        let error = bench.store.install(&install, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, InstallError::Name(_)), "{name} {version}: {error:?}");
        assert_eq!(bench.store.find(name, version, &archive.1.sha256), None);
    }
}

#[test]
fn installers_at_once_give_one_tree_each() {
    let bench = Bench::new();
    let (one, two) = (bench.archive("a", &node("one")), bench.archive("b", &node("two")));
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (root, barrier, archive) =
                (bench.root(), &barrier, if number % 2 == 0 { &one } else { &two });
            scope.spawn(move || {
                barrier.wait();
                let store = Store::open(root).unwrap();
                let tree = install(&store, archive, "bin/node").unwrap();
                assert_eq!(std::fs::read_to_string(tree.join("README")).unwrap(), "hello");
            });
        }
    });
    let trees = std::fs::read_dir(bench.root().join(".store")).unwrap().count();
    assert_eq!(trees, 3, "two trees and the lock");
    let names: Vec<_> =
        std::fs::read_dir(bench.root().join("node")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["22.1.0"]);
}

fn source(root: &Path) {
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("empty")).unwrap();
    std::fs::create_dir_all(root.join("node_modules/x")).unwrap();
    let deep = root.join("d".repeat(150));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("f".repeat(200)), "deep").unwrap();
    std::fs::write(root.join("bin/run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(root.join("bin/run"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(root.join("node_modules/x/index.js"), "1;").unwrap();
    std::fs::write(root.join("a.txt"), "text").unwrap();
    std::fs::write(root.join("secret.key"), "never").unwrap();
    symlink("../a.txt", root.join("bin/link")).unwrap();
}

fn pack(src: &Path, out: &Path, media_type: MediaType) -> Result<zlh_artifacts::Packed, PackError> {
    pack_dir(&Pack { src, out, media_type, level: None, exclude: &|rel| rel.ends_with(".key") })
}

#[test]
fn packing_is_reproducible_and_unpacks_to_the_same_tree() {
    for media_type in [MediaType::TarGz, MediaType::TarZst] {
        let temp = tempfile::tempdir().unwrap();
        let (a, b) = (temp.path().join("a"), temp.path().join("b"));
        source(&a);
        source(&b);
        std::fs::set_permissions(b.join("a.txt"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let one = pack(&a, &temp.path().join("one"), media_type).unwrap();
        let two = pack(&b, &temp.path().join("two"), media_type).unwrap();
        assert_eq!(one, two);
        assert_eq!(hash_file(&temp.path().join("one")).unwrap(), (one.size, one.sha256));

        let store = Store::open(temp.path().join("store")).unwrap();
        let mut wanted = artifact("one", b"");
        (wanted.size, wanted.sha256, wanted.media_type) = (one.size, one.sha256, media_type);
        let program = RelPath::new("bin/run").unwrap();
        let install = Install {
            name: "squid",
            version: "1",
            artifact: &wanted,
            archive: &temp.path().join("one"),
            strip_components: 0,
            executables: &[&program],
            limits: Limits::default(),
        };
        let tree = store.install(&install, &mut |_| ControlFlow::Continue(())).unwrap();
        let same: Vec<_> = listing(&a).into_iter().filter(|path| path != "secret.key").collect();
        let unpacked: Vec<_> = listing(&tree)
            .into_iter()
            .filter(|path| ![".zlh-ok", ".zlh-manifest"].contains(&path.as_str()))
            .collect();
        assert_eq!(unpacked, same);
        assert_eq!(one.entries, same.len() as u64);
        let again = pack(&tree, &temp.path().join("three"), media_type).unwrap();
        assert_eq!(again, one, "an installed tree packs to its archive");
    }
}

#[test]
fn what_could_not_be_installed_is_not_packed() {
    type Spoil = fn(&Path);
    let table: [(&str, Spoil); 4] = [
        ("leaves", |dir| symlink("/etc/passwd", dir.join("x")).unwrap()),
        ("dangles", |dir| symlink("none", dir.join("x")).unwrap()),
        ("to the excluded", |dir| symlink("secret.key", dir.join("x")).unwrap()),
        ("pipe", |dir| drop(std::os::unix::net::UnixListener::bind(dir.join("x")).unwrap())),
    ];
    for (case, spoil) in table {
        let temp = tempfile::tempdir().unwrap();
        let src = temp.path().join("src");
        source(&src);
        spoil(&src);
        let error = pack(&src, &temp.path().join("out"), MediaType::TarGz).expect_err(case);
        assert!(
            matches!(&error, PackError::Refused { path, .. } if path.ends_with("x")),
            "{case}: {error:?}"
        );
        assert_eq!(listing(temp.path()).iter().filter(|path| !path.starts_with("src")).count(), 0, "{case}");
    }
}
