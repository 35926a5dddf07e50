//! Processes a game leaves behind: the daemon that launch scripts love, and
//! whole litters of grandchildren. Each ends by itself after its linger time.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::events::{Events, What};
use super::settings::DaemonMode;
use super::{Settings, Span};

/// What a process started by the game does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes a session of its own, starts a [`Role::Lingerer`] and exits at once.
    Daemoniser,
    /// Starts `--forks` lingerers and stays.
    Parent,
    /// Does nothing, for its linger time.
    Lingerer,
    /// Starts others like itself for as long as it lives.
    Bomber,
    /// Lets its first thread end while another computes, in a session of its own.
    Headless,
    /// Changes to `--child-uid`, in a session of its own, then does nothing.
    Defector,
}

/// Starts a process that outlives the game in its own session.
pub(crate) fn daemonise(mode: DaemonMode, settings: &Settings) -> anyhow::Result<()> {
    let mut command = myself(Role::Daemoniser, settings)?;
    if mode == DaemonMode::Detached {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    let status = command.status().context("start a daemon")?;
    anyhow::ensure!(status.success(), "the daemoniser ended with {status}");
    Ok(())
}

/// Starts a process that ends at once, and whose parent has ended before it.
pub(crate) fn orphan(settings: &Settings) -> anyhow::Result<()> {
    let brief = Settings { linger: Some(BRIEF), ..settings.clone() };
    daemonise(DaemonMode::Detached, &brief)
}

/// The life of an [`orphan`].
const BRIEF: Span = Span(Duration::from_millis(5));

/// Starts a child with `count` children of its own.
pub(crate) fn litter(count: u32, settings: &Settings) -> anyhow::Result<()> {
    let child =
        myself(Role::Parent, settings)?.args(["--forks", &count.to_string()]).spawn().context("fork")?;
    open_events(settings).record(What::Child, child.id().to_string());
    // Whoever reaps it, it is not this process: a real server does not wait either.
    drop(child);
    Ok(())
}

/// Starts a child that becomes another user.
pub(crate) fn defector(uid: u32, settings: &Settings) -> anyhow::Result<()> {
    let child =
        myself(Role::Defector, settings)?.args(["--child-uid", &uid.to_string()]).spawn().context("fork")?;
    open_events(settings).record(What::Child, child.id().to_string());
    drop(child);
    Ok(())
}

/// Starts a child that goes on without its first thread.
pub(crate) fn headless(settings: &Settings) -> anyhow::Result<()> {
    let child = myself(Role::Headless, settings)?.spawn().context("fork")?;
    open_events(settings).record(What::Child, child.id().to_string());
    drop(child);
    Ok(())
}

/// To the kernel it is a zombie with threads.
fn lose_head(settings: &Settings) -> anyhow::Result<()> {
    nix::unistd::setsid().context("setsid")?;
    let end = Instant::now() + settings.linger();
    std::thread::Builder::new().spawn(move || {
        while Instant::now() < end {
            std::hint::spin_loop();
            std::thread::sleep(Duration::from_millis(1));
        }
    })?;
    #[allow(unsafe_code, reason = "no safe call ends the first thread alone")]
    // SAFETY: this thread ends here; what it owns stays as it is for the others.
    unsafe {
        nix::libc::syscall(nix::libc::SYS_exit, 0)
    };
    Ok(())
}

/// Starts what forks until nobody can fork any more.
pub(crate) fn bomb(settings: &Settings) -> anyhow::Result<()> {
    // A machine without that limit would not survive it.
    let groups = std::fs::read_to_string("/proc/self/cgroup").context("read the control groups")?;
    anyhow::ensure!(groups.contains(crate::harness::cgroup::MARK), "not in a limited control group");
    drop(myself(Role::Bomber, settings)?.spawn().context("fork")?);
    Ok(())
}

fn explode(settings: &Settings) -> anyhow::Result<()> {
    let end = Instant::now() + settings.linger();
    let mut children = Vec::new();
    while Instant::now() < end {
        // Refused: somebody may end, then there is room again.
        match myself(Role::Bomber, settings)?.spawn() {
            Ok(child) => children.push(child),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Ok(())
}

fn defect(settings: &Settings) -> anyhow::Result<()> {
    nix::unistd::setsid().context("setsid")?;
    let uid = nix::unistd::Uid::from_raw(settings.child_uid.context("no --child-uid")?);
    nix::unistd::setresuid(uid, uid, uid).context("setresuid")?;
    linger(settings.linger());
    Ok(())
}

/// The program of a process in a role.
pub(crate) fn play(role: Role, settings: &Settings) -> ExitCode {
    let done = match role {
        Role::Daemoniser => nix::unistd::setsid().context("setsid").and_then(|_| lingerer(settings)),
        Role::Parent => (0..settings.forks.unwrap_or(0)).try_for_each(|_| lingerer(settings)).map(|()| {
            linger(settings.linger());
        }),
        Role::Lingerer => {
            linger(settings.linger());
            Ok(())
        }
        Role::Bomber => explode(settings),
        Role::Headless => lose_head(settings),
        Role::Defector => defect(settings),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn lingerer(settings: &Settings) -> anyhow::Result<()> {
    let child = myself(Role::Lingerer, settings)?.spawn().context("fork")?;
    open_events(settings).record(What::Child, child.id().to_string());
    drop(child);
    Ok(())
}

fn linger(time: Duration) {
    let end = Instant::now() + time;
    while let Some(rest) = end.checked_duration_since(Instant::now()) {
        std::thread::sleep(rest);
    }
}

fn myself(role: Role, settings: &Settings) -> anyhow::Result<Command> {
    let me = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let role = role.to_possible_value().context("every role has a name")?;
    let mut command = Command::new(me);
    command.args(["--role", role.get_name(), "--linger", &format!("{}ms", settings.linger().as_millis())]);
    if let Some(events) = &settings.events {
        command.arg("--events").arg(events);
    }
    Ok(command)
}

fn open_events(settings: &Settings) -> Events {
    Events::open(settings.events.as_deref()).unwrap_or_default()
}
