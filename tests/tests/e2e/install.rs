//! Installing: what is wrong is named, nothing half-done is visible, and the next
//! good configuration works.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zlh_api::{ErrorCode, State};
use zlh_catalog::SecretKey;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::archive::{Member, tar_gz};
use zlh_tests::harness::artifact_server::{ArtifactServer, Fault};
use zlh_tests::harness::store::{FakePlan, RUNTIME, SERVER, Store, fake_version};
use zlh_tests::harness::wait::{SOON, until};

/// A failed download may be tried several times before it is an error.
const RETRIED: Duration = Duration::from_secs(90);

/// Configures, waits for `error`, checks that nothing half-installed is left and that
/// the agent installs well as soon as `heal` has put things right.
#[track_caller]
fn fails_then_heals(mut agent: Agent, words: &[&str], heal: impl FnOnce(&mut Agent)) {
    agent.configure();
    let status = agent.wait_status("error", RETRIED, |status| status.state == State::Error);
    let error = status.error.unwrap();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert!(!status.process_running && !status.ready);
    assert_eq!(status.install_step, "", "nothing is being installed any more");
    assert_eq!(agent.http().get("/health").unwrap().text(), "ok");
    // A file on its way to its place is no debris a moment later.
    until("nothing is left behind", SOON, || debris(agent.root()).is_empty());
    assert!(agent.events().is_empty(), "nothing was started");
    heal(&mut agent);
    agent.configure();
    agent.wait_ready();
}

#[test]
fn agents_follow_a_new_key_and_forget_the_old_one() {
    let [new, stranger] = [(), ()].map(|()| SecretKey::generate().unwrap());
    let mut agent = Agent::with_ready_fake(&[]);
    let old = agent.store.signer().clone();
    let world = |agent: &mut Agent, world: &str| {
        agent.post("/stop", 204);
        agent.wait_status("nothing runs", SOON, |status| {
            !status.process_running && !status.operation_in_progress
        });
        let mut payload = agent.payload();
        payload["world"] = world.into();
        agent.configure_with(&payload).expect(202);
    };
    let refused = |agent: &mut Agent, name: &str, words: &[&str]| {
        world(agent, name);
        let status = agent.wait_status("error", RETRIED, |status| status.state == State::Error);
        let error = status.error.unwrap();
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    };
    // Somebody who has no key puts a list and a catalog of his own there.
    agent.store.publish_keys(2, &[&stranger], &stranger).unwrap();
    agent.store.signer = Some(stranger);
    agent.store.publish().unwrap();
    refused(&mut agent, "w1", &["keys/2.json", "was signed by key"]);
    // The old key signs the list that has the new one; then the new one signs the catalog.
    agent.store.publish_keys(2, &[&old, &new], &old).unwrap();
    agent.store.signer = Some(new.clone());
    agent.store.publish().unwrap();
    world(&mut agent, "w2");
    agent.wait_ready();
    // The old one is left out: what it signs counts no more, also after the lists are gone
    // and the agent was started again.
    agent.store.publish_keys(3, &[&new], &new).unwrap();
    world(&mut agent, "w3");
    agent.wait_ready();
    agent.store.signer = Some(old);
    agent.store.publish().unwrap();
    refused(&mut agent, "w4", &["the catalog was signed by key"]);
    fs::remove_dir_all(agent.store.path("keys")).unwrap();
    agent.kill();
    agent.start();
    refused(&mut agent, "w5", &["the catalog was signed by key"]);
    agent.store.signer = Some(new);
    agent.store.publish().unwrap();
    world(&mut agent, "w6");
    agent.wait_ready();
}

/// Leftovers of an unfinished installation.
fn debris(root: &Path) -> Vec<PathBuf> {
    let suspicious = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.contains(".part") || name.contains("staging") || name.ends_with(".tmp")
    };
    everything_below(root).into_iter().filter(suspicious).collect()
}

fn everything_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(everything_below(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_good_install_ends_in_a_running_server_and_is_not_repeated() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let answer = agent.configure_with(&agent.payload()).expect(202);
    let accepted: Value = answer.json();
    assert_eq!(accepted["ok"], true);
    assert_eq!(accepted["state"], "installing");
    assert!(answer.header("location").unwrap().starts_with("/operations/"), "{answer:?}");
    let status = agent.wait_ready();
    assert_eq!(status.install_step, "");
    assert_eq!(status.error, None);
    let properties = fs::read_to_string(agent.game_root().join("server.properties")).unwrap();
    assert!(properties.contains(&format!("server-port={}", agent.port.number())), "{properties}");
    assert!(agent.root_path("opt/zlh/runtimes/fakert/1.0.0/bin/zlh-fake-game").is_file());
    let requests = agent.server.requests().len();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    agent.post("/start", 202);
    agent.wait_ready();
    let again: Vec<_> = agent.server.requests().split_off(requests);
    assert!(again.iter().all(|path| path.starts_with("catalog")), "fetched again: {again:?}");
}

#[test]
fn a_wrong_byte_in_the_server_file_is_named_with_both_hashes() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    agent.server.break_path(SERVER, Fault::WrongByte);
    let good = fs::read(agent.store.path(SERVER)).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 0x55;
    let game_root = agent.game_root();
    fails_then_heals(agent, &[SERVER, &sha256(&good), &sha256(&bad)], |agent| {
        assert!(!game_root.join("server.jar").exists());
        agent.server.heal();
    });
}

