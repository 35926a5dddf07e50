//! What lies in the run folder is damaged, cut short, or of another life of the container: the
//! living game is known all the same, an end is counted once, and nobody else is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use zlh_api::{OperationState, State};
use zlh_shim::process::ProcessId;
use zlh_shim::record::{Exit, ExitRecord, ShimRecord};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::wait::{SOON, until};

/// Stop has to end it, whatever happened before.
fn stops(agent: &Agent) {
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let left: Vec<_> = agent.living_games();
    assert!(left.is_empty(), "idle, and {left:?} lives on");
}

pub(crate) fn folder(agent: &Agent) -> PathBuf {
    agent.root_path("opt/zlh-agent/run/game")
}

/// How a file can be damaged.
pub(crate) const DAMAGES: [fn(&Path); 3] = [
    |file| fs::write(file, "garbage").unwrap(),
    |file| fs::write(file, "").unwrap(),
    |file| {
        let whole = fs::read(file).unwrap_or_default();
        fs::write(file, &whole[..whole.len() / 2]).unwrap();
    },
];

#[test]
fn a_living_game_is_known_whatever_became_of_its_records() {
    let mut agent = Agent::with_ready_fake(&[]);
    // With records of a run before it.
    stops(&agent);
    agent.post("/start", 202);
    agent.wait_ready();
    let game = agent.game();
    for file in ["spec.json", "exit.json", "exit.slot", "child.json", "shim.json"] {
        for (which, damage) in DAMAGES.iter().enumerate() {
            agent.kill();
            damage(&folder(&agent).join(file));
            agent.start();
            let status = agent.wait_status("the living game", SOON, |s| s.pid == Some(game.pid) && s.ready);
            assert_eq!((status.crashes_total, status.error), (0, None), "{file}, damage {which}");
        }
    }
    assert_eq!(agent.living_games(), [game]);
    stops(&agent);
    assert_eq!(agent.status().crashes_total, 0);
    agent.post("/start", 202);
    agent.wait_ready();
    stops(&agent);
}

/// Agent, game and shim are gone; what is left is the record of the end.
pub(crate) fn ended(agent: &mut Agent) -> ExitRecord {
    let (game, shim) = (agent.game(), agent.shims()[0]);
    let instance = ShimRecord::read(&folder(agent)).unwrap().instance;
    agent.kill();
    game.signal(Signal::SIGKILL);
    let record = || ExitRecord::read(&folder(agent), &instance);
    until("the end is recorded", SOON, || record().is_ok());
    shim.signal(Signal::SIGKILL);
    until("the shim is gone", SOON, || !shim.is_alive());
    record().unwrap()
}

#[test]
fn an_end_whose_record_is_damaged_is_lost_and_counted_once() {
    for (which, damage) in DAMAGES.iter().enumerate() {
        let mut agent = Agent::with_ready_fake(&[]);
        ended(&mut agent);
        damage(&folder(&agent).join("exit.json"));
        agent.start();
        let status = agent.wait_state(State::Crashed);
        assert_eq!((status.crashes_total, status.last_crash_exit_code), (1, None), "damage {which}");
        // Its remains may still lie there and tell.
        let crash = status.last_crash.unwrap();
        assert!(crash.lost.is_some() || crash.signal == 9, "damage {which}: {crash:?}");
        agent.kill();
        agent.start();
        assert_eq!(agent.wait_state(State::Crashed).crashes_total, 1, "damage {which}");
    }
}

/// The pause counts from the end, not from the agent that learns of it.
#[test]
fn what_is_left_of_a_pause_is_waited_for() {
    const AGO_MS: u64 = 10_000;
    let mut agent = Agent::with_ready_fake(&[]);
    let mut record = ended(&mut agent);
    record.ended_boot_ms -= AGO_MS;
    record.write(&folder(&agent), None).unwrap();
    agent.start();
    let status = agent.wait_state(State::Crashed);
    let at: jiff::Timestamp = status.next_restart_at.as_ref().unwrap().parse().unwrap();
    let left = at.as_second() - i64::try_from(status.timestamp).unwrap();
    assert!((0..=20).contains(&left), "{left} s are left of 30, 10 are gone");
}

