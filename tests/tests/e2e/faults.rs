//! Killed at every step, a full disk under every write, a clock that is years off: the game
//! runs on, nothing is ever half written, and stop still stops.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use zlh_api::State;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::faults::{Faults, thorough};
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, until};

/// Every so many kill points one is tried; all of them in a thorough run.
const STRIDE: usize = 6;

/// Where an agent may die.
const AGENT: &str = "run";

/// Where a shim may die.
const SHIM: &str = "shim";

/// Where the process that becomes the game may die.
const EXEC: &str = "exec";

const YEAR_S: i64 = 365 * 24 * 3600;

fn prepared(flags: &[&str]) -> (Agent, Faults) {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(flags)).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    (agent, faults)
}

/// Records that somebody had to set aside, and temporary files that nobody will ever look at.
fn debris(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("opt/zlh-agent")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if name.contains(".broken-") {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Install, start, stop, start, crash: whatever dies on the way, the rest is left undone.
pub(crate) fn live_a_little(agent: &Agent) -> Option<()> {
    let http = agent.http();
    let reach = |wanted: fn(&zlh_api::Status) -> bool| {
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            let status: zlh_api::Status = http.get("/status").ok()?.json();
            if wanted(&status) {
                return Some(());
            }
            // Something died: this is what the caller came to see.
            if matches!(status.state, State::Error | State::Crashed) || status.state == State::Idle {
                let again: zlh_api::Status = http.get("/status").ok()?.json();
                return wanted(&again).then_some(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    };
    let ready: fn(&zlh_api::Status) -> bool = |s| s.ready;
    http.post_json("/config", &agent.payload()).ok()?;
    reach(ready)?;
    http.post("/stop").ok()?;
    reach(|s| s.state == State::Idle)?;
    http.post("/start").ok()?;
    reach(ready)?;
    http.post_json("/console/command", &serde_json::json!({ "command": "crash 3" })).ok()?;
    reach(|s| s.state == State::Crashed)
}

/// After any accident: one game at most, no file half written, and everything works again.
pub(crate) fn all_is_well(agent: &mut Agent, what: &str) {
    if agent.http().get("/health").is_err() {
        agent.start();
    }
    // Before that it is idle and configured for nothing, whatever runs.
    agent.recalled();
    let status = agent.wait_status("rest", SOON, |s| {
        matches!(s.state, State::Idle | State::Crashed | State::Error) || s.ready
    });
    let games = agent.living_games();
    assert!(games.len() <= 1, "{what}: {games:?}");
    if status.state == State::Idle || status.state == State::Crashed {
        until(&format!("{what}: nothing running while {}", status.state), SOON, || {
            agent.living_games().is_empty()
        });
    }
    assert_eq!(debris(agent.root()), Vec::<PathBuf>::new(), "{what}");
    if status.config.is_none() {
        agent.configure();
    } else if !status.ready {
        agent.post("/start", 202);
    }
    let status = agent.wait_ready();
    assert_eq!(agent.living_games().len(), 1, "{what}: {status:?}");
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert!(agent.living_games().is_empty(), "{what}: idle, and a game lives");
}

/// Kills processes of one role at one point after the other, each in a life of its own; what was tried.
fn killed_at_every_point(role: &str) -> String {
    let every = if thorough() { 1 } else { STRIDE };
    let (mut agent, faults) = prepared(&[]);
    agent.start();
    live_a_little(&agent).expect("an undisturbed life");
    let points = faults.reached(role);
    drop(agent);
    assert!(!points.is_empty());
    // Short lists are tried in full.
    let every = if points.len() < 3 * every { 1 } else { every };
    let (mut tried, mut reached) = (0, 0);
    for (at, name) in points.iter().enumerate().step_by(every) {
        let what = format!("{role} killed at point {at}, {name}");
        let (mut agent, faults) = prepared(&[]);
        faults.plan(&format!("kill {role} {at}")).unwrap();
        // It may be dead before it listens.
        agent.spawn().unwrap();
        let begun = Instant::now();
        while faults.reached(role).len() <= at && begun.elapsed() < SOON {
            if agent.try_connect().is_some() && live_a_little(&agent).is_none() {
                break;
            }
        }
        // How often a terminal is read differs a little from life to life.
        let was_reached = faults.reached(role).len() > at;
        reached += usize::from(was_reached);
        tried += 1;
        faults.clear().unwrap();
        if role == AGENT {
            agent.kill();
            agent.start();
        }
        all_is_well(&mut agent, &what);
    }
    assert!(reached * 10 >= tried * 8, "{reached} of {tried}");
    format!("{role}: {} points, one in {every} tried, {reached} of {tried} reached", points.len())
}

#[test]
fn an_agent_killed_at_any_point_loses_nothing() {
    println!("{}", killed_at_every_point(AGENT));
}

#[test]
fn a_shim_killed_at_any_point_leaves_nothing_doubled() {
    println!("{}", killed_at_every_point(SHIM));
}

#[test]
fn what_dies_before_it_became_the_game_is_a_failed_start() {
    println!("{}", killed_at_every_point(EXEC));
}

/// What an agent answered about maintenance holds, whenever it is killed; what it did not answer can
/// be asked again.
#[test]
fn an_agent_killed_at_any_point_of_a_maintenance_keeps_its_word() {
    let ready = || {
        let (mut agent, faults) = prepared(&[]);
        agent.start();
        agent.configure();
        agent.wait_ready();
        until("all that follows readiness is written", SOON, || {
            let before = faults.reached(AGENT).len();
            std::thread::sleep(Duration::from_millis(50));
            faults.reached(AGENT).len() == before
        });
        (agent, faults)
    };
    /// Whether each of both was answered.
    fn live(agent: &Agent) -> (bool, bool) {
        let answered = |answer: std::io::Result<zlh_tests::harness::http::Response>| {
            answer.is_ok_and(|a| a.status == 200)
        };
        let began = answered(agent.http().send("PUT", "/maintenance", Some(b"{}")));
        let idle = |status: &zlh_api::Status| status.state == State::Idle;
        let look = || Some(agent.http().get("/status").ok()?.json::<zlh_api::Status>());
        while began && look().is_some_and(|status| !idle(&status)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        (began, began && answered(agent.http().delete("/maintenance")))
    }
    let (agent, faults) = ready();
    let before = faults.reached(AGENT).len();
    assert_eq!(live(&agent), (true, true));
    agent.wait_ready();
    let points = faults.reached(AGENT).split_off(before);
    drop(agent);
    assert!(points.len() > 3, "{points:?}");
    let every = if thorough() { 1 } else { STRIDE };
    for (at, name) in points.iter().enumerate().step_by(every) {
        let what = format!("killed at point {at}, {name}");
        let (mut agent, faults) = ready();
        faults.plan(&format!("kill {AGENT} {}", faults.reached(AGENT).len() + at)).unwrap();
        let (began, over) = live(&agent);
        faults.clear().unwrap();
        agent.kill();
        agent.start();
        let status = agent.recalled();
        if began && !over {
            // The end may have been decided and not answered.
            assert!(status.maintenance || status.state != State::Idle, "{what}: {status:?}");
        }
        assert!(!over || !status.maintenance, "{what}: it was over");
        if status.maintenance {
            // Whoever was killed between its record and the stop: the next one stops it.
            agent.wait_state(State::Idle);
        }
        let games = agent.living_games().len();
        assert!(games <= usize::from(!status.maintenance), "{what}: {games} games");
        let again = agent.http().send("PUT", "/maintenance", Some(b"{}")).unwrap().expect(200);
        assert!(again.text().contains("\"active\":true"), "{what}");
        agent.wait_state(State::Idle);
        assert!(agent.living_games().is_empty(), "{what}");
        agent.http().delete("/maintenance").unwrap().expect(200);
        agent.wait_ready();
        assert_eq!(debris(agent.root()), Vec::<PathBuf>::new(), "{what}");
    }
}

/// No space for anything while it runs: it runs on, its console is there, and stop stops.
#[test]
fn with_no_space_at_all_the_game_runs_on_and_stop_stops() {
    let (mut agent, faults) = prepared(&[]);
    agent.start();
    agent.configure();
    agent.wait_ready();
    let game = agent.game();
    faults.plan("enospc durable 1\nenospc console 1\nenospc slot 1").unwrap();
    agent.command("say into a full disk");
    agent.wait_console("[Server] into a full disk");
    assert_eq!(agent.game(), game);
    agent.post("/stop", 204);
    let status = agent.wait_state(State::Idle);
    assert_eq!(status.crashes_total, 0, "the exit record went to its slot: {status:?}");
    assert!(agent.living_games().is_empty());
    // A start needs space, and says so.
    agent.post("/start", 202);
    let status = agent.wait_status("the reason", SOON, |s| s.state == State::Error);
    let error = status.error.unwrap();
    assert!(error.contains("No space left on device"), "{error}");
    // The agent comes back on the full disk and still knows what it can know.
    restart_on_a_full_disk(&mut agent);
    agent.wait_status("an answer", SOON, |s| s.config.is_some());
    faults.clear().unwrap();
    all_is_well(&mut agent, "space again");
}

/// A thousand refused writes (in a thorough run), over starts, stops, crashes and floods.
#[test]
fn a_thousand_refused_writes_corrupt_nothing() {
    let wanted = if thorough() { 1000 } else { 150 };
    let (mut agent, faults) = prepared(&[]);
    agent.start();
    agent.configure();
    agent.wait_ready();
    let begun = Instant::now();
    let mut round = 0_usize;
    while faults.refused().len() < wanted {
        assert!(begun.elapsed() < Duration::from_secs(400), "{} refused", faults.refused().len());
        // Different strides meet different steps of each write.
        let every = [2, 3, 5, 7, 11, 13][round % 6];
        faults
            .plan(&format!("enospc durable {every}\nenospc console {}\nenospc slot 2", every % 3 + 1))
            .unwrap();
        let ready = agent.wait_status("a state to act on", SOON, |s| {
            s.ready || matches!(s.state, State::Idle | State::Crashed | State::Error)
        });
        if ready.ready {
            let game = agent.game();
            agent.command("flood 8MB 0");
            let marker = format!("after flood {round}");
            // Said in the middle of the flood it may be among what the full disk costs.
            until("the game to answer", SOON, || {
                agent.command(&format!("say {marker}"));
                agent.console().contains(&format!("[Server] {marker}"))
            });
            assert_eq!(agent.game(), game, "round {round}");
            match round % 3 {
                0 => {
                    agent.post("/stop", 204);
                    agent.wait_state(State::Idle);
                }
                1 => {
                    agent.command("crash 3");
                    agent.wait_status("the end", SOON, |s| !s.process_running);
                }
                _ => {
                    restart_on_a_full_disk(&mut agent);
                    agent.wait_ready();
                    assert_eq!(agent.game(), game, "round {round}");
                }
            }
        } else {
            agent.post("/start", 202);
        }
        assert!(agent.living_games().len() <= 1, "round {round}");
        assert_eq!(debris(agent.root()), Vec::<PathBuf>::new(), "round {round}");
        round += 1;
    }
    let refused = faults.refused();
    let kinds = |prefix: &str| refused.iter().filter(|name| name.starts_with(prefix)).count();
    println!(
        "{} refused in {round} rounds: {} durable, {} console, {} slot",
        refused.len(),
        kinds("durable"),
        kinds("console"),
        kinds("slot")
    );
    assert!(kinds("durable") >= wanted / 20, "{refused:?}");
    faults.clear().unwrap();
    all_is_well(&mut agent, "space again");
}

/// Not even its own address can be written then: it has to be told where to listen.
pub(crate) fn restart_on_a_full_disk(agent: &mut Agent) {
    agent.listen_on(agent.address().port());
    agent.kill();
    agent.start_at_known_address();
}

/// A disk that is really full, to the last byte.
#[test]
fn zero_bytes_free() {
    if !geteuid().is_root() {
        println!("skipped: mounting a small file system needs root");
        return;
    }
    let (mut agent, _) = prepared(&[]);
    let disk = agent.root_path("disk");
    fs::create_dir(&disk).unwrap();
    // Seen by this thread and what it starts, and gone with them.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=64m,mode=0755")).unwrap();
    agent.move_root(&disk);
    agent.start();
    agent.configure();
    agent.wait_ready();
    let game = agent.game();
    let ballast = disk.join("ballast");
    let fill = || {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&ballast).unwrap();
        let block = vec![1_u8; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    };
    fill();
    agent.command("flood 600KB 0");
    // Said in the middle of the flood it may be among what the full disk costs.
    until("the game to answer", SOON, || {
        agent.command("say still here");
        agent.console().contains("[Server] still here")
    });
    fill();
    assert_eq!(agent.game(), game);
    fill();
    restart_on_a_full_disk(&mut agent);
    agent.wait_ready();
    assert_eq!(agent.game(), game);
    agent.post("/stop", 204);
    let status = agent.wait_state(State::Idle);
    assert_eq!(status.crashes_total, 0, "{status:?}");
    assert!(agent.living_games().is_empty());
    fs::remove_file(&ballast).unwrap();
    all_is_well(&mut agent, "space again");
    drop(agent);
    umount2(&disk, MntFlags::MNT_DETACH).unwrap();
}

/// A year forward, a year back, with the agent away and without: no pause ends early or never.
#[test]
fn a_clock_that_jumps_a_year_changes_no_pause() {
    for shift in [YEAR_S, -YEAR_S] {
        let (mut agent, faults) = prepared(&[]);
        agent.start();
        agent.configure();
        agent.wait_ready();
        agent.command("crash 3");
        agent.wait_state(State::Crashed);
        let crashed = Instant::now();
        faults.clock(shift).unwrap();
        let left = |agent: &Agent| {
            let status = agent.status();
            let at: jiff::Timestamp = status.next_restart_at.as_ref()?.parse().ok()?;
            Some(at.as_second() - i64::try_from(status.timestamp).ok()?)
        };
        agent.kill();
        agent.start();
        let status = agent.recalled();
        assert_eq!(status.state, State::Crashed, "{shift}: {status:?}");
        let left = left(&agent).expect("a planned restart");
        let gone = i64::try_from(crashed.elapsed().as_secs()).unwrap();
        assert!((29 - gone - 1..=30).contains(&left), "{shift}: {left} s left, {gone} s gone");
        assert!(status.last_crash_uptime_seconds.is_some_and(|s| s < 60), "{shift}: {status:?}");
        // And a run that began before the jump has lived as long as it has.
        agent.post("/start", 202);
        agent.wait_ready();
        faults.clock(-shift).unwrap();
        agent.command("crash 4");
        let status = agent.wait_state(State::Crashed);
        assert!(status.last_crash_uptime_seconds.is_some_and(|s| s < 60), "{shift}: {status:?}");
        assert_eq!(status.last_crash_exit_code, Some(4));
        assert_eq!(status.crash_count, 1, "a start by hand forgave the first");
    }
}
