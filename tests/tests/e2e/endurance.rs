//! Much of everything: a hundred dead agents, a long absence, a container without memory left.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use zlh_api::State;
use zlh_shim::record::{Exit, ExitRecord, ShimRecord};
use zlh_tests::fake::events::What;
use zlh_tests::fake::output::{FLOOD_LINE, FloodCheck, check_flood};
use zlh_tests::fake::wire::read_packet;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::cgroup::Cgroup;
use zlh_tests::harness::slp;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{FLOODED, SOON, eventually, until};

/// A hundred agents die while the game prints a megabyte a second: one game, every byte once, and
/// who is connected to it stays so.
#[test]
fn a_hundred_killed_agents_cost_no_byte() {
    const ROUNDS: usize = 100;
    let mut agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    let mut player = TcpStream::connect(("127.0.0.1", agent.port.number())).unwrap();
    // Longer than there are rounds: it says a byte of it in each.
    let hello = slp::hello(&"a".repeat(ROUNDS), agent.port.number());
    assert!(hello.len() > ROUNDS);
    agent.command("flood 1GB 1MB");
    agent.wait_event(What::FloodBegan, "");
    let mut console: Vec<u8> = Vec::new();
    let begun = Instant::now();
    let mut returns = Vec::new();
    for round in 0..ROUNDS {
        player.write_all(&hello[round..=round]).unwrap();
        // At another moment of its life each time.
        let at = Instant::now() + Duration::from_millis(round as u64 % 20 * 7);
        while Instant::now() < at {
            console.extend(agent.read_console(console.len()));
        }
        agent.kill();
        if round % 25 == 0 {
            let printed = kept(&agent);
            until("a megabyte more with no agent there", SOON, || kept(&agent) > printed + (1 << 20));
        }
        let back = Instant::now();
        agent.start();
        if round % 10 == 0 {
            agent.wait_ready();
            returns.push(back.elapsed());
        }
        agent.wait_status("the same game", SOON, |status| status.pid == Some(game.pid));
        // An answer is a megabyte at most, and the log keeps no more than 64.
        for _ in 0..64 {
            let more = agent.read_console(console.len());
            if more.is_empty() {
                break;
            }
            console.extend(more);
        }
    }
    assert_eq!(agent.game(), game);
    let status = agent.wait_ready();
    assert_eq!(status.crashes_total, 0);
    // Until everything that was printed by now is here.
    let printed = begun.elapsed();
    let wanted = console.len() + (1 << 20);
    eventually("another megabyte", SOON, || {
        let more = agent.read_console(console.len());
        console.extend(more);
        if console.len() > wanted { Ok(()) } else { Err(console.len()) }
    });
    let rate = console.len() as f64 / begun.elapsed().as_secs_f64();
    let check = check_flood(&console);
    let (first, last) = check.range.expect("a flood");
    returns.sort_unstable();
    println!("{} bytes in {printed:?}, lines {first}..={last}; ready again after {returns:?}", console.len());
    assert!(rate > 0.7e6, "it printed {rate} bytes a second");
    // Its last line may be cut by the end of what was read.
    assert!(check.damaged <= 1 && (check.missing, first) == (0, 0), "{check:?}");
    let whole = console.iter().rposition(|&byte| byte == b'\n').unwrap();
    assert_eq!(check_flood(&console[..=whole]).damaged, 0);
    // One alone measures the machine, and so do most when others use it.
    assert!(returns[returns.len() / 4] < Duration::from_secs(2), "ready again after {returns:?}");
    assert_eq!(agent.events().iter().filter(|event| event.what == What::Started).count(), 1);
    // Who had said half a word is heard to the end, and answered.
    player.write_all(&hello[ROUNDS..]).unwrap();
    player.set_read_timeout(Some(SOON)).unwrap();
    assert!(!read_packet(&mut player).unwrap().is_empty());
}

/// How far the log on disk goes, whoever else could tell.
fn kept(agent: &Agent) -> u64 {
    let segments = fs::read_dir(agent.root_path("opt/zlh-agent/run/game/console")).unwrap().flatten();
    let end = |segment: fs::DirEntry| {
        let start: u64 = segment.path().file_stem()?.to_str()?.parse().ok()?;
        // The oldest may be removed between the two looks; a packed one is not the last.
        Some(start + segment.metadata().ok()?.len())
    };
    segments.filter_map(end).max().unwrap_or(0)
}