#[test]
fn a_wrong_byte_in_the_runtime_leaves_no_runtime() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    agent.server.break_path(RUNTIME, Fault::WrongByte);
    fails_then_heals(agent, &[RUNTIME, "expected"], |agent| {
        assert!(!agent.root_path("opt/zlh/runtimes/fakert/1.0.0").exists());
        agent.server.heal();
    });
}

#[test]
fn a_truncated_download_is_named_with_both_sizes() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let size = fs::metadata(agent.store.path(RUNTIME)).unwrap().len().to_string();
    agent.server.break_path(RUNTIME, Fault::Truncate(1000));
    fails_then_heals(agent, &[RUNTIME, "1000", &size], |agent| agent.server.heal());
}

#[test]
fn a_file_shorter_than_the_catalog_says_is_refused() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let size = fs::metadata(agent.store.path(SERVER)).unwrap().len();
    agent.server.break_path(SERVER, Fault::Shorter(3));
    fails_then_heals(agent, &[SERVER, &(size - 3).to_string(), &size.to_string()], |agent| {
        agent.server.heal();
    });
}

#[test]
fn a_missing_artifact_is_named() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    agent.server.break_path(SERVER, Fault::Status(404));
    fails_then_heals(agent, &[SERVER, "404"], |agent| agent.server.heal());
}

#[test]
fn a_redirect_to_another_origin_is_not_followed() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let elsewhere = ArtifactServer::serve(agent.store.dir()).unwrap();
    agent.server.break_path(SERVER, Fault::Redirect(format!("{}/{SERVER}", elsewhere.url())));
    fails_then_heals(agent, &[SERVER], |agent| {
        assert_eq!(elsewhere.requests(), [] as [String; 0], "nobody was asked");
        agent.server.heal();
    });
}

#[test]
fn a_server_that_stumbles_once_is_asked_again() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    agent.server.break_times(RUNTIME, 1, Fault::Status(500));
    agent.configure();
    agent.wait_status("readiness", RETRIED, |status| status.ready);
    assert_eq!(agent.server.requests().iter().filter(|path| *path == RUNTIME).count(), 2);
}

#[test]
fn an_archive_that_leaves_its_folder_is_refused_whole() {
    let out = "zlh-escaped-canary";
    for (what, member) in [
        ("dots", Member::file(&format!("../../../../../../../../tmp/{out}"), "x")),
        ("absolute", Member::file(&format!("/tmp/{out}"), "x")),
        ("link", Member::symlink("bin/way-out", "../../../../../../tmp")),
        ("setuid", Member::program("bin/su", "x").mode(0o4755)),
    ] {
        let mut store = Store::empty().unwrap();
        let members = [Member::dir("bin/"), Member::program("bin/zlh-fake-game", "#!/bin/sh\n"), member];
        let bytes = tar_gz(&members).unwrap();
        let archive = store.put(RUNTIME, &bytes, "application/x-tar+gzip").unwrap();
        let executables = json!({ "game": "bin/zlh-fake-game" });
        store.add_runtime(
            "fakert",
            json!({ "version": "1.0.0", "archive": archive, "executables": executables }),
        );
        let server = store.put(SERVER, b"jar", "application/java-archive").unwrap();
        store.add_version("fake", fake_version("1.18.2", server, &FakePlan::new(&[])));
        store.publish().unwrap();
        let mut agent = Agent::prepare(store).unwrap();
        agent.start();
        fails_then_heals(agent, &["1.0.0"], |agent| {
            assert!(!agent.root_path("opt/zlh/runtimes/fakert/1.0.0").exists(), "{what}");
            assert!(!Path::new("/tmp").join(out).exists(), "{what}");
            agent.store.catalog["runtimes"] = json!([]);
            fs::remove_file(agent.store.path(RUNTIME)).unwrap();
            agent.store.add_fake_runtime().unwrap();
            agent.store.publish().unwrap();
        });
    }
}

