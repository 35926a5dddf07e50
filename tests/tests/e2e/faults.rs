//! Killed at every step, a full disk under every write, a clock that is years off: the game
//! runs on, nothing is ever half written, and stop still stops.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use zlh_api::{History, HistoryKind, State, Status};
use zlh_shim::record::{Exit, ExitRecord, ShimRecord, StopStage};
use zlh_tests::fake::events::{What, monotonic_ns};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::debris::{damage, leftovers};
use zlh_tests::harness::faults::{Faults, thorough};
use zlh_tests::harness::http::Response;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, eventually, until};

/// Every so many kill points one is tried; all of them in a thorough run.
const STRIDE: usize = 6;

/// Where an agent may die.
const AGENT: &str = "run";

/// Where a shim may die.
const SHIM: &str = "shim";

/// Where the process that becomes the game may die.
const EXEC: &str = "exec";

/// Between a first crash and the start that nobody asked for.
const PAUSE: Duration = Duration::from_secs(30);

const YEAR_S: i64 = 365 * 24 * 3600;

fn prepared(flags: &[&str]) -> (Agent, Faults) {
    prepared_for(&FakePlan::new(flags))
}

fn prepared_for(plan: &FakePlan) -> (Agent, Faults) {
    let mut agent = Agent::prepare(Store::fake(plan).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    (agent, faults)
}

/// No record is broken, and nothing lies about that nobody will look at.
#[track_caller]
fn nothing_is_left(agent: &Agent, what: &str) {
    assert_eq!(damage(agent.root()), Vec::<String>::new(), "{what}");
    // Who is about to put one into place does so.
    eventually(what, SOON, || {
        let left = leftovers(agent.root());
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

/// The journal is whole, and no end of a run is a crash twice.
#[track_caller]
fn history_is_whole(agent: &Agent, what: &str) {
    let history: History =
        agent.http().get("/history?window=30d&limit=1000").expect("ask for the history").expect(200).json();
    assert_eq!((history.journal.damaged, history.journal.lost), (0, 0), "{what}: {:?}", history.journal);
    let mut crashed = BTreeSet::new();
    for event in history.events.iter().filter(|event| event.kind == HistoryKind::Crash) {
        assert!(crashed.insert(event.instance.clone()), "{what}: crashed twice: {event:?}");
    }
}

/// What an agent answered before an accident: it holds, whatever happens.
#[derive(Debug, Default)]
pub(crate) struct Lived {
    /// It was configured.
    configured: bool,
    /// Whether it is to run; unknown from a call on until it is answered.
    wanted: Option<bool>,
    /// Crashes that were counted before.
    before: u32,
    /// Crashes that were asked for, answered or not.
    asked: u32,
    /// Crashes that were asked for and answered.
    crashed: u32,
    /// Crashes that the accident itself may be.
    by_accident: u32,
}

impl Lived {
    /// What an agent that [is well](all_is_well) is left with: the power may end a run.
    pub(crate) fn since(rest: &Status) -> Self {
        Self { configured: true, wanted: Some(false), before: rest.crashes_total, ..Self::default() }
    }

    /// Whatever ran may have ended with the accident.
    pub(crate) fn with_a_crash_by_accident(self) -> Self {
        Self { by_accident: 1, ..self }
    }
}

/// Install (or start), stop, start, crash: whatever dies on the way, the rest is left undone. What is
/// answered while `counts` says so is kept in `lived`.
pub(crate) fn live_a_little(agent: &Agent, lived: &mut Lived, counts: impl Fn() -> bool) -> Option<()> {
    let http = agent.http();
    let reach = |wanted: fn(&Status) -> bool| {
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            let status: Status = http.get("/status").ok()?.json();
            if wanted(&status) {
                return Some(());
            }
            // Something died: this is what the caller came to see.
            if matches!(status.state, State::Error | State::Crashed) || status.state == State::Idle {
                let again: Status = http.get("/status").ok()?.json();
                return wanted(&again).then_some(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    };
    let answered =
        |answer: std::io::Result<Response>| Some((200..300).contains(&answer.ok()?.status) && counts());
    let ready: fn(&Status) -> bool = |s| s.ready;
    lived.wanted = None;
    // A payload that is known asks for nothing.
    let begun =
        if lived.configured { http.post("/start") } else { http.post_json("/config", &agent.payload()) };
    if answered(begun)? {
        lived.configured = true;
        lived.wanted = Some(true);
    }
    reach(ready)?;
    lived.wanted = None;
    lived.wanted = answered(http.post("/stop"))?.then_some(false);
    reach(|s| s.state == State::Idle)?;
    lived.wanted = None;
    lived.wanted = answered(http.post("/start"))?.then_some(true);
    reach(ready)?;
    lived.asked += 1;
    let crash = http.post_json("/console/command", &serde_json::json!({ "command": "crash 3" }));
    lived.crashed += u32::from(answered(crash)?);
    reach(|s| s.state == State::Crashed)
}

/// After any accident: one game at most, no file half written, what was answered holds, nothing is
/// counted twice, and everything works again. How it is in the end: configured, and stopped.
pub(crate) fn all_is_well(agent: &mut Agent, what: &str, lived: &Lived) -> Status {
    if agent.http().get("/health").is_err() {
        agent.start();
    }
    // Before that it is idle and configured for nothing, whatever runs.
    agent.recalled();
    // Whoever took an order passes it on, and its end is counted; unless the accident came first.
    let least = lived.before + if lived.by_accident == 0 { lived.crashed } else { 0 };
    let status = agent.wait_status(what, SOON, |s| {
        let is_at_rest = matches!(s.state, State::Idle | State::Crashed | State::Error) || s.ready;
        is_at_rest && s.crashes_total >= least
    });
    let games = agent.living_games();
    assert!(games.len() <= 1, "{what}: {games:?}");
    if status.state == State::Idle || status.state == State::Crashed {
        until(&format!("{what}: nothing running while {}", status.state), SOON, || {
            agent.living_games().is_empty()
        });
    }
    assert_eq!(damage(agent.root()), Vec::<String>::new(), "{what}");
    assert!(status.config.is_some() || !lived.configured, "{what}: /config was answered: {status:?}");
    if let Some(wanted) = lived.wanted {
        assert_eq!(status.state != State::Idle, wanted, "{what}: it was answered: {lived:?}, {status:?}");
    }
    if status.config.is_none() {
        agent.configure();
    } else if !status.ready {
        agent.post("/start", 202);
    }
    let status = agent.wait_ready();
    assert_eq!(agent.living_games().len(), 1, "{what}: {status:?}");
    nothing_is_left(agent, what);
    agent.post("/stop", 204);
    let status = agent.wait_state(State::Idle);
    assert!(agent.living_games().is_empty(), "{what}: idle, and a game lives");
    let most = lived.before + lived.asked + lived.by_accident;
    assert!((least..=most).contains(&status.crashes_total), "{what}: {lived:?}, {status:?}");
    history_is_whole(agent, what);
    status
}

/// Kills processes of one role at one point after the other, each in a life of its own; what was tried.
fn killed_at_every_point(role: &str) -> String {
    let every = if thorough() { 1 } else { STRIDE };
    let (mut agent, faults) = prepared(&[]);
    agent.start();
    live_a_little(&agent, &mut Lived::default(), || true).expect("an undisturbed life");
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
        // Without its shim, or before it became the game, a run may end as it must not.
        let mut lived = Lived { by_accident: u32::from(role != AGENT), ..Lived::default() };
        let begun = Instant::now();
        while faults.reached(role).len() <= at && begun.elapsed() < SOON {
            if agent.try_connect().is_some() && live_a_little(&agent, &mut lived, || true).is_none() {
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
        all_is_well(&mut agent, &what, &lived);
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
        nothing_is_left(&agent, &what);
        history_is_whole(&agent, &what);
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
    all_is_well(&mut agent, "space again", &Lived { configured: true, ..Lived::default() });
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
        let (console, journal) = (every % 3 + 1, (every + 1) % 3 + 1);
        let plan = ["durable", "console", "slot", "journal"]
            .iter()
            .zip([every, console, 2, journal])
            .map(|(what, every)| format!("enospc {what} {every}\n"));
        faults.plan(&plan.collect::<String>()).unwrap();
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
                    let status = agent.wait_state(State::Idle);
                    assert_eq!(status.crashes_total, ready.crashes_total, "round {round}: {status:?}");
                }
                1 => {
                    agent.command("crash 3");
                    let status =
                        agent.wait_status("the end", SOON, |s| s.crashes_total > ready.crashes_total);
                    assert_eq!(
                        (status.crashes_total, status.last_crash_exit_code),
                        (ready.crashes_total + 1, Some(3)),
                        "round {round}: {status:?}"
                    );
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
        nothing_is_left(&agent, &format!("round {round}"));
        round += 1;
    }
    let refused = faults.refused();
    let kinds = ["durable", "console", "slot", "journal"]
        .map(|kind| (kind, refused.iter().filter(|name| name.starts_with(kind)).count()));
    println!("{} refused in {round} rounds: {kinds:?}", refused.len());
    for ((kind, times), least) in
        kinds.into_iter().zip([wanted / 20, wanted / 20, wanted / 100, wanted / 100])
    {
        assert!(times >= least, "{kind}: {times} of at least {least}: {refused:?}");
    }
    faults.clear().unwrap();
    let before = agent.status().crashes_total;
    all_is_well(&mut agent, "space again", &Lived { configured: true, before, ..Lived::default() });
}

/// Not even its own address can be written then: it has to be told where to listen.
pub(crate) fn restart_on_a_full_disk(agent: &mut Agent) {
    agent.listen_on(agent.address().port());
    agent.kill();
    agent.start_at_known_address();
}

/// Blocks that anybody can still have.
fn free_blocks(disk: &Path) -> u64 {
    nix::sys::statvfs::statvfs(disk).unwrap().blocks_available()
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
    // Whatever frees a byte meanwhile, in the end there is none.
    let fill = || {
        until("not a byte to be free", SOON, || {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(&ballast).unwrap();
            let block = vec![1_u8; 4096];
            while std::io::Write::write_all(&mut file, &block).is_ok() {}
            free_blocks(&disk) == 0
        });
    };
    let ended = |agent: &Agent, instance: &str| {
        let record = ExitRecord::read(&run_dir(agent), instance).unwrap();
        (record.exit, record.stop)
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
    let instance = instance_of(&agent);
    fill();
    agent.post("/stop", 204);
    let status = agent.wait_state(State::Idle);
    assert_eq!(status.crashes_total, 0, "{status:?}");
    assert!(agent.living_games().is_empty());
    assert_eq!(ended(&agent, &instance), (Exit::Exited { code: 0 }, Some(StopStage::Command)));

    // And a crash is what it was, for the next agent as well.
    fs::remove_file(&ballast).unwrap();
    agent.post("/start", 202);
    agent.wait_ready();
    let instance = instance_of(&agent);
    fill();
    agent.command("crash 3");
    let is_crashed = |status: &Status| {
        assert_eq!((status.crashes_total, status.last_crash_exit_code), (1, Some(3)), "{status:?}");
    };
    is_crashed(&agent.wait_state(State::Crashed));
    assert_eq!(ended(&agent, &instance), (Exit::Exited { code: 3 }, None));
    fill();
    restart_on_a_full_disk(&mut agent);
    agent.recalled();
    is_crashed(&agent.wait_state(State::Crashed));
    fs::remove_file(&ballast).unwrap();
    let rest = Lived { configured: true, wanted: Some(true), asked: 1, crashed: 1, ..Lived::default() };
    all_is_well(&mut agent, "space again", &rest);
    drop(agent);
    umount2(&disk, MntFlags::MNT_DETACH).unwrap();
}

/// A year forward, a year back, with the agent away and without: no pause ends early or never.
#[test]
fn a_clock_that_jumps_a_year_changes_no_pause() {
    std::thread::scope(|scope| {
        for shift in [YEAR_S, -YEAR_S] {
            for jump in [jumps_while_it_is_away, jumps_in_a_pause, jumps_in_a_stop] {
                scope.spawn(move || jump(shift));
            }
        }
    });
}

fn jumps_while_it_is_away(shift: i64) {
    let (mut agent, faults) = prepared(&[]);
    agent.start();
    agent.configure();
    agent.wait_ready();
    let crashed = Instant::now();
    agent.command("crash 3");
    agent.wait_state(State::Crashed);
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

/// The restart that was planned before the jump comes when it was planned for.
fn jumps_in_a_pause(shift: i64) {
    let (mut agent, faults) = prepared(&[]);
    agent.start();
    agent.configure();
    agent.wait_ready();
    let crashed_ns = monotonic_ns();
    agent.command("crash 3");
    agent.wait_state(State::Crashed);
    faults.clock(shift).unwrap();
    let again_ns = eventually("the start after the pause", 2 * PAUSE, || {
        let events = agent.events();
        let mut starts = events.iter().filter(|event| event.what == What::Started);
        starts.nth(1).map(|start| start.at_ns).ok_or_else(|| agent.status().next_restart_at)
    });
    let pause = Duration::from_nanos(again_ns - crashed_ns);
    assert!(pause >= PAUSE, "{shift}: started again after {pause:?}");
    let status = agent.wait_ready();
    assert_eq!(status.crashes_total, 1, "{shift}: {status:?}");
}

/// A server that ignores everything is ended when its time is over.
fn jumps_in_a_stop(shift: i64) {
    let (grace_s, term_s) = (4, 2);
    let flags = FakePlan::new(&["--stop", "ignore", "--ignore-sigterm"]);
    let (mut agent, faults) = prepared_for(&FakePlan { grace_s, term_s, ..flags });
    agent.start();
    agent.configure();
    agent.wait_ready();
    let instance = instance_of(&agent);
    let asked = Instant::now();
    agent.post("/stop", 204);
    agent.wait_event(What::Command, "stop");
    faults.clock(shift).unwrap();
    agent.wait_state(State::Idle);
    let took = asked.elapsed();
    assert!(took >= Duration::from_secs(grace_s + term_s), "{shift}: killed after {took:?}");
    let record = ExitRecord::read(&run_dir(&agent), &instance).unwrap();
    assert_eq!(record.stop, Some(StopStage::Kill), "{shift}: {record:?}");
    assert_eq!(record.exit, Exit::Killed { signal: 9, core: false }, "{shift}");
}

fn run_dir(agent: &Agent) -> PathBuf {
    agent.root_path("opt/zlh-agent/run/game")
}

/// The run that the shim's record names.
fn instance_of(agent: &Agent) -> String {
    ShimRecord::read(&run_dir(agent)).unwrap().instance
}
