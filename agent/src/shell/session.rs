//! One shell: who looks at it, how large its terminal is, how it ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use zlh_api::{ErrorCode, Problem, Shell};
use zlh_shim::files;
use zlh_shim::proto;
use zlh_shim::record::Exit;
use zlh_shim::spec::Spec;

use super::screen::{BEHIND, Screen};
use super::{SIZE, clamp, end_plan, user_of};
use crate::clock;
use crate::console::Console;
use crate::workload::ShimClient;

/// What is asked to hang up gets so long before it is told to end.
const HANG_UP: Duration = Duration::from_secs(1);

/// How long the end of a shell that was told to end is waited for.
const CLOSING: Duration = Duration::from_secs(20);

/// How long the shim may take to start it.
const LAUNCH: Duration = Duration::from_secs(5);

/// How long viewers may take to see the last of it.
const LEAVING: Duration = Duration::from_secs(2);

/// A running shell.
pub(crate) struct Session {
    name: String,
    user: String,
    created_at: String,
    shim: ShimClient,
    console: Console,
    head: watch::Receiver<u64>,
    /// Keeps the channel of its log's end open: what was printed last is read after its shim has left.
    _head: watch::Sender<u64>,
    /// Keeps the channel of the console's shim open.
    _slot: watch::Sender<Option<ShimClient>>,
    screen: tokio::sync::Mutex<Screen>,
    size: watch::Sender<(u16, u16)>,
    viewers: Mutex<Viewers>,
    /// When it ends because nobody looks at it.
    closes: watch::Sender<Option<Instant>>,
    patience: Duration,
    /// Somebody does not look any more.
    left: Notify,
    /// Somebody wants it to end.
    doomed: Notify,
    ended: watch::Sender<Option<String>>,
    gone: watch::Sender<bool>,
}

#[derive(Default)]
struct Viewers {
    next: u64,
    /// What each said of its window.
    windows: BTreeMap<u64, Option<(u16, u16)>>,
}

/// Somebody who looks at a shell; dropped when it does not any more.
pub(crate) struct Viewing {
    session: Arc<Session>,
    id: u64,
}

