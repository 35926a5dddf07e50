//! A workload whose shim is gone or frozen: watched by its identity, stopped by signals.
//!
//! Nobody parents it any more, so its end is seen and its exit status is not. While the
//! agent still holds the terminal's master (it got a duplicate in the handshake), output is
//! drained into the log and the stop command can be typed; after a restart of the agent
//! the terminal is gone and signals are all there is.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use zlh_shim::console_log::Writer;
use zlh_shim::files;
use zlh_shim::process::{ProcessId, descendants};
use zlh_shim::spec::{ConsoleLimits, StopPlan};

use super::driver::Event;
use super::shim_client::ShimClient;

/// Between two looks whether a frozen shim answers again.
const RETRY: Duration = Duration::from_secs(2);

/// Between two SIGKILLs to what forks faster than it dies.
const KILL_AGAIN: Duration = Duration::from_millis(500);

/// How long a look at the terminal waits, so that its end is noticed.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A handle on a workload without a shim.
#[derive(Debug, Clone)]
pub(super) struct Orphan {
    stop: watch::Sender<Option<StopPlan>>,
}

/// What is known of it.
#[derive(Debug)]
pub(super) struct Known {
    pub instance: String,
    pub child: ProcessId,
    /// The shim, which may be frozen rather than gone.
    pub shim: Option<ProcessId>,
    pub run_dir: PathBuf,
    pub master: Option<Arc<OwnedFd>>,
}

impl Orphan {
    /// Watches it from now on; its end arrives as [`Event::OrphanEnded`].
    pub(super) fn watch(known: Known, events: mpsc::Sender<Event>, head: watch::Sender<u64>) -> Self {
        let (stop, asked) = watch::channel(None);
        tokio::spawn(follow(known, asked, events, head));
        Self { stop }
    }

    /// Begins the ladder; a second call changes nothing.
    pub(super) fn stop(&self, plan: StopPlan) {
        self.stop.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(plan);
            first
        });
    }
}

async fn follow(
    known: Known,
    mut asked: watch::Receiver<Option<StopPlan>>,
    events: mpsc::Sender<Event>,
    head: watch::Sender<u64>,
) {
    let drained = known.master.clone().map(|master| Drain::start(master, &known.run_dir, head.clone()));
    let mut rungs: Vec<(Instant, Rung)> = Vec::new();
    if let Some((pidfd, mut ended)) = open(known.child) {
        loop {
            let due = rungs.first().map(|(at, _)| *at);
            tokio::select! {
                _ = &mut ended => break,
                changed = asked.changed(), if rungs.is_empty() => {
                    if changed.is_err() {
                        return; // the driver has let go of it
                    }
                    let plan = asked.borrow_and_update().clone();
                    rungs = ladder(plan, known.master.is_some());
                }
                () = sleep_until(due) => {
                    let (_, rung) = rungs.remove(0);
                    climb(&rung, &pidfd, &known);
                    if rungs.is_empty() {
                        rungs.push((Instant::now() + KILL_AGAIN, Rung::Kill));
                    }
                }
                () = tokio::time::sleep(RETRY), if known.shim.is_some_and(|s| s.is_alive()) => {
                    if let Ok(shim) = ShimClient::connect(&known.run_dir, &known.instance, head.clone()).await {
                        drop(drained);
                        drop(events.send(Event::Thawed { instance: known.instance, shim }).await);
                        return;
                    }
                }
            }
        }
    }
    // What it left behind, and a shim that is frozen: both would hold the slot.
    kill_tree(known.child);
    if let Some(shim) = known.shim {
        signal(shim, Signal::KILL);
    }
    drop(drained);
    drop(events.send(Event::OrphanEnded { instance: known.instance }).await);
}

#[derive(Debug)]
enum Rung {
    Type(String),
    Term,
    Kill,
}

fn ladder(plan: Option<StopPlan>, can_type: bool) -> Vec<(Instant, Rung)> {
    let Some(plan) = plan else { return Vec::new() };
    let mut at = Instant::now();
    let mut rungs = Vec::new();
    if let Some(line) = plan.command.filter(|_| can_type) {
        rungs.push((at, Rung::Type(line)));
        at += Duration::from_millis(plan.grace_ms);
    }
    rungs.push((at, Rung::Term));
    rungs.push((at + Duration::from_millis(plan.term_ms), Rung::Kill));
    rungs
}

fn climb(rung: &Rung, pidfd: &OwnedFd, known: &Known) {
    match rung {
        Rung::Type(line) => {
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
            if let Some(master) = &known.master
                && let Ok(master) = master.try_clone()
            {
                // The terminal does not block: what it does not take is not typed.
                let _ = File::from(master).write_all(format!("{line}\n").as_bytes());
            }
        }
        Rung::Term => {
            let _ = pidfd_send_signal(pidfd, Signal::TERM);
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
        Rung::Kill => {
            kill_tree(known.child);
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

/// The process by that identity and the news of its end, or nobody.
fn open(process: ProcessId) -> Option<(Arc<OwnedFd>, oneshot::Receiver<()>)> {
    let pidfd = Arc::new(pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?);
    // The start time matched while the pidfd was open: it is the one we mean.
    if !process.is_alive() {
        return None;
    }
    let (end, ended) = oneshot::channel();
    let watched = Arc::clone(&pidfd);
    let watch = move || {
        let mut set = [PollFd::new(&*watched, PollFlags::IN)];
        while matches!(rustix::event::poll(&mut set, None), Err(rustix::io::Errno::INTR)) {}
        // Nobody may be listening any more.
        let _ = end.send(());
    };
    std::thread::Builder::new().name("orphan-end".to_owned()).spawn(watch).ok()?;
    Some((pidfd, ended))
}

/// A signal by identity, never by number alone.
fn signal(process: ProcessId, signal: Signal) {
    if let Some(pid) = Pid::from_raw(process.pid)
        && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        && process.is_alive()
    {
        let _ = pidfd_send_signal(&pidfd, signal);
    }
}

fn kill_tree(root: ProcessId) {
    for process in descendants(root.pid) {
        signal(process, Signal::KILL);
    }
}

/// Reads the terminal in a thread of its own: a game that nobody drains stops.
struct Drain(Arc<AtomicBool>);

impl Drain {
    fn start(master: Arc<OwnedFd>, run_dir: &Path, head: watch::Sender<u64>) -> Self {
        let wanted = Arc::new(AtomicBool::new(true));
        let (flag, dir) = (Arc::clone(&wanted), run_dir.join(files::CONSOLE));
        let at_least = *head.borrow();
        // Without a thread the output is lost, and the game goes on until its terminal is full.
        let _ = std::thread::Builder::new().name("orphan-console".to_owned()).spawn(move || {
            let Ok(mut log) = Writer::open(&dir, ConsoleLimits::default(), at_least) else { return };
            let mut buffer = [0_u8; 32 << 10];
            loop {
                // What is there when it ends is still taken.
                let last = !flag.load(Ordering::Relaxed);
                let look = if last { Timespec { tv_sec: 0, tv_nsec: 0 } } else { LOOK };
                let mut set = [PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN)];
                if !matches!(rustix::event::poll(&mut set, Some(&look)), Ok(n) if n > 0) {
                    if last {
                        return;
                    }
                    continue;
                }
                match rustix::io::read(&*master, &mut buffer) {
                    Ok(n) if n > 0 => {
                        log.append(&buffer[..n]);
                        head.send_replace(log.head());
                    }
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    // Hung up: the last process of the workload has closed it.
                    _ => return,
                }
            }
        });
        Self(wanted)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
