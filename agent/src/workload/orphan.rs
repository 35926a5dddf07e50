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
use zlh_shim::ladder::{Action, Ladder};
use zlh_shim::process::{ProcessId, carriers, descendants};
use zlh_shim::spec::{ConsoleLimits, StopPlan};

use super::driver::Event;
use super::shim_client::ShimClient;

/// Between two looks whether a frozen shim answers again.
const RETRY: Duration = Duration::from_secs(2);

/// Requests that may wait.
const ASKS: usize = 16;

/// Between two looks for what a run left behind.
const SWEEP_TICK: Duration = Duration::from_millis(20);

/// How long leftovers are hunted before the end is told anyway.
const SWEEP_PATIENCE: Duration = Duration::from_secs(10);

/// How long a look at the terminal waits, so that its end is noticed.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A handle on a workload without a shim.
#[derive(Debug, Clone)]
pub(super) struct Orphan {
    asks: mpsc::Sender<Ask>,
}

#[derive(Debug)]
enum Ask {
    Stop(StopPlan),
    Extend(Duration),
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
        let (asks, asked) = mpsc::channel(ASKS);
        tokio::spawn(follow(known, asked, events, head));
        Self { asks }
    }

    /// Begins the ladder, or moves it on faster.
    pub(super) fn stop(&self, plan: StopPlan) {
        // A full queue holds stops already, and a closed one has ended.
        let _ = self.asks.try_send(Ask::Stop(plan));
    }

    /// Puts the next rung off; false when it has ended.
    pub(super) fn extend(&self, time: Duration) -> bool {
        !matches!(self.asks.try_send(Ask::Extend(time)), Err(mpsc::error::TrySendError::Closed(_)))
    }
}

async fn follow(
    known: Known,
    mut asked: mpsc::Receiver<Ask>,
    events: mpsc::Sender<Event>,
    head: watch::Sender<u64>,
) {
    let drained = known.master.clone().map(|master| Drain::start(master, &known.run_dir, head.clone()));
    let mut ladder = Ladder::default();
    let mut retry = tokio::time::interval(RETRY);
    retry.reset();
    if let Some((pidfd, mut ended)) = open(known.child) {
        loop {
            while let Some(action) = ladder.tick(Instant::now().into_std()) {
                climb(action, &pidfd, &known);
            }
            let due = ladder.due().map(Instant::from_std);
            tokio::select! {
                _ = &mut ended => break,
                ask = asked.recv() => match ask {
                    Some(Ask::Stop(plan)) => {
                        let command = plan.command.filter(|_| known.master.is_some());
                        ladder.begin(StopPlan { command, ..plan }, Instant::now().into_std());
                    }
                    Some(Ask::Extend(time)) => ladder.extend(Instant::now().into_std() + time),
                    None => return, // the driver has let go of it
                },
                () = sleep_until(due) => {}
                // A ladder that has begun is climbed to its end, also if the shim wakes up.
                _ = retry.tick(), if ladder.stage().is_none() && known.shim.is_some_and(|s| s.is_alive()) => {
                    if let Ok(shim) = ShimClient::connect(&known.run_dir, &known.instance, head.clone()).await {
                        drop(drained);
                        drop(events.send(Event::Thawed { instance: known.instance, shim }).await);
                        return;
                    }
                    retry.reset();
                }
            }
        }
    }
    sweep(&known).await;
    drop(drained);
    drop(events.send(Event::OrphanEnded { instance: known.instance }).await);
}

/// What it left behind, and a shim that is frozen: both would hold the slot.
async fn sweep(known: &Known) {
    if let Some(shim) = known.shim {
        signal(shim, Signal::KILL);
    }
    let until = Instant::now() + SWEEP_PATIENCE;
    let mut empty_looks = 0;
    while empty_looks < 2 && Instant::now() < until {
        empty_looks = if kill_rest(known) == 0 { empty_looks + 1 } else { 0 };
        tokio::time::sleep(SWEEP_TICK).await;
    }
}

fn climb(action: Action, pidfd: &OwnedFd, known: &Known) {
    match action {
        Action::Warn(line) | Action::Type(line) => {
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
            if let Some(master) = &known.master
                && let Ok(master) = master.try_clone()
            {
                // The terminal does not block: what it does not take is not typed.
                let _ = File::from(master).write_all(format!("{line}\n").as_bytes());
            }
        }
        Action::Term => {
            let _ = pidfd_send_signal(pidfd, Signal::TERM);
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
        Action::Kill => {
            kill_rest(known);
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

/// Kills everything of this run but its main process, and answers how many there were:
/// descendants, and those who fled from their parents but carry the run's mark.
fn kill_rest(known: &Known) -> usize {
    let mut rest = descendants(known.child.pid);
    rest.extend(carriers(&known.instance));
    rest.retain(|process| *process != known.child);
    for process in &rest {
        signal(*process, Signal::KILL);
    }
    rest.len()
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
