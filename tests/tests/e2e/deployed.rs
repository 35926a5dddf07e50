//! An artifact server from before the catalog: a list of versions, and no hash.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use zlh_api::{State, Status};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::archive::{Member, tar_gz};
use zlh_tests::harness::paths;
use zlh_tests::harness::store::Store;

const LIST: &str =
    r#"{"games":[{"id":"minecraft","variants":[{"id":"vanilla","versions":["1.21.7","1.21.8"]}]}]}"#;
const SERVER: &str = "minecraft/vanilla/1.21.7/server.jar";
const JAVA: &str = "java/21/OpenJDK21.tar.gz";
/// As far as anybody looks.
const JAR: &[u8] = b"PK\x03\x04 of 1.21.7";
const ALLOWED: &str = "[artifacts]\nallow_unpinned = true\n";

/// A "Java" that runs the fake game, whatever it is told.
fn store() -> Store {
    let store = Store::empty().unwrap();
    let game = paths::binary("zlh-fake-game").unwrap();
    let script = format!("#!/bin/sh\nexec {} --events fake-events.jsonl nogui\n", game.display());
    let members =
        [Member::dir("jdk-21/"), Member::dir("jdk-21/bin/"), Member::program("jdk-21/bin/java", script)];
    store.put(JAVA, &tar_gz(&members).unwrap(), "application/x-tar+gzip").unwrap();
    store.put(SERVER, JAR, "application/java-archive").unwrap();
    fs::write(store.path("_catalog.json"), LIST).unwrap();
    store
}

fn start(store: Store, config: &str, key: bool) -> Agent {
    let mut agent = Agent::prepare(store).unwrap();
    agent.config_file(config);
    if !key {
        agent.without_key();
    }
    agent.start();
    agent
}

fn configure(agent: &Agent, version: &str) {
    let mut payload = agent.payload();
    payload["variant"] = json!("vanilla");
    payload["version"] = json!(version);
    payload["artifact_path"] = json!(SERVER);
    payload["java_path"] = json!(JAVA);
    agent.configure_with(&payload).expect(202);
}

fn failed(agent: &Agent) -> String {
    let within = Duration::from_secs(60);
    let status = agent.wait_status("error", within, |status: &Status| status.state == State::Error);
    status.error.unwrap()
}

fn pins(agent: &Agent) -> Value {
    let text = fs::read_to_string(agent.root_path("opt/zlh-agent/state/pins.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["body"].clone()
}

#[test]
fn a_list_without_hashes_is_taken_only_where_that_was_said() {
    for (config, key) in [("", true), (ALLOWED, true)] {
        let agent = start(store(), config, key);
        configure(&agent, "1.21.7");
        let why = failed(&agent);
        assert!(why.contains("pins no hashes") && why.contains("zlhctl artifacts import"), "{why}");
    }
    // Nor where there is a catalog with hashes that nobody answers for.
    let mut unsigned = store();
    unsigned.publish().unwrap();
    let agent = start(unsigned, ALLOWED, false);
    configure(&agent, "1.21.7");
    let why = failed(&agent);
    assert!(why.contains("no catalog key"), "{why}");
}

#[test]
fn what_came_first_is_what_it_is_held_to() {
    let mut agent = start(store(), ALLOWED, false);
    configure(&agent, "1.21.7");
    let status = agent.wait_ready();
    let warnings = status.warnings.join("\n");
    assert!(warnings.contains("allow_unpinned") && warnings.contains("pins.json"), "{warnings}");
    let first = pins(&agent);
    let pinned: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(pinned, [JAVA, SERVER], "what is used, and nothing else");
    let described = agent.store.describe(SERVER, "application/java-archive").unwrap();
    assert_eq!(
        (&first[SERVER]["sha256"], &first[SERVER]["size"]),
        (&described["sha256"], &described["size"])
    );

    // The server changes its mind, and nothing of ours remembers the old bytes.
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    agent.kill();
    fs::write(agent.store.path(SERVER), "something else").unwrap();
    fs::remove_dir_all(agent.root_path("opt/zlh/cache")).unwrap();
    agent.start();
    let mut payload = agent.payload();
    payload["variant"] = json!("vanilla");
    payload["version"] = json!("1.21.7");
    payload["world"] = json!("another");
    agent.configure_with(&payload).expect(202);
    let why = failed(&agent);
    assert!(why.contains("not what it was at its first use") && why.contains("pins.json"), "{why}");
    assert_eq!(pins(&agent), first, "it is not forgotten by that");

    // A record that nobody can read is not begun anew.
    agent.kill();
    let record = agent.root_path("opt/zlh-agent/state/pins.json");
    let good = fs::read(&record).unwrap();
    fs::write(&record, &good[..good.len() / 2]).unwrap();
    agent.start();
    agent.configure_with(&payload).expect(202);
    agent.wait_status("the other error", Duration::from_secs(60), |status| {
        status.error.as_deref().is_some_and(|why| why.contains("damaged") && why.contains("pins.json"))
    });

    // With everything as it was, it works.
    agent.kill();
    fs::write(&record, good).unwrap();
    fs::write(agent.store.path(SERVER), JAR).unwrap();
    agent.start();
    agent.configure_with(&payload).expect(202);
    agent.wait_ready();
    assert_eq!(pins(&agent), first);
}

#[test]
fn what_the_list_names_and_the_server_lacks_is_said() {
    let agent = start(store(), ALLOWED, false);
    configure(&agent, "1.21.8");
    let why = failed(&agent);
    assert!(why.contains("minecraft/vanilla/1.21.8/server.jar"), "{why}");
    // Nor is an error page pinned in its place.
    fs::create_dir_all(agent.store.path("minecraft/vanilla/1.21.8")).unwrap();
    let path = agent.store.path("minecraft/vanilla/1.21.8/server.jar");
    fs::write(&path, "<html>502 Bad Gateway").unwrap();
    configure(&agent, "1.21.8");
    agent.wait_status("the other error", Duration::from_secs(60), |status| {
        status.error.as_deref().is_some_and(|why| why.contains("error page"))
    });
    fs::write(&path, JAR).unwrap();
    configure(&agent, "1.21.8");
    agent.wait_ready();
}

/// A list without hashes never takes the place of a catalog that was there.
#[test]
fn a_catalog_that_is_gone_is_missed_and_not_replaced_by_the_list() {
    let both = "[artifacts]\nallow_unpinned = true\nallow_unsigned = true\n";
    let mut store = store();
    store.publish().unwrap();
    let mut agent = start(store, both, false);
    configure(&agent, "1.21.7");
    let why = failed(&agent);
    assert!(why.contains("unknown variant"), "the catalog, which has no such version, is asked: {why}");
    fs::remove_file(agent.store.path("catalog.json")).unwrap();
    configure(&agent, "1.21.7");
    agent.wait_status("another error", Duration::from_secs(60), |status| {
        status.error.as_deref().is_some_and(|why| why.contains("catalog.json") && why.contains("404"))
    });
    assert!(!agent.root_path("opt/zlh-agent/state/pins.json").exists());
    // Back again, it is what counts.
    agent.store.publish().unwrap();
    configure(&agent, "1.21.7");
    agent.wait_status("the first error", Duration::from_secs(60), |status| {
        status.error.as_deref().is_some_and(|why| why.contains("unknown variant"))
    });
}
