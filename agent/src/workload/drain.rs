//! The terminal of a workload that no shim holds, read by the agent: a game that nobody
//! drains stops at the next thing it prints. The last resort, while no shim can be started.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::sync::{oneshot, watch};
use zlh_shim::files;
use zlh_shim::flight::{self, Flight};
use zlh_shim::spec::ConsoleLimits;

/// How long a look at the terminal waits, so that it can be told to end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Bytes taken at once.
const BUFFER: usize = 32 << 10;

/// What a shim that died left in the hands of the agent.
#[derive(Debug, Clone)]
pub(super) struct Legacy {
    /// The terminal's master.
    pub master: Arc<OwnedFd>,
    /// Its memory for bytes between the terminal and the log.
    pub flight: Option<Arc<OwnedFd>>,
}

/// A reader of the terminal in a thread of its own.
#[derive(Debug)]
pub(super) struct Drain {
    wanted: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
}

impl Drain {
    /// Begins where the log ends.
    pub(super) fn start(legacy: &Legacy, run_dir: &Path, head: watch::Sender<u64>) -> Self {
        let wanted = Arc::new(AtomicBool::new(true));
        let (flag, dir, legacy) = (Arc::clone(&wanted), run_dir.join(files::CONSOLE), legacy.clone());
        let (end, ended) = oneshot::channel();
        // Without a thread the output waits in the terminal, and the game with it.
        let _ = std::thread::Builder::new().name("orphan-console".to_owned()).spawn(move || {
            drain(&legacy, dir, &head, &flag);
            // Nobody may be waiting.
            let _ = end.send(());
        });
        Self { wanted, ended }
    }

    /// Takes what is there and lets go: from here on the log is another's to write.
    pub(super) async fn stop(mut self) {
        self.wanted.store(false, Ordering::Relaxed);
        // An error is an end as well.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

fn drain(legacy: &Legacy, dir: PathBuf, head: &watch::Sender<u64>, wanted: &AtomicBool) {
    let known = *head.borrow();
    let mut left = legacy.flight.as_ref().and_then(|fd| Flight::open(fd.try_clone().ok()?).ok());
    let Ok((mut log, _)) = flight::resume(&dir, ConsoleLimits::default(), known, left.as_mut()) else {
        return;
    };
    head.send_replace(log.head());
    let mut buffer = vec![0_u8; BUFFER];
    loop {
        let last = !wanted.load(Ordering::Relaxed);
        let mut set = [PollFd::from_borrowed_fd(legacy.master.as_fd(), PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut set, Some(if last { &NOW } else { &LOOK })), Ok(n) if n > 0) {
            if last {
                return;
            }
            continue;
        }
        match rustix::io::read(&*legacy.master, &mut buffer) {
            Ok(n) if n > 0 => {
                log.append(&buffer[..n]);
                head.send_replace(log.head());
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // Hung up: the last process of the workload has closed it.
            _ => return,
        }
        // A game that never stops printing must not keep us from letting go.
        if last {
            return;
        }
    }
}
