//! Stop always ends: servers that do not want to, with their shim and without it; and
//! servers that only need longer, which are given the time as long as they use it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use zlh_api::{OperationState, State};
use zlh_tests::fake::events::What;
use zlh_tests::fake::world;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::process::{Process, carrying};
use zlh_tests::harness::store::FakePlan;
use zlh_tests::harness::wait::{SOON, until};

/// What a stop may take beyond its deadline.
const SLACK: Duration = Duration::from_secs(2);

const SECOND: Duration = Duration::from_secs(1);

/// Grace and term of one second each.
fn short(flags: &[&str]) -> FakePlan {
    FakePlan { grace_s: 1, term_s: 1, ..FakePlan::new(flags) }
}

fn ready(plan: &FakePlan) -> Agent {
    let agent = Agent::with_fake(plan);
    agent.configure();
    agent.wait_ready();
    agent
}

/// Stops it and measures until the last process of the run is gone.
#[track_caller]
fn ends_within(agent: &Agent, deadline: Duration) -> Duration {
    let mark = agent.mark();
    let mut family: Vec<Process> = carrying(&mark);
    assert!(!family.is_empty(), "the game carries its run's mark");
    let asked = Instant::now();
    agent.post("/stop", 204);
    let limit = deadline + SLACK;
    loop {
        family.retain(|process| process.is_alive());
        if family.is_empty() && agent.status().state == State::Idle {
            break;
        }
        let console = || agent.console().lines().rev().take(5).map(str::to_owned).collect::<Vec<_>>();
        assert!(asked.elapsed() < limit, "after {limit:?} {family:?} still live\n{:?}", console());
        std::thread::yield_now();
    }
    let took = asked.elapsed();
    assert_eq!(carrying(&mark), [], "nothing was born meanwhile");
    assert_eq!(agent.living_games(), []);
    let status = agent.status();
    assert_eq!((status.state, status.crashes_total, status.error), (State::Idle, 0, None));
    took
}

/// Takes the shim away and the terminal with it: signals are all that is left.
fn orphan(agent: &mut Agent) {
    let shim = agent.shims()[0];
    agent.kill();
    shim.signal(Signal::SIGKILL);
    until("the shim is gone", SOON, || !shim.is_alive());
    agent.start();
    agent.wait_status("degraded", SOON, |s| s.warnings.iter().any(|w| w.starts_with("degraded")));
}

/// The adversary `flags`, once it `is_set`, ends with a shim and without.
fn ends_both_ways(flags: &[&str], is_set: impl Fn(&Agent) -> bool) {
    for without_shim in [false, true] {
        let mut agent = ready(&short(flags));
        until("the adversary is what it is", SOON, || is_set(&agent));
        if without_shim {
            orphan(&mut agent);
        }
        ends_within(&agent, 2 * SECOND);
        // And the slot is free again.
        agent.post("/start", 202);
        agent.wait_ready();
    }
}

fn children(agent: &Agent) -> usize {
    agent.events().iter().filter(|event| event.what == What::Child).count()
}

#[test]
fn frozen() {
    ends_both_ways(&["--freeze-after", "1s", "--ignore-sigterm"], |agent| {
        agent.living_games().first().is_some_and(|game| game.is_stopped())
    });
}

#[test]
fn deaf_to_everything_with_a_family() {
    let flags = ["--stop", "ignore", "--ignore-sigterm", "--forks", "3"];
    ends_both_ways(&flags, |agent| children(agent) >= 4);
}

#[test]
fn double_forked_into_a_session_of_its_own() {
    ends_both_ways(&["--daemon", "detached"], |agent| children(agent) >= 1);
}

#[test]
fn a_child_that_keeps_the_terminal_open() {
    ends_both_ways(&["--daemon", "holds-terminal"], |agent| children(agent) >= 1);
}

#[test]
fn a_thousand_grandchildren() {
    ends_both_ways(&["--forks", "1000", "--ignore-sigterm"], |agent| children(agent) > 1000);
}

#[test]
fn a_child_that_became_another_user() {
    if !nix::unistd::geteuid().is_root() {
        #[allow(clippy::print_stderr, reason = "a test that cannot run says so")]
        {
            eprintln!("skipped: only root's children can become another user");
        }
        return;
    }
    ends_both_ways(&["--child-uid", "65534", "--ignore-sigterm"], |agent| {
        carrying(&agent.mark()).iter().any(|process| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
            status.contains("\nUid:\t65534")
        })
    });
}

#[test]
fn a_child_whose_first_thread_has_ended() {
    ends_both_ways(&["--headless"], |agent| {
        carrying(&agent.mark()).iter().any(|process| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
            stat.contains(") Z ")
        })
    });
}

