//! What is installed of a game server: proved, put right, taken away. Its world stays.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zlh_api::{ErrorCode, GameVersion, OperationState, State};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::archive::{Member, tar_gz};
use zlh_tests::harness::faults::Faults;
use zlh_tests::harness::store::{FakePlan, Store, VARIANT, VERSION, fake_version};
use zlh_tests::harness::wait::SOON;

const NEWER: &str = "1.19";

/// Two versions, each of which has a file in the game's folder and an unpacked tree.
fn prepared() -> Agent {
    let mut store = Store::empty().unwrap();
    store.add_fake_runtime().unwrap();
    for version in [VERSION, NEWER] {
        let entry = entry(&store, version, version);
        store.add_version(VARIANT, entry);
    }
    store.publish().unwrap();
    Agent::prepare(store).unwrap()
}

/// A version whose jar says `words`, and whose tree has the libraries of `words`.
fn entry(store: &Store, version: &str, words: &str) -> Value {
    let jar = format!("minecraft/fake/{version}/server.jar");
    let jar = store.put(&jar, words.as_bytes(), "application/java-archive").unwrap();
    let members = [Member::file("libraries.txt", format!("libraries of {words}").as_bytes())];
    let tree = format!("minecraft/fake/{version}/server.tar.gz");
    let mut tree = store.put(&tree, &tar_gz(&members).unwrap(), "application/x-tar+gzip").unwrap();
    tree["name"] = json!("tree");
    let mut entry = fake_version(version, jar, &FakePlan::new(&[]));
    entry["files"].as_array_mut().unwrap().push(tree);
    entry["launch"]["install"].as_array_mut().unwrap().push(json!({ "step": "unpack", "file": "tree" }));
    entry
}

/// The old version runs in a world that has something to lose.
fn begun(mut agent: Agent) -> Agent {
    agent.start();
    agent.configure();
    agent.wait_ready();
    fs::create_dir_all(agent.game_root().join("world/data")).unwrap();
    fs::write(months(&agent), "the work of months").unwrap();
    agent
}

fn months(agent: &Agent) -> PathBuf {
    agent.game_root().join("world/data/months.dat")
}

fn version(agent: &Agent) -> GameVersion {
    agent.http().get("/game/version").unwrap().expect(200).json()
}

fn stop(agent: &Agent) {
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    agent.wait_status("no operation", SOON, |status| !status.operation_in_progress);
}

/// What an operation says in the end, whether it came to its end or not.
#[track_caller]
fn done(agent: &Agent, path: &str) -> Result<String, String> {
    said(agent, &agent.post(path, 202))
}

#[track_caller]
fn removed(agent: &Agent, path: &str) -> Result<String, String> {
    said(agent, &agent.http().delete(path).unwrap().expect(202))
}

#[track_caller]
fn said(agent: &Agent, accepted: &zlh_tests::harness::http::Response) -> Result<String, String> {
    let operation = agent.outcome(accepted);
    match operation.state {
        OperationState::Succeeded => Ok(operation.phase),
        _ => Err(operation.error.unwrap_or_default()),
    }
}

#[track_caller]
fn refused(agent: &Agent, path: &str, code: ErrorCode, words: &str) {
    let response = match path.strip_prefix("DELETE ") {
        Some(path) => agent.http().delete(path).unwrap(),
        None => agent.http().post(path).unwrap(),
    };
    let problem = response.expect(code.status()).problem();
    assert_eq!(problem.error, code, "{path}: {problem:?}");
    assert!(problem.detail.contains(words), "{path}: {}", problem.detail);
}

fn tree(agent: &Agent, version: &str) -> Option<PathBuf> {
    let all = self::version(agent).servers;
    all.into_iter().find(|tree| tree.version == version).map(|tree| PathBuf::from(tree.path))
}

