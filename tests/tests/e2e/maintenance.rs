//! Maintenance: what is down stays down, whoever or whatever would start it, and what was meant to
//! run does so afterwards.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;
use zlh_api::{ErrorCode, History, HistoryKind, Maintenance, OperationKind, OperationState, State};
use zlh_tests::fake::events::What;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::faults::Faults;
use zlh_tests::harness::process::living_in;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, until};
use zlh_tests::harness::zlhctl;

use crate::records::{DAMAGES, ended, folder};

fn begin(agent: &Agent, body: &serde_json::Value) -> Maintenance {
    let body = body.to_string().into_bytes();
    agent.http().send("PUT", "/maintenance", Some(&body)).unwrap().expect(200).json()
}

fn end(agent: &Agent) -> Maintenance {
    agent.http().delete("/maintenance").unwrap().expect(200).json()
}

fn asked(agent: &Agent) -> Maintenance {
    agent.http().get("/maintenance").unwrap().expect(200).json()
}

/// Refused, with who has to be asked.
fn refused(agent: &Agent, path: &str) {
    let problem = agent.post(path, 409).problem();
    assert_eq!(problem.error, ErrorCode::Maintenance, "{path}: {problem:?}");
    assert!(problem.detail.contains("zlhctl maintenance off"), "{path}: {}", problem.detail);
}

#[test]
fn nothing_starts_it_until_it_is_over() {
    let mut agent = Agent::with_ready_fake(&[]);
    let began = begin(&agent, &json!({"reason": " new disk "}));
    assert_eq!(
        (began.active, began.reason.as_deref(), began.starts_afterwards),
        (true, Some("new disk"), true)
    );
    assert!(began.operation.is_some(), "it is stopped: {began:?}");
    let status = agent.wait_state(State::Idle);
    assert_eq!((status.maintenance, status.maintenance_reason.as_deref()), (true, Some("new disk")));
    let ready = agent.http().get("/ready").unwrap().expect(503).text();
    assert!(ready.contains("in maintenance") && ready.contains("new disk"), "{ready}");

    refused(&agent, "/start");
    refused(&agent, "/restart");
    let mut other = agent.payload();
    other["world"] = json!("other");
    let problem = agent.configure_with(&other).expect(409).problem();
    assert_eq!(problem.error, ErrorCode::Maintenance);
    assert_eq!(agent.status().config.unwrap().world.as_deref().unwrap_or("world"), "world");
    agent.configure_with(&agent.payload()).expect(202);
    let change = agent.http().post_json("/game/version", &json!({"version": "9.9"})).unwrap().expect(409);
    assert_eq!(change.problem().error, ErrorCode::Maintenance);
    agent.post("/stop", 204);

    // A second time gives another reason, and no other beginning.
    let again = begin(&agent, &json!({"reason": "another disk"}));
    assert_eq!((&again.since, again.reason.as_deref()), (&began.since, Some("another disk")));
    assert_eq!(begin(&agent, &json!({})).reason.as_deref(), Some("another disk"), "none is no other one");
    assert_eq!(begin(&agent, &json!({"reason": ""})).reason, None);
    begin(&agent, &json!({"reason": "new disk"}));

    agent.kill();
    agent.start();
    let status = agent.recalled();
    assert_eq!((status.state, status.maintenance), (State::Idle, true));
    refused(&agent, "/start");
    assert!(agent.living_games().is_empty());

    // Somebody has stopped it: it stays down.
    let over = end(&agent);
    assert_eq!((over.active, over.operation), (false, None));
    assert_eq!((agent.status().state, agent.status().maintenance), (State::Idle, false));
    assert_eq!(end(&agent), Maintenance::default(), "without any, nothing happens");
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn what_was_meant_to_run_runs_afterwards() {
    let mut agent = Agent::with_ready_fake(&[]);
    begin(&agent, &json!({}));
    agent.wait_state(State::Idle);
    agent.kill();
    agent.start();
    assert_eq!(agent.recalled().state, State::Idle);
    assert!(asked(&agent).starts_afterwards);
    let over = agent.http().delete("/maintenance").unwrap().expect(200);
    let operation = over.json::<Maintenance>().operation.unwrap();
    assert_eq!(over.header("location"), Some(format!("/operations/{}", operation.id).as_str()));
    let status = agent.wait_ready();
    assert_eq!((status.maintenance, status.crashes_total), (false, 0));

    // Unless that is not wanted.
    begin(&agent, &json!({"now": true}));
    agent.wait_state(State::Idle);
    agent.http().delete("/maintenance?start=false").unwrap().expect(200);
    agent.kill();
    agent.start();
    let status = agent.recalled();
    assert_eq!((status.state, status.maintenance), (State::Idle, false));
}

#[test]
fn what_crashes_in_it_is_told_and_starts_when_it_is_over() {
    let mut agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    let began = begin(&agent, &json!({"keepRunning": true}));
    assert_eq!(began.operation, None);
    agent.post("/start", 202);
    refused(&agent, "/restart");
    assert!(game.is_alive() && agent.status().ready, "it runs on");

    // Its pause is over long since.
    let mut record = ended(&mut agent);
    record.ended_boot_ms -= 40_000;
    record.write(&folder(&agent), None).unwrap();
    agent.start();
    let status = agent.wait_state(State::Crashed);
    assert_eq!((status.crashes_total, status.next_restart_at), (1, None));
    assert_eq!(status.last_crash_signal, 9);
    // Whoever answers this has looked at the clock since.
    begin(&agent, &json!({"reason": "still", "keepRunning": true}));
    assert_eq!(agent.status().state, State::Crashed);
    assert!(agent.living_games().is_empty());
    refused(&agent, "/start");

    end(&agent);
    agent.wait_ready();
    let history: History = agent.http().get("/history").unwrap().expect(200).json();
    let kinds: Vec<_> = history.events.iter().map(|event| event.kind).collect();
    let at = |kind| kinds.iter().position(|&k| k == kind).unwrap();
    assert!(at(HistoryKind::Maintenance) < at(HistoryKind::Crash), "{kinds:?}");
    assert!(at(HistoryKind::Crash) < at(HistoryKind::MaintenanceOver), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|&&kind| kind == HistoryKind::Start).count(), 2, "{kinds:?}");
}

