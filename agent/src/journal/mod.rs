//! The journal: what happened to the workload, kept through crashes, full disks and years.
//!
//! ```text
//!  driver ── record() ──► queue (memory) ──► writer (a thread) ──► store (files)
//!                            │                                        │
//!                            └───────────────┬────────────────────────┘
//!                                     history(): read, place in time, sum up
//! ```
//!
//! - [`Journal::record`] never waits for the disk and never fails. What the disk does not
//!   take waits in memory, [`QUEUE`] entries at most; beyond that they are counted, and a
//!   `gap` entry says exactly how many were lost.
//! - The writer sleeps until there is something to write. While a workload runs it notes
//!   every [`ALIVE`] that it still does, so that after a loss of power the last trace is
//!   recent; without one it wakes for nothing.
//! - Ends, crashes and stops are synced before the next entry is; the rest is left to the
//!   kernel.
//! - Two agents never write at once: the lock of the root sees to it.

mod entry;
mod flaps;
mod history;
mod read;
mod store;
mod summary;
mod timeline;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slog::{Logger, info, warn};
use tokio::sync::Semaphore;
use zlh_api::{History, OperationKind};
use zlh_shim::process::Generation;

pub(crate) use self::entry::{By, Exit, Stamp, What, Why, life_of};
pub(crate) use self::flaps::Flaps;
pub(crate) use self::history::Query;

use self::entry::Entry;
use self::history::Collector;
use self::store::{Opener, Store};

/// A cheap, clonable handle.
#[derive(Clone)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
}

/// What the journal could not tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The files.
    #[error("the journal cannot be read")]
    Io(#[from] std::io::Error),
    /// The reading task.
    #[error("the journal's reader has ended")]
    Gone,
}

struct Shared {
    life: String,
    log: Logger,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Held while something is written; taken before `queue`.
    disk: Mutex<Disk>,
    /// One reading at a time: it takes memory that an idle agent should not have.
    readers: Semaphore,
}

struct Disk {
    dir: PathBuf,
    opener: Opener,
    store: Option<Store>,
}

#[derive(Default)]
struct Queue {
    pending: VecDeque<(Stamp, What)>,
    lost: u64,
    lost_since: u64,
    /// The run that is alive, and whether it is ready.
    alive: Option<bool>,
    failing: bool,
    closing: bool,
    closed: bool,
}

impl Journal {
    /// Opens the journal in `dir` and starts its writer. A journal that cannot be opened
    /// keeps its entries in memory and goes on trying.
    pub(crate) fn open(dir: &Path, log: Logger) -> Self {
        Self::with(dir, log, Arc::new(store::open_file))
    }

    fn with(dir: &Path, log: Logger, opener: Opener) -> Self {
        let life = Generation::current().map_or_else(|_| "unknown".to_owned(), |now| life_of(&now));
        let mut disk = Disk { dir: dir.to_owned(), opener, store: None };
        if let Err(error) = disk.open(&log) {
            warn!(log, "the journal cannot be opened; trying again"; "dir" => %dir.display(), "error" => %error);
        }
        let shared = Arc::new(Shared {
            life,
            log,
            queue: Mutex::default(),
            wake: Condvar::new(),
            disk: Mutex::new(disk),
            readers: Semaphore::new(1),
        });
        let writer = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("journal".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || writer.write());
        if let Err(error) = spawned {
            // Entries are kept in memory then, and history still shows them.
            warn!(shared.log, "the journal has no writer; nothing of it reaches the disk"; "error" => %error);
            lock(&shared.queue).closed = true;
        }
        Self { shared }
    }

    /// Notes that something happened, now.
    pub(crate) fn record(&self, mut what: What) {
        what.cut();
        let stamp = Stamp::now(&self.shared.life);
        let mut queue = lock(&self.shared.queue);
        queue.note(&what);
        queue.make_room_for_gap(&self.shared.life);
        if queue.lost > 0 || queue.pending.len() >= QUEUE {
            if queue.lost == 0 {
                queue.lost_since = stamp.boot;
            }
            queue.lost += 1;
        } else {
            queue.pending.push_back((stamp, what));
        }
        drop(queue);
        self.shared.wake.notify_all();
    }

    /// Sums up what is known.
    pub(crate) async fn history(&self, query: Query) -> Result<History, JournalError> {
        let _turn = self.shared.readers.acquire().await.map_err(|_| JournalError::Gone)?;
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            let history = shared.read(query);
            zlh_shim::trim::trim();
            history
        })
        .await
        .map_err(|_| JournalError::Gone)?
    }

    /// The runs this agent and earlier ones began here, as far as the journal goes back.
    pub(crate) async fn runs(&self) -> Result<BTreeSet<String>, JournalError> {
        let _turn = self.shared.readers.acquire().await.map_err(|_| JournalError::Gone)?;
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.runs()).await.map_err(|_| JournalError::Gone)?
    }

    /// Writes what waits, for at most `patience`. Entries that come later stay in memory.
    pub(crate) fn close(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut queue = lock(&self.shared.queue);
        queue.closing = true;
        self.shared.wake.notify_all();
        while !queue.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = wait(&self.shared.wake, queue, Some(left));
        }
    }
}

