//! What was begun and not finished: a start or an end whose shim is too slow, and stops whose
//! agent was killed on the way. Nothing comes later that nobody expects, and what was accepted
//! is done.

use nix::sys::signal::Signal;
use zlh_api::State;
use zlh_tests::fake::events::What;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::faults::Faults;
use zlh_tests::harness::process::living_in;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, until};

/// Stop has to end it, whatever happened before.
fn stops(agent: &Agent) {
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let left: Vec<_> = agent.living_games();
    assert!(left.is_empty(), "idle, and {left:?} lives on");
}

/// The game's shim is slower than anybody waits, and nobody dies.
fn too_slow_a_beginning() -> (Agent, Faults) {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    stops(&agent);
    let reached = || faults.reached("shim").iter().filter(|point| *point == "hold.locked").count();
    let before = reached();
    faults.plan("delay hold.locked 90000").unwrap();
    agent.post("/start", 202);
    until("the shim has begun", SOON, || reached() > before);
    faults.clear().unwrap();
    (agent, faults)
}

/// Nothing that was begun goes on, and the slot is free.
fn nothing_comes_later(agent: &Agent) {
    let left = living_in(&agent.root_path("opt/zlh-agent/run/game"));
    assert!(left.is_empty(), "{left:?} would start a game later");
    assert!(agent.living_games().is_empty());
    agent.post("/start", 202);
    let status = agent.wait_ready();
    assert_eq!((status.error, status.crashes_total), (None, 0));
    assert_eq!(agent.living_games().len(), 1);
    stops(agent);
}

#[test]
fn a_shim_that_is_too_slow_to_begin_starts_nothing_later() {
    let (agent, _faults) = too_slow_a_beginning();
    let status = agent.wait_status("the reason", 3 * SOON, |s| s.state == State::Error);
    assert!(status.error.is_some_and(|error| error.contains("too slow")));
    nothing_comes_later(&agent);
}

#[test]
fn a_stop_while_a_shim_is_too_slow_to_begin_is_the_end_of_it() {
    let (agent, _faults) = too_slow_a_beginning();
    agent.post("/stop", 204);
    agent.wait_status("the end", 3 * SOON, |s| s.state == State::Idle);
    nothing_comes_later(&agent);
}

/// The next agent cannot wait for ever either.
#[test]
fn a_shim_that_is_too_slow_for_the_next_agent_starts_nothing_later() {
    let (mut agent, _faults) = too_slow_a_beginning();
    agent.kill();
    agent.start();
    agent.wait_status("an end", 3 * SOON, |s| s.state == State::Error || s.ready);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    nothing_comes_later(&agent);
}

/// A shim that takes so long over the end that nobody trusts it any more tells it all the same.
#[test]
fn an_end_that_is_told_by_a_shim_nobody_trusts_is_told_once() {
    // Killed after 2 s, so that no save puts anything off.
    let plan = FakePlan { grace_s: 1, term_s: 1, ..FakePlan::new(&["--stop", "ignore", "--ignore-sigterm"]) };
    let mut agent = Agent::prepare(Store::fake(&plan).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    // It is trusted for 17 s after the request, then asked to leave and given 2 s: it tells the
    // end in between.
    faults.plan("delay exit.swept 16200").unwrap();
    agent.post("/stop", 204);
    let status = agent.wait_status("the end", 3 * SOON, |s| s.state == State::Idle);
    assert_eq!((status.crashes_total, status.process_running), (0, false));
    faults.clear().unwrap();
    agent.post("/start", 202);
    agent.wait_ready();
    stops(&agent);
}

/// Killed at once after it has written down what it was asked for.
#[test]
fn a_stop_that_was_decided_and_never_told_is_told_by_the_next_agent() {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    let decided_by_a_dead_agent = |agent: &mut Agent, path: &str| {
        faults.plan("kill-at accept.written").unwrap();
        assert!(agent.http().post(path).is_err(), "killed before it answered");
        agent.wait_exit();
        faults.clear().unwrap();
        agent.start();
    };
    let game = agent.game();
    decided_by_a_dead_agent(&mut agent, "/restart");
    agent.wait_status("another run", SOON, |s| s.ready && s.pid.is_some_and(|pid| pid != game.pid));
    decided_by_a_dead_agent(&mut agent, "/stop");
    let status = agent.wait_state(State::Idle);
    assert_eq!((status.crashes_total, status.error), (0, None));
    assert!(agent.living_games().is_empty());
}

/// The ladder was the agent's, because the shim is frozen, and went with it.
#[test]
fn a_stop_of_an_orphan_is_finished_by_the_next_agent() {
    for (path, comes_back) in [("/stop", false), ("/restart", true)] {
        let plan =
            FakePlan { grace_s: 20, term_s: 2, ..FakePlan::new(&["--stop", "ignore", "--ignore-sigterm"]) };
        let mut agent = Agent::with_fake(&plan);
        agent.configure();
        agent.wait_ready();
        let game = agent.game();
        agent.shims()[0].signal(Signal::SIGSTOP);
        agent.wait_status("degraded", 3 * SOON, |s| s.warnings.iter().any(|w| w.starts_with("degraded")));
        agent.post(path, if comes_back { 202 } else { 204 });
        agent.wait_event(What::Command, "stop");
        agent.kill();
        assert!(game.is_alive());
        agent.start();
        let status = agent.wait_status("the end of it", 5 * SOON, |s| match comes_back {
            true => s.ready && s.pid.is_some_and(|pid| pid != game.pid),
            false => s.state == State::Idle,
        });
        assert_eq!((status.crashes_total, status.error), (0, None), "{path}");
        assert!(!game.is_alive(), "{path}");
    }
}

/// Neither shim nor agent sees the end of a server that was told to stop.
#[test]
fn a_stop_whose_end_nobody_saw_is_no_crash() {
    // Nothing that it printed says that it stopped.
    let mut agent = Agent::with_ready_fake(&["--stop", "ignore"]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    agent.post("/stop", 204);
    agent.wait_event(What::Command, "stop");
    agent.kill();
    shim.signal(Signal::SIGKILL);
    game.signal(Signal::SIGKILL);
    until("both have ended", SOON, || !game.is_alive() && !shim.is_alive());
    agent.start();
    let status = agent.wait_state(State::Idle);
    assert_eq!((status.crashes_total, status.next_restart_at), (0, None));
    assert!(agent.living_games().is_empty());
}