/// Nobody reads, and the game prints more than the log keeps: it is never made to wait, what is
/// kept is in order, and what is gone is told to the byte.
#[test]
fn an_absent_agent_makes_no_game_wait() {
    const PRINTED: usize = 100 << 20;
    let mut agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    // The terminal repeats what is typed; the flood follows, and then what is typed next.
    let command = format!("flood {PRINTED} 0");
    let answer = agent.http().post_json("/console/command", &json!({ "command": command })).unwrap();
    let typed: usize = answer.expect(204).header("zlh-console-offset").unwrap().parse().unwrap();
    let begin = typed + command.len() + 2;
    let lines = PRINTED / FLOOD_LINE;
    // The terminal ends them with two bytes.
    let end = begin + lines * (FLOOD_LINE + 1);
    agent.wait_event(What::FloodBegan, "");
    agent.kill();
    let shim = *agent.shims().first().expect("a shim");
    agent.wait_event_within(FLOODED, What::FloodEnded, "");
    let memory = shim.memory().expect("the shim's memory");
    assert!(memory.private_dirty_kib < 2048, "{memory:?}");
    agent.start();
    agent.wait_ready();
    assert_eq!(agent.game(), game);
    agent.command("say welcome back");
    agent.wait_console("[Server] welcome back");
    let (first, kept) = kept_bytes(&agent);
    assert!(first > 30 << 20, "the log is bounded: it begins at {first}");
    assert!(kept.len() > 10 << 20, "and holds what it can: {}", kept.len());
    // The first line may have lost its beginning with the segment before it; every other is where
    // it has to be, and so is what comes after them.
    let whole = (first - begin).div_ceil(FLOOD_LINE + 1);
    let (flood, rest) = kept.split_at(end - first);
    let check = check_flood(&flood[begin + whole * (FLOOD_LINE + 1) - first..]);
    let range = Some((whole as u64, lines as u64 - 1));
    assert_eq!(check, FloodCheck { range, missing: 0, damaged: 0 });
    assert!(rest.starts_with(b"say welcome back\r\n"), "{:?}", String::from_utf8_lossy(rest));
}

/// Every byte that the console still has, and where they begin.
fn kept_bytes(agent: &Agent) -> (usize, Vec<u8>) {
    let (mut first, mut kept) = (None, Vec::new());
    loop {
        let since = first.map_or(0, |first| first + kept.len());
        let answer = agent.http().get(&format!("/console/log?since={since}")).unwrap().expect(200);
        if answer.body.is_empty() {
            return (first.expect("a log"), kept);
        }
        let from: usize = answer.header("zlh-console-offset").unwrap().parse().unwrap();
        assert_eq!(*first.get_or_insert(from) + kept.len(), from, "there is one gap, at the beginning");
        kept.extend(answer.body);
    }
}

/// Restarts that are tried: what happens a thousand times in a year. `ZLH_RESTARTS` sets another number.
const RESTARTS: usize = 30;

/// Nothing is left behind by any number of them.
#[test]
fn restarts_leak_no_descriptor_no_thread_and_no_process() {
    let agent = Agent::with_ready_fake(&[]);
    let restart = || {
        let before = agent.game();
        agent.post("/restart", 202);
        agent.wait_status("the next run", SOON, |s| s.ready && s.pid.is_some_and(|pid| pid != before.pid));
    };
    // What is opened once and kept does not count.
    for _ in 0..3 {
        restart();
    }
    let process = agent.process();
    let (descriptors, threads, files) = (process.descriptors(), process.threads(), files_of(&agent));
    let wanted = std::env::var("ZLH_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(RESTARTS);
    let begun = Instant::now();
    for _ in 0..wanted {
        restart();
    }
    let memory = process.memory().expect("the agent's memory");
    println!("{wanted} restarts in {:?}, then {memory:?}", begun.elapsed());
    assert!(memory.rss_kib < 24 << 10, "{memory:?}");
    until("descriptors to be as many as before", SOON, || process.descriptors() <= descriptors);
    // Those that had work for a moment wait ten seconds for more.
    until("threads to be as many as before", 2 * SOON, || process.threads() <= threads);
    let shim = *agent.shims().first().expect("a shim");
    until("no process", SOON, || process.descendants().len() == 1 + shim.descendants().len());
    until("no zombie", SOON, || process.zombies() + shim.zombies() == 0);
    eventually("files to be as many as before", SOON, || {
        let now = files_of(&agent);
        if now.len() <= files.len() { Ok(()) } else { Err((files.clone(), now)) }
    });
}

/// What lies in the folders that runs write to, but for journal and console: these have bounds of
/// their own, and tests.
fn files_of(agent: &Agent) -> Vec<PathBuf> {
    let mut found = vec![agent.root_path("opt/zlh-agent/run"), agent.root_path("opt/zlh-agent/state")];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(inside.filter(|path| !path.ends_with("journal") && !path.ends_with("console")));
    }
    found
}

