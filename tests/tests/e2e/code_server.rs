//! A real tool of workspaces, code-server with its packages and its Node: from a folder to a
//! store, from there into a container, and out of it again.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use zlh_api::{Operation, OperationState};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::paths::target_dir;
use zlh_tests::harness::wait::eventually;
use zlh_tests::harness::zlhctl::{self, Shop};

const VERSION: &str = "4.100.3";
/// A deep path with a name that nobody would choose.
const FILE: &str = "node_modules/code-server/lib/vscode/extensions/javascript/syntaxes/\
                    Regular Expressions (JavaScript).tmLanguage";
const LINK: &str = "node_modules/.bin/code-server";
/// Some hundred megabytes are read and written several times.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where `tests/prepare.sh` put it.
fn tree() -> PathBuf {
    let dir = target_dir().unwrap().join("zlh-code-server");
    assert!(
        dir.join("stamp").is_file(),
        "code-server is not here: run `make test`, or tests/prepare.sh first"
    );
    dir.join("tree")
}

fn count(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { 1 + count(&entry.path()) } else { 1 }).sum()
}

/// Packs the tree and puts it into a store, as an operator does.
fn published(tree: &Path) -> Shop {
    let shop = Shop::open().unwrap();
    let packed = shop.put(tree, "code-server", &["--addon", "code-server", "--version", VERSION]);
    let catalog = shop.catalog();
    let entry = &catalog["addons"][0]["versions"][0];
    assert_eq!(entry["executables"], json!({ "code-server": "bin/code-server" }), "{entry}");
    assert_eq!(entry["archive"]["tree_sha256"], packed["tree_sha256"], "{entry}");
    assert_eq!(entry["archive"]["sha256"], packed["sha256"], "{entry}");
    shop
}

/// Follows an operation to its end, and says which bytes of how many it told of.
#[track_caller]
fn followed(agent: &Agent, path: &str) -> (Operation, Vec<(u64, u64)>) {
    let accepted = agent.http().post_json(path, &json!({})).unwrap().expect(202);
    let location = accepted.header("location").expect("where to look").to_owned();
    let mut told = Vec::new();
    let done = eventually("the end of the operation", PATIENCE, || {
        let operation: Operation = agent.http().get(&location).unwrap().expect(200).json();
        told.extend(operation.progress.as_ref().and_then(|progress| Some((progress.done, progress.total?))));
        if operation.state == OperationState::Running { Err(operation) } else { Ok(operation) }
    });
    told.dedup();
    (done, told)
}

#[test]
fn it_goes_the_whole_way() {
    let tree = tree();
    let nobodys_home = Path::new("/nonexistent").exists();
    let shop = published(&tree);
    let proven = shop.proven();
    assert_eq!((&proven["ok"], &proven["signed"]), (&json!(true), &json!(true)), "{proven}");

    let size = proven["files"][0]["size"].as_u64().unwrap();
    let mut agent = Agent::prepare(shop.store).unwrap();
    if nix::unistd::geteuid().is_root() {
        // Whoever tries it may write nowhere, as in a container.
        let etc = agent.root_path("etc");
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("passwd"), "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n").unwrap();
        agent.config_file("game_user = \"nobody\"\n");
    }
    agent.start();
    let (done, told) = followed(&agent, "/addons/code-server/upgrade");
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    assert!(done.phase.contains(&format!("code-server {VERSION} is used")), "{done:?}");
    let moved = told.windows(2).any(|two| two[0].0 < two[1].0 && two[1].1 == size);
    assert!(moved && told.iter().all(|(done, total)| done <= total), "{told:?} of {size}");
    // Neither where nobody has a home, nor in the one that it was lent.
    assert_eq!(Path::new("/nonexistent").exists(), nobodys_home);
    assert!(!agent.root_path("run/zlh-agent/probe").exists());

    let address = agent.address().to_string();
    let one = [address.as_str(), "code-server", VERSION];
    let listed = zlhctl::document(&["addons", "list", &address]);
    let addon = &listed[0];
    assert_eq!(addon["entries"], json!(count(&tree)), "{addon}");
    let installed = PathBuf::from(addon["path"].as_str().unwrap());
    let said = zlhctl::well(&[&["addons", "verify"], &one[..]].concat());
    assert!(said.contains("is as it was installed"), "{said}");

    // Of the same length, so that only the hash can tell.
    let (file, link) = (installed.join(FILE), installed.join(LINK));
    let mut bytes = fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, bytes).unwrap();
    fs::remove_file(&link).unwrap();
    symlink("../elsewhere", &link).unwrap();
    let (code, out, err) = zlhctl::run(&[&["addons", "verify"], &one[..]].concat());
    assert_eq!(code, 1, "{out}\n{err}");
    for word in [FILE, LINK, "repair"] {
        assert!(err.contains(word), "{word}: {err}");
    }
    let said = zlhctl::well(&[&["addons", "repair"], &one[..]].concat());
    assert!(said.contains("is installed again"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), fs::read(tree.join(FILE)).unwrap());
    assert_eq!(fs::read_link(&link).unwrap(), fs::read_link(tree.join(LINK)).unwrap());
    zlhctl::well(&[&["addons", "verify"], &one[..]].concat());

    let home = tempfile::tempdir().unwrap();
    let program = agent.root_path("opt/zlh/addons/code-server/current/bin/code-server");
    let said = Command::new(program).arg("--version").env("HOME", home.path()).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains(VERSION), "{said:?}");

    let (code, _, err) = zlhctl::run(&[&["addons", "remove"], &one[..]].concat());
    assert!(code == 1 && err.contains("force"), "{code}: {err}");
    zlhctl::well(&[&["addons", "remove", "--force"], &one[..]].concat());
    assert!(!installed.exists());
    assert_eq!(zlhctl::document(&["addons", "list", &address]), json!([]));
}
