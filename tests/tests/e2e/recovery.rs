//! Kills, damage and losses in the wrong moment: what is alive stays known, can be
//! stopped, and is never doubled.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use zlh_api::State;
use zlh_shim::spec::Spec;
use zlh_tests::fake::events::What;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::faults::Faults;
use zlh_tests::harness::process::Process;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, until};

fn started(agent: &Agent) -> usize {
    agent.events().iter().filter(|event| event.what == What::Started).count()
}

/// Stop has to end it, whatever happened before.
fn stops(agent: &Agent) {
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let left: Vec<_> = agent.living_games();
    assert!(left.is_empty(), "idle, and {left:?} lives on");
}

#[test]
fn thirty_restarts_in_a_row_are_thirty_restarts() {
    let agent = Agent::with_ready_fake(&[]);
    let mut game = agent.game();
    for round in 0..30 {
        agent.post("/restart", 202);
        let status = agent.wait_status("the next run", SOON, |s| {
            s.state == State::Error || (s.ready && s.pid.is_some_and(|pid| pid != game.pid))
        });
        assert_eq!(status.error, None, "restart {round}");
        game = agent.game();
    }
    assert_eq!(agent.status().crashes_total, 0);
    assert_eq!(started(&agent), 31);
    stops(&agent);
}

#[test]
fn an_agent_killed_while_it_starts_something_finds_it_again() {
    let mut agent = Agent::with_ready_fake(&[]);
    stops(&agent);
    for round in 0..12_u64 {
        agent.post("/start", 202);
        let until_kill = Instant::now() + Duration::from_millis(round * 4);
        while Instant::now() < until_kill {
            std::hint::spin_loop();
        }
        agent.kill();
        agent.start();
        let status = agent.wait_ready();
        assert_eq!(status.error, None, "round {round}");
        assert_eq!(agent.living_games().len(), 1, "round {round}: one game, not two");
        stops(&agent);
    }
}

/// A shim that takes its time at a step of its beginning, and the agent killed meanwhile: the
/// next agent waits for it, and takes it over.
fn a_slow_beginning(step: &str, ms: u64) {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    stops(&agent);
    let before = faults.reached("shim").iter().filter(|point| *point == step).count();
    faults.plan(&format!("delay {step} {ms}")).unwrap();
    agent.post("/start", 202);
    until("the shim has begun", SOON, || {
        faults.reached("shim").iter().filter(|point| *point == step).count() > before
    });
    agent.kill();
    faults.clear().unwrap();
    agent.start();
    let status = agent.wait_ready();
    assert_eq!((status.error, status.crashes_total), (None, 0), "slow at {step}");
    assert_eq!(agent.living_games().len(), 1, "slow at {step}: one game, not two");
    stops(&agent);
}

#[test]
fn a_shim_that_is_slow_to_write_who_it_is_is_waited_for() {
    // Longer than another shim waits for the slot.
    a_slow_beginning("hold.locked", 3000);
}

#[test]
fn a_shim_that_is_slow_to_answer_has_not_ended() {
    // Longer than a handshake may take.
    a_slow_beginning("hold.recorded", 4000);
}

/// What a shim runs is what it was started for, whoever writes into its folder meanwhile.
#[test]
fn a_spec_that_was_replaced_under_a_shim_is_not_run() {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    stops(&agent);
    let reached = || faults.reached("shim").iter().filter(|point| *point == "hold.recorded").count();
    let before = reached();
    faults.plan("hold hold.recorded").unwrap();
    agent.post("/start", 202);
    until("the shim has begun", SOON, || reached() > before);
    let dir = agent.root_path("opt/zlh-agent/run/game");
    let mut spec = Spec::read(&dir).unwrap();
    let mark = agent.root_path("somebody-elses");
    spec.instance = "0123456789abcdef0123456789abcdef".to_owned();
    spec.argv = vec!["/usr/bin/touch".to_owned(), mark.display().to_string()];
    spec.write(&dir).unwrap();
    faults.clear().unwrap();
    let status = agent.wait_ready();
    assert_eq!((status.error, status.crashes_total), (None, 0));
    assert!(!mark.exists() && agent.living_games().len() == 1);
    stops(&agent);
}

