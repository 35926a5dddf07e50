//! A shim is killed or frozen under a living server: another takes its place, and players
//! and operators notice as little as can be.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use zlh_api::{State, Status};
use zlh_tests::fake::events::What;
use zlh_tests::fake::output::check_flood;
use zlh_tests::fake::world;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::process::Process;
use zlh_tests::harness::store::FakePlan;
use zlh_tests::harness::wait::{SOON, eventually, until};

fn degraded(status: &Status) -> Option<&String> {
    status.warnings.iter().find(|warning| warning.starts_with("degraded"))
}

/// Another shim than `before` holds the game.
#[track_caller]
fn adopted(agent: &Agent, before: Process) -> Process {
    // After some that were killed it takes its time: up to 15 s.
    eventually("another shim", 3 * SOON, || {
        let shims = agent.shims();
        shims.first().copied().filter(|shim| *shim != before).ok_or((shims, agent.status().warnings))
    })
}

/// A command reaches the server and its answer the console; refused only while it changes hands.
#[track_caller]
fn answers(agent: &Agent, word: &str) {
    eventually("the console takes a command", SOON, || {
        let line = serde_json::json!({ "command": format!("echo {word}") });
        let answer = agent.http().post_json("/console/command", &line).unwrap();
        if answer.status == 204 { Ok(()) } else { Err(answer.text()) }
    });
    agent.wait_console(&format!("\n{word}\n"));
}

#[track_caller]
fn stops(agent: &Agent) {
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let left = agent.living_games();
    assert!(left.is_empty(), "idle, and {left:?} lives on");
}

/// From the first byte to the last, without a gap, every line of the flood stands there once.
#[track_caller]
fn nothing_is_missing(agent: &Agent) {
    let mut console = Vec::new();
    loop {
        let more = agent.read_console(console.len());
        if more.is_empty() {
            break;
        }
        console.extend(more);
    }
    let check = check_flood(&console);
    // The terminal echoes the typed `stop` into the middle of a line.
    assert!(check.missing <= check.damaged && check.damaged <= 1, "{check:?}");
    assert_eq!(check.range.map(|(first, _)| first), Some(0), "{check:?}");
}

#[test]
fn a_killed_shim_is_replaced_and_nothing_is_lost() {
    let mut agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    let mut shim = agent.shims()[0];
    for round in 0..3 {
        shim.signal(Signal::SIGKILL);
        shim = adopted(&agent, shim);
        answers(&agent, &format!("round-{round}"));
        let status = agent.status();
        assert_eq!((status.state, status.pid), (State::Running, Some(game.pid)));
        assert_eq!(degraded(&status), None, "nothing was lost");
    }
    // The next agent finds it like any other.
    agent.kill();
    agent.start();
    let status = agent.wait_ready();
    assert_eq!((status.pid, degraded(&status)), (Some(game.pid), None));
    answers(&agent, "another-agent");
    stops(&agent);
    assert_eq!(agent.status().crashes_total, 0, "a stop is no crash");
    agent.post("/start", 202);
    agent.wait_ready();
    answers(&agent, "another-run");
}

#[test]
fn the_true_exit_of_an_adopted_game_is_counted() {
    let agent = Agent::with_ready_fake(&[]);
    let shim = agent.shims()[0];
    shim.signal(Signal::SIGKILL);
    adopted(&agent, shim);
    answers(&agent, "adopted");
    agent.command("crash 42");
    let status = agent.wait_state(State::Crashed);
    assert_eq!((status.last_crash_exit_code, status.crashes_total), (Some(42), 1));
}