fn overwrite(path: &Path, content: &str) {
    // Trees are read-only.
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn what_differs_is_named_while_it_runs_and_put_right_when_it_is_stopped() {
    let agent = begun(prepared());
    let told = version(&agent);
    assert_eq!(told.servers.len(), 1, "{told:?}");
    assert!(told.servers[0].in_use && told.servers[0].version == VERSION, "{told:?}");
    assert!(done(&agent, "/game/version/verify").unwrap().contains("is as it was installed"));
    let library = tree(&agent, VERSION).unwrap().join("libraries.txt");
    let jar = agent.game_root().join("server.jar");
    done(&agent, "/runtimes/fakert/upgrade").unwrap();
    let chosen = agent.root().join("opt/zlh/runtimes/fakert/current");
    let runtime = chosen.canonicalize().unwrap();

    // Somebody changed the jar, the tree and the runtime.
    fs::write(&jar, "tampered with").unwrap();
    overwrite(&library, "others");
    fs::write(runtime.join("extra"), "").unwrap();
    let game = agent.game();
    let why = done(&agent, "/game/version/verify").unwrap_err();
    for words in ["server.jar has another content", "libraries.txt in", "extra in fakert 1.0.0", "repair it"]
    {
        assert!(why.contains(words), "`{words}` is not in: {why}");
    }
    refused(&agent, "/game/version/repair", ErrorCode::WrongState, "is running: stop it first");
    assert!(game.is_alive() && agent.status().ready, "looking disturbs nobody");

    stop(&agent);
    let said = done(&agent, "/game/version/repair").unwrap();
    assert!(said.contains("is installed again") && said.contains("server.jar has another content"), "{said}");
    assert_eq!(fs::read_to_string(&jar).unwrap(), VERSION);
    assert_eq!(fs::read_to_string(&library).unwrap(), format!("libraries of {VERSION}"));
    assert!(!runtime.join("extra").exists());
    assert_eq!(chosen.canonicalize().unwrap(), runtime, "what was chosen is chosen");
    assert_eq!(agent.status().state, State::Idle, "nothing is started by a repair");
    assert!(done(&agent, "/game/version/verify").unwrap().contains("is as it was installed"));
    assert!(done(&agent, "/game/version/repair").unwrap().contains("is as it was installed"));
    assert_eq!(fs::read_to_string(months(&agent)).unwrap(), "the work of months");

    // What is gone is missing; a link in its place is neither read nor written through.
    let outside = agent.root().join("outside");
    fs::write(&outside, VERSION).unwrap();
    fs::remove_file(&jar).unwrap();
    assert!(done(&agent, "/game/version/verify").unwrap_err().contains("server.jar is missing"));
    symlink(&outside, &jar).unwrap();
    assert!(done(&agent, "/game/version/verify").unwrap_err().contains("server.jar is something else"));
    done(&agent, "/game/version/repair").unwrap();
    assert!(jar.symlink_metadata().unwrap().is_file() && outside.exists());
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn a_repair_that_cannot_fetch_takes_nothing_away() {
    let agent = begun(prepared());
    stop(&agent);
    let library = tree(&agent, VERSION).unwrap().join("libraries.txt");
    overwrite(&library, "others");
    for entry in fs::read_dir(agent.root().join("opt/zlh/cache/sha256")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let archive = agent.store.path(&format!("minecraft/fake/{VERSION}/server.tar.gz"));
    let aside = archive.with_extension("aside");
    fs::rename(&archive, &aside).unwrap();
    let why = done(&agent, "/game/version/repair").unwrap_err();
    assert!(why.contains("server.tar.gz"), "{why}");
    assert_eq!(fs::read_to_string(&library).unwrap(), "others", "damaged as before");
    fs::rename(&aside, &archive).unwrap();
    done(&agent, "/game/version/repair").unwrap();
    assert_eq!(fs::read_to_string(&library).unwrap(), format!("libraries of {VERSION}"));
}

#[test]
fn what_was_published_anew_is_what_a_repair_installs() {
    let mut agent = begun(prepared());
    stop(&agent);
    let before = tree(&agent, VERSION).unwrap();
    overwrite(&before.join("libraries.txt"), "others");
    // The same version by name, with other bytes.
    let anew = entry(&agent.store, VERSION, "another build");
    let versions = agent.store.catalog["games"][0]["variants"][0]["versions"].as_array_mut().unwrap();
    let old = versions.iter_mut().find(|version| version["version"] == VERSION).unwrap();
    *old = anew;
    agent.store.publish().unwrap();

    done(&agent, "/game/version/repair").unwrap();
    assert_eq!(fs::read_to_string(agent.game_root().join("server.jar")).unwrap(), "another build");
    let servers = version(&agent).servers;
    let used = servers.iter().find(|tree| tree.in_use).map(|tree| PathBuf::from(&tree.path)).unwrap();
    assert_eq!(fs::read_to_string(used.join("libraries.txt")).unwrap(), "libraries of another build");
    assert!(done(&agent, "/game/version/verify").unwrap().contains("is as it was installed"));
    // The tree of before was not to be had again, so it was not taken away; nobody uses it.
    assert!(used != before && before.exists() && servers.len() == 2, "{servers:?}");
    assert!(done(&agent, "/game/version/gc").unwrap().starts_with("1 version ("));
    assert!(used.exists() && !before.exists());
    agent.post("/start", 202);
    agent.wait_ready();
    assert_eq!(fs::read_to_string(months(&agent)).unwrap(), "the work of months");
}

#[test]
fn killed_in_a_repair_or_a_removal_the_next_start_has_a_whole_server() {
    let removal = format!("DELETE /game/version/{VERSION}?force=true");
    for (point, path, tree_too) in [
        ("server.removed", "/game/version/repair", true),
        ("server.removed", "/game/version/repair", false),
        ("server.forgotten", &*removal, true),
    ] {
        let mut agent = prepared();
        let faults = Faults::of(&mut agent).unwrap();
        let mut agent = begun(agent);
        stop(&agent);
        if tree_too {
            overwrite(&tree(&agent, VERSION).unwrap().join("libraries.txt"), "others");
        }
        fs::write(agent.game_root().join("server.jar"), "tampered with").unwrap();
        faults.plan(&format!("kill-at {point}")).unwrap();
        match path.strip_prefix("DELETE ") {
            // It may be gone before it has answered.
            Some(path) => drop(agent.http().delete(path)),
            None => drop(agent.http().post(path)),
        }
        assert!(!agent.wait_exit().success(), "{point}");
        faults.clear().unwrap();
        agent.start();
        agent.post("/start", 202);
        agent.wait_ready();
        assert!(done(&agent, "/game/version/verify").unwrap().contains("is as it was installed"), "{point}");
        assert_eq!(fs::read_to_string(months(&agent)).unwrap(), "the work of months", "{point}");
    }
}

#[test]
fn versions_and_copies_go_when_nobody_needs_them_or_with_force() {
    let agent = begun(prepared());
    let path = |version: &str| format!("DELETE /game/version/{version}");
    refused(&agent, &path(VERSION), ErrorCode::WrongState, "what is configured to run");
    refused(&agent, &path(NEWER), ErrorCode::NotFound, "nothing of minecraft/fake 1.19 is installed");
    refused(&agent, "DELETE /game/version/..%2f..", ErrorCode::InvalidRequest, "version");
    refused(&agent, "DELETE /game/version/copies/..%2fx", ErrorCode::NotFound, "no copy");
    let forced = format!("/game/version/{VERSION}?force=true");
    refused(&agent, &format!("DELETE {forced}"), ErrorCode::WrongState, "is running: stop it first");

    let change = agent.http().post_json("/game/version", &json!({ "version": NEWER })).unwrap().expect(202);
    said(&agent, &change).unwrap();
    agent.wait_ready();
    assert_eq!(version(&agent).servers.len(), 2);
    // The old one is what a rollback starts, with the copy of its world.
    assert!(done(&agent, "/game/version/gc").unwrap().starts_with("nothing is removed"));
    refused(&agent, &path(VERSION), ErrorCode::WrongState, "a rollback to the copy");
    let copy = version(&agent).copies.remove(0);
    let of_copy = format!("/game/version/copies/{}", copy.id);
    refused(&agent, &format!("DELETE {of_copy}"), ErrorCode::WrongState, "a rollback goes back to");
    assert!(Path::new(&copy.path).join("world/data/months.dat").exists());
    removed(&agent, &format!("{of_copy}?force=true")).unwrap();
    assert!(!Path::new(&copy.path).exists() && version(&agent).copies.is_empty());
    assert_eq!(fs::read_to_string(months(&agent)).unwrap(), "the work of months", "the world itself stays");
    assert!(done(&agent, "/game/version/gc").unwrap().starts_with("1 version ("));
    assert_eq!((tree(&agent, VERSION), version(&agent).servers.len()), (None, 1));

    // The configured one, while nothing runs: the next start installs it again.
    stop(&agent);
    let said = removed(&agent, &format!("/game/version/{NEWER}?force=true")).unwrap();
    assert!(said.contains("the next start installs it again"), "{said}");
    let told = version(&agent);
    assert!(!told.installed && told.servers.is_empty(), "{told:?}");
    assert!(!agent.game_root().join("server.jar").exists());
    refused(&agent, "/game/version/verify", ErrorCode::WrongState, "is not installed yet");
    agent.post("/start", 202);
    agent.wait_ready();
    assert!(done(&agent, "/game/version/verify").unwrap().contains("is as it was installed"));
    assert_eq!(fs::read_to_string(months(&agent)).unwrap(), "the work of months");
}

#[test]
fn one_at_a_time_and_nothing_is_started_meanwhile() {
    let mut agent = prepared();
    let faults = Faults::of(&mut agent).unwrap();
    let agent = begun(agent);
    stop(&agent);
    fs::write(agent.game_root().join("server.jar"), "tampered with").unwrap();
    faults.plan("hold server.removed").unwrap();
    let repair = agent.post("/game/version/repair", 202);
    for path in ["/start", "/game/version/verify", "/game/version/gc", "/game/version/rollback"] {
        refused(&agent, path, ErrorCode::OperationInProgress, "under way");
    }
    faults.clear().unwrap();
    said(&agent, &repair).unwrap();
    assert_eq!(fs::read_to_string(agent.game_root().join("server.jar")).unwrap(), VERSION);
    agent.post("/start", 202);
    agent.wait_ready();
}
