//! The verbs on runtimes, against a real agent and a real archive.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use zlh_api::{ErrorCode, InstalledRuntime, InstalledRuntimes, Operation, OperationState, State};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::faults::Faults;
use zlh_tests::harness::store::{FakePlan, RUNTIME, Store};

fn runtimes(agent: &Agent) -> Vec<InstalledRuntime> {
    agent.http().get("/runtimes").unwrap().expect(200).json::<InstalledRuntimes>().runtimes
}

fn only(agent: &Agent) -> InstalledRuntime {
    let mut all = runtimes(agent);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[track_caller]
fn does(agent: &Agent, path: &str) -> Operation {
    agent.outcome(&agent.http().post(path).unwrap().expect(202))
}

#[track_caller]
fn well(agent: &Agent, path: &str) {
    let done = does(agent, path);
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
}

/// A file of the installed runtime that is not needed to run the game.
fn some_file(runtime: &InstalledRuntime) -> PathBuf {
    PathBuf::from(&runtime.path).join("added-by-somebody")
}

#[test]
fn drift_is_found_named_and_put_right() {
    let agent = Agent::with_ready_fake(&[]);
    let runtime = only(&agent);
    assert!(runtime.in_use && runtime.current && runtime.bytes > 0, "{runtime:?}");
    let path = format!("/runtimes/{}/{}", runtime.id, runtime.version);
    well(&agent, &format!("{path}/verify"));
    fs::write(some_file(&runtime), "x").unwrap();
    let drift = does(&agent, &format!("{path}/verify"));
    assert_eq!(drift.state, OperationState::Failed);
    let why = drift.error.unwrap();
    assert!(why.contains("added-by-somebody was not installed") && why.contains("repair"), "{why}");
    // Not under a running server; and the server does not notice.
    let refused = agent.http().post(&format!("{path}/repair")).unwrap().expect(409).problem();
    assert_eq!(refused.error, ErrorCode::WrongState);
    assert!(refused.detail.contains("stop it first"), "{}", refused.detail);
    agent.wait_ready();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    // Nothing is taken away before the archive is here.
    let archive = agent.store.path(RUNTIME);
    let good = fs::read(&archive).unwrap();
    // Not in place: other stores have the same file.
    fs::remove_file(&archive).unwrap();
    let cache = agent.root_path("opt/zlh/cache");
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&archive, "half of it").unwrap();
    let failed = does(&agent, &format!("{path}/repair"));
    assert_eq!(failed.state, OperationState::Failed);
    assert!(some_file(&runtime).exists(), "the damaged one is still there: {failed:?}");
    fs::write(&archive, good).unwrap();
    well(&agent, &format!("{path}/repair"));
    assert!(!some_file(&runtime).exists());
    well(&agent, &format!("{path}/verify"));
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn what_is_in_use_stays_and_what_is_not_goes() {
    let agent = Agent::with_ready_fake(&[]);
    let runtime = only(&agent);
    let path = format!("/runtimes/{}/{}", runtime.id, runtime.version);
    let delete = |query: &str| agent.http().delete(&format!("{path}{query}")).unwrap();
    for query in ["", "?force=true"] {
        let refused = delete(query).expect(409).problem();
        assert!(refused.detail.contains("stop it first"), "{}", refused.detail);
    }
    well(&agent, "/runtimes/gc");
    assert_eq!(only(&agent), runtime, "in use");
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let refused = delete("").expect(409).problem();
    assert!(refused.detail.contains("force"), "{}", refused.detail);
    let done = agent.outcome(&delete("?force=true").expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    assert_eq!(runtimes(&agent), []);
    delete("").expect(404);
    // By itself, ahead of the game.
    well(&agent, &format!("{path}/install"));
    assert_eq!(only(&agent).sha256, runtime.sha256);
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn nothing_is_started_while_runtimes_are_taken_away() {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    let runtime = only(&agent);
    let path = format!("/runtimes/{}/{}", runtime.id, runtime.version);
    // One that crashed is about to be started again, and is not at rest.
    agent.command("crash 3");
    agent.wait_state(State::Crashed);
    let refused = agent.http().post(&format!("{path}/repair")).unwrap().expect(409).problem();
    assert!(refused.detail.contains("stop it first"), "{}", refused.detail);

    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    fs::write(some_file(&runtime), "x").unwrap();
    faults.plan("hold runtime.removed").unwrap();
    let repair = agent.post(&format!("{path}/repair"), 202);
    for (path, body) in [("/start", json!({})), ("/restart", json!({})), ("/config", agent.payload())] {
        let refused = agent.http().post_json(path, &body).unwrap().expect(409).problem();
        assert_eq!(refused.error, ErrorCode::OperationInProgress, "{path}: {}", refused.detail);
        assert!(refused.detail.contains("runtimes are being"), "{path}: {}", refused.detail);
    }
    faults.clear().unwrap();
    let done = agent.outcome(&repair);
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn what_is_not_there_is_named() {
    let agent = Agent::with_ready_fake(&[]);
    for path in ["/runtimes/nothing/1/verify", "/runtimes/nothing/1/repair"] {
        let problem = agent.http().post(path).unwrap().expect(404).problem();
        assert!(
            problem.detail.contains("nothing") && problem.detail.contains("not installed"),
            "{}",
            problem.detail
        );
    }
    for path in ["/runtimes/-rf/1/install", "/runtimes/java/..%2f..%2fx/install", "/runtimes/a%00b/1/verify"]
    {
        agent.http().post(path).unwrap().expect(400).problem();
    }
    let done = does(&agent, "/runtimes/fakert/99/install");
    assert_eq!(done.state, OperationState::Failed);
    assert!(done.error.unwrap().contains("99"));
}