impl Session {
    /// Connects to the shim of a run. The error is for the log.
    pub(super) async fn attach(name: &str, run_dir: &Path, patience: Duration) -> Result<Self, String> {
        let (head, seen) = watch::channel(0);
        let shim = ShimClient::connect(run_dir, "", head.clone()).await.map_err(|error| error.to_string())?;
        let status = begun(&shim).await.ok_or("its shim does not say that it runs")?;
        if let Some(exit) = &status.exit {
            let how = said(&exit.exit());
            shim.clone().leave().await;
            return Err(how);
        }
        let first = Spec::read(run_dir).map_or(SIZE, |spec| (spec.size.cols, spec.size.rows));
        let size = shim.terminal_size().map_or(first, clamp);
        let (slot, held) = watch::channel(Some(shim.clone()));
        let console = Console::new(&run_dir.join(files::CONSOLE), seen.clone(), held);
        let started = i64::try_from(status.started_unix_ms).ok();
        let started = started.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        Ok(Self {
            name: name.to_owned(),
            user: user_of(run_dir),
            created_at: started.map(clock::rfc3339).unwrap_or_default(),
            shim,
            console,
            head: seen,
            _head: head,
            _slot: slot,
            screen: tokio::sync::Mutex::new(Screen::new(size)),
            size: watch::Sender::new(size),
            viewers: Mutex::default(),
            closes: watch::Sender::new(Some(Instant::now() + patience)),
            patience,
            left: Notify::new(),
            doomed: Notify::new(),
            ended: watch::Sender::new(None),
            gone: watch::Sender::new(false),
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The shell's process.
    pub(crate) fn pid(&self) -> i32 {
        self.shim.status().borrow().pid
    }

    /// What it prints.
    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// The terminal's columns and rows, now and whenever they change.
    pub(crate) fn size(&self) -> watch::Receiver<(u16, u16)> {
        self.size.subscribe()
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<String>> {
        self.ended.subscribe()
    }

    /// As others see it.
    pub(crate) fn told(&self) -> Shell {
        let (columns, rows) = *self.size.borrow();
        let closes = *self.closes.borrow();
        let closes_at = closes.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            clock::rfc3339(jiff::Timestamp::now().saturating_add(left).unwrap_or(jiff::Timestamp::MAX))
        });
        Shell {
            name: self.name.clone(),
            user: self.user.clone(),
            pid: self.pid(),
            created_at: self.created_at.clone(),
            viewers: self.viewers().windows.len(),
            columns,
            rows,
            closes_at,
        }
    }

    /// Somebody begins to look at it.
    pub(crate) fn view(self: &Arc<Self>) -> Viewing {
        let id = {
            let mut viewers = self.viewers();
            viewers.next += 1;
            let id = viewers.next;
            viewers.windows.insert(id, None);
            id
        };
        self.closes.send_replace(None);
        Viewing { session: Arc::clone(self), id }
    }

    /// The screen now, and the offset of what follows it.
    pub(crate) async fn drawn(&self) -> std::io::Result<(u64, Vec<u8>)> {
        let mut screen = self.screen.lock().await;
        screen.catch_up(&self.console).await?;
        Ok((screen.fed(), screen.drawn()))
    }

    /// Types into it.
    pub(crate) async fn type_bytes(&self, bytes: Vec<u8>) -> Result<(), Problem> {
        let sent = self.shim.input(bytes, false).await;
        sent.map(drop)
            .map_err(|error| Problem::new(ErrorCode::StdinBusy, format!("the shell takes no input: {error}")))
    }

    /// Ends it, and returns when nothing of it is left.
    pub(crate) async fn close(&self) {
        self.doomed.notify_one();
        // Not for ever: the ladder goes on without whoever asked.
        let _ = timeout(CLOSING, self.gone.subscribe().wait_for(|gone| *gone)).await;
    }

    /// Hangs up, then the ladder.
    async fn end(&self) {
        // It may be gone already: then there is nobody to tell.
        let _ = self.shim.signal(Signal::HUP.as_raw()).await;
        let mut status = self.shim.status();
        if timeout(HANG_UP, status.wait_for(|status| status.exit.is_some())).await.is_err() {
            let _ = self.shim.stop(&proto::Stop::from(end_plan())).await;
        }
    }

    /// Until it has ended: how.
    pub(super) async fn follow(&self) -> String {
        let mut status = self.shim.status();
        let mut head = self.head.clone();
        let mut closes = self.closes.subscribe();
        loop {
            let exit = status.borrow_and_update().exit.clone();
            if let Some(exit) = exit {
                let how = said(&exit.exit());
                self.shim.clone().leave().await;
                return how;
            }
            let due = *closes.borrow_and_update();
            let printed = *head.borrow_and_update();
            let unread = printed > self.screen.lock().await.fed() + BEHIND;
            if unread {
                // What cannot be read now is read when somebody asks.
                let _ = self.screen.lock().await.catch_up(&self.console).await;
            }
            tokio::select! {
                changed = status.changed() => if changed.is_err() {
                    return "its shim was killed".to_owned();
                },
                _ = closes.changed() => {}
                _ = head.changed(), if !unread => {}
                () = self.doomed.notified() => self.end().await,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.closes.send_replace(None);
                    self.end().await;
                }
            }
        }
    }

    /// It has ended: whoever looks at it may see the rest, and leaves.
    pub(super) async fn take_leave(&self, how: String) {
        self.ended.send_replace(Some(how));
        let alone = async {
            while !self.viewers().windows.is_empty() {
                self.left.notified().await;
            }
        };
        let _ = timeout(LEAVING, alone).await;
    }

    /// Nothing of it is left.
    pub(super) fn is_gone(&self) {
        self.gone.send_replace(true);
    }

    /// The smallest window of all decides: nobody sees a part of what another sees.
    async fn fit(&self) {
        let wanted = {
            let viewers = self.viewers();
            let windows = || viewers.windows.values().flatten();
            match (windows().map(|w| w.0).min(), windows().map(|w| w.1).min()) {
                (Some(columns), Some(rows)) => clamp((columns, rows)),
                _ => return,
            }
        };
        let mut screen = self.screen.lock().await;
        if *self.size.borrow() == wanted {
            return;
        }
        // What was printed for the old size is drawn in it.
        let _ = screen.catch_up(&self.console).await;
        if self.shim.resize(wanted.0, wanted.1).await.is_ok() {
            screen.resize(wanted);
            self.size.send_replace(wanted);
        }
    }

    fn viewers(&self) -> MutexGuard<'_, Viewers> {
        self.viewers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Viewing {
    /// What is looked at.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Its window has this size.
    pub(crate) async fn resize(&self, columns: u16, rows: u16) {
        self.session.viewers().windows.insert(self.id, Some((columns, rows)));
        self.session.fit().await;
    }
}

impl Drop for Viewing {
    fn drop(&mut self) {
        let session = Arc::clone(&self.session);
        let alone = {
            let mut viewers = session.viewers();
            viewers.windows.remove(&self.id);
            viewers.windows.is_empty()
        };
        session.left.notify_one();
        if alone {
            session.closes.send_replace(Some(Instant::now() + session.patience));
        } else {
            tokio::spawn(async move { session.fit().await });
        }
    }
}

/// Waits until it runs, or has ended already.
async fn begun(shim: &ShimClient) -> Option<proto::Status> {
    let mut told = shim.status();
    let begun = told.wait_for(|status| status.pid > 0 || status.exit.is_some());
    Some(timeout(LAUNCH, begun).await.ok()?.ok()?.clone())
}

/// In words.
fn said(exit: &Exit) -> String {
    match exit {
        Exit::Exited { code } => format!("it exited with code {code}"),
        Exit::Killed { signal, .. } => format!("it was ended by signal {signal}"),
        Exit::ExecFailed { step, errno } => {
            format!("it never ran: {step}: {}", std::io::Error::from_raw_os_error(*errno))
        }
        Exit::Lost { reason } => format!("nobody knows how: {reason}"),
    }
}
