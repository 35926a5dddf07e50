//! Much of everything: a hundred dead agents, a long absence, a container without memory left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use zlh_api::State;
use zlh_tests::fake::events::What;
use zlh_tests::fake::output::check_flood;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::process::Process;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, eventually, until};

/// A hundred agents die while the game prints a megabyte a second: one game, every byte once.
#[test]
fn a_hundred_killed_agents_cost_no_byte() {
    let mut agent = Agent::with_ready_fake(&[]);
    let game = agent.game();
    agent.command("flood 1GB 1MB");
    let mut console: Vec<u8> = Vec::new();
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
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
            slowest = slowest.max(back.elapsed());
        }
        assert_eq!(agent.game(), game, "round {round}");
        console.extend(agent.read_console(console.len()));
    }
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
    println!(
        "{} bytes in {printed:?}, lines {first}..={last}; ready again within {slowest:?} at worst",
        console.len()
    );
    // Its last line may be cut by the end of what was read.
    assert!(check.damaged <= 1 && (check.missing, first) == (0, 0), "{check:?}");
    let whole = console.iter().rposition(|&byte| byte == b'\n').unwrap();
    assert_eq!(check_flood(&console[..=whole]).damaged, 0);
    assert!(slowest < Duration::from_secs(2), "ready again after {slowest:?}");
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
    agent.wait_event(What::FloodEnded, "");
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

/// What happens a thousand times in a year happens thirty times here, and leaves nothing behind.
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
    for _ in 0..30 {
        restart();
    }
    until("descriptors to be as many as before", SOON, || descriptors(agent.process()) <= before);
    let shim = *agent.shims().first().expect("a shim");
    until("no zombie", SOON, || agent.process().descendants().len() == 1 + shim.descendants().len());
    let run = agent.root_path("opt/zlh-agent/run/game");
    let files = fs::read_dir(&run).unwrap().count();
    assert!(files <= 12, "{files} files in {}", run.display());
}

/// The terminal that an agent was started from is closed: nobody minds but those who should.
#[test]
fn a_hangup_ends_neither_shim_nor_game() {
    let agent = Agent::with_ready_fake(&[]);
    let (game, shim) = (agent.game(), *agent.shims().first().expect("a shim"));
    shim.signal(Signal::SIGHUP);
    shim.signal(Signal::SIGINT);
    agent.command("say still here");
    agent.wait_console("[Server] still here");
    assert!(game.is_alive() && shim.is_alive());
    assert_eq!(agent.game(), game);
}

/// A memory-limited control group of the test's own, removed when dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// The error says why this machine has none to give.
    fn new(limit_bytes: u64) -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("it needs root".to_owned());
        }
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = |wanted: &dyn Fn(&str) -> bool| {
            groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let (parent, limit, more) = if let Some(path) = own(&|c| c.split(',').any(|one| one == "memory")) {
            let limit = "memory.limit_in_bytes";
            (Path::new("/sys/fs/cgroup/memory").join(path), limit, "memory.memsw.limit_in_bytes")
        } else if let Some(path) = own(&str::is_empty) {
            (Path::new("/sys/fs/cgroup").join(path), "memory.max", "memory.swap.max")
        } else {
            return Err("there is no memory controller".to_owned());
        };
        let dir = parent.join(format!("zlh-test-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| format!("make {}: {error}", dir.display()))?;
        let group = Self(dir);
        fs::write(group.0.join(limit), limit_bytes.to_string())
            .map_err(|error| format!("limit {}: {error}", group.0.display()))?;
        // Swap, where there is some, would only make it slower.
        let _ = fs::write(
            group.0.join(more),
            if more.ends_with("max") { "0".to_owned() } else { limit_bytes.to_string() },
        );
        Ok(group)
    }

    fn take(&self, process: Process) {
        fs::write(self.0.join("cgroup.procs"), process.pid.to_string())
            .expect("move a process into the group");
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes may be on their last instructions.
        let end = Instant::now() + SOON;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A server that eats all memory of its container is killed by the kernel; agent and shim are
/// not, and the reason is known.
#[test]
fn a_container_without_memory_left_loses_the_server_and_nothing_else() {
    let group = match MemoryGroup::new(300 << 20) {
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
    let status = agent.wait_state(State::Crashed);
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
