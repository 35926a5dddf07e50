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

/// How long the end of a stop is waited for; what it may take is another matter.
const END: Duration = Duration::from_secs(60);

const SECOND: Duration = Duration::from_secs(1);

/// How often what the clock of a test says is too late is tried: once alone measures the machine.
const TRIES: usize = 3;

/// Grace and term of one second each.
fn short(flags: &[&str]) -> FakePlan {
    FakePlan { grace_s: 1, term_s: 1, ..FakePlan::new(flags) }
}

/// When the last process of a [`short`] plan has to be gone.
const DEADLINE: Duration = Duration::from_secs(2);

fn ready(plan: &FakePlan) -> Agent {
    let agent = Agent::with_fake(plan);
    agent.configure();
    agent.wait_ready();
    agent
}

/// For a server that saves for longer than grace and term together. Its saving has to be seen again
/// within eight seconds, because a machine may pause for three.
fn saving(grace_s: u64, term_s: u64, flags: &[&str]) -> FakePlan {
    assert!(SAVE > Duration::from_secs(grace_s + term_s) + SLACK);
    let slow = ["--save-time", "20s", "--world-bytes", "8MiB"];
    FakePlan { grace_s, term_s, ..FakePlan::new(&[flags, &slow].concat()) }
}

/// How long a server that is [`saving`] saves.
const SAVE: Duration = Duration::from_secs(20);

/// Stops it and measures from the request until the last process of the run is dead.
#[track_caller]
fn ends(agent: &Agent) -> Duration {
    let mark = agent.mark();
    let mut family: Vec<Process> = carrying(&mark);
    assert!(!family.is_empty(), "the game carries its run's mark");
    let asked = Instant::now();
    agent.post("/stop", 204);
    let took = loop {
        family.retain(|process| process.is_alive());
        let took = asked.elapsed();
        if family.is_empty() {
            // Others may have been born meanwhile.
            family = carrying(&mark);
            if family.is_empty() {
                break took;
            }
        }
        let console = || agent.console().lines().rev().take(5).map(str::to_owned).collect::<Vec<_>>();
        assert!(took < END, "after {took:?} {family:?} still live\n{:?}", console());
        std::thread::sleep(Duration::from_millis(20));
    };
    agent.wait_state(State::Idle);
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

/// The adversary `flags`, once it `is_set`, ends in time with a shim and without.
#[track_caller]
fn ends_both_ways(flags: &[&str], is_set: impl Fn(&Agent) -> bool) {
    for without_shim in [false, true] {
        let mut agent = ready(&short(flags));
        let mut took = Vec::new();
        loop {
            until("the adversary is what it is", END, || is_set(&agent));
            if without_shim {
                orphan(&mut agent);
            }
            took.push(ends(&agent));
            // And the slot is free again.
            agent.post("/start", 202);
            agent.wait_ready();
            if took.iter().any(|took| *took <= DEADLINE + SLACK) {
                break;
            }
            assert!(took.len() < TRIES, "without a shim: {without_shim}; it took {took:?}");
        }
    }
}

/// How many processes this run of the game has started.
fn children(agent: &Agent) -> usize {
    let events = agent.events();
    let run = events.iter().rev().take_while(|event| event.what != What::Started);
    run.filter(|event| event.what == What::Child).count()
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
    ends(agent);
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
    while seen.len() < TRIES {
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
    ends_both_ways(&flags, |agent| children(agent) > 1000);
}

/// Told to stop it starts processes that end at once and whose parents are gone, until it is killed.
#[test]
fn a_storm_of_orphans() {
    ends_both_ways(&["--stop", "storm"], |agent| {
        let (game, shim) = (agent.game(), agent.shims()[0]);
        agent.command("storm 100");
        until("the storm", END, || children(agent) >= 100);
        // Both are alive: it is the shim that takes away what is left of them.
        until("no zombie stays", SOON, || shim.zombies() == 0);
        assert!(game.is_alive() && shim.is_alive());
        true
    });
}

#[test]
fn a_storm_of_orphans_leaves_no_zombie_with_a_shim_that_stays() {
    let mut agent = ready(&short(&["--stop", "storm"]));
    let (mark, shim) = (agent.mark(), agent.shims()[0]);
    agent.post("/stop", 204);
    until("the storm", SOON, || children(&agent) > 10);
    // Nobody takes the exit from the shim: it has to stay.
    agent.kill();
    until("the end of it", END, || carrying(&mark).is_empty());
    until("no zombie stays", SOON, || shim.zombies() == 0);
    assert!(shim.is_alive());
    agent.start();
    agent.wait_state(State::Idle);
    until("the shim has left", SOON, || !shim.is_alive());
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
    let mut seen = Vec::new();
    while seen.len() < TRIES {
        let (game, shim) = (agent.game(), agent.shims()[0]);
        shim.signal(Signal::SIGSTOP);
        let asked = Instant::now();
        agent.post("/stop", 204);
        until("the end of it", END, || !game.is_alive());
        let took = asked.elapsed();
        assert!(took >= 7 * SECOND, "{took:?}");
        agent.wait_state(State::Idle);
        if took <= 8 * SECOND + SLACK {
            return;
        }
        seen.push(took);
        until("the frozen shim is gone", SOON, || !shim.is_alive());
        agent.post("/start", 202);
        agent.wait_ready();
    }
    panic!("from the request to the end: {seen:?}");
}

#[test]
fn a_save_that_goes_on_is_waited_for_far_beyond_the_grace() {
    // New chunks: the files grow.
    let agent = ready(&saving(8, 1, &[]));
    let took = ends(&agent);
    assert!(took >= SAVE, "{took:?}");
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
        let took = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ends(&agent)));
        stopped.store(true, Ordering::Relaxed);
        took
    });
    let took = took.unwrap();
    assert!(took >= SAVE, "{took:?}");
    assert!(agent.events().iter().all(|event| event.what != What::Signal), "no signal was needed");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [2], "another whole save");
}

