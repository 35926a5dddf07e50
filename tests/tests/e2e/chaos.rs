//! Everything at once: agent and shim killed and frozen at random, the game dying and being
//! started and stopped, while it prints. What must hold holds at every step.
//!
//! `ZLH_CHAOS_SECONDS` sets how long (45 s by itself), `ZLH_CHAOS_SEED` repeats a run.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use zlh_api::{History, HistoryKind, State};
use zlh_tests::fake::events::What;
use zlh_tests::fake::output::flood_line;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::process::Process;
use zlh_tests::harness::wait::{SOON, until};

/// Small, seeded, and ours: a failed run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Numbered lines of the console, run by run, may only be missing where bytes are.
#[derive(Default)]
struct Reader {
    offset: u64,
    /// The end of a line that is not complete yet.
    rest: Vec<u8>,
    next: Option<u64>,
    /// Lines since the last whole one that are none: cut by a kill, or with a typed word in the middle.
    broken: u64,
    damaged: u64,
    gaps: u64,
    lines: u64,
}

impl Reader {
    fn read(&mut self, agent: &Agent) {
        loop {
            let path = format!("/console/log?since={}", self.offset);
            // An agent that was just killed answers later.
            let Ok(answer) = agent.http().get(&path) else { return };
            if answer.status != 200 || answer.body.is_empty() {
                return;
            }
            let number = |name: &str| answer.header(name).and_then(|value| value.parse::<u64>().ok());
            let first = number("zlh-console-offset").expect("where it begins");
            let next = first + answer.body.len() as u64;
            assert!(first >= self.offset, "{first} after {}", self.offset);
            if first > self.offset {
                // Declared: the log says itself that these bytes are gone.
                self.gaps += 1;
                self.rest.clear();
                self.next = None;
            }
            self.offset = next;
            self.rest.extend_from_slice(&answer.body);
            self.check();
        }
    }

    fn check(&mut self) {
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).filter(|byte| *byte != b'\r').collect();
            let digits = line.strip_prefix(b"flooded ").and_then(|rest| rest.get(..16));
            let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
            let Some(number) = number.filter(|number| flood_line(*number) == line) else {
                // What the server says itself is whole.
                if !line.starts_with(b"[") {
                    self.broken += 1;
                    self.damaged += 1;
                }
                continue;
            };
            // A new run counts from 0. A broken line is one of the missing ones at most.
            if let Some(next) = self.next.filter(|_| number != 0) {
                assert!(
                    (next..=next + self.broken).contains(&number),
                    "{number} instead of {next}, {} broken, before byte {}",
                    self.broken,
                    self.offset
                );
            }
            self.next = Some(number + 1);
            self.broken = 0;
            self.lines += 1;
        }
    }
}

/// The history has one end for each run, and none that was never begun.
fn ended_once(agent: &Agent) {
    let mut ends: HashMap<String, u32> = HashMap::new();
    let mut starts = HashSet::new();
    let mut before = String::new();
    loop {
        let history: History =
            agent.http().get(&format!("/history?limit=200{before}")).unwrap().expect(200).json();
        for event in &history.events {
            let Some(instance) = event.instance.clone() else { continue };
            match event.kind {
                HistoryKind::Start => drop(starts.insert(instance)),
                HistoryKind::Exit | HistoryKind::Crash => *ends.entry(instance).or_default() += 1,
                _ => {}
            }
        }
        let Some(next) = history.next_before else { break };
        before = format!("&before={next}");
    }
    assert!(ends.values().all(|&times| times == 1), "{ends:?}");
    assert!(ends.keys().all(|run| starts.contains(run)), "{starts:?}, {ends:?}");
    assert!(starts.iter().all(|run| ends.contains_key(run)), "{starts:?}, {ends:?}");
}