#[test]
fn the_end_of_a_game_that_died_with_its_shim_is_known_to_the_agent() {
    let agent = Agent::with_ready_fake(&[]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    // Frozen first, so that it cannot tell anybody before it dies itself.
    shim.signal(Signal::SIGSTOP);
    game.signal(Signal::SIGKILL);
    shim.signal(Signal::SIGKILL);
    let status = agent.wait_state(State::Crashed);
    assert_eq!((status.last_crash_signal, status.crashes_total), (9, 1), "{:?}", status.last_crash);
    agent.post("/start", 202);
    agent.wait_ready();
    assert_eq!(agent.living_games().len(), 1);
}

#[test]
fn not_a_line_is_missing_when_shims_are_killed_under_load() {
    let agent = Agent::with_ready_fake(&["--flood-rate", "300KB"]);
    let game = agent.game();
    let mut shim = agent.shims()[0];
    for _ in 0..8 {
        shim.signal(Signal::SIGKILL);
        shim = adopted(&agent, shim);
        let head = |agent: &Agent| agent.console().len();
        let before = head(&agent);
        until("the console goes on", SOON, || head(&agent) != before);
    }
    agent.wait_status("running under a shim", 3 * SOON, |s| s.ready && degraded(s).is_none());
    assert_eq!(agent.game(), game);
    stops(&agent);
    nothing_is_missing(&agent);
}

#[test]
fn an_agent_killed_while_it_replaces_a_shim_leaves_a_known_server() {
    let mut agent = Agent::with_ready_fake(&[]);
    for round in 0..10_u64 {
        let game = agent.game();
        agent.shims()[0].signal(Signal::SIGKILL);
        let until_kill = Instant::now() + Duration::from_micros(round * 2500);
        while Instant::now() < until_kill {
            std::hint::spin_loop();
        }
        agent.kill();
        agent.start();
        let status = agent.wait_status("the same server", SOON, |s| s.pid == Some(game.pid));
        assert_eq!(agent.living_games(), [game], "round {round}");
        let lost = degraded(&status).is_some();
        stops(&agent);
        assert_eq!(agent.status().crashes_total, 0, "round {round}");
        println!("round {round}: {}", if lost { "without its terminal" } else { "adopted" });
        agent.post("/start", 202);
        agent.wait_ready();
    }
}

/// Whoever takes over gives it what is left of its time, and sees that it saves.
#[test]
fn a_shim_killed_in_the_middle_of_a_stop_costs_no_save() {
    let plan =
        FakePlan { grace_s: 3, term_s: 1, ..FakePlan::new(&["--save-time", "8s", "--world-bytes", "8MiB"]) };
    let agent = Agent::with_fake(&plan);
    agent.configure();
    agent.wait_ready();
    let (game, shim) = (agent.game(), agent.shims()[0]);
    agent.post("/stop", 204);
    agent.wait_event(What::Command, "stop");
    shim.signal(Signal::SIGKILL);
    let status = agent.wait_status("the end of the save", 3 * SOON, |status| status.state == State::Idle);
    assert!(!game.is_alive());
    assert_eq!((status.crashes_total, status.error), (0, None));
    assert!(agent.events().iter().all(|event| event.what != What::Signal), "no signal was needed");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [1], "one whole save");
}

#[test]
fn a_frozen_shim_is_seen_and_thaws_without_a_loss() {
    let agent = Agent::with_ready_fake(&["--flood-rate", "200KB"]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    shim.signal(Signal::SIGSTOP);
    let status = agent.wait_status("frozen", SOON, |s| degraded(s).is_some());
    let warning = degraded(&status).unwrap();
    assert!(warning.contains("frozen") && warning.contains(&format!("kill -CONT {}", shim.pid)), "{warning}");
    assert_eq!((status.state, status.pid), (State::Running, Some(game.pid)));
    shim.signal(Signal::SIGCONT);
    agent.wait_status("whole again", SOON, |s| degraded(s).is_none() && s.ready);
    assert_eq!((agent.shims(), agent.game()), (vec![shim], game));
    // Frozen and then killed: replaced.
    shim.signal(Signal::SIGSTOP);
    agent.wait_status("frozen again", SOON, |s| degraded(s).is_some());
    shim.signal(Signal::SIGKILL);
    adopted(&agent, shim);
    agent.wait_status("whole again", SOON, |s| degraded(s).is_none() && s.ready);
    stops(&agent);
    nothing_is_missing(&agent);
}

#[test]
fn a_frozen_shim_keeps_nobody_from_stopping() {
    let agent = Agent::with_fake(&FakePlan { grace_s: 2, term_s: 2, ..FakePlan::new(&[]) });
    agent.configure();
    agent.wait_ready();
    let shim = agent.shims()[0];
    shim.signal(Signal::SIGSTOP);
    agent.wait_status("frozen", SOON, |s| degraded(s).is_some());
    stops(&agent);
    until("the frozen shim is gone", SOON, || !shim.is_alive());
    assert_eq!(agent.status().crashes_total, 0);
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn a_frozen_shim_does_not_delay_the_first_answer() {
    let mut agent = Agent::with_ready_fake(&[]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    agent.kill();
    shim.signal(Signal::SIGSTOP);
    crate::versions::listens_soon(&mut agent);
    let status = agent.wait_status("the frozen shim is known", SOON, |s| degraded(s).is_some());
    assert_eq!(status.pid, Some(game.pid));
    shim.signal(Signal::SIGCONT);
    agent.wait_status("whole again", SOON, |s| degraded(s).is_none());
}

#[test]
fn shims_that_keep_being_killed_are_started_ever_more_seldom_and_the_server_lives() {
    let agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    let end = Instant::now() + Duration::from_secs(6);
    let mut killed = 0;
    while Instant::now() < end {
        for shim in agent.shims() {
            shim.signal(Signal::SIGKILL);
            killed += 1;
        }
        assert!(game.is_alive());
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{killed} signals to shims");
    // Three at once, then after 1, 2, 5, 15 s; fewer when they die before they can be greeted.
    let adoptions = agent.log().matches("the server has a shim again").count();
    assert!(adoptions <= 7, "{adoptions} adoptions in six seconds");
    // It comes back when it is left alone, and can be stopped at any time.
    stops(&agent);
    assert!(!game.is_alive());
}