/// It ran and nobody has stopped it: so it is wanted, whatever was remembered.
#[test]
fn a_planned_restart_outlives_what_was_remembered() {
    let mut agent = Agent::with_ready_fake(&[]);
    ended(&mut agent);
    fs::remove_file(agent.root_path("opt/zlh-agent/state/workload.json")).unwrap();
    for _ in 0..2 {
        agent.start();
        let status = agent.wait_state(State::Crashed);
        assert!(status.next_restart_at.is_some(), "{status:?}");
        agent.kill();
    }
}

/// Nobody may be there to ask for it once more.
#[test]
fn a_restart_that_cannot_begin_is_tried_again() {
    let mut agent = Agent::with_ready_fake(&[]);
    let mut record = ended(&mut agent);
    record.ended_boot_ms -= 40_000;
    record.write(&folder(&agent), None).unwrap();
    let port = u16::try_from(agent.payload()["ports"][0].as_u64().unwrap()).unwrap();
    let other = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    agent.start();
    let status = agent.wait_status("the failed start", SOON, |status| status.error.is_some());
    assert_eq!((status.state, status.crashes_total, status.crash_count), (State::Crashed, 1, 2));
    let why = status.error.unwrap();
    assert!(why.contains(&format!("port {port} is in use")), "{why}");
    let at: jiff::Timestamp = status.next_restart_at.unwrap().parse().unwrap();
    let pause = at.as_second() - i64::try_from(status.timestamp).unwrap();
    assert!((50..=61).contains(&pause), "the second pause of the ladder is 60 s, not {pause}");
    let reason = agent.http().get("/ready").unwrap().expect(503).text();
    assert!(reason.contains("in use") && reason.contains("tried again at"), "{reason}");
    let history = agent.http().get("/history").unwrap().expect(200).text();
    assert!(history.contains("start_failed"), "{history}");
    // The pause is kept.
    agent.kill();
    agent.start();
    let status = agent.wait_state(State::Crashed);
    assert_eq!((status.crash_count, status.error), (2, Some(why)));
    // Whoever asks for it is told at once, and decides.
    let refused = agent.post("/start", 202);
    assert_eq!(agent.outcome(&refused).state, OperationState::Failed);
    assert_eq!(agent.wait_state(State::Error).next_restart_at, None);
    drop(other);
    // And what was planned before that is not done by an agent that comes later.
    agent.post("/stop", 204);
    agent.kill();
    agent.start();
    assert_eq!(agent.recalled().state, State::Idle);
    assert!(agent.living_games().is_empty());
    agent.post("/start", 202);
    agent.wait_ready();
}

/// The container was restarted: a number in the records is somebody else's by now.
#[test]
fn records_of_another_life_of_the_container_touch_nobody() {
    for with_exit in [false, true] {
        let mut agent = Agent::with_ready_fake(&[]);
        let mut exit = ended(&mut agent);
        let mut other = Command::new("sleep").arg("600").spawn().unwrap();
        let id = ProcessId::of(other.id().cast_signed()).unwrap();
        let mut shim = ShimRecord::read(&folder(&agent)).unwrap();
        shim.generation.init_start_ticks += 1;
        (shim.shim, shim.child) = (id, Some(id));
        shim.write(&folder(&agent)).unwrap();
        if with_exit {
            exit.generation = shim.generation;
            exit.exit = Exit::Exited { code: 3 };
            exit.write(&folder(&agent), None).unwrap();
        } else {
            fs::remove_file(folder(&agent).join("exit.json")).unwrap();
        }
        agent.start();
        let status = agent.wait_ready();
        assert_eq!((status.crashes_total, status.error), (0, None), "it comes back at once");
        assert_eq!(status.last_crash_exit_code, with_exit.then_some(3));
        assert!(other.try_wait().unwrap().is_none(), "somebody else's process was touched");
        other.kill().unwrap();
        other.wait().unwrap();
        stops(&agent);
    }
}
