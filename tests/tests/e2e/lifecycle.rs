//! Start, stop, restart, and ends that nobody asked for.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::json;
use zlh_api::{Accepted, ErrorCode, OperationKind, State};
use zlh_tests::fake::events::What;
use zlh_tests::fake::world;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::artifact_server::Fault;
use zlh_tests::harness::process::Process;
use zlh_tests::harness::slp;
use zlh_tests::harness::store::{FakePlan, RUNTIME};
use zlh_tests::harness::wait::{SOON, until};

#[test]
fn start_stop_and_restart_do_what_they_say_and_may_be_repeated() {
    let agent = Agent::with_ready_fake(&[]);
    let first = agent.game();
    let again: Accepted = agent.post("/start", 202).json();
    assert_eq!((again.state, again.operation), (State::Running, None), "already so");
    assert_eq!(agent.game(), first);

    let stopped = agent.post("/stop", 204);
    assert!(stopped.body.is_empty());
    assert!(stopped.header("location").unwrap().starts_with("/operations/"), "{stopped:?}");
    let status = agent.wait_state(State::Idle);
    assert!(!status.process_running && !status.ready && status.pid.is_none());
    assert_eq!((status.crash_count, status.error), (0, None));
    assert!(!first.is_alive());
    assert!(agent.events().iter().any(|event| event.what == What::Ending && event.detail == "stop"));
    agent.post("/stop", 204);
    assert_eq!(agent.status().state, State::Idle);

    let started: Accepted = agent.post("/start", 202).json();
    assert_eq!(started.state, State::Starting);
    assert_eq!(started.operation.unwrap().kind, OperationKind::Start);
    agent.wait_ready();
    let second = agent.game();
    assert_ne!(second, first);

    let restarted = agent.post("/restart", 202);
    assert!(restarted.header("location").is_some());
    until("another process", SOON, || !second.is_alive());
    agent.wait_status("readiness", SOON, |status| status.ready && status.pid != Some(second.pid));
    assert_eq!(agent.status().crash_count, 0, "a restart is no crash");
    slp::ping(agent.port.number(), SOON).unwrap();
}

#[test]
fn every_operation_can_be_looked_up_until_its_end() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let configured = agent.configure_with(&agent.payload()).expect(202);
    let location = configured.header("location").unwrap().to_owned();
    let install: zlh_api::Operation = agent.http().get(&location).unwrap().expect(200).json();
    assert_eq!(install.kind, OperationKind::Install);
    agent.wait_ready();
    until("the end of every operation", SOON, || {
        let all: zlh_api::Operations = agent.http().get("/operations").unwrap().json();
        all.operations.iter().all(|operation| operation.state == zlh_api::OperationState::Succeeded)
    });
    let all: zlh_api::Operations = agent.http().get("/operations").unwrap().json();
    let kinds: Vec<_> = all.operations.iter().map(|operation| operation.kind).collect();
    assert_eq!(kinds, [OperationKind::Start, OperationKind::Install], "newest first");
    assert!(all.operations.iter().all(|operation| operation.finished_at.is_some()));
    let missing = agent.http().get("/operations/4711").unwrap().expect(404).problem();
    assert_eq!(missing.error, ErrorCode::NotFound);
}

#[test]
fn without_a_configuration_there_is_nothing_to_start() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    assert_eq!(agent.status().state, State::Idle);
    for path in ["/start", "/restart"] {
        let problem = agent.post(path, 409).problem();
        assert_eq!(problem.error, ErrorCode::NotConfigured);
        assert!(problem.detail.contains("/config"), "the remedy: {}", problem.detail);
    }
    agent.post("/stop", 204);
}

#[test]
fn an_exit_nobody_asked_for_is_a_crash_with_its_code_and_last_words() {
    let agent = Agent::with_ready_fake(&[]);
    agent.command("crash 3");
    agent.wait_state(State::Crashed);
    // Also after its evidence was looked at: nobody else is at fault.
    let explained = |s: &zlh_api::Status| s.last_crash.as_ref().is_some_and(|crash| crash.explained);
    let status = agent.wait_status("an explained crash", SOON, explained);
    assert_eq!(status.last_crash_exit_code, Some(3));
    assert_eq!((status.last_crash_signal, status.last_crash_signal_name.as_deref()), (0, None));
    assert_eq!((status.crash_count, status.crashes_total), (1, 1));
    assert_eq!(status.last_crash_classification.as_deref(), Some("nonzero_exit"));
    assert!(status.last_crash_log_tail.iter().any(|line| line.contains("told to crash")), "{status:?}");
    assert!(status.last_crash_log_tail.iter().all(|line| !line.contains(['\r', '\u{1b}'])));
    assert!(status.next_restart_at.is_some() && status.last_crash_time.is_some());
    assert!(status.last_crash.unwrap().was_ready);
    // Starting by hand does not wait for the backoff.
    agent.post("/start", 202);
    agent.wait_ready();
    assert_eq!(agent.status().next_restart_at, None);
}