#[test]
fn a_save_after_sigterm_is_waited_for_too_and_without_a_shim() {
    let mut agent = ready(&saving(1, 8, &["--stop", "ignore"]));
    orphan(&mut agent);
    let took = ends(&agent);
    assert!(took >= SAVE, "{took:?}");
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
    agent.wait_status("the end of the save", END, |status| status.state == State::Idle);
    assert!(agent.events().iter().all(|event| event.what != What::Signal), "no signal was needed");
    assert_eq!(world::generations(&agent.game_root().join("world")).unwrap(), [1], "one whole save");
}

#[test]
fn a_save_without_an_end_ends_at_the_cap() {
    let plan = FakePlan { grace_s: 8, cap_s: 25, ..short(&["--stop", "save-forever"]) };
    let agent = ready(&plan);
    let operation = {
        let location = agent.post("/stop", 204).header("location").unwrap().to_owned();
        until("it is seen to save", SOON, || {
            let operation: zlh_api::Operation = agent.http().get(&location).unwrap().json();
            operation.phase.contains("saves")
        });
        location
    };
    let took = ends(&agent);
    let events = agent.events();
    let at = |what, detail: &str| {
        events.iter().find(|event| event.what == what && event.detail == detail).unwrap().at_ns
    };
    let given = Duration::from_nanos(at(What::Signal, "SIGTERM") - at(What::Command, "stop"));
    assert!(given > 8 * SECOND + SLACK, "put off: SIGTERM after {given:?}, the end after {took:?}");
    assert!(given < 25 * SECOND + 10 * SECOND, "SIGTERM after {given:?}, the end after {took:?}");
    let operation: zlh_api::Operation = agent.http().get(&operation).unwrap().json();
    assert_eq!(operation.state, OperationState::Succeeded);
}

#[test]
fn words_and_touched_files_are_no_save() {
    let agent = ready(&short(&["--stop", "touch-forever"]));
    agent.command("save-all");
    agent.wait_console("Saved the game");
    // Taken for a save it would go on for two minutes.
    assert!(ends(&agent) < END);
    assert!(agent.console().contains("Saving chunks"));
}
