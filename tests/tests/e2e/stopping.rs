//! How a stop goes: warnings to players, a second stop, and an agent that ends.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use zlh_api::{OperationKind, OperationState, State};
use zlh_tests::fake::events::What;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::store::FakePlan;
use zlh_tests::harness::wait::{SOON, until};

const SECOND: Duration = Duration::from_secs(1);

/// A server that warns so long before a stop.
fn warning(flags: &[&str], first_s: u64) -> FakePlan {
    let warn = vec![(first_s, "say first word".to_owned()), (1, "say last word".to_owned())];
    FakePlan { warn, ..FakePlan::new(flags) }
}

fn ready(plan: &FakePlan) -> Agent {
    let agent = Agent::with_fake(plan);
    agent.configure();
    agent.wait_ready();
    agent
}

/// What was typed into its console, run after run.
fn commands(agent: &Agent) -> Vec<String> {
    let events = agent.events();
    events.into_iter().filter(|event| event.what == What::Command).map(|event| event.detail).collect()
}

#[test]
fn players_are_warned_and_an_empty_server_is_not() {
    let agent = ready(&warning(&["--players", "Alice"], 10));
    let asked = Instant::now();
    agent.post("/stop", 204);
    agent.wait_console("[Server] first word");
    assert_eq!(agent.status().state, State::Stopping);
    let message = agent.status().operation_message.unwrap();
    assert!(message.contains("players are warned"), "{message}");
    agent.wait_status("the stop after the warnings", 3 * SOON, |status| status.state == State::Idle);
    assert!(asked.elapsed() >= 10 * SECOND, "{:?}", asked.elapsed());
    assert_eq!(commands(&agent), ["say first word", "say last word", "stop"]);

    let agent = ready(&warning(&[], 600));
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert_eq!(commands(&agent), ["stop"]);
}

#[test]
fn a_second_stop_and_an_urgent_one_do_not_wait_for_words() {
    let agent = ready(&warning(&["--players", "Alice"], 600));
    agent.post("/stop", 204);
    agent.wait_console("[Server] first word");
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert_eq!(commands(&agent), ["say first word", "stop"]);

    agent.post("/start", 202);
    agent.wait_ready();
    until("somebody is seen", SOON, || agent.http().get("/game/players").unwrap().text().contains("Alice"));
    agent.post("/stop?now=true", 204);
    agent.wait_state(State::Idle);
    assert_eq!(commands(&agent)[2..], ["stop"]);

    agent.post("/start", 202);
    agent.wait_ready();
    agent.post("/restart", 202);
    until("the first word of a restart", SOON, || commands(&agent).len() == 4);
    // A stop changes what comes after, and does not wait either.
    agent.post("/stop?now=true", 204);
    agent.wait_state(State::Idle);
    assert_eq!(commands(&agent)[3..], ["say first word", "stop"]);
}

#[test]
fn a_warned_stop_survives_the_agent() {
    let mut agent = ready(&warning(&["--players", "Alice"], 600));
    agent.post("/stop", 204);
    agent.wait_console("[Server] first word");
    agent.kill();
    agent.start();
    assert_eq!(agent.recalled().state, State::Stopping, "it knows what is under way");
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert_eq!(commands(&agent), ["say first word", "stop"]);

    goes_on_without_its_agent(&warning(&["--players", "Alice"], 6));
}

/// An agent is killed while players are warned: all else comes in its time, and once.
fn goes_on_without_its_agent(plan: &FakePlan) -> Agent {
    let mut agent = ready(plan);
    agent.post("/stop", 204);
    agent.wait_console("[Server] first word");
    agent.kill();
    agent.start();
    agent.recalled();
    agent.wait_status("the stop after the warnings", 3 * SOON, |status| status.state == State::Idle);
    assert_eq!(commands(&agent), ["say first word", "say last word", "stop"]);
    agent
}

/// The shim goes on warning by itself, for longer than the server has to save.
#[test]
fn another_agent_does_not_take_warnings_for_idleness() {
    let plan = FakePlan { grace_s: 1, term_s: 1, ..warning(&["--players", "Alice"], 8) };
    let agent = goes_on_without_its_agent(&plan);
    let history = agent.http().get("/history").unwrap().text();
    assert!(!history.contains("degraded"), "the shim is trusted: {history}");
}

