//! The terminal of a workload that no shim holds, read by the agent: a game that nobody
//! drains stops at the next thing it prints. The last resort, while no shim can be started.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
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
    /// Begins where the log ends, unless a shim is about to do the same: the log has one writer.
    pub(super) fn start(legacy: &Legacy, run_dir: &Path, head: watch::Sender<u64>) -> Self {
        let wanted = Arc::new(AtomicBool::new(true));
        let (flag, dir, legacy) = (Arc::clone(&wanted), run_dir.to_owned(), legacy.clone());
        let (end, ended) = oneshot::channel();
        // Without a thread the output waits in the terminal, and the game with it.
        let _ = std::thread::Builder::new().name("orphan-console".to_owned()).spawn(move || {
            if let Some(_alone) = keep_shims_away(&dir) {
                drain(&legacy, dir.join(files::CONSOLE), &head, &flag);
            }
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

/// Takes the lock that a shim takes before it reads the terminal; none while one has it.
fn keep_shims_away(run_dir: &Path) -> Option<File> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(run_dir.join(files::HOLDER_LOCK));
    // Without a folder there is no shim, either, and the game must not wait.
    let Ok(lock) = lock else { return File::open("/dev/null").ok() };
    lock.try_lock().is_ok().then_some(lock)
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn while_a_shim_has_the_log_nobody_else_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let shim = File::create(dir.path().join(files::HOLDER_LOCK)).unwrap();
        shim.try_lock().unwrap();
        let (terminal, mut game) = std::io::pipe().unwrap();
        game.write_all(b"a line\n").unwrap();
        let legacy = Legacy { master: Arc::new(terminal.into()), flight: None };
        let (head, _) = watch::channel(0);
        Drain::start(&legacy, dir.path(), head.clone()).stop().await;
        assert_eq!(*head.borrow(), 0, "it is the shim's to read");
        drop(shim);
        Drain::start(&legacy, dir.path(), head.clone()).stop().await;
        assert_eq!(*head.borrow(), 7);
    }
}