#[test]
fn what_the_catalog_does_not_have_is_named_with_what_it_has() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    for (key, value, words) in [
        ("game", "minecaft", vec!["minecaft", "minecraft"]),
        ("variant", "fak", vec!["fak", "fake"]),
        ("version", "1.18.3", vec!["1.18.3", "1.18.2"]),
        ("version", "latest", vec!["latest", "1.18.2"]),
    ] {
        let mut payload = agent.payload();
        payload[key] = json!(value);
        let told = refusal(&agent, &payload);
        for word in words {
            assert!(told.contains(word), "`{word}` is not in: {told}");
        }
    }
    let dev = json!({ "vmid": 6001, "container_type": "dev", "runtime": "cobol", "version": "60" });
    let told = refusal(&agent, &dev);
    assert!(told.contains("cobol") || told.contains("`dev` is not served"), "{told}");
    agent.configure();
    agent.wait_ready();
}

/// What the agent says against a payload, at once or a moment later.
#[track_caller]
fn refusal(agent: &Agent, payload: &Value) -> String {
    let answer = agent.configure_with(payload);
    match answer.status {
        202 => {
            let status = agent.wait_status("error", RETRIED, |status| status.state == State::Error);
            status.error.unwrap()
        }
        400 => {
            let problem = answer.problem();
            assert_eq!(problem.error, ErrorCode::InvalidConfig);
            problem.detail
        }
        other => panic!("{other}: {}", answer.text()),
    }
}

#[test]
fn names_that_would_be_paths_are_refused_and_nothing_is_stored() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let long = "w".repeat(300);
    let bad = ["../x", "/abs", "a/b", "..", ".", "-rf", "", "a\0b", "a\nb", "C:\\x", "{root}", long.as_str()];
    for field in ["world", "version", "variant", "game"] {
        // Old callers send an empty world and mean the default.
        for value in bad.into_iter().filter(|value| !(field == "world" && value.is_empty())) {
            let mut payload = agent.payload();
            payload[field] = json!(value);
            let answer = agent.configure_with(&payload);
            assert_eq!(answer.status, 400, "{field}={value:?}: {}", answer.text());
            let problem = answer.problem();
            assert_eq!(problem.error, ErrorCode::InvalidConfig);
            assert!(problem.detail.contains(field), "{field}={value:?}: {}", problem.detail);
        }
    }
    for field in ["artifact_path", "java_path"] {
        for value in ["../../etc/passwd", "/etc/passwd", "minecraft/../../x", "-o/x"] {
            let mut payload = agent.payload();
            payload[field] = json!(value);
            let problem = agent.configure_with(&payload).expect(400).problem();
            assert!(problem.detail.contains(field), "{field}={value:?}: {}", problem.detail);
        }
    }
    for ports in [json!([80_000]), json!(["x"]), json!([0])] {
        let mut payload = agent.payload();
        payload["ports"] = ports.clone();
        assert_eq!(agent.configure_with(&payload).status, 400, "ports {ports}");
    }
    let mut payload = agent.payload();
    payload["container_type"] = json!("vm");
    let detail = agent.configure_with(&payload).expect(400).problem().detail;
    assert!(detail.contains("game") && detail.contains("dev"), "{detail}");
    assert_eq!(agent.status().state, State::Idle);
    assert!(!agent.root_path("opt/zlh-agent/config/payload.json").exists());
}

#[test]
fn a_catalog_that_was_changed_after_signing_is_not_used() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let path = agent.store.path("catalog.json");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replacen("\"fakert\"", "\"fakeru\"", 1)).unwrap();
    fails_then_heals(agent, &["catalog", "sign"], |_| fs::write(path, good).unwrap());
}

#[test]
fn a_catalog_signed_by_another_key_is_not_used() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let path = agent.store.path("catalog.json.minisig");
    let good = fs::read(&path).unwrap();
    let other = zlh_catalog::SecretKey::generate().unwrap();
    let bytes = fs::read(agent.store.path("catalog.json")).unwrap();
    fs::write(&path, other.sign(&bytes, 1).unwrap()).unwrap();
    fails_then_heals(agent, &["catalog", "key"], |_| fs::write(path, good).unwrap());
}

#[test]
fn a_catalog_without_signature_or_server_is_not_used() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    agent.server.break_path("catalog.json.minisig", Fault::Status(404));
    fails_then_heals(agent, &["catalog.json.minisig"], |agent| agent.server.heal());
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    agent.server.break_path("catalog.json", Fault::Status(503));
    fails_then_heals(agent, &["catalog.json", "503"], |agent| agent.server.heal());
}

/// An agent whose artifact server or mirror is not there, or says something else.
fn mirrored(mirror: &str) -> Agent {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    agent.config_file(&format!("[artifacts]\nmirrors = [\"{mirror}\"]\n"));
    agent.start();
    agent
}

