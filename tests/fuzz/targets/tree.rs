//! The manifest of an installed tree that somebody changed together with the mark that vouches
//! for it: reading it never panics, and finds what is different.

#![no_main]

mod common;
#[path = "../../../artifacts/tests/support/mod.rs"]
mod support;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use support::seeds::few_entries;
use zlh_artifacts::{Install, Limits, Store};

/// One installed tree, and what its manifest was.
struct Installed {
    _folder: tempfile::TempDir,
    store: Store,
    tree: PathBuf,
    manifest: Vec<u8>,
}

fn installed() -> Installed {
    let folder = tempfile::tempdir().expect("a folder");
    let data = support::gz(&support::tar(&few_entries()));
    let archive = folder.path().join("archive");
    std::fs::write(&archive, &data).expect("an archive");
    let store = Store::open(folder.path().join("store")).expect("a store");
    let artifact = support::artifact("archive", &data);
    let install = Install {
        name: "node",
        version: "1",
        artifact: &artifact,
        archive: &archive,
        strip_components: 0,
        executables: &[],
        limits: Limits::default(),
    };
    let tree = store.install(&install, &mut |_| ControlFlow::Continue(())).expect("a tree");
    let manifest = std::fs::read(tree.join(".zlh-manifest")).expect("a manifest");
    Installed { _folder: folder, store, tree, manifest }
}

fuzz_target!(|data: &[u8]| {
    static INSTALLED: OnceLock<Installed> = OnceLock::new();
    let installed = INSTALLED.get_or_init(installed);
    common::plant(|| vec![installed.manifest.clone()]);
    let (manifest, mark) = (installed.tree.join(".zlh-manifest"), installed.tree.join(".zlh-ok"));
    std::fs::write(&manifest, data).expect("a manifest");
    let (_, sha256) = zlh_artifacts::hash_file(&manifest).expect("its hash");
    let text = std::fs::read(&mark).expect("a mark");
    let mut document: serde_json::Value = serde_json::from_slice(&text).expect("a mark is JSON");
    document["manifest"] = serde_json::to_value(sha256).expect("a hash is JSON");
    std::fs::write(&mark, document.to_string()).expect("a mark");
    let trees = installed.store.list().expect("the store is whole");
    assert_eq!(trees.len(), 1, "the tree is still known");
    match installed.store.verify(&trees[0]) {
        Ok(drifts) if data == installed.manifest => assert!(drifts.is_empty(), "{drifts:?}"),
        Ok(_) | Err(_) => {}
    }
});