/// What was planned is called off, whatever it was.
#[test]
fn a_restart_and_a_pause_end_in_it() {
    let agent = Agent::with_ready_fake(&["--stop", "held"]);
    let restart = agent.post("/restart", 202);
    assert_eq!(agent.status().state, State::Stopping);
    begin(&agent, &json!({"keepRunning": true}));
    agent.let_end();
    let restart = agent.outcome(&restart);
    assert_eq!(restart.state, OperationState::Failed);
    assert!(restart.error.as_ref().unwrap().contains("maintenance"), "{restart:?}");
    assert_eq!((agent.status().state, agent.status().error), (State::Idle, None));
    assert!(agent.living_games().is_empty());
    end(&agent);
    agent.wait_ready();

    agent.game().signal(Signal::SIGKILL);
    agent.wait_state(State::Crashed);
    begin(&agent, &json!({}));
    let status = agent.wait_state(State::Idle);
    assert_eq!((status.crashes_total, status.next_restart_at), (1, None));
    end(&agent);
    agent.wait_ready();
}

/// The end of it may come before the end of the game.
#[test]
fn what_is_still_stopping_when_it_is_over_starts_again() {
    let mut agent = Agent::with_ready_fake(&["--stop", "held"]);
    let game = agent.game();
    begin(&agent, &json!({}));
    assert_eq!(agent.status().state, State::Stopping);
    let over = end(&agent);
    assert_eq!(over.operation.map(|operation| operation.kind), Some(OperationKind::Restart));
    agent.let_end();
    agent.wait_status("another run", SOON, |status| status.ready && status.pid != Some(game.pid));
    assert_eq!(agent.status().crashes_total, 0);

    begin(&agent, &json!({}));
    assert_eq!(agent.status().state, State::Stopping);
    agent.http().delete("/maintenance?start=false").unwrap().expect(200);
    agent.kill();
    agent.start();
    agent.let_end();
    agent.recalled();
    agent.wait_state(State::Idle);
    agent.kill();
    agent.start();
    assert_eq!(agent.recalled().state, State::Idle, "nobody wants it any more");

    // Nor when another agent found it stopping.
    agent.post("/start", 202);
    agent.wait_ready();
    begin(&agent, &json!({}));
    agent.kill();
    agent.start();
    assert_eq!(agent.recalled().state, State::Stopping);
    agent.http().delete("/maintenance?start=false").unwrap().expect(200);
    agent.let_end();
    agent.wait_state(State::Idle);
    assert!(agent.living_games().is_empty());

    // Without any, nothing is called off.
    agent.post("/start", 202);
    agent.wait_ready();
    agent.game().signal(Signal::SIGKILL);
    agent.wait_state(State::Crashed);
    agent.http().delete("/maintenance?start=false").unwrap().expect(200);
    let status = agent.status();
    assert!(status.state == State::Crashed && status.next_restart_at.is_some(), "{status:?}");
}