#[test]
fn the_operator_has_the_last_word_on_warnings_and_times() {
    let mut agent = ready(&FakePlan {
        grace_s: 3000,
        ..warning(&["--players", "Alice", "--stop", "ignore", "--ignore-sigterm"], 600)
    });
    agent.kill();
    agent.config_file("[stop]\nwarn = false\ngrace_s = 1\nterm_s = 1\n");
    agent.start();
    agent.wait_ready();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert_eq!(commands(&agent), ["stop"]);
}

#[test]
fn an_agent_that_ends_takes_the_game_with_it_only_if_it_is_told_to() {
    let mut agent = Agent::with_ready_fake(&["--save-time", "1s", "--players", "Alice"]);
    let game = agent.game();
    assert_eq!(agent.terminate().code(), Some(0));
    assert!(game.is_alive(), "nobody asked for its end");

    agent.config_file("stop_on_agent_shutdown = true\n");
    agent.start();
    agent.wait_ready();
    assert_eq!(agent.game(), game);
    assert_eq!(agent.terminate().code(), Some(0), "{}", agent.log());
    assert!(!game.is_alive(), "the agent waited for it");
    let events = agent.events();
    assert!(events.iter().any(|event| event.what == What::Ending && event.detail == "stop"), "{events:?}");
    assert!(agent.living_games().is_empty());
    // Wanted it still is.
    agent.start();
    let status = agent.wait_ready();
    assert_eq!((status.crashes_total, status.error), (0, None));
    // What a person stopped stays so.
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    agent.terminate();
    agent.start();
    assert_eq!(agent.recalled().state, State::Idle);
}

#[test]
fn an_agent_that_takes_the_game_with_it_accepts_nothing_more_and_does_not_wait_for_ever() {
    let plan = FakePlan { grace_s: 600, ..FakePlan::new(&["--stop", "ignore", "--ignore-sigterm"]) };
    let mut agent = ready(&plan);
    let game = agent.game();
    agent.terminate();
    agent.config_file("stop_on_agent_shutdown = true\n");
    agent.start();
    agent.wait_ready();
    agent.process().signal(Signal::SIGTERM);
    agent.wait_state(State::Stopping);
    assert_eq!(agent.post("/start", 503).problem().status, 503);
    // Asked once more it goes; the shim goes on with the stop.
    agent.process().signal(Signal::SIGTERM);
    assert_eq!(agent.wait_exit().code(), Some(0));
    assert!(game.is_alive());
    agent.config_file("[stop]\ngrace_s = 0\nterm_s = 1\n");
    agent.start();
    assert_eq!(agent.recalled().state, State::Stopping);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert!(!game.is_alive());
}

#[test]
fn a_stop_between_the_halves_of_a_restart_leaves_it_stopped() {
    let agent = Agent::with_ready_fake(&["--stop", "held"]);
    let game = agent.game();
    let location = agent.post("/restart", 202).header("location").unwrap().to_owned();
    agent.wait_event(What::Command, "stop");
    agent.post("/stop", 204);
    agent.let_end();
    agent.wait_state(State::Idle);
    assert!(!game.is_alive());
    let restart: zlh_api::Operation = agent.http().get(&location).unwrap().json();
    assert_eq!((restart.kind, restart.state), (OperationKind::Restart, OperationState::Cancelled));
    assert_eq!(agent.events().iter().filter(|event| event.what == What::Started).count(), 1);
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn a_stop_at_any_moment_of_a_start_is_honoured() {
    let agent = Agent::with_ready_fake(&[]);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    for round in 0..10_u64 {
        agent.post("/start", 202);
        let until_stop = Instant::now() + Duration::from_millis(round * 7);
        while Instant::now() < until_stop {
            std::hint::spin_loop();
        }
        agent.post("/stop", 204);
        let status = agent.wait_state(State::Idle);
        assert!(agent.living_games().is_empty(), "round {round}");
        assert_eq!((status.crashes_total, status.error), (0, None), "round {round}");
    }
}
