//! A workload whose shim is gone, frozen or not to be used.
//!
//! ```text
//! lost ─► regain: a shim that answers, or a new one that adopts ──► Regained
//!   ▲         │ not yet                                              (driver attaches)
//!   │         ▼
//!   └─ pause: drained by us, stopped by typing and signals ─► ended ─► OrphanEnded
//! ```
//!
//! One task follows it; it never keeps anybody waiting for longer than one try. While a
//! shim lives, however frozen, the log is the shim's: it is drained by us only when the
//! shim is dead and the terminal is in our hands. The end is seen through a pidfd; how it
//! ended is known where the kernel tells, else it is *lost*.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use zlh_shim::kin::{self, Kin};
use zlh_shim::ladder::{Action, Ladder};
use zlh_shim::living::Living;
use zlh_shim::process::{ProcessId, carriers};
use zlh_shim::record::{Exit, ExitRecord};
use zlh_shim::spec::StopPlan;

use super::drain::Drain;
use super::driver::Event;
use super::regain::{Known, Trouble, is_frozen, pause};

/// Between two looks at a shim that lives and cannot be used.
const RETRY: Duration = Duration::from_secs(1);

/// Requests that may wait.
const ASKS: usize = 16;

/// How long a shim that lives may take to record the end itself.
const RECORD: Duration = Duration::from_secs(3);

/// How long such a shim may take to leave when it is asked to.
const LEAVE: Duration = Duration::from_secs(2);

/// How long leftovers of the workload are hunted.
const SWEEP: Duration = Duration::from_secs(10);

/// Between two looks for something that happens soon or not at all.
const LOOK: Duration = Duration::from_millis(20);

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

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    /// A shim that could not be used has recorded it.
    Recorded(Box<ExitRecord>),
    /// As the kernel tells, or lost.
    Seen(Exit),
}

