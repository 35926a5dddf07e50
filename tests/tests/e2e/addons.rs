//! Addons and runtimes by version: chosen, tried, gone back from.

use std::fs;

use serde_json::{Value, json};
use zlh_api::{InstalledAddons, InstalledRuntime, Operation, OperationState};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::archive::{Member, tar_gz};
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, eventually};

/// A tool in several versions; what each answers to `--version`.
fn store(versions: &[(&str, &str)]) -> Store {
    let mut store = Store::fake(&FakePlan::new(&[])).unwrap();
    publish(&mut store, versions);
    store
}

fn publish(store: &mut Store, versions: &[(&str, &str)]) {
    let entry = |(version, script): &(&str, &str)| {
        let members =
            [Member::dir("bin/"), Member::program("bin/tool", format!("#!/bin/sh\n{script}\n").into_bytes())];
        let path = format!("addons/tool/{version}.tar.gz");
        let archive = store.put(&path, &tar_gz(&members).unwrap(), "application/x-tar+gzip").unwrap();
        json!({ "version": version, "archive": archive, "executables": { "tool": "bin/tool" } })
    };
    let entries: Vec<Value> = versions.iter().map(entry).collect();
    store.catalog["addons"] = json!([{ "id": "tool", "versions": entries }]);
    store.publish().unwrap();
}

fn agent(versions: &[(&str, &str)]) -> Agent {
    let mut agent = Agent::prepare(store(versions)).unwrap();
    agent.start();
    agent
}

fn addons(agent: &Agent) -> Vec<InstalledRuntime> {
    agent.http().get("/addons").unwrap().expect(200).json::<InstalledAddons>().addons
}

/// The version that is chosen, and the one before.
fn chosen(agent: &Agent) -> (String, String) {
    let all = addons(agent);
    let named = |which: fn(&InstalledRuntime) -> bool| {
        all.iter().find(|one| which(one)).map(|one| one.version.clone()).unwrap_or_default()
    };
    (named(|one| one.active), named(|one| one.previous))
}

#[track_caller]
fn post(agent: &Agent, path: &str, body: &Value) -> Operation {
    let accepted = agent.http().post_json(path, body).unwrap().expect(202);
    let location = accepted.header("location").expect("where to look").to_owned();
    eventually("the end of the operation", SOON, || {
        let operation: Operation = agent.http().get(&location).unwrap().expect(200).json();
        if operation.state == OperationState::Running { Err(operation) } else { Ok(operation) }
    })
}