#[test]
fn a_crash_by_signal_has_no_code_but_a_name() {
    let agent = Agent::with_ready_fake(&[]);
    agent.game().signal(Signal::SIGKILL);
    let status = agent.wait_state(State::Crashed);
    assert_eq!(status.last_crash_exit_code, None);
    assert_eq!((status.last_crash_signal, status.last_crash_signal_name.as_deref()), (9, Some("SIGKILL")));
}

#[test]
fn an_exit_before_it_was_ever_ready_is_a_crash_too() {
    let agent =
        Agent::with_fake(&FakePlan::new(&["--never-done", "--exit-after", "200ms", "--exit-code", "5"]));
    agent.configure();
    let status = agent.wait_state(State::Crashed);
    assert_eq!(status.last_crash_exit_code, Some(5));
    assert!(!status.last_crash.unwrap().was_ready);
}

#[test]
fn a_server_that_is_stopped_in_the_game_has_not_crashed() {
    let agent = Agent::with_ready_fake(&[]);
    agent.command("stop");
    let status = agent.wait_state(State::Idle);
    assert_eq!((status.crash_count, status.error), (0, None));
    assert_eq!(status.next_restart_at, None);
}

#[test]
fn stop_ends_a_backoff_for_good() {
    let agent = Agent::with_ready_fake(&[]);
    agent.command("crash 1");
    agent.wait_state(State::Crashed);
    agent.post("/stop", 204);
    let status = agent.wait_state(State::Idle);
    assert_eq!(status.next_restart_at, None);
    assert_eq!(status.last_crash_exit_code, Some(1), "what happened stays known");
}

#[test]
fn stop_ends_an_install_at_once_and_a_later_start_finishes_it() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    agent.server.break_path(RUNTIME, Fault::Slow(50_000));
    agent.configure();
    let status = agent.wait_status("the download", SOON, |status| !status.install_step.is_empty());
    assert_eq!(status.state, State::Installing);
    let busy = agent.post("/restart", 409).problem();
    assert_eq!(busy.error, ErrorCode::OperationInProgress);
    assert_eq!(busy.operation.unwrap().kind, OperationKind::Install);
    let asked = Instant::now();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    agent.server.heal();
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn stop_ends_a_start_that_never_becomes_ready() {
    let agent = Agent::with_fake(&FakePlan::new(&["--never-done"]));
    agent.configure();
    let status = agent.wait_status("the process", SOON, |status| status.process_running);
    assert_eq!(status.state, State::Starting);
    let busy = agent.post("/restart", 409).problem();
    assert_eq!(busy.error, ErrorCode::OperationInProgress);
    assert_eq!(busy.operation.unwrap().kind, OperationKind::Start);
    let mut other = agent.payload();
    other["memory_mb"] = json!(1024);
    assert_eq!(agent.configure_with(&other).expect(409).problem().error, ErrorCode::OperationInProgress);
    let game = agent.game();
    agent.post("/stop", 204);
    let status = agent.wait_state(State::Idle);
    assert!(!game.is_alive());
    assert_eq!(status.crash_count, 0);
}

#[test]
fn another_configuration_waits_until_the_server_is_stopped() {
    let agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    agent.configure_with(&agent.payload()).expect(202);
    assert_eq!(agent.game(), game, "the same payload changes nothing");
    let mut other = agent.payload();
    other["memory_mb"] = json!(1024);
    let problem = agent.configure_with(&other).expect(409).problem();
    assert!(problem.detail.contains("stop"), "the remedy: {}", problem.detail);
    assert!(game.is_alive());
    assert_eq!(agent.status().config.unwrap().memory_mb, Some(512));
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    agent.configure_with(&other).expect(202);
    agent.wait_ready();
    assert_eq!(agent.status().config.unwrap().memory_mb, Some(1024));
}

#[test]
fn a_port_in_use_is_named_before_anything_starts() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let squatter = TcpListener::bind((Ipv4Addr::UNSPECIFIED, agent.port.number())).unwrap();
    agent.configure();
    let status = agent.wait_state(State::Error);
    assert!(status.error.clone().unwrap().contains(&agent.port.number().to_string()), "{:?}", status.error);
    assert!(!status.process_running && agent.events().is_empty());
    drop(squatter);
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn a_long_last_save_is_waited_for() {
    let agent = Agent::with_ready_fake(&["--save-time", "6s", "--world-bytes", "4MiB"]);
    agent.post("/stop", 204);
    assert_eq!(agent.status().state, State::Stopping);
    agent.wait_state(State::Idle);
    agent.wait_event(What::SaveEnded, "");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [1], "one whole save");
    assert!(agent.events().iter().all(|event| event.what != What::Signal), "no signal was needed");
}