#[test]
fn a_mirror_that_is_down_keeps_nobody_from_installing() {
    let agent = mirrored("http://127.0.0.1:1");
    agent.configure();
    agent.wait_ready();
}

#[test]
fn a_server_that_is_down_or_says_something_else_is_done_without() {
    for fault in [Fault::Status(503), Fault::Status(404), Fault::WrongByte] {
        let store = Store::fake(&FakePlan::new(&[])).unwrap();
        let mirror = ArtifactServer::serve(store.dir()).unwrap();
        let mut agent = Agent::prepare(store).unwrap();
        agent.config_file(&format!("[artifacts]\nmirrors = [\"{}\"]\n", mirror.url()));
        for path in ["catalog.json", SERVER, RUNTIME] {
            agent.server.break_path(path, fault.clone());
        }
        agent.start();
        agent.configure();
        agent.wait_status("readiness", RETRIED, |status| status.ready);
        assert!(mirror.requests().iter().any(|path| path == "catalog.json.minisig"));
        assert!(agent.log().contains("passed over"), "{}", agent.log());
    }
}

#[test]
fn a_catalog_that_is_just_being_published_is_read_once_more() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    agent.server.break_times("catalog.json.minisig", 1, Fault::WrongByte);
    agent.configure();
    agent.wait_ready();
    let asked = agent.server.requests().iter().filter(|path| *path == "catalog.json").count();
    assert_eq!(asked, 2);
}

#[test]
fn a_catalog_that_is_older_than_the_last_one_is_not_used() {
    let mut agent = Agent::with_ready_fake(&[]);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    agent.store.catalog["serial"] = json!(100);
    agent.store.publish().unwrap();
    let mut payload = agent.payload();
    payload["world"] = "second".into();
    agent.configure_with(&payload).expect(202);
    agent.wait_ready();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    // Also by the next agent.
    agent.kill();
    agent.start();
    agent.store.catalog["serial"] = json!(50);
    agent.store.publish().unwrap();
    payload["world"] = "third".into();
    agent.configure_with(&payload).expect(202);
    let status = agent.wait_status("error", RETRIED, |status| status.state == State::Error);
    let error = status.error.unwrap();
    assert!(error.contains("serial 51 is older than 101"), "{error}");
}

#[test]
fn a_catalog_entry_without_a_hash_is_refused_not_skipped() {
    let mut store = Store::fake(&FakePlan::new(&[])).unwrap();
    let file = &mut store.catalog["games"][0]["variants"][0]["versions"][0]["files"][0];
    let hash = file.as_object_mut().unwrap().remove("sha256").unwrap();
    store.publish().unwrap();
    let mut agent = Agent::prepare(store).unwrap();
    agent.start();
    fails_then_heals(agent, &["sha256"], |agent| {
        agent.store.catalog["games"][0]["variants"][0]["versions"][0]["files"][0]["sha256"] = hash;
        agent.store.publish().unwrap();
    });
}

#[test]
fn a_runtime_without_the_program_it_promises_is_not_installed() {
    let mut store = Store::fake(&FakePlan::new(&[])).unwrap();
    store.catalog["runtimes"][0]["versions"][0]["executables"]["game"] = json!("bin/other");
    store.publish().unwrap();
    let mut agent = Agent::prepare(store).unwrap();
    agent.start();
    fails_then_heals(agent, &["bin/other"], |agent| {
        assert!(!agent.root_path("opt/zlh/runtimes/fakert/1.0.0").exists());
        agent.store.catalog["runtimes"][0]["versions"][0]["executables"]["game"] = json!("bin/zlh-fake-game");
        agent.store.publish().unwrap();
    });
}

#[test]
fn an_agent_killed_in_the_middle_of_an_install_finishes_it_the_next_time() {
    let mut agent = Agent::with_fake(&FakePlan::new(&[]));
    agent.server.break_path(RUNTIME, Fault::Stall(200_000));
    agent.configure();
    agent.wait_state(State::Installing);
    until("the download began", SOON, || agent.server.requests().iter().any(|path| path == RUNTIME));
    agent.kill();
    agent.server.heal();
    agent.start();
    let status = agent.recalled();
    if status.state != State::Installing && !status.process_running {
        agent.post("/start", 202);
    }
    agent.wait_ready();
    // A file on its way to its place is no debris a moment later.
    until("nothing is left behind", SOON, || debris(agent.root()).is_empty());
}

#[test]
fn values_of_the_caller_are_never_expanded() {
    let agent = Agent::with_fake(&FakePlan::new(&["--players", "{{not}}-a-variable"]));
    agent.configure();
    agent.wait_ready();
    agent.command("list");
    agent.wait_console("online: {not}-a-variable");
}