#[track_caller]
fn well(agent: &Agent, path: &str, body: &Value) -> String {
    let done = post(agent, path, body);
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    done.phase
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

#[test]
fn an_upgrade_is_tried_and_a_rollback_undone() {
    let agent = agent(&[("1.0", "echo 1.0"), ("1.10", "echo 1.10"), ("1.9", "echo 1.9")]);
    let none = json!({});
    well(&agent, "/addons/tool/1.0/install", &none);
    assert_eq!(chosen(&agent), pair("1.0", ""), "the first one is chosen");
    well(&agent, "/addons/tool/1.9/install", &none);
    assert_eq!(chosen(&agent), pair("1.0", ""), "a later one is not");
    let said = well(&agent, "/addons/tool/upgrade", &none);
    assert!(said.contains("tool 1.10 is used, 1.0 is kept"), "{said}");
    assert_eq!(chosen(&agent), pair("1.10", "1.0"));
    let current = agent.root_path("opt/zlh/addons/tool/current/bin/tool");
    assert!(fs::read_to_string(&current).unwrap().contains("1.10"));
    let said = well(&agent, "/addons/tool/upgrade", &none);
    assert!(said.contains("used already"), "{said}");
    well(&agent, "/addons/tool/rollback", &none);
    assert_eq!(chosen(&agent), pair("1.0", "1.10"));
    well(&agent, "/addons/tool/upgrade", &json!({ "version": "1.9" }));
    assert_eq!(chosen(&agent), pair("1.9", "1.0"));
    // What is used stays, what a rollback needs stays, the rest goes.
    well(&agent, "/addons/gc", &none);
    let mut left: Vec<String> = addons(&agent).into_iter().map(|one| one.version).collect();
    left.sort();
    assert_eq!(left, ["1.0", "1.9"]);
    let refused = agent.http().delete("/addons/tool/1.9").unwrap().expect(409).problem();
    assert!(refused.detail.contains("force"), "{}", refused.detail);
    well(&agent, "/addons/tool/1.9/verify", &none);
}

#[test]
fn a_version_that_does_not_run_changes_nothing() {
    let agent = agent(&[
        ("1.0", "echo 1.0"),
        ("2.0", "echo a library is missing >&2; exit 127"),
        // It finds out how it was called, and dislikes the way its users do it.
        ("3.0", "case $0 in */current/*) exit 5;; esac"),
    ]);
    let none = json!({});
    let nothing = post(&agent, "/addons/tool/rollback", &none);
    assert!(nothing.error.unwrap().contains("no earlier version"));
    well(&agent, "/addons/tool/1.0/install", &none);
    let failed = post(&agent, "/addons/tool/upgrade", &json!({ "version": "2.0" }));
    let why = failed.error.unwrap();
    assert!(why.contains("a library is missing") && why.contains("nothing was changed"), "{why}");
    assert_eq!(chosen(&agent), pair("1.0", ""));
    let failed = post(&agent, "/addons/tool/upgrade", &json!({ "version": "3.0" }));
    let why = failed.error.unwrap();
    assert!(why.contains("1.0 is used again"), "{why}");
    assert_eq!(chosen(&agent).0, "1.0");
    for (path, body, status) in [
        ("/addons/tool/upgrade", json!({ "version": "../x" }), 400),
        ("/addons/-rf/upgrade", none.clone(), 400),
        ("/addons/tool/upgrade", json!({ "to": "1" }), 400),
    ] {
        agent.http().post_json(path, &body).unwrap().expect(status);
    }
    let failed = post(&agent, "/addons/nothing/upgrade", &none);
    assert!(failed.error.unwrap().contains("offers no version of nothing"));
}

#[test]
fn channels_and_withdrawals_decide_what_newest_means() {
    let mut agent = agent(&[("1.0", "echo 1.0"), ("2.0", "echo 2.0"), ("3.0", "echo 3.0")]);
    let none = json!({});
    agent.store.catalog["addons"][0]["versions"][2]["channels"] = json!({ "beta": 100 });
    agent.store.publish().unwrap();
    well(&agent, "/addons/tool/upgrade", &none);
    assert_eq!(chosen(&agent).0, "2.0");
    agent.store.catalog["addons"][0]["versions"][1]["withdrawn"] = json!("CVE-2026-1, use 1.0");
    agent.store.publish().unwrap();
    let failed = post(&agent, "/addons/tool/upgrade", &json!({ "version": "2.0" }));
    let why = failed.error.unwrap();
    assert!(why.contains("withdrawn") && why.contains("CVE-2026-1"), "{why}");
    agent.store.catalog["addons"][0]["versions"][0]["deprecated"] = json!("old");
    agent.store.publish().unwrap();
    let said = well(&agent, "/addons/tool/upgrade", &none);
    assert!(said.contains("tool 1.0") && said.contains("deprecated: old"), "{said}");
    assert_eq!(chosen(&agent), pair("1.0", "2.0"));
    agent.kill();
    agent.config_file("[artifacts]\nchannel = \"beta\"\n");
    agent.start();
    well(&agent, "/addons/tool/upgrade", &none);
    assert_eq!(chosen(&agent).0, "3.0");
}

#[test]
fn an_unsigned_catalog_is_taken_only_where_that_was_said() {
    let prepare = |config: &str, key: bool| {
        let store = store(&[("1.0", "echo 1.0")]);
        fs::remove_file(store.path("catalog.json.minisig")).unwrap();
        let mut agent = Agent::prepare(store).unwrap();
        agent.config_file(config);
        if !key {
            agent.without_key();
        }
        agent.start();
        agent
    };
    let none = json!({});
    for (config, key, words) in [
        ("", true, "catalog.json.minisig"),
        ("", false, "key"),
        ("[artifacts]\nallow_unsigned = true\n", true, "catalog.json.minisig"),
    ] {
        let failed = post(&prepare(config, key), "/addons/tool/upgrade", &none);
        let why = failed.error.unwrap_or_default();
        assert!(why.contains(words), "{config:?} {key}: {why}");
    }
    let agent = prepare("[artifacts]\nallow_unsigned = true\n", false);
    well(&agent, "/addons/tool/upgrade", &none);
    let warnings = agent.status().warnings.join("\n");
    assert!(warnings.contains("allow_unsigned"), "{warnings}");
}
