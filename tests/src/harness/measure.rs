//! Measurements that both the suite and the benchmark take.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::pty::openpty;

use zlh_api::State;

use super::agent::Agent;
use super::paths;
use super::ports::Port;
use super::process::Process;
use super::wait::{SOON, eventually};
use crate::fake::events::{self, Event, What, monotonic_ns};

/// From exec to the moment the agent's port takes a connection, `rounds` times, sorted.
#[track_caller]
pub fn exec_to_listening(agent: &mut Agent, rounds: usize) -> Vec<Duration> {
    let port = Port::lease().expect("a port for the agent");
    agent.listen_on(port.number());
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        agent.spawn().expect("start the agent");
        while TcpStream::connect(("127.0.0.1", port.number())).is_err() {
            assert!(begun.elapsed() < SOON, "the agent does not listen:\n{}", agent.log());
            std::thread::sleep(FINE);
        }
        times.push(begun.elapsed());
        agent.kill();
    }
    times.sort_unstable();
    times
}

/// From the fake game's own "the port is open" to `ready`, `rounds` starts, sorted.
/// The workload must be configured, and is left stopped.
#[track_caller]
pub fn answer_to_ready(agent: &Agent, rounds: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        agent.post("/stop", 204);
        agent.wait_state(State::Idle);
        let before = listened(agent).len();
        agent.post("/start", 202);
        let begun = Instant::now();
        // Asked without a pause: what this loop takes counts against the agent.
        let seen = loop {
            if agent.http().get("/ready").expect("ask for readiness").status == 200 {
                break monotonic_ns();
            }
            assert!(begun.elapsed() < SOON, "never ready: {:?}", agent.status().error);
        };
        let answered = *listened(agent).get(before).expect("the game says when it listens");
        times.push(Duration::from_nanos(seen.saturating_sub(answered)));
    }
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    times.sort_unstable();
    times
}

/// How long a game takes to print `mib` MiB into the terminal that a shim drains. The game
/// must be ready.
pub fn flood_through_shim(agent: &Agent, mib: u64) -> Result<Duration> {
    touch_memory();
    let before = floods(&agent.events()).len();
    agent.command(&format!("flood {mib}MiB 0"));
    flood_after(before, || agent.events())
}

/// The same game, the same flood, into a terminal that `cat >/dev/null` drains.
pub fn flood_through_cat(dir: &Path, mib: u64) -> Result<Duration> {
    touch_memory();
    let record = dir.join("events.jsonl");
    let before = floods(&events::read(&record)?).len();
    let pty = openpty(None, None)?;
    let copy = || pty.slave.try_clone().map(Stdio::from);
    let mut cat = Command::new("cat")
        .stdin(pty.master.try_clone()?)
        .stdout(File::options().write(true).open("/dev/null")?)
        .stderr(Stdio::null())
        .spawn()
        .context("run cat")?;
    let port = Port::lease()?;
    let mut game = Command::new(paths::binary("zlh-fake-game")?)
        .args(["--port", &port.number().to_string(), "--flood-rate", "0"])
        .args(["--flood-bytes", &format!("{mib}MiB")])
        .arg("--events")
        .arg(&record)
        .current_dir(dir)
        .stdin(copy()?)
        .stdout(copy()?)
        .stderr(copy()?)
        .spawn()
        .context("run the game")?;
    let time = flood_after(before, || events::read(&record).unwrap_or_default());
    for child in [&mut game, &mut cat] {
        child.kill()?;
        child.wait()?;
    }
    time
}

fn flood_after(before: usize, events: impl Fn() -> Vec<Event>) -> Result<Duration> {
    eventually("the end of the flood", SOON * 6, || floods(&events()).get(before).copied().ok_or("not yet"))
        .context("a flood that ends after it began")
}

/// How long each complete flood took; none for one whose times make no sense.
fn floods(events: &[Event]) -> Vec<Option<Duration>> {
    let of = |what: What| events.iter().filter(move |event| event.what == what).map(|event| event.at_ns);
    let span = |(began, ended): (u64, u64)| ended.checked_sub(began).map(Duration::from_nanos);
    of(What::FloodBegan).zip(of(What::FloodEnded)).map(span).collect()
}

/// Wake-ups a minute of each process, over a time in which nothing happens.
pub fn wake_ups_a_minute(processes: &[Process], over: Duration) -> Result<Vec<f64>> {
    let look = || -> Result<Vec<_>> {
        let counts = processes.iter().map(|process| process.wake_ups());
        counts.collect::<Option<Vec<_>>>().context("a process that ended while it was watched")
    };
    let before = look()?;
    std::thread::sleep(over);
    let rates = look()?.into_iter().zip(before).map(|(after, before)| {
        let new = |(thread, count): (_, u64)| count - before.get(thread).copied().unwrap_or(0);
        let woken: u64 = after.iter().map(|(thread, count)| new((thread, *count))).sum();
        f64::from(u32::try_from(woken).unwrap_or(u32::MAX)) * 60.0 / over.as_secs_f64()
    });
    Ok(rates.collect())
}

fn listened(agent: &Agent) -> Vec<u64> {
    let events = agent.events().into_iter();
    events.filter(|event| event.what == What::Listening).map(|event| event.at_ns).collect()
}

const FINE: Duration = Duration::from_micros(200);

/// Takes memory and gives it back, so that what follows finds some that the machine has: a
/// virtual machine may give free memory back to its host, and then fetches it page by page. That
/// would be charged to whoever keeps something, and never to `cat`, which keeps nothing.
fn touch_memory() {
    drop(std::hint::black_box(vec![1_u8; TOUCHED_BYTES]));
}

/// More than a console log and a flood.
const TOUCHED_BYTES: usize = 512 << 20;
