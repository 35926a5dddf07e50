//! Much of everything: a hundred dead agents, a long absence, a container without memory left.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use zlh_api::State;
use zlh_tests::fake::events::What;
use zlh_tests::fake::output::check_flood;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::cgroup::Cgroup;
use zlh_tests::harness::process::Process;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{FLOODED, SOON, eventually, until};

/// A hundred agents die while the game prints a megabyte a second: one game, every byte once.
#[test]
fn a_hundred_killed_agents_cost_no_byte() {
    let mut agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    agent.command("flood 1GB 1MB");
    let mut console: Vec<u8> = Vec::new();
    let begun = Instant::now();
    let mut returns = Vec::new();
    for round in 0..100_u64 {
        // At another moment of its life each time.
        let at = Instant::now() + Duration::from_millis(round % 20 * 7);
        while Instant::now() < at {
            console.extend(agent.read_console(console.len()));
        }
        agent.kill();
        let back = Instant::now();
        agent.start();
        if round % 10 == 0 {
            agent.wait_ready();
            returns.push(back.elapsed());
        }
        agent.wait_status("the same game", SOON, |status| status.pid == Some(game.pid));
        console.extend(agent.read_console(console.len()));
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
    let check = check_flood(&console);
    let (first, last) = check.range.expect("a flood");
    returns.sort_unstable();
    println!("{} bytes in {printed:?}, lines {first}..={last}; ready again after {returns:?}", console.len());
    // Its last line may be cut by the end of what was read.
    assert!(check.damaged <= 1 && (check.missing, first) == (0, 0), "{check:?}");
    let whole = console.iter().rposition(|&byte| byte == b'\n').unwrap();
    assert_eq!(check_flood(&console[..=whole]).damaged, 0);
    // One alone measures the machine.
    assert!(returns[returns.len() / 2] < Duration::from_secs(2), "ready again after {returns:?}");
    assert_eq!(agent.events().iter().filter(|event| event.what == What::Started).count(), 1);
}

/// Nobody reads, and the game prints more than the log keeps: it is never made to wait, what is
/// kept is in order, and what is gone is told to the byte.
#[test]
fn an_absent_agent_makes_no_game_wait() {
    const PRINTED: usize = 100 << 20;
    let mut agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    agent.command(&format!("flood {PRINTED} 0"));
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
    let console = agent.console();
    let check = check_flood(console.as_bytes());
    let last = u64::try_from(PRINTED.div_ceil(64)).unwrap() - 1;
    // The first line may have lost its beginning with the segment before it.
    assert!((check.missing, check.damaged) == (0, 0), "{check:?}");
    assert_eq!(check.range.map(|(_, seen)| seen), Some(last), "{check:?}");
    let answer = agent.http().get("/console/log?since=0&max=1").unwrap().expect(200);
    let first: usize = answer.header("zlh-console-offset").unwrap().parse().unwrap();
    assert!(first > 30 << 20, "the log is bounded: it begins at {first}");
}

/// Restarts that are tried: what happens a thousand times in a year. `ZLH_RESTARTS` sets another number.
const RESTARTS: usize = 30;

/// Nothing is left behind by any number of them.
#[test]
fn restarts_leak_no_descriptor_no_thread_and_no_process() {
    let agent = Agent::with_ready_fake(&[]);
    let descriptors = |process: Process| fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().count();
    let restart = || {
        let before = agent.game();
        agent.post("/restart", 202);
        agent.wait_status("the next run", SOON, |s| s.ready && s.pid.is_some_and(|pid| pid != before.pid));
    };
    // What is opened once and kept does not count.
    for _ in 0..3 {
        restart();
    }
    let before = descriptors(agent.process());
    let wanted = std::env::var("ZLH_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(RESTARTS);
    let begun = Instant::now();
    for _ in 0..wanted {
        restart();
    }
    let memory = agent.process().memory().expect("the agent's memory");
    println!("{wanted} restarts in {:?}, then {memory:?}", begun.elapsed());
    assert!(memory.rss_kib < 24 << 10, "{memory:?}");
    until("descriptors to be as many as before", SOON, || descriptors(agent.process()) <= before);
    let shim = *agent.shims().first().expect("a shim");
    until("no zombie", SOON, || agent.process().descendants().len() == 1 + shim.descendants().len());
    let run = agent.root_path("opt/zlh-agent/run/game");
    let files = fs::read_dir(&run).unwrap().count();
    assert!(files <= 12, "{files} files in {}", run.display());
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
    let callers: Vec<_> = (0..FEW * 2).map(|_| std::net::TcpStream::connect(agent.address())).collect();
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
    let shim = *agent.shims().first().expect("a shim");
    agent.command("leak 400MB");
    let mut process = agent.process();
    // Before the memory of the first is free the kernel may take one more; the agent's unit
    // starts it again.
    let status = eventually("the crash", SOON, || {
        let answer = match agent.http().get("/status") {
            Err(error) if !process.is_alive() => {
                agent.kill();
                agent.start();
                process = agent.process();
                group.take(process);
                return Err(format!("the agent was killed, too: {error}"));
            }
            answer => answer.map_err(|error| error.to_string())?,
        };
        let status: zlh_api::Status = answer.json();
        if status.state == State::Crashed { Ok(status) } else { Err(format!("it is {}", status.state)) }
    });
    assert_eq!((status.last_crash_signal, status.last_crash_exit_code), (9, None), "{status:?}");
    assert_eq!(status.last_crash_classification.as_deref(), Some("oom"));
    let is_explained = |s: &zlh_api::Status| s.last_crash.as_ref().is_some_and(|crash| crash.explained);
    let crash = agent.wait_status("the explanation", SOON, is_explained).last_crash.unwrap();
    assert_eq!((crash.cause.as_deref(), crash.certain), (Some("container_memory"), true), "{crash:#?}");
    assert!(crash.evidence.iter().any(|line| line.source == "cgroup"), "{crash:#?}");
    assert!(!crash.restart_useless && !crash.title.is_empty() && !crash.remedy.is_empty(), "{crash:#?}");
    assert!(shim.is_alive() || agent.shims().is_empty(), "the shim may only have left by itself");
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