/// With hardly a descriptor to be had everything still works, one thing after the other.
#[test]
fn few_descriptors_are_enough() {
    const FEW: u64 = 48;
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    agent.limit_open_files(FEW);
    agent.start();
    assert_eq!(agent.process().limit("Max open files"), Some((FEW.to_string(), FEW.to_string())));
    agent.configure();
    agent.wait_ready();
    let game = agent.game();
    // More callers than there are descriptors for, who say nothing.
    let callers: Vec<_> = (0..FEW * 2).map(|_| TcpStream::connect(agent.address())).collect();
    // Those who say nothing are sent away after a while; until then it may be refused, in words.
    eventually("a command is taken", SOON, || {
        let line = json!({ "command": "say still here" });
        let answer = agent.http().post_json("/console/command", &line).map_err(|error| error.to_string())?;
        match answer.status {
            204 => Ok(()),
            503 => Err(answer.text()),
            other => panic!("{other}: {}", answer.text()),
        }
    });
    drop(callers);
    // From here on nothing is refused: it has noticed that they are gone.
    let process = agent.process();
    until("descriptors to be free", SOON, || process.descriptors() < usize::try_from(FEW / 2).unwrap());
    agent.wait_console("[Server] still here");
    assert_eq!(agent.game(), game);
    agent.post("/restart", 202);
    agent.wait_status("the next run", SOON, |s| s.ready && s.pid.is_some_and(|pid| pid != game.pid));
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
}

