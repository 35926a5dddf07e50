//! What the console costs beside its peers, on the same output in the same run.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::pty::openpty;
use zlh_api::CONSOLE_PROTOCOL;

use super::agent::Agent;
use super::paths;
use super::ports::Port;
use super::wait::{SOON, until};
use super::websocket::Viewer;

/// A long flood takes as long as it takes.
const FLOODED: Duration = Duration::from_secs(120);

fn viewer(agent: &Agent) -> Result<Viewer> {
    let protocol = [("sec-websocket-protocol", CONSOLE_PROTOCOL)];
    Viewer::open(agent.address(), "/console/stream?tail=0", &protocol)
        .map_err(|refused| anyhow::anyhow!("no console: {refused:?}"))
}

/// Between two keys.
const BETWEEN_KEYS: Duration = Duration::from_millis(25);

/// From a key to its echo on a terminal that nobody stands between, sorted.
pub fn echo_of_a_terminal(rounds: usize) -> Result<Vec<Duration>> {
    let pty = openpty(None, None)?;
    let mut master = File::from(pty.master);
    let mut times = Vec::new();
    for round in 0..rounds {
        std::thread::sleep(BETWEEN_KEYS);
        let begun = Instant::now();
        master.write_all(key(round))?;
        let mut echo = [0; 16];
        ensure!(master.read(&mut echo)? > 0, "the terminal is gone");
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// The same through WebSocket, agent, shim and back, sorted. The game must be ready.
#[track_caller]
pub fn echo_through_the_agent(agent: &Agent, rounds: usize) -> Result<Vec<Duration>> {
    let mut viewer = viewer(agent)?;
    let mut times = Vec::new();
    for round in 0..rounds {
        // Nobody types faster.
        std::thread::sleep(BETWEEN_KEYS);
        let before = viewer.received().len();
        let begun = Instant::now();
        viewer.type_bytes(key(round));
        viewer.receive_until("the echo", SOON, |viewer| viewer.received().len() > before);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// A letter; after some of them they are erased, so that the line never gets full.
fn key(round: usize) -> &'static [u8] {
    if round % 50 == 49 { b"\x15" } else { b"x" }
}

/// How long `mib` MiB take from the game to one viewer.
#[track_caller]
pub fn flood_to_a_viewer(agent: &Agent, mib: u64) -> Result<Duration> {
    let mut viewer = viewer(agent)?;
    let wanted = usize::try_from(mib << 20)?;
    let begun = Instant::now();
    agent.command(&format!("flood {mib}MiB 0"));
    viewer.receive_until("the flood", FLOODED, |viewer| viewer.received().len() >= wanted);
    Ok(begun.elapsed())
}

/// The same output through `tmux`, whose pane is piped into `cat`; none when it is not installed.
#[track_caller]
pub fn flood_through_tmux(dir: &Path, mib: u64) -> Result<Option<Duration>> {
    if Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_err() {
        return Ok(None);
    }
    let (socket, out, go) = (dir.join("tmux"), dir.join("out"), dir.join("go"));
    let _ = fs::remove_file(&out);
    let _ = fs::remove_file(&go);
    let tmux = |arguments: &[&str]| -> Result<()> {
        let status =
            Command::new("tmux").arg("-S").arg(&socket).args(["-f", "/dev/null"]).args(arguments).status()?;
        ensure!(status.success(), "tmux {arguments:?}: {status}");
        Ok(())
    };
    let port = Port::lease()?;
    let game = paths::binary("zlh-fake-game")?;
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", go.display());
    let run = format!(
        "{wait}; cd {}; exec {} --port {} --flood-rate 0 --flood-bytes {mib}MiB",
        dir.display(),
        game.display(),
        port.number()
    );
    tmux(&["new-session", "-d", "-x", "200", "-y", "50", &run])?;
    tmux(&["pipe-pane", &format!("cat >{}", out.display())])?;
    until("the pipe", SOON, || out.exists());
    let begun = Instant::now();
    File::create(&go)?;
    let there = |out: &Path| fs::metadata(out).is_ok_and(|file| file.len() >= mib << 20);
    until("the flood", FLOODED, || there(&out));
    let time = begun.elapsed();
    tmux(&["kill-server"])?;
    fs::remove_file(&out)?;
    Ok(Some(time))
}

/// How late healthy viewers see a line, among 200 of which one is stalled, while the server prints a
/// megabyte a second; sorted.
#[track_caller]
pub fn latency_of_a_crowd(agent: &Agent, lines: usize) -> Result<Vec<Duration>> {
    const CROWD: usize = 198;
    let _stalled = viewer(agent)?;
    let mut healthy = viewer(agent)?;
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(AtomicU64::new(0));
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let (mut one, over, seen) = (viewer(agent)?, Arc::clone(&over), Arc::clone(&seen));
        crowd.push(std::thread::spawn(move || {
            let count = one.drain_until(|| over.load(Ordering::Relaxed));
            seen.fetch_add(count, Ordering::Relaxed);
        }));
    }
    agent.command("flood 1GB 1MB");
    let mut times = Vec::new();
    for line in 0..lines {
        let mark = format!("[Server] mark {line} end");
        let from = healthy.received().len();
        let begun = Instant::now();
        agent.command(&format!("say mark {line} end"));
        healthy.receive_until(&mark, SOON, |viewer| {
            let news = &viewer.received()[from.saturating_sub(64)..];
            news.windows(mark.len()).any(|part| part == mark.as_bytes())
        });
        times.push(begun.elapsed());
    }
    over.store(true, Ordering::Relaxed);
    for one in crowd {
        one.join().map_err(|_| anyhow::anyhow!("a viewer of the crowd was cut off"))?;
    }
    ensure!(seen.load(Ordering::Relaxed) > 0, "the crowd saw nothing");
    agent.post("/restart", 202);
    agent.wait_status("the end of the flood", FLOODED, |status| !status.ready);
    agent.wait_ready();
    times.sort_unstable();
    Ok(times)
}

/// The value below which so many in a hundred lie.
pub fn percentile(sorted: &[Duration], percent: usize) -> Result<Duration> {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().context("nothing was measured")
}