impl Queue {
    /// What the writer has to know of an entry.
    fn note(&mut self, what: &What) {
        match what {
            What::Start { .. } | What::Found { .. } | What::Silent { .. } | What::NotReady { .. } => {
                self.alive = Some(false);
            }
            What::Ready { .. } | What::Answers {} => self.alive = Some(true),
            What::Exit(_)
            | What::GaveUp { .. }
            | What::StartFailed { .. }
            | What::Swept {}
            | What::Absent { .. }
            | What::OperationEnded { kind: OperationKind::Stop, .. } => self.alive = None,
            _ => {}
        }
    }

    /// Once there is room again, what was lost is said before anything else.
    fn make_room_for_gap(&mut self, life: &str) {
        if self.lost > 0 && self.pending.len() + 2 <= QUEUE {
            let gap = What::Gap { lost: self.lost, boot: self.lost_since };
            self.pending.push_back((Stamp::now(life), gap));
            self.lost = 0;
        }
    }
}

impl Disk {
    fn open(&mut self, log: &Logger) -> std::io::Result<&mut Store> {
        let store = match self.store.take() {
            Some(store) => store,
            None => {
                let (store, notes) = Store::open(&self.dir, Arc::clone(&self.opener))?;
                for note in notes {
                    warn!(log, "{}", note);
                }
                store
            }
        };
        Ok(self.store.insert(store))
    }
}

impl Shared {
    /// The writer's life.
    fn write(&self) {
        while self.wait_for_work() {
            if let Err(error) = self.write_some() {
                self.fail(&error);
            }
        }
        lock(&self.queue).closed = true;
        self.wake.notify_all();
    }

    /// False when it is over.
    fn wait_for_work(&self) -> bool {
        let mut queue = lock(&self.queue);
        let mut alive_at = None;
        loop {
            if !queue.pending.is_empty() {
                return !(queue.closing && queue.failing);
            }
            if queue.closing {
                return false;
            }
            let Some(ready) = queue.alive else {
                alive_at = None;
                queue = wait(&self.wake, queue, None);
                continue;
            };
            let left = alive_at
                .get_or_insert_with(|| Instant::now() + ALIVE)
                .saturating_duration_since(Instant::now());
            if left.is_zero() {
                queue.pending.push_back((Stamp::now(&self.life), What::Alive { ready }));
            } else {
                queue = wait(&self.wake, queue, Some(left));
            }
        }
    }

    fn write_some(&self) -> std::io::Result<()> {
        let mut disk = lock(&self.disk);
        let batch: Vec<(Stamp, What)> = lock(&self.queue).pending.iter().take(BATCH).cloned().collect();
        let store = disk.open(&self.log)?;
        let (written, error) = store.append(batch.iter().map(|(stamp, what)| (stamp, what)));
        let mut queue = lock(&self.queue);
        queue.pending.drain(..written);
        queue.make_room_for_gap(&self.life);
        if let Some(error) = error {
            return Err(error);
        }
        if std::mem::take(&mut queue.failing) {
            info!(self.log, "the journal is written again"; "waiting" => queue.pending.len());
        }
        Ok(())
    }

    /// Says once that the disk takes nothing, and lets it be for a while.
    fn fail(&self, error: &std::io::Error) {
        let mut queue = lock(&self.queue);
        if !std::mem::replace(&mut queue.failing, true) {
            warn!(self.log, "the journal cannot be written; entries wait in memory"; "error" => %error);
        }
        let again = Instant::now() + RETRY;
        while !queue.closing {
            let left = again.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = wait(&self.wake, queue, Some(left));
        }
    }

    fn runs(&self) -> Result<BTreeSet<String>, JournalError> {
        let files = lock(&self.disk).store.as_ref().map_or(Vec::new(), |store| store.readable());
        let mut runs = BTreeSet::new();
        let mut take = |what| {
            if let What::Start { instance, .. } = what {
                runs.insert(instance);
            }
        };
        read::scan(&files, |entry| take(entry.what))?;
        lock(&self.queue).pending.iter().for_each(|(_, what)| take(what.clone()));
        Ok(runs)
    }

    fn read(&self, query: Query) -> Result<History, JournalError> {
        let (files, mut seq, pending, lost) = {
            let disk = lock(&self.disk);
            let queue = lock(&self.queue);
            let (files, seq) =
                disk.store.as_ref().map_or((Vec::new(), 1), |store| (store.readable(), store.next_seq()));
            (files, seq, queue.pending.clone(), queue.lost)
        };
        let mut collector = Collector::new(query);
        let tally = read::scan(&files, |entry| collector.take(entry))?;
        let waiting = pending.len() as u64;
        for (stamp, what) in pending {
            collector.take(Entry { seq, stamp, what });
            seq += 1;
        }
        let now = Stamp::now(&self.life);
        Ok(collector.finish(&now, tally.entries + waiting, tally.damaged, waiting, lost))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(wake: &Condvar, guard: MutexGuard<'a, T>, most: Option<Duration>) -> MutexGuard<'a, T> {
    match most {
        None => wake.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(most) => wake.wait_timeout(guard, most).map_or_else(|e| e.into_inner().0, |(guard, _)| guard),
    }
}

/// Entries that wait for the disk, at most; some 200 KiB.
const QUEUE: usize = 1024;

/// Entries that are written at once.
const BATCH: usize = 128;

/// While a workload runs, the longest time without an entry.
const ALIVE: Duration = Duration::from_secs(15 * 60);

/// After a write that failed.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };

/// Of the writer's stack.
const STACK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests;
