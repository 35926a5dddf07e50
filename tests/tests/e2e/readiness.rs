//! Ready means that players can join, whatever the console says.

use std::time::{Duration, Instant};

use zlh_api::{Ready, State};
use zlh_tests::fake::events::What;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::store::FakePlan;

/// Watches for a while that it is never ready.
#[track_caller]
fn stays_unready(agent: &Agent, what: &str, within: Duration) {
    let end = Instant::now() + within;
    while Instant::now() < end {
        let status = agent.status();
        assert!(!status.ready, "{what}: ready");
        assert_ne!(status.state, State::Running, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn done_on_the_console_is_no_proof() {
    let agent = Agent::with_fake(&FakePlan::new(&["--ping", "silent"]));
    agent.configure();
    agent.wait_console("Done (");
    stays_unready(&agent, "silent", Duration::from_millis(1500));
    let answer = agent.http().get("/ready").unwrap().expect(503);
    let ready: Ready = answer.json();
    assert!(!ready.ready && ready.state == State::Starting && !ready.reason.is_empty(), "{ready:?}");
    agent.command("echo [12:00:00] [Server thread/INFO]: Done (0.1s)! For help, type \"help\"");
    stays_unready(&agent, "a chat line", Duration::from_millis(500));
    agent.command("ping answer");
    let status = agent.wait_ready();
    assert_eq!(status.ready_source, "minecraft_ping");
    assert_eq!(status.ready_error, "");
    assert!(status.last_ready_at.is_some());
    let ready: Ready = agent.http().get("/ready").unwrap().expect(200).json();
    assert!(ready.ready && ready.reason.is_empty());
}

#[test]
fn no_bad_answer_counts_and_none_of_them_hurts() {
    let agent = Agent::with_fake(&FakePlan::new(&["--ping", "garbage"]));
    agent.configure();
    agent.wait_event(What::Listening, "");
    for mode in ["garbage", "truncated", "stalled", "huge", "slow", "bad-json", "wrong-packet", "refuse"] {
        agent.command(&format!("ping {mode}"));
        agent.wait_event(What::Command, &format!("ping {mode}"));
        // `slow` takes a minute for a whole answer.
        stays_unready(&agent, mode, Duration::from_millis(800));
    }
    let memory = agent.process().memory().unwrap();
    assert!(memory.rss_kib < 64 << 10, "2 GiB were promised, {memory:?} came of it");
    agent.command("ping answer");
    agent.wait_ready();
}

#[test]
fn too_late_is_an_error_with_the_process_left_alone_and_late_is_still_ready() {
    let plan = FakePlan { ready_s: 2, ..FakePlan::new(&["--ping", "silent"]) };
    let agent = Agent::with_fake(&plan);
    agent.configure();
    let status = agent.wait_state(State::Error);
    assert!(status.process_running, "nobody killed it");
    let error = status.error.unwrap();
    assert!(error.contains('2'), "the time is named: {error}");
    assert_eq!(status.crash_count, 0);
    let game = agent.game();
    agent.command("ping answer");
    let status = agent.wait_status("late readiness", Duration::from_secs(20), |status| status.ready);
    assert_eq!(status.state, State::Running);
    assert_eq!(status.error, None);
    assert!(game.is_alive());
}

#[test]
fn a_running_server_that_falls_silent_is_unready_and_left_alone() {
    let agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    agent.command("ping silent");
    let status = agent.wait_status("silence", Duration::from_secs(60), |status| !status.ready);
    assert_eq!(status.state, State::Running);
    assert!(!status.ready_error.is_empty() && game.is_alive());
    agent.command("ping answer");
    agent.wait_status("its voice", Duration::from_secs(60), |status| status.ready);
    assert!(game.is_alive());
    assert_eq!(agent.status().crash_count, 0);
}

#[test]
fn players_are_those_the_server_tells() {
    let agent = Agent::with_ready_fake(&["--players", "Alice,Bob"]);
    let players: zlh_api::Players = agent.http().get("/game/players").unwrap().expect(200).json();
    assert_eq!((players.online, players.max), (2, 20));
    assert_eq!(players.players, ["Alice", "Bob"]);
    agent.command("leave Alice");
    agent.wait_console("Alice left the game");
    let players: zlh_api::Players = agent.http().get("/game/players").unwrap().expect(200).json();
    assert_eq!(players.players, ["Bob"]);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let answer = agent.http().get("/game/players").unwrap();
    assert!(matches!(answer.status, 409 | 503), "{}", answer.text());
    answer.problem();
}