#[test]
fn an_agent_killed_in_a_restart_ends_it_where_it_was_going() {
    let mut agent = Agent::with_ready_fake(&[]);
    for round in 0..8_u64 {
        agent.post("/restart", 202);
        let until_kill = Instant::now() + Duration::from_millis(round * 15);
        while Instant::now() < until_kill {
            std::hint::spin_loop();
        }
        agent.kill();
        agent.start();
        let status = agent.wait_ready();
        assert_eq!((status.error, status.crashes_total), (None, 0), "round {round}");
        assert_eq!(agent.living_games().len(), 1, "round {round}");
    }
}

/// Kills agent and shim; the next agent finds the game without its terminal.
fn orphaned() -> (Agent, Process) {
    let mut agent = Agent::with_ready_fake(&[]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    agent.kill();
    shim.signal(Signal::SIGKILL);
    until("the shim is dead", SOON, || !shim.is_alive());
    agent.start();
    let degraded = |s: &zlh_api::Status| s.warnings.iter().any(|w| w.starts_with("degraded"));
    let status = agent.wait_status("degraded and ready", SOON, |s| degraded(s) && s.ready);
    assert_eq!((status.state, status.pid), (State::Running, Some(game.pid)));
    (agent, game)
}

#[test]
fn a_server_that_lost_its_terminal_lives_on_and_can_be_stopped() {
    let (agent, game) = orphaned();
    // Nothing is started beside it.
    agent.post("/start", 202);
    assert_eq!(agent.living_games(), [game]);
    stops(&agent);
    let status = agent.status();
    assert_eq!(status.crashes_total, 0, "a stop is no crash");
    agent.post("/start", 202);
    let status = agent.wait_ready();
    assert!(!status.warnings.iter().any(|w| w.starts_with("degraded")), "{:?}", status.warnings);
}

#[test]
fn an_orphan_that_ends_is_counted_and_comes_back() {
    let (agent, game) = orphaned();
    game.signal(Signal::SIGKILL);
    let status = agent.wait_state(State::Crashed);
    assert_eq!((status.last_crash_exit_code, status.crashes_total), (None, 1), "never 0");
    // The kernel tells (6.15), or nobody does.
    let crash = status.last_crash.unwrap();
    assert!(crash.signal == 9 || crash.lost.is_some(), "{crash:?}");
    agent.post("/start", 202);
    agent.wait_ready();
}

/// Everything dies, and nobody is there to see how: one crash, of which nothing is made up, and one
/// restart, however many agents come after it.
#[test]
fn what_died_with_everybody_who_could_tell_is_lost_and_restarted_once() {
    let mut agent = Agent::with_ready_fake(&[]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    agent.kill();
    shim.signal(Signal::SIGKILL);
    until("the shim is dead", SOON, || !shim.is_alive());
    game.signal(Signal::SIGKILL);
    // Its remains would still say how.
    until("the game is buried", SOON, || fs::metadata(format!("/proc/{}", game.pid)).is_err());
    let mut due = None;
    for _ in 0..3 {
        agent.start();
        agent.recalled();
        let status = agent.wait_state(State::Crashed);
        assert_eq!((status.crashes_total, status.crash_count), (1, 1), "counted once");
        let crash = status.last_crash.unwrap();
        assert!(crash.lost.is_some() && crash.exit_code.is_none(), "{crash:?}");
        let planned = status.next_restart_at.unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
        // Told as a time of day anew each time.
        assert!((planned - *due.get_or_insert(planned)).abs() < 1000, "another pause begins");
        agent.kill();
    }
    agent.start();
    let status = agent.wait_status("the restart", 3 * SOON, |status| status.ready);
    assert_eq!(status.crashes_total, 1);
    assert_eq!(agent.events().iter().filter(|event| event.what == What::Started).count(), 2);
}

#[test]
fn an_orphan_is_known_to_the_next_agent_and_can_be_stopped() {
    let plan = FakePlan { grace_s: 2, term_s: 2, ..FakePlan::new(&[]) };
    let mut agent = Agent::with_fake(&plan);
    agent.configure();
    agent.wait_ready();
    let game = agent.game();
    let shim = agent.shims()[0];
    agent.kill();
    shim.signal(Signal::SIGSTOP);
    agent.start();
    let status = agent.wait_ready();
    assert_eq!(status.pid, Some(game.pid));
    assert!(status.warnings.iter().any(|w| w.starts_with("degraded")), "{:?}", status.warnings);
    // Thawed, it is a shim like any other again.
    shim.signal(Signal::SIGCONT);
    agent.wait_status("whole again", SOON, |s| !s.warnings.iter().any(|w| w.starts_with("degraded")));
    assert_eq!(agent.game(), game);
    // Frozen for good, it does not keep anybody from stopping.
    agent.kill();
    shim.signal(Signal::SIGSTOP);
    agent.start();
    agent.wait_ready();
    stops(&agent);
    until("the frozen shim is gone", SOON, || !shim.is_alive());
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn a_living_game_is_known_whatever_became_of_the_files() {
    for damaged in
        ["state/installed.json", "state/workload.json", "config/payload.json", "run/game/shim.json"]
    {
        let mut agent = Agent::with_ready_fake(&[]);
        let game = agent.game();
        agent.kill();
        fs::write(agent.root_path("opt/zlh-agent").join(damaged), "garbage").unwrap();
        agent.start();
        agent.wait_status("the living game", SOON, |s| s.pid == Some(game.pid));
        stops(&agent);
        assert!(!game.is_alive(), "after damage to {damaged}");
    }
}

#[test]
fn a_run_whose_folder_and_shim_are_gone_ends_as_lost() {
    let agent = Agent::with_ready_fake(&[]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    // Whoever writes there meanwhile makes it a folder that is not empty.
    shim.signal(Signal::SIGSTOP);
    until("the folder is gone", SOON, || {
        let run = agent.root_path("opt/zlh-agent/run/game");
        fs::remove_dir_all(&run).is_ok() || !run.exists()
    });
    shim.signal(Signal::SIGKILL);
    game.signal(Signal::SIGKILL);
    let status = agent.wait_state(State::Crashed);
    assert!(!status.process_running);
    assert_eq!(status.last_crash_exit_code, None);
    stops(&agent);
}

#[test]
fn a_placed_file_that_is_gone_is_put_back_before_the_next_start() {
    let agent = Agent::with_ready_fake(&[]);
    stops(&agent);
    let mut removed = 0;
    for entry in fs::read_dir(agent.root_path("opt/zlh/servers")).unwrap().flatten() {
        // Trees and links alike: nothing of the installed server is left.
        let path = entry.path();
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.unwrap();
        removed += 1;
    }
    let placed = agent.game_root().join("server.jar");
    if placed.exists() {
        fs::remove_file(&placed).unwrap();
        removed += 1;
    }
    assert!(removed > 0, "there was something to lose");
    agent.post("/start", 202);
    let status = agent.wait_ready();
    assert_eq!(status.error, None);
}

#[test]
fn a_stop_is_remembered_also_when_nothing_ran() {
    let mut agent = Agent::with_ready_fake(&[]);
    // Somebody else stops it through its shim, as a container's shutdown does.
    agent.shims()[0].signal(Signal::SIGTERM);
    agent.wait_state(State::Idle);
    agent.post("/stop", 204);
    agent.kill();
    agent.start();
    assert_eq!(agent.recalled().state, State::Idle, "it was stopped for good");
    assert!(agent.living_games().is_empty());
}

#[test]
fn what_a_container_shutdown_stopped_comes_back_with_the_next_agent() {
    let mut agent = Agent::with_ready_fake(&[]);
    agent.kill();
    let shim = agent.shims()[0];
    shim.signal(Signal::SIGTERM);
    until("the shim has stopped the game and left", SOON, || !shim.is_alive());
    assert!(agent.living_games().is_empty());
    agent.start();
    let status = agent.wait_ready();
    assert_eq!((status.crashes_total, status.error), (0, None));
}