impl Orphan {
    /// Follows it from now on; the first try to regain it begins after `delay`. `living` is
    /// its process, if it could be held.
    pub(super) fn follow(
        known: Known,
        living: Option<Arc<Living>>,
        delay: Duration,
        events: mpsc::Sender<Event>,
        head: watch::Sender<u64>,
    ) -> Self {
        let (asks, asked) = mpsc::channel(ASKS);
        tokio::spawn(async move {
            if let Some(event) = follow(&known, living.as_ref(), delay, asked, &events, head).await {
                drop(events.send(event).await);
            }
        });
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

/// None: the driver has let go of it.
async fn follow(
    known: &Known,
    living: Option<&Arc<Living>>,
    delay: Duration,
    mut asked: mpsc::Receiver<Ask>,
    events: &mpsc::Sender<Event>,
    head: watch::Sender<u64>,
) -> Option<Event> {
    let mut kin = Kin::foreign(&known.run_dir, living.map(|living| living.id()));
    let ended = wait_for_end(living.cloned());
    tokio::pin!(ended);
    let (mut tries, mut over, mut told) = (0, false, None);
    let mut next_try = Instant::now() + delay;
    let mut drain = None;
    if !delay.is_zero() {
        drain = known.legacy.as_ref().map(|legacy| Drain::start(legacy, &known.run_dir, head.clone()));
        let why = format!("its shims keep being killed, the next one starts in {delay:?}");
        tell(known, Trouble::NotAdopted(why), &mut told, events).await?;
    }
    let mut ladder = Ladder::default();
    loop {
        while let Some(action) = ladder.tick(Instant::now().into_std()) {
            climb(action, living, &mut kin, known);
        }
        let due = ladder.due().map(Instant::from_std);
        tokio::select! {
            biased;
            // A stop under way is ours to end: under another shim it would begin anew.
            () = tokio::time::sleep_until(next_try), if ladder.stage().is_none() || over => {
                // One writer: whoever adopts goes on where we end.
                if let Some(drain) = drain.take() {
                    Drain::stop(drain).await;
                }
                let trouble = match known.regain(head.clone()).await {
                    Ok(shim) => return Some(Event::Regained { instance: known.instance.clone(), shim }),
                    Err(trouble) => trouble,
                };
                tries += 1;
                next_try = Instant::now() + again(&trouble, tries);
                if let (Some(legacy), None) = (&known.legacy, known.living_shim()) {
                    drain = Some(Drain::start(legacy, &known.run_dir, head.clone()));
                }
                if over {
                    break;
                }
                tell(known, trouble, &mut told, events).await?;
            }
            // A shim may have it on record, or be told by its remains: one more try.
            () = &mut ended, if !over => (over, next_try) = (true, Instant::now()),
            // Once it is clear that no shim takes it over at once.
            ask = asked.recv(), if told.is_some() => match ask? {
                Ask::Stop(plan) => ladder.begin(possible(plan, known), Instant::now().into_std()),
                Ask::Extend(time) => ladder.extend(Instant::now().into_std() + time),
            },
            () = sleep_until(due) => {}
        }
    }
    let recorded = recorded_by_its_shim(known).await;
    let left = known.clone();
    let swept = tokio::task::spawn_blocking(move || {
        let until = std::time::Instant::now() + SWEEP;
        while kill_marked(&left, None) > 0 && std::time::Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        kin.sweep(SWEEP)
    });
    drop(swept.await);
    if let Some(drain) = drain {
        Drain::stop(drain).await;
    }
    let end = recorded.unwrap_or_else(|| End::Seen(end_of(living)));
    Some(Event::OrphanEnded { instance: known.instance.clone(), end })
}

/// Before the next try.
fn again(trouble: &Trouble, tries: usize) -> Duration {
    match trouble {
        Trouble::NotAdopted(_) => pause(tries).max(RETRY),
        Trouble::Frozen(_) | Trouble::Unusable { .. } => RETRY,
        // Nobody can bring the terminal back; a shim that somebody started by hand is found.
        Trouble::NoTerminal => RETRY * 60,
    }
}

/// Tells the driver what is the matter, once. None: it has let go.
async fn tell(
    known: &Known,
    trouble: Trouble,
    told: &mut Option<Trouble>,
    events: &mpsc::Sender<Event>,
) -> Option<()> {
    if told.as_ref() != Some(&trouble) {
        *told = Some(trouble.clone());
        let event = Event::Orphaned { instance: known.instance.clone(), trouble };
        events.send(event).await.ok()?;
    }
    Some(())
}

/// How a process ended, as far as anybody can tell.
pub(super) fn end_of(living: Option<&Arc<Living>>) -> Exit {
    let lost = || Exit::Lost { reason: "it ended while neither shim nor agent was there".to_owned() };
    living.and_then(|living| living.end()).unwrap_or_else(lost)
}

/// A shim that lives and could not be used does its work all the same: it writes the record.
/// Then it has to leave, because it holds the slot.
async fn recorded_by_its_shim(known: &Known) -> Option<End> {
    let recorded = || ExitRecord::read(&known.run_dir, &known.instance).ok();
    let end = |record| End::Recorded(Box::new(record));
    let Some(shim) = known.living_shim().and_then(Living::open) else { return recorded().map(end) };
    if !is_frozen(&shim.id()) {
        until(RECORD, || recorded().is_some() || shim.has_ended()).await;
        // With nothing left to hold it leaves at once.
        let _ = shim.signal(Signal::TERM);
        until(LEAVE, || shim.has_ended()).await;
    }
    let record = recorded();
    let _ = shim.signal(Signal::KILL);
    until(LEAVE, || shim.has_ended()).await;
    record.map(end)
}

async fn until(patience: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !done() && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
}

/// Ready when the process has ended, and at once when there is none.
async fn wait_for_end(living: Option<Arc<Living>>) {
    let Some(living) = living else { return };
    // SAFETY: the descriptor belongs to `living`, which the registration shares and which
    // closes it only when the last of them is dropped; its number never changes.
    #[allow(unsafe_code)]
    let registered = unsafe { AsyncFd::register_with_interest(Arc::clone(&living), Interest::READABLE) };
    match registered {
        // An error is as good as readiness: the end is looked up afterwards.
        Ok(descriptor) => {
            let _ = descriptor.readable().await;
        }
        Err(_) => {
            let waited = tokio::task::spawn_blocking(move || living.wait());
            drop(waited.await);
        }
    }
}

/// A shim that we cannot talk to, but that works, is asked by a signal; else the terminal has
/// to be in our hands for a command.
fn possible(plan: StopPlan, known: &Known) -> StopPlan {
    if asks_its_shim(known) || known.legacy.is_some() {
        return plan;
    }
    StopPlan { command: None, warn: Vec::new(), ..plan }
}

/// Whether its own shim stops it by its own plan when it is told to end.
fn asks_its_shim(known: &Known) -> bool {
    known.living_shim().is_some_and(|shim| !is_frozen(&shim))
}

fn climb(action: Action, living: Option<&Arc<Living>>, kin: &mut Kin, known: &Known) {
    let signal = |signal| {
        if let Some(living) = living {
            // It may have ended: the loop sees that.
            let _ = living.signal(signal);
        }
    };
    match action {
        Action::Warn(line) => type_line(&line, known),
        Action::Type(_) if asks_its_shim(known) => {
            if let Some(shim) = known.living_shim().and_then(Living::open) {
                let _ = shim.signal(Signal::TERM);
            }
        }
        Action::Type(line) => {
            signal(Signal::CONT);
            type_line(&line, known);
        }
        Action::Term => {
            signal(Signal::TERM);
            signal(Signal::CONT);
        }
        Action::Kill => {
            signal(Signal::KILL);
            kin.signal(living.map(|living| living.id()), Signal::KILL);
            kill_marked(known, living.map(|living| living.id()));
        }
    }
}

fn type_line(line: &str, known: &Known) {
    if let Some(legacy) = &known.legacy
        && let Ok(master) = OwnedFd::try_clone(&legacy.master)
    {
        // The terminal does not block: what it does not take is not typed.
        let _ = File::from(master).write_all(format!("{line}\n").as_bytes());
    }
}

/// Kills who fled from its parents, its session and its descriptors, but carries the run's
/// mark; answers how many there were.
fn kill_marked(known: &Known, main: Option<ProcessId>) -> usize {
    let marked = carriers(&known.instance);
    let rest = marked.into_iter().filter(|process| Some(*process) != main);
    rest.filter_map(Living::open).filter(|process| process.signal(Signal::KILL).is_ok()).count()
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Ends whoever holds or would hold a run without answering, the shims first so that none of
/// them starts anything any more, then what is left of it. `shim` is one that is known by name.
pub(crate) async fn clear_slot(run_dir: &std::path::Path, shim: Option<ProcessId>) {
    let shims = kin::shims(run_dir).into_iter().chain(shim).filter_map(Living::open);
    for shim in shims.collect::<Vec<_>>() {
        let _ = shim.signal(Signal::KILL);
        until(LEAVE, || shim.has_ended()).await;
    }
    sweep_slot(run_dir).await;
}

/// Ends whatever of a run is left that nobody knows by name: it has the slot's lock open.
pub(crate) async fn sweep_slot(run_dir: &std::path::Path) {
    let mut kin = Kin::foreign(run_dir, None);
    let swept = tokio::task::spawn_blocking(move || kin.sweep(SWEEP));
    drop(swept.await);
}