/// Everything is frozen for a while, as by a backup of the container or a suspended machine:
/// afterwards nothing is taken for hung, dead or late.
#[test]
fn a_frozen_container_goes_on_as_if_nothing_had_been() {
    // Longer than every deadline that a living process is held to.
    const FROZEN: Duration = Duration::from_secs(12);
    let agent = Agent::with_ready_fake(&[]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    let everybody = [agent.process(), shim, game];
    let freeze = || {
        for process in everybody {
            process.signal(Signal::SIGSTOP);
        }
        until("everything is frozen", SOON, || everybody.iter().all(|process| process.is_stopped()));
        let thaw = Instant::now() + FROZEN;
        until("the thaw", FROZEN * 2, || Instant::now() >= thaw);
        for process in everybody {
            process.signal(Signal::SIGCONT);
        }
    };
    freeze();
    agent.command("say what happened");
    agent.wait_console("[Server] what happened");
    let status = agent.wait_ready();
    assert_eq!((agent.game(), agent.shims()), (game, vec![shim]));
    assert_eq!(status.crashes_total, 0, "{status:?}");
    let degraded: Vec<_> = status.warnings.iter().filter(|line| line.starts_with("degraded")).collect();
    assert!(degraded.is_empty(), "{degraded:?}");
    // In the middle of a flood: not a byte is lost.
    agent.command("flood 16MB 1MB");
    agent.wait_event(What::FloodBegan, "");
    freeze();
    agent.wait_event_within(FLOODED, What::FloodEnded, "");
    agent.command("say it is over");
    agent.wait_console("[Server] it is over");
    let check = check_flood(agent.console().as_bytes());
    assert!((check.missing, check.damaged) == (0, 0), "{check:?}");
    assert_eq!((agent.game(), agent.shims()), (game, vec![shim]));
    agent.post("/stop", 204);
    assert_eq!(agent.wait_state(State::Idle).crashes_total, 0);
}

/// The terminal that an agent was started from is closed: nobody minds but those who should.
#[test]
fn a_hangup_ends_neither_shim_nor_game() {
    let agent = Agent::with_ready_fake(&[]);
    let (game, shim) = (agent.game(), *agent.shims().first().expect("a shim"));
    agent.process().signal(Signal::SIGHUP);
    shim.signal(Signal::SIGHUP);
    shim.signal(Signal::SIGINT);
    agent.command("say still here");
    agent.wait_console("[Server] still here");
    assert!(game.is_alive() && shim.is_alive());
    assert_eq!(agent.game(), game);
}

/// A server that eats all memory of its container is killed by the kernel; agent and shim are
/// not, and the reason is known.
#[test]
fn a_container_without_memory_left_loses_the_server_and_nothing_else() {
    let group = match Cgroup::of_memory(300 << 20) {
        Ok(group) => group,
        Err(why) => return println!("skipped: no limited control group: {why}"),
    };
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    agent.start();
    group.take(agent.process());
    agent.configure();
    agent.wait_ready();
    let (process, shim, mark) = (agent.process(), agent.shims()[0], agent.mark());
    agent.command("leak 400MB");
    let status = agent.wait_status("the crash", SOON, |status| status.state == State::Crashed);
    assert_eq!((status.last_crash_signal, status.last_crash_exit_code), (9, None), "{status:?}");
    assert_eq!(status.last_crash_classification.as_deref(), Some("oom"));
    let is_explained = |s: &zlh_api::Status| s.last_crash.as_ref().is_some_and(|crash| crash.explained);
    let crash = agent.wait_status("the explanation", SOON, is_explained).last_crash.unwrap();
    assert_eq!((crash.cause.as_deref(), crash.certain), (Some("container_memory"), true), "{crash:#?}");
    assert!(crash.evidence.iter().any(|line| line.source == "cgroup"), "{crash:#?}");
    assert!(!crash.restart_useless && !crash.title.is_empty() && !crash.remedy.is_empty(), "{crash:#?}");
    // One process was killed, and its shim was there to see which: it may have left since.
    let run = agent.root_path("opt/zlh-agent/run/game");
    let record = ExitRecord::read(&run, mark.trim_start_matches("ZLH_INSTANCE=")).unwrap();
    assert_eq!(record.exit, Exit::Killed { signal: 9, core: false });
    assert_eq!(record.oom.map(|oom| oom.after - oom.before), Some(1), "{record:?}");
    assert_eq!(group.killed(), 1);
    assert!(process.is_alive(), "the agent is the one that was started");
    let held = ShimRecord::read(&run).unwrap();
    assert_eq!((held.shim.pid, held.shim.start_ticks, held.adoptions), (shim.pid, shim.start, 0));
    agent.post("/start", 202);
    agent.wait_ready();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    drop(agent);
}

/// A server that forks until its container has no process left to give: the agent answers, and
/// a stop ends all of it.
#[test]
fn a_fork_bomb_leaves_an_agent_that_answers_and_stops_it() {
    let group = match Cgroup::of_processes(150) {
        Ok(group) => group,
        Err(why) => return println!("skipped: no limited control group: {why}"),
    };
    let plan = FakePlan {
        grace_s: 2,
        term_s: 2,
        ..FakePlan::new(&["--stop", "ignore", "--ignore-sigterm", "--linger", "120s"])
    };
    let mut agent = Agent::prepare(Store::fake(&plan).unwrap()).unwrap();
    agent.start();
    group.take(agent.process());
    agent.configure();
    agent.wait_ready();
    let (process, shim) = (agent.process(), *agent.shims().first().expect("a shim"));
    agent.command("bomb");
    until("no process is left to be had", SOON, || group.refused() > 20);
    for path in ["/status", "/console/log?tail=1", "/history", "/crashes", "/operations"] {
        agent.http().get(path).unwrap().expect(200);
    }
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert!(agent.living_games().is_empty());
    assert!(process.is_alive(), "the agent itself was never in danger");
    until("the shim has left", SOON, || !shim.is_alive());
    agent.post("/start", 202);
    agent.wait_ready();
    drop(agent);
}
