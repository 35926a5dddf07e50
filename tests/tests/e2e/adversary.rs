//! Stop always ends: servers that do not want to, with their shim and without it; and
//! servers that only need longer, which are given the time as long as they use it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use zlh_api::{OperationState, State};
use zlh_shim::record::ExitRecord;
use zlh_tests::fake::events::{What, monotonic_ns};
use zlh_tests::fake::world;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::process::{Process, carrying};
use zlh_tests::harness::store::FakePlan;
use zlh_tests::harness::wait::{SOON, until};

/// What a rung of the ladder may come late, by the clocks of game and shim.
const SLACK: Duration = Duration::from_secs(2);

/// How long a stop may take here by the clock of a test, which waits for its turn as well.
const END: Duration = Duration::from_secs(30);

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

/// As [`short`], for a server that saves: its saving is seen again and again within three seconds.
fn saving(grace_s: u64, term_s: u64, flags: &[&str]) -> FakePlan {
    let slow = ["--save-time", "9s", "--world-bytes", "8MiB"];
    FakePlan { grace_s, term_s, ..FakePlan::new(&[flags, &slow].concat()) }
}

/// Stops it and measures until the last process of the run is gone.
#[track_caller]
fn ends_within(agent: &Agent, limit: Duration) -> Duration {
    let mark = agent.mark();
    let mut family: Vec<Process> = carrying(&mark);
    assert!(!family.is_empty(), "the game carries its run's mark");
    let asked = Instant::now();
    agent.post("/stop", 204);
    loop {
        family.retain(|process| process.is_alive());
        if family.is_empty() && agent.status().state == State::Idle {
            break;
        }
        let console = || agent.console().lines().rev().take(5).map(str::to_owned).collect::<Vec<_>>();
        assert!(asked.elapsed() < limit, "after {limit:?} {family:?} still live\n{:?}", console());
        std::thread::sleep(Duration::from_millis(20));
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
    ends_both_ways_within(END, flags, is_set);
}

fn ends_both_ways_within(limit: Duration, flags: &[&str], is_set: impl Fn(&Agent) -> bool) {
    for without_shim in [false, true] {
        let mut agent = ready(&short(flags));
        until("the adversary is what it is", limit, || is_set(&agent));
        if without_shim {
            orphan(&mut agent);
        }
        ends_within(&agent, limit);
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
    ends_both_ways(&["--ignore-sigterm"], |agent| {
        let game = agent.game();
        agent.command("freeze");
        until("the freeze", SOON, || game.is_stopped());
        true
    });
}

/// From the stop command to SIGTERM, and from there to the end, by the clocks of game and shim.
fn times_of_a_stop(agent: &Agent) -> (Duration, Duration) {
    let mark = agent.mark();
    ends_within(agent, END);
    let events = agent.events();
    let at = |what, detail: &str| {
        let found = events.iter().rfind(|event| event.what == what && event.detail == detail);
        Duration::from_nanos(found.unwrap().at_ns)
    };
    let (asked, told) = (at(What::Command, "stop"), at(What::Signal, "SIGTERM"));
    let instance = mark.trim_start_matches("ZLH_INSTANCE=");
    let record = ExitRecord::read(&agent.root_path("opt/zlh-agent/run/game"), instance).unwrap();
    // The record counts the time a machine was suspended, the events do not.
    let ago = Duration::from_millis(zlh_shim::holder::boot_ms() - record.ended_boot_ms);
    let ended = Duration::from_nanos(monotonic_ns()).saturating_sub(ago);
    (told - asked, ended.saturating_sub(told))
}

/// A second to save, a second to end, and then it is killed.
#[test]
fn the_ladder_keeps_its_times() {
    let agent = ready(&short(&["--stop", "ignore", "--ignore-sigterm"]));
    // One stop alone measures the machine.
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let (told, ended) = times_of_a_stop(&agent);
        seen.push((told, ended));
        if told < SECOND + SLACK && ended < SECOND + SLACK {
            return;
        }
        agent.post("/start", 202);
        agent.wait_ready();
    }
    panic!("from stop to SIGTERM, and to the end: {seen:?}");
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
    let flags = ["--forks", "1000", "--ignore-sigterm"];
    ends_both_ways_within(2 * END, &flags, |agent| children(agent) > 1000);
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
    let agent = ready(&saving(3, 1, &[]));
    let took = ends_within(&agent, END);
    assert!(took >= 9 * SECOND, "{took:?}");
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
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let took = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ends_within(&agent, END)));
        stopped.store(true, Ordering::Relaxed);
        took
    });
    let took = took.unwrap();
    assert!(took >= 9 * SECOND, "{took:?}");
    assert!(agent.events().iter().all(|event| event.what != What::Signal), "no signal was needed");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [2], "another whole save");
}

#[test]
fn a_save_after_sigterm_is_waited_for_too_and_without_a_shim() {
    let mut agent = ready(&saving(1, 3, &["--stop", "ignore"]));
    orphan(&mut agent);
    let took = ends_within(&agent, END);
    assert!(took >= 9 * SECOND, "{took:?}");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [1], "one whole save");
}

#[test]
fn a_save_is_waited_for_by_the_next_agent() {
    // In the eight seconds of its grace another agent has to be there and to look.
    let flags = ["--save-time", "20s", "--world-bytes", "8MiB"];
    let mut agent = ready(&FakePlan { grace_s: 8, ..short(&flags) });
    agent.post("/stop", 204);
    agent.wait_event(What::SaveBegan, "");
    agent.kill();
    agent.start();
    agent.recalled();
    agent.wait_status("the end of the save", 2 * END, |status| status.state == State::Idle);
    assert!(agent.events().iter().all(|event| event.what != What::Signal), "no signal was needed");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [1], "one whole save");
}

#[test]
fn a_save_without_an_end_ends_at_the_cap() {
    let plan = FakePlan { grace_s: 3, cap_s: 12, ..short(&["--stop", "save-forever"]) };
    let agent = ready(&plan);
    let operation = {
        let location = agent.post("/stop", 204).header("location").unwrap().to_owned();
        until("it is seen to save", SOON, || {
            let operation: zlh_api::Operation = agent.http().get(&location).unwrap().json();
            operation.phase.contains("saves")
        });
        location
    };
    let took = ends_within(&agent, 2 * END);
    let events = agent.events();
    let at = |what, detail: &str| {
        events.iter().find(|event| event.what == what && event.detail == detail).unwrap().at_ns
    };
    let given = Duration::from_nanos(at(What::Signal, "SIGTERM") - at(What::Command, "stop"));
    assert!(given > 3 * SECOND + SLACK, "put off: SIGTERM after {given:?}, the end after {took:?}");
    assert!(given < 12 * SECOND + 10 * SECOND, "SIGTERM after {given:?}, the end after {took:?}");
    let operation: zlh_api::Operation = agent.http().get(&operation).unwrap().json();
    assert_eq!(operation.state, OperationState::Succeeded);
}

#[test]
fn words_and_touched_files_are_no_save() {
    let agent = ready(&short(&["--stop", "touch-forever"]));
    agent.command("save-all");
    agent.wait_console("Saved the game");
    // Taken for a save it would go on for two minutes.
    ends_within(&agent, END);
    assert!(agent.console().contains("Saving chunks"));
}