#[test]
fn whatever_is_killed_frozen_or_asked_the_promises_hold() {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seconds = from_environment("ZLH_CHAOS_SECONDS").unwrap_or(45);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = from_environment("ZLH_CHAOS_SEED").unwrap_or_else(|| u64::from(clock.subsec_nanos()) | 1);
    println!("ZLH_CHAOS_SEED={seed}");
    let mut dice = Dice(seed);
    let mut agent = Agent::with_ready_fake(&["--flood-rate", "100KB"]);
    // Nobody may ever signal these: they are not of the workload.
    let mut bystander = std::process::Command::new("sleep").arg("3600").spawn().unwrap();
    let innocent = Process::of(bystander.id().cast_signed()).unwrap();
    let mut reader = Reader::default();
    let mut done: HashMap<&str, u32> = HashMap::new();
    let mut games: HashSet<Process> = HashSet::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let shims = agent.shims();
        let living = agent.living_games();
        let what = match dice.roll(12) {
            0..=2 => {
                shims.iter().for_each(|shim| shim.signal(Signal::SIGKILL));
                "shim killed"
            }
            3..=4 => {
                agent.kill();
                agent.start();
                "agent killed"
            }
            5 => {
                shims.iter().for_each(|shim| shim.signal(Signal::SIGKILL));
                agent.kill();
                agent.start();
                "both killed"
            }
            6 => {
                shims.iter().for_each(|shim| shim.signal(Signal::SIGSTOP));
                "shim frozen"
            }
            7 => {
                shims.iter().for_each(|shim| shim.signal(Signal::SIGCONT));
                "shim thawed"
            }
            8 => {
                living.iter().for_each(|game| game.signal(Signal::SIGKILL));
                "game killed"
            }
            9 => {
                drop(agent.http().post("/stop"));
                "stop"
            }
            10 => {
                drop(agent.http().post("/restart"));
                "restart"
            }
            _ => {
                drop(agent.http().post("/start"));
                "start"
            }
        };
        *done.entry(what).or_default() += 1;
        let pause = Instant::now() + Duration::from_millis(dice.roll(700));
        loop {
            let living = agent.living_games();
            assert!(living.len() <= 1, "after {what}: more than one game: {living:?}");
            games.extend(living);
            assert!(innocent.is_alive(), "after {what}: somebody else's process was signalled");
            reader.read(&agent);
            if Instant::now() >= pause {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = agent.status();
        // Whatever lives is known, unless it is just coming or going.
        if let (State::Idle, Some(game)) = (status.state, agent.living_games().first()) {
            until("idle is idle", SOON, || !game.is_alive() || agent.status().state != State::Idle);
        }
        // A spent restart budget is no reason to stop testing.
        if status.state == State::Error {
            drop(agent.http().post("/start"));
        }
    }
    // Calm: everything can be ended, and everything that happened has been told.
    agent.shims().iter().for_each(|shim| shim.signal(Signal::SIGCONT));
    until("a stop is taken", SOON, || agent.http().post("/stop").is_ok_and(|answer| answer.status == 204));
    agent.wait_status("idle", Duration::from_secs(60), |status| status.state == State::Idle);
    until("nothing lives on", SOON, || agent.living_games().is_empty());
    reader.read(&agent);
    let starts = agent.events().iter().filter(|event| event.what == What::Started).count();
    let ends = agent.log().matches("the server has ended").count();
    println!(
        "{done:?}; {starts} starts, {ends} ends, {} lines, {} damaged, {} gaps",
        reader.lines, reader.damaged, reader.gaps
    );
    assert!(reader.lines > 1000, "it printed all the while");
    // Two pieces of the line that a word was typed into, or that was cut, for each thing that was done.
    let done: u64 = done.values().map(|&times| u64::from(times)).sum();
    assert!(reader.damaged <= 2 * done, "{} damaged lines, {done} things done", reader.damaged);
    ended_once(&agent);
    // Every run ends once: in the log of the agents as in what they count. A run that was killed
    // before it could say that it had started ends as well.
    assert!(ends >= starts, "{starts} starts, {ends} ends");
    let counted = agent.log().matches("the server ended while no agent was there").count();
    assert!(ends <= games.len().max(starts) + counted + 3, "{} games, {ends} ends", games.len());
    let last: serde_json::Value =
        serde_json::from_slice(&std::fs::read(agent.root_path("opt/zlh-agent/state/workload.json")).unwrap())
            .unwrap();
    assert!(last["body"]["counted"].is_string(), "{last}");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}
