//! The journal of real servers: what they did is known afterwards, whatever became of
//! the agent and of the journal's files.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use zlh_api::{ErrorCode, History, HistoryKind, HistoryState, HistorySummary, OperationKind, State};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::faults::Faults;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, eventually, until};

fn history(agent: &Agent) -> History {
    agent.http().get("/history?window=24h&limit=1000").unwrap().expect(200).json()
}

fn wait_history(agent: &Agent, what: &str, probe: impl Fn(&History) -> bool) -> History {
    eventually(what, SOON, || {
        let history = history(agent);
        if probe(&history) { Ok(history) } else { Err(history) }
    })
}

fn day(history: &History) -> &HistorySummary {
    &history.summaries[0]
}

/// Kinds without those of operations and agents.
fn course(history: &History) -> Vec<HistoryKind> {
    let aside = [
        HistoryKind::OperationBegan,
        HistoryKind::OperationEnded,
        HistoryKind::AgentStarted,
        HistoryKind::AgentLeft,
        HistoryKind::Installed,
        HistoryKind::Command,
    ];
    history.events.iter().map(|event| event.kind).filter(|kind| !aside.contains(kind)).collect()
}

fn files(agent: &Agent) -> Vec<PathBuf> {
    let dir = agent.root_path("opt/zlh-agent/state/journal/game");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Whatever is asked and whatever happened: the parts add up, and the segments have no gaps.
fn adds_up(history: &History) {
    for summary in &history.summaries {
        let all = summary.ready_seconds
            + summary.intended_seconds
            + summary.unintended_seconds
            + summary.unknown_seconds;
        let since: zlh_api::HistoryWindow = summary.window;
        assert!(all <= since.seconds(), "{summary:?}");
        assert!(summary.longest_outage_seconds <= summary.unintended_seconds + 1, "{summary:?}");
        assert!(summary.uptime_percent.is_none_or(|percent| (0.0..=100.0).contains(&percent)));
    }
    assert!(history.segments.windows(2).all(|pair| pair[0].to == pair[1].from), "{:?}", history.segments);
    assert_eq!(history.segments.last().map(|last| &last.to), Some(&history.now));
    assert!(history.events.windows(2).all(|pair| pair[0].seq < pair[1].seq));
}

#[test]
fn a_day_of_starts_crashes_and_stops_is_told() {
    use HistoryKind::{Crash, Exit, Ready, Restart, Start, Stop};
    let agent = Agent::with_ready_fake(&[]);
    agent.command("crash 3");
    agent.wait_state(State::Crashed);
    agent.post("/start", 202);
    agent.wait_ready();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let told = wait_history(&agent, "the stop", |history| {
        history.events.last().is_some_and(|event| event.kind == HistoryKind::OperationEnded)
            && history.journal.pending == 0
    });
    adds_up(&told);
    assert_eq!(course(&told), [Start, Ready, Crash, Restart, Start, Ready, Stop, Exit]);
    assert_eq!((day(&told).starts, day(&told).crashes), (2, 1));
    assert!(day(&told).uptime_percent.is_some(), "{:?}", day(&told));
    assert_eq!(told.segments.last().map(|s| (s.state, s.intended)), Some((HistoryState::Stopped, true)));

    let find = |kind| told.events.iter().find(|event| event.kind == kind).unwrap();
    let crash = find(Crash).exit.clone().unwrap();
    assert_eq!((crash.code, crash.signal, crash.was_ready, crash.seen), (Some(3), 0, true, None));
    assert_eq!((find(Restart).count, find(Restart).seconds), (Some(1), Some(30)));
    assert_eq!(find(Start).detail.as_deref(), Some("operation"));
    let exit = find(Exit);
    assert_eq!((exit.detail.as_deref(), exit.exit.as_ref().unwrap().code), (Some("operation"), Some(0)));
    // A stop is linked to the operation it was.
    let stop = find(Stop).operation.clone().unwrap();
    let operation: zlh_api::Operation = agent.http().get(&format!("/operations/{}", stop.id)).unwrap().json();
    assert_eq!(operation.kind, OperationKind::Stop);
    assert!(told.events.iter().any(|event| event.kind == HistoryKind::Installed));
}

#[test]
fn a_game_that_died_while_nobody_looked_is_told_with_its_own_time_and_once() {
    let mut agent = Agent::with_ready_fake(&[]);
    agent.ends_unseen(17);
    // Long enough apart to tell when it ended from when it was seen.
    let ended = std::time::Instant::now();
    until("a while", SOON, || ended.elapsed() > std::time::Duration::from_secs(6));
    agent.start();
    agent.wait_status("the crash", SOON, |status| status.crashes_total > 0);
    let told = wait_history(&agent, "the crash", |history| course(history).contains(&HistoryKind::Crash));
    let crash = told.events.iter().find(|event| event.kind == HistoryKind::Crash).unwrap();
    let exit = crash.exit.clone().unwrap();
    assert_eq!(exit.code, Some(17));
    assert!(exit.seen.is_some_and(|seen| seen > crash.time), "seen after it happened: {crash:?}");
    assert!(day(&told).longest_outage_seconds >= 6, "down since it died: {:?}", day(&told));
    // Another agent, and another: the same end is not another one.
    for _ in 0..2 {
        agent.kill();
        agent.start();
    }
    let told = history(&agent);
    adds_up(&told);
    assert_eq!(day(&told).crashes, 1);
    assert_eq!(course(&told).iter().filter(|kind| **kind == HistoryKind::Crash).count(), 1);
}

#[test]
fn a_killed_agent_costs_no_uptime() {
    let mut agent = Agent::with_ready_fake(&[]);
    for _ in 0..3 {
        agent.kill();
        agent.start();
        agent.wait_ready();
    }
    let told = wait_history(&agent, "ready again", |history| {
        course(history).iter().filter(|kind| **kind == HistoryKind::Ready).count() == 4
    });
    adds_up(&told);
    assert_eq!((day(&told).starts, day(&told).crashes, day(&told).unintended_seconds), (1, 0, 0));
    assert_eq!(day(&told).uptime_percent.map(|percent| percent > 99.9), Some(true), "{:?}", day(&told));
    let states: Vec<_> = told.segments.iter().map(|segment| segment.state).collect();
    assert_eq!(states, [HistoryState::Stopped, HistoryState::Starting, HistoryState::Ready]);
    // One that leaves in order says so.
    agent.terminate();
    agent.start();
    agent.wait_ready();
    let left = |history: &History| history.events.iter().any(|event| event.kind == HistoryKind::AgentLeft);
    assert!(left(&history(&agent)));
}

#[test]
fn a_container_that_shuts_down_is_no_crash_and_costs_no_uptime() {
    let mut agent = Agent::with_ready_fake(&[]);
    let shim = agent.shims()[0];
    agent.kill();
    shim.signal(Signal::SIGTERM);
    until("the shim has stopped the game and left", SOON, || !shim.is_alive());
    agent.start();
    agent.wait_ready();
    let told = wait_history(&agent, "ready again", |history| {
        course(history).iter().filter(|kind| **kind == HistoryKind::Ready).count() == 2
    });
    adds_up(&told);
    let detail = |kind| {
        let event = told.events.iter().rfind(|event| event.kind == kind);
        event.and_then(|event| event.detail.clone()).unwrap_or_default()
    };
    assert_eq!(
        (detail(HistoryKind::Exit), detail(HistoryKind::Start)),
        ("outside".to_owned(), "boot".to_owned())
    );
    assert_eq!((day(&told).starts, day(&told).crashes, day(&told).unintended_seconds), (2, 0, 0));
}

#[test]
fn a_damaged_journal_is_repaired_and_what_is_good_in_it_stays() {
    let mut agent = Agent::with_ready_fake(&[]);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let before = wait_history(&agent, "the end", |history| {
        history.journal.pending == 0 && course(history).last() == Some(&HistoryKind::Exit)
    });
    agent.kill();
    let file = files(&agent).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let lines = whole.iter().filter(|&&byte| byte == b'\n').count() as u64;

    // Killed in the middle of a line.
    fs::write(&file, &whole[..whole.len() - 7]).unwrap();
    agent.start();
    let told = history(&agent);
    adds_up(&told);
    assert_eq!(told.journal.damaged, 0);
    assert!(told.journal.entries >= lines - 1, "{:?}", told.journal);
    agent.kill();

    // A bit that fell over in the middle, and rubbish behind the end.
    let mut bytes = fs::read(&file).unwrap();
    bytes[whole.len() / 2] ^= 4;
    bytes.extend_from_slice(b"\0\0\0\0\nrubbish\n");
    fs::write(&file, &bytes).unwrap();
    agent.start();
    let told = history(&agent);
    adds_up(&told);
    assert_eq!(told.journal.damaged, 1, "the line in the middle");
    assert!(told.journal.entries + 3 >= before.journal.entries);
    let kept = files(&agent).into_iter().find(|path| path.to_string_lossy().contains("/broken-")).unwrap();
    assert!(fs::read(kept).unwrap().ends_with(b"rubbish\n"), "never thrown away");
    agent.kill();

    // Gone altogether: a new one begins, and everything else works.
    fs::remove_dir_all(agent.root_path("opt/zlh-agent/state/journal")).unwrap();
    agent.start();
    agent.post("/start", 202);
    agent.wait_ready();
    let told = wait_history(&agent, "readiness", |history| course(history).contains(&HistoryKind::Ready));
    adds_up(&told);
    assert_eq!(day(&told).starts, 1);
}

#[test]
fn a_start_that_comes_to_nothing_and_one_that_is_stopped_early_are_told() {
    let agent = Agent::with_fake(&FakePlan::new(&["--never-done"]));
    let squatter = std::net::TcpListener::bind(("0.0.0.0", agent.port.number())).unwrap();
    agent.configure();
    agent.wait_state(State::Error);
    let told = wait_history(&agent, "the failure", |history| course(history).contains(&HistoryKind::GaveUp));
    adds_up(&told);
    assert_eq!(told.segments.last().map(|segment| segment.state), Some(HistoryState::Down));
    assert_eq!(day(&told).crashes, 0, "nothing ran that could crash");
    drop(squatter);
    agent.post("/start", 202);
    agent.wait_status("the process", SOON, |status| status.process_running);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let told = wait_history(&agent, "the stop", |history| course(history).contains(&HistoryKind::Exit));
    adds_up(&told);
    assert_eq!(told.segments.last().map(|segment| segment.state), Some(HistoryState::Stopped));
    assert_eq!(day(&told).ready_seconds, 0);
}

#[test]
fn what_is_degraded_and_what_is_lost_is_told() {
    let agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    agent.shims()[0].signal(Signal::SIGKILL);
    wait_history(&agent, "degraded", |history| course(history).contains(&HistoryKind::Degraded));
    game.signal(Signal::SIGKILL);
    agent.wait_state(State::Crashed);
    let told = wait_history(&agent, "the end", |history| course(history).contains(&HistoryKind::Crash));
    let crash = told.events.iter().find(|event| event.kind == HistoryKind::Crash).unwrap();
    let exit = crash.exit.clone().unwrap();
    // Old kernels do not tell how somebody else's child ended.
    let known = exit.signal == 9;
    assert!(exit.code.is_none() && (known || exit.lost.is_some()), "lost is never 0: {exit:?}");
}

#[test]
fn on_a_full_disk_history_goes_on_in_memory_and_is_written_later() {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    faults.plan("enospc journal 1").unwrap();
    agent.command("crash 3");
    agent.wait_state(State::Crashed);
    agent.post("/start", 202);
    agent.wait_ready();
    let told = wait_history(&agent, "what waits", |history| history.journal.pending > 0);
    assert_eq!((day(&told).starts, day(&told).crashes), (2, 1), "shown, though not written");
    assert!(faults.refused().iter().all(|point| point.starts_with("journal.")), "{:?}", faults.refused());
    faults.clear().unwrap();
    let told = wait_history(&agent, "written", |history| history.journal.pending == 0);
    assert_eq!((told.journal.lost, told.journal.damaged), (0, 0));
    agent.kill();
    agent.start();
    let told = history(&agent);
    adds_up(&told);
    assert_eq!((day(&told).starts, day(&told).crashes, told.journal.damaged), (2, 1, 0));
}

#[test]
fn a_clock_that_jumps_a_year_makes_no_uptime_and_no_outage() {
    const YEAR_S: i64 = 365 * 24 * 3600;
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    for shift in [YEAR_S, -YEAR_S, 0] {
        faults.clock(shift).unwrap();
        agent.command("crash 3");
        agent.wait_state(State::Crashed);
        agent.post("/start", 202);
        agent.wait_ready();
        // What was begun under one clock is read under another.
        agent.kill();
        agent.start();
        agent.wait_ready();
        let told = history(&agent);
        adds_up(&told);
        let all = day(&told);
        assert!(all.ready_seconds + all.unintended_seconds < 300, "{shift}: {all:?}");
    }
    let told = history(&agent);
    assert_eq!((day(&told).starts, day(&told).crashes), (4, 3));
    let years: std::collections::BTreeSet<&str> = told.events.iter().map(|event| &event.time[..4]).collect();
    assert!(years.len() <= 2, "shown by one clock: {years:?}");
    assert!(told.events.iter().any(|event| event.recorded.is_some()), "and what the clock said is told too");
}

#[test]
fn a_query_that_makes_no_sense_is_refused() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    for query in ["window=1y", "window=", "limit=-1", "before=x", "limit=99999999999999999999999"] {
        let problem = agent.http().get(&format!("/history?{query}")).unwrap().expect(400).problem();
        assert_eq!(problem.error, ErrorCode::InvalidRequest, "{query}");
    }
    let told: History = agent.http().get("/history").unwrap().expect(200).json();
    adds_up(&told);
    assert_eq!((day(&told).uptime_percent, day(&told).starts), (None, 0), "nothing was ever meant to run");
    let some: History = agent.http().get("/history?limit=0").unwrap().expect(200).json();
    assert!(some.events.is_empty());
}
