//! The agent's process: started, found again, ended.
//!
//! It runs in a process group of its own, so that Ctrl-C in the terminal reaches the
//! demo and not the agent: the demo ends it in the right order. A process is known by
//! its id and start time, and signalled through a pidfd that was checked against both.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use zlh_api::client::{Client, Connector};
use zlh_catalog::PublicKey;

use super::layout::Layout;
use super::npm::tail;
use crate::atomic;
use crate::exit::Hint;
use crate::ui::progress::Progress;
use crate::ui::units;
use crate::wait::{Goal, Wait};

/// An agent that this process started.
pub(crate) struct Agent {
    child: Child,
    process: Process,
    record: std::path::PathBuf,
}

/// What is noted of it, for the next run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// Clock ticks since boot: with the id, this process and no other.
    start_ticks: u64,
    url: String,
}

impl Agent {
    pub(crate) fn start(
        layout: &Layout,
        binary: &Path,
        port: u16,
        artifacts_url: &str,
        key: &PublicKey,
    ) -> Result<Self> {
        let log = File::create(&layout.agent_log)
            .with_context(|| format!("cannot write `{}`", layout.agent_log.display()))?;
        let listen = format!("127.0.0.1:{port}");
        let child = Command::new(binary)
            .arg("run")
            .arg("--root")
            .arg(&layout.root)
            .args(["--listen", &listen, "--artifacts-url", artifacts_url, "--catalog-key", &key.to_string()])
            // The demo is what its folder says, not what this shell is set up for.
            .env_remove("ZLH_AGENT_TOKEN")
            .env_remove("ZLH_ARTIFACTS_URL")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run `{}`", binary.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("the agent ended at once")?;
        let start_ticks = start_ticks(pid).context("the agent ended at once")?;
        let process = Process { pid, start_ticks, url: format!("http://{listen}") };
        atomic::write_public(&layout.agent_process, &serde_json::to_vec(&process)?)
            .with_context(|| format!("cannot write `{}`", layout.agent_process.display()))?;
        Ok(Self { child, process, record: layout.agent_process.clone() })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Until `/health` answers, and it is this agent that does.
    pub(crate) async fn wait_until_healthy(&mut self, client: &Client, layout: &Layout) -> Result<()> {
        let deadline = Instant::now() + HEALTHY_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(anyhow!("the agent ended ({status}): {}", tail(&layout.agent_log, 3)))
                    .hint(format!("its log is `{}`", layout.agent_log.display()));
            }
            let Err(error) = client.health().await else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(anyhow::Error::new(error)
                    .context(format!("the agent does not answer: {}", tail(&layout.agent_log, 3))));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops the server, waits until it has saved, ends the agent.
    pub(crate) async fn end(mut self, progress: &Progress) -> Result<()> {
        let line = progress.line("stop");
        let stopped = if self.child.try_wait()?.is_none() {
            stop_server(&self.process.url, |seen| line.seen(seen)).await
        } else {
            Ok(())
        };
        if stopped.is_ok() {
            line.finish("the server saved its world and ended");
        }
        let line = progress.line("agent");
        line.text("ending");
        if let Ok(fd) = self.process.open() {
            let _ = pidfd_send_signal(&fd, Signal::TERM);
        }
        let ended = match tokio::time::timeout(END_TIMEOUT, self.child.wait()).await {
            Ok(status) => status.context("cannot wait for the agent"),
            Err(_) => {
                self.child.start_kill()?;
                self.child.wait().await?;
                Err(anyhow!("the agent did not end within {} and was killed", units::duration(END_TIMEOUT)))
            }
        };
        let _ = fs::remove_file(&self.record);
        stopped?;
        let status = ended?;
        if !status.success() {
            bail!("the agent ended badly: {status}");
        }
        line.finish("ended");
        Ok(())
    }

    /// Ends the agent of a demo that was killed.
    pub(crate) async fn end_earlier(layout: &Layout, progress: &Progress) -> Result<()> {
        let Ok(text) = fs::read(&layout.agent_process) else { return Ok(()) };
        if let Ok(process) = serde_json::from_slice::<Process>(&text)
            && let Ok(fd) = process.open()
        {
            let line = progress.line("earlier");
            // It may be wedged: its end is what matters, and the server is adopted by the next agent.
            let _ = stop_server(&process.url, |seen| line.seen(seen)).await;
            end_process(&process, &fd).await?;
            line.finish(&format!("the agent of an earlier demo (process {}) ended", process.pid));
        }
        fs::remove_file(&layout.agent_process)
            .with_context(|| format!("cannot remove `{}`", layout.agent_process.display()))
    }
}

/// Ends a server whose agent is gone: its shim stops it gracefully when told to leave.
pub(crate) async fn end_orphan(layout: &Layout, progress: &Progress) -> Result<()> {
    #[derive(Deserialize)]
    struct Record {
        body: Body,
    }
    #[derive(Deserialize)]
    struct Body {
        shim: Shim,
    }
    #[derive(Deserialize)]
    struct Shim {
        pid: i32,
        start_ticks: u64,
    }
    let path = layout.root.join("opt/zlh-agent/run/game/shim.json");
    let Ok(Record { body: Body { shim } }) =
        fs::read(path).map_err(anyhow::Error::from).and_then(|text| Ok(serde_json::from_slice(&text)?))
    else {
        return Ok(());
    };
    let process = Process { pid: shim.pid, start_ticks: shim.start_ticks, url: String::new() };
    let Ok(fd) = process.open() else { return Ok(()) };
    let line = progress.line("earlier");
    line.text("the server saves its world");
    let _ = pidfd_send_signal(&fd, Signal::TERM);
    let deadline = Instant::now() + STOP_TIMEOUT;
    while start_ticks(process.pid) == Some(process.start_ticks) {
        if Instant::now() > deadline {
            bail!("the server of an earlier demo (shim {}) does not end", process.pid);
        }
        tokio::time::sleep(POLL).await;
    }
    line.finish("the server of an earlier demo saved its world and ended");
    Ok(())
}

impl Process {
    /// A handle on exactly this process.
    fn open(&self) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::NotFound)?;
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        // Checked after it is held: from here on the id cannot go to another process.
        if start_ticks(self.pid) == Some(self.start_ticks) {
            Ok(fd)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

async fn stop_server(url: &str, seen: impl FnMut(crate::wait::Seen<'_>)) -> Result<()> {
    let client = Connector::new(CALL_TIMEOUT, None).agent(url, None)?;
    let operation = client.stop().await.context("the agent refuses to stop the server")?.operation;
    let wait = Wait { goal: Goal::Idle, operation, timeout: STOP_TIMEOUT };
    wait.run(&client, seen).await.context("the server does not stop")?;
    Ok(())
}

async fn end_process(process: &Process, fd: &OwnedFd) -> Result<()> {
    for (signal, patience) in [(Signal::TERM, END_TIMEOUT), (Signal::KILL, Duration::from_secs(5))] {
        let _ = pidfd_send_signal(fd, signal);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if start_ticks(process.pid) != Some(process.start_ticks) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
    bail!("the agent of an earlier demo (process {}) cannot be ended", process.pid)
}

/// Field 22 of `/proc/PID/stat`; nothing when there is no such process, or only its remains.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, also blanks and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

const HEALTHY_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(120);
const END_TIMEOUT: Duration = Duration::from_secs(20);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p1_a_recycled_process_id_is_not_ours() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let ticks = start_ticks(pid).unwrap();
        let process = |pid, start_ticks| Process { pid, start_ticks, url: String::new() };
        assert!(process(pid, ticks).open().is_ok());
        assert!(process(pid, ticks + 1).open().is_err());
        assert!(process(0, ticks).open().is_err());
        assert!(process(i32::MAX, ticks).open().is_err());
    }

    #[test]
    fn the_remains_of_a_process_are_no_process() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while start_ticks(pid).is_some() {
            assert!(Instant::now() < deadline, "`true` does not end");
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