#[test]
fn input_that_nobody_reads() {
    let line = serde_json::json!({ "command": "x".repeat(4000) });
    ends_both_ways(&["--deaf", "--ignore-sigterm"], |agent| {
        agent.http().post_json("/console/command", &line).is_ok_and(|answer| answer.status != 204)
    });
}

#[test]
fn a_frozen_shim_does_not_keep_anybody_from_stopping() {
    let agent = ready(&short(&["--ignore-sigterm"]));
    let (game, shim) = (agent.game(), agent.shims()[0]);
    shim.signal(Signal::SIGSTOP);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert!(!game.is_alive());
    until("the frozen shim is gone", SOON, || !shim.is_alive());
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn a_stop_that_a_frozen_shim_does_not_take_has_its_deadline_from_the_request() {
    let plan = FakePlan { grace_s: 7, term_s: 1, ..FakePlan::new(&["--stop", "ignore", "--ignore-sigterm"]) };
    let agent = ready(&plan);
    let game = agent.game();
    agent.shims()[0].signal(Signal::SIGSTOP);
    let asked = Instant::now();
    agent.post("/stop", 204);
    until("the end of it", 2 * SOON, || !game.is_alive());
    let took = asked.elapsed();
    assert!(took >= 7 * SECOND && took <= 8 * SECOND + SLACK, "{took:?}");
    agent.wait_state(State::Idle);
}

#[test]
fn a_save_that_goes_on_is_waited_for_far_beyond_the_grace() {
    // New chunks: the files grow.
    let agent = ready(&short(&["--save-time", "5s", "--world-bytes", "4MiB"]));
    let took = ends_within(&agent, 10 * SECOND);
    assert!(took >= 5 * SECOND, "{took:?}");
    assert!(agent.events().iter().all(|event| event.what != What::Signal), "no signal was needed");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [1], "one whole save");
    // Chunks that are there: the files are written in place.
    agent.post("/start", 202);
    agent.wait_ready();
    // However often it is asked.
    let stopped = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                let _ = agent.http().post("/stop");
            }
        });
        let took =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ends_within(&agent, 10 * SECOND)));
        stopped.store(true, Ordering::Relaxed);
        took
    });
    let took = took.unwrap();
    assert!(took >= 5 * SECOND, "{took:?}");
    assert!(agent.events().iter().all(|event| event.what != What::Signal), "no signal was needed");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [2], "another whole save");
}

#[test]
fn a_save_after_sigterm_is_waited_for_too_and_without_a_shim() {
    let flags = ["--stop", "ignore", "--save-time", "5s", "--world-bytes", "4MiB"];
    let mut agent = ready(&short(&flags));
    orphan(&mut agent);
    let took = ends_within(&agent, 10 * SECOND);
    assert!(took >= 5 * SECOND, "{took:?}");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [1], "one whole save");
}

#[test]
fn a_save_is_waited_for_by_the_next_agent() {
    let mut agent = ready(&short(&["--save-time", "6s", "--world-bytes", "4MiB"]));
    agent.post("/stop", 204);
    agent.wait_event(What::SaveBegan, "");
    agent.kill();
    agent.start();
    agent.wait_state(State::Idle);
    assert!(agent.events().iter().all(|event| event.what != What::Signal), "no signal was needed");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [1], "one whole save");
}

#[test]
fn a_save_without_an_end_ends_at_the_cap() {
    let plan = FakePlan { cap_s: 4, ..short(&["--stop", "save-forever"]) };
    let agent = ready(&plan);
    let operation = {
        let location = agent.post("/stop", 204).header("location").unwrap().to_owned();
        until("it is seen to save", SOON, || {
            let operation: zlh_api::Operation = agent.http().get(&location).unwrap().json();
            operation.phase.contains("saves")
        });
        location
    };
    let took = ends_within(&agent, 5 * SECOND);
    let events = agent.events();
    let at = |what, detail: &str| {
        events.iter().find(|event| event.what == what && event.detail == detail).unwrap().at_ns
    };
    let given = Duration::from_nanos(at(What::Signal, "SIGTERM") - at(What::Command, "stop"));
    assert!(given >= 3 * SECOND && given < 5 * SECOND, "SIGTERM after {given:?}, the end after {took:?}");
    let operation: zlh_api::Operation = agent.http().get(&operation).unwrap().json();
    assert_eq!(operation.state, OperationState::Succeeded);
}

#[test]
fn words_and_touched_files_are_no_save() {
    let agent = ready(&short(&["--stop", "touch-forever"]));
    agent.command("save-all");
    agent.wait_console("Saved the game");
    ends_within(&agent, 2 * SECOND);
    assert!(agent.console().contains("Saving chunks"));
}