#[test]
fn a_server_that_ignores_everything_is_killed_in_the_end() {
    let flags = ["--stop", "ignore", "--ignore-sigterm", "--forks", "3"];
    let plan = FakePlan { grace_s: 1, term_s: 1, ..FakePlan::new(&flags) };
    let agent = Agent::with_fake(&plan);
    agent.configure();
    agent.wait_ready();
    until("its family", SOON, || agent.game().descendants().len() >= 4);
    let family: Vec<Process> = agent.game().descendants().into_iter().chain([agent.game()]).collect();
    agent.post("/stop", 204);
    let status = agent.wait_state(State::Idle);
    assert_eq!(status.crash_count, 0, "a stop is never a crash, however it ends");
    let events = agent.events();
    let at = |what, detail: &str| {
        events.iter().position(|event| event.what == what && event.detail == detail).unwrap()
    };
    assert!(at(What::Command, "stop") < at(What::Signal, "SIGTERM"), "first asked, then told");
    until("nobody left", SOON, || family.iter().all(|process| !process.is_alive()));
}

#[test]
fn a_frozen_server_can_be_stopped() {
    let plan = FakePlan { grace_s: 1, term_s: 1, ..FakePlan::new(&[]) };
    let agent = Agent::with_fake(&plan);
    agent.configure();
    agent.wait_ready();
    let game = agent.game();
    agent.command("freeze");
    until("the freeze", SOON, || game.is_stopped());
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert!(!game.is_alive());
}

#[test]
fn nobody_notices_a_killed_agent() {
    let mut agent = Agent::with_ready_fake(&["--players", "Alice"]);
    agent.command("say before");
    agent.wait_console("[Server] before");
    let game = agent.game();
    agent.kill();
    assert!(game.is_alive());
    slp::ping(agent.port.number(), SOON).unwrap();
    agent.start();
    agent.wait_ready();
    assert_eq!(agent.game(), game, "the same process, not another one");
    assert!(agent.console().contains("[Server] before"));
    agent.command("say after");
    agent.wait_console("[Server] after");
    assert_eq!(agent.status().crash_count, 0);
    assert_eq!(agent.events().iter().filter(|event| event.what == What::Started).count(), 1);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert!(!game.is_alive());
}

#[test]
fn nobody_notices_a_terminated_agent() {
    let mut agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    assert_eq!(agent.terminate().code(), Some(0), "{}", agent.log());
    assert!(game.is_alive());
    agent.start();
    agent.wait_ready();
    assert_eq!(agent.game(), game);
}

#[test]
fn an_end_while_the_agent_was_away_is_known_exactly() {
    let mut agent = Agent::with_ready_fake(&[]);
    agent.command("say before the end");
    agent.wait_console("before the end");
    let now = || jiff::Timestamp::now().as_second();
    let before = now();
    agent.ends_unseen(17);
    let after = now();
    until("a while", SOON, || now() > after + 2);
    agent.start();
    let status = agent.wait_status("the crash", SOON, |status| status.crashes_total > 0);
    assert_eq!(status.last_crash_exit_code, Some(17));
    assert_eq!(status.state, State::Crashed);
    let time: jiff::Timestamp = status.last_crash_time.as_ref().unwrap().parse().unwrap();
    assert!((before..=after).contains(&time.as_second()), "{before}..={after}: {time}");
    let tail = status.last_crash_log_tail.join("\n");
    assert!(tail.contains("before the end") && tail.contains("Game.crash(Game.java:1)"), "{tail}");
}

#[test]
fn after_everything_was_killed_the_server_comes_back_by_itself() {
    let mut agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    let shims = agent.shims();
    assert_eq!(shims.len(), 1, "one shim for one game");
    agent.kill();
    for process in shims.iter().copied().chain([game]) {
        process.signal(Signal::SIGKILL);
    }
    until("nobody left", SOON, || !game.is_alive() && shims.iter().all(|shim| !shim.is_alive()));
    agent.start();
    // How it ended is not known, and never made up.
    let status = agent.wait_status("its fate", SOON, |status| {
        status.crashes_total > 0 || status.pid.is_some_and(|pid| pid != game.pid)
    });
    if let Some(crash) = status.last_crash {
        assert_ne!(crash.exit_code, Some(0), "lost is never success");
    }
    if status.state == State::Crashed {
        agent.post("/start", 202);
    }
    agent.wait_ready();
    assert_ne!(agent.game(), game);
}

#[test]
fn two_agents_never_run_the_same_container() {
    let agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    let first = agent.process();
    let address = agent.http();
    let (status, words) = agent.run_another();
    assert!(!status.success() && words.contains("another"), "the second one refuses, {status}: {words}");
    assert!(first.is_alive() && game.is_alive());
    assert_eq!(address.get("/health").unwrap().text(), "ok");
    assert_eq!(agent.events().iter().filter(|event| event.what == What::Started).count(), 1);
}