/// The agent dies before the shim of a start has begun: nothing of it comes later.
#[test]
fn what_was_about_to_begin_does_not() {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let reached = || faults.reached("shim").iter().filter(|point| *point == "hold.locked").count();
    let before = reached();
    faults.plan("hold hold.locked").unwrap();
    agent.post("/start", 202);
    until("the shim has begun", SOON, || reached() > before);
    begin(&agent, &json!({}));
    agent.kill();
    agent.start();
    let status = agent.recalled();
    assert_eq!((status.state, status.maintenance), (State::Idle, true));
    faults.clear().unwrap();
    let left = living_in(&folder(&agent));
    assert!(left.is_empty(), "{left:?} would start a game later");
    assert!(agent.living_games().is_empty());
    end(&agent);
    agent.wait_ready();
    assert_eq!(agent.living_games().len(), 1);
}

/// What our own stop makes a server say is not a player's doing.
#[test]
fn a_stop_for_it_that_nobody_sees_the_end_of_takes_nothing_back() {
    let mut agent = Agent::with_ready_fake(&["--save-time", "1s"]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    begin(&agent, &json!({}));
    agent.wait_event(What::Command, "stop");
    agent.kill();
    shim.signal(Signal::SIGKILL);
    until("the game has saved and ended", SOON, || !game.is_alive());
    agent.start();
    // What has just ended may not have been reaped: it is stopping for a moment.
    agent.recalled();
    let status = agent.wait_state(State::Idle);
    assert_eq!((status.maintenance, status.crashes_total), (true, 0));
    assert!(asked(&agent).starts_afterwards);
    end(&agent);
    agent.wait_ready();
}

#[test]
fn a_damaged_record_of_it_still_holds() {
    let mut agent = Agent::with_ready_fake(&[]);
    let record = agent.root_path("opt/zlh-agent/state/maintenance.json");
    begin(&agent, &json!({"reason": "new disk"}));
    agent.wait_state(State::Idle);
    for damage in DAMAGES {
        agent.kill();
        damage(&record);
        for _ in 0..2 {
            agent.start();
            let status = agent.recalled();
            assert_eq!((status.state, status.maintenance), (State::Idle, true));
            let reason = status.maintenance_reason.unwrap();
            assert!(reason.contains("maintenance.json") && reason.contains("cannot be read"), "{reason}");
            refused(&agent, "/start");
            agent.kill();
        }
        agent.start();
        agent.recalled();
    }
    end(&agent);
    assert!(!record.exists());
    agent.wait_ready();
}

#[test]
fn what_cannot_be_recorded_does_not_begin() {
    let agent = Agent::with_ready_fake(&[]);
    let record = agent.root_path("opt/zlh-agent/state/maintenance.json");
    // In the place of the file there is what no file can replace.
    fs::create_dir_all(record.join("full")).unwrap();
    let answer = agent.http().send("PUT", "/maintenance", Some(b"{}")).unwrap().expect(500);
    assert!(answer.problem().detail.contains("cannot be recorded"), "{}", answer.text());
    let status = agent.status();
    assert_eq!((status.ready, status.maintenance), (true, false));
    fs::remove_dir_all(&record).unwrap();

    for (body, named) in [
        (json!({"reason": "a\nb"}), "line break"),
        (json!({"reason": "x".repeat(201)}), "200 characters"),
        (json!({"reasom": "x"}), "reasom"),
    ] {
        let body = body.to_string().into_bytes();
        let answer = agent.http().send("PUT", "/maintenance", Some(&body)).unwrap().expect(400);
        assert!(answer.text().contains(named), "{}", answer.text());
    }
    assert!(!agent.status().maintenance);
}

#[test]
fn an_operator_begins_and_ends_it() {
    let agent = Agent::with_ready_fake(&[]);
    let address = agent.address().to_string();
    let (code, _, told) = zlhctl::run(&["maintenance", "on", &address, "--reason", "new disk"]);
    assert!(code == 0 && told.contains("in maintenance"), "{code}: {told}");
    assert_eq!(agent.status().state, State::Idle, "it was waited for");
    for command in [["status", &address], ["get", &address]] {
        let shown = zlhctl::well(&command);
        assert!(shown.contains("new disk"), "{shown}");
    }
    let (code, _, told) = zlhctl::run(&["start", &address]);
    assert!(
        code == 1 && told.contains("new disk") && told.contains("zlhctl maintenance off"),
        "{code}: {told}"
    );
    let (code, _, told) = zlhctl::run(&["maintenance", "off", &address]);
    assert!(code == 0 && told.contains("ready"), "{code}: {told}");
    let (code, _, told) = zlhctl::run(&["maintenance", "on", &address, "--keep-running"]);
    assert!(code == 0 && told.contains("runs on"), "{code}: {told}");
    let (code, _, told) = zlhctl::run(&["maintenance", "off", &address]);
    assert!(code == 0 && told.contains("not in maintenance"), "{code}: {told}");
    let shown = zlhctl::well(&["history", &address]);
    assert!(shown.contains("began: new disk") && shown.contains("is over"), "{shown}");
    until("it still runs", SOON, || agent.status().ready);
}
