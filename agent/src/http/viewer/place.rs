//! What a viewer looks at: the game's console, or a shell.

use std::sync::Arc;

use tokio::sync::watch;
use zlh_api::{ConsoleEvent, Problem};

use crate::console::Console;
use crate::http::Inner;
use crate::shell::Viewing;
use crate::workload::Snapshot;

/// What a viewer looks at.
pub(super) enum Place {
    Game,
    Shell(Viewing),
}

impl Place {
    pub(super) fn console<'a>(&'a self, app: &'a Inner) -> &'a Console {
        match self {
            Self::Game => app.handle.console(),
            Self::Shell(viewing) => viewing.session().console(),
        }
    }

    pub(super) fn news(&self, app: &Inner) -> News {
        match self {
            Self::Game => News::Game(Process::new(app.handle.changes())),
            Self::Shell(viewing) => News::Shell(Ending {
                pid: viewing.session().pid(),
                ended: viewing.session().ended(),
                size: viewing.session().size(),
                news: None,
            }),
        }
    }

    pub(super) fn size(&self, app: &Inner) -> ConsoleEvent {
        let (columns, rows) = match self {
            Self::Game => app.handle.terminal_size(),
            Self::Shell(viewing) => *viewing.session().size().borrow(),
        };
        ConsoleEvent::Size { columns, rows }
    }

    /// A game's terminal is wide so that no server wraps its lines, and one log is for all: its
    /// size does not follow its viewers. A shell's is as small as the smallest of them.
    pub(super) async fn resize(&self, app: &Inner, columns: u16, rows: u16) -> ConsoleEvent {
        if let Self::Shell(viewing) = self {
            viewing.resize(columns, rows).await;
        }
        self.size(app)
    }

    pub(super) async fn send(&self, app: &Inner, bytes: Vec<u8>) -> Result<(), Problem> {
        match self {
            Self::Game => app.handle.send_raw(bytes).await,
            Self::Shell(viewing) => viewing.session().type_bytes(bytes).await,
        }
    }

    /// Whether what is typed goes into the journal.
    pub(super) const fn is_noted(&self) -> bool {
        matches!(self, Self::Game)
    }
}

/// What happens beside the bytes.
pub(super) enum News {
    Game(Process),
    Shell(Ending),
}

impl News {
    pub(super) fn living(&self) -> Option<i32> {
        match self {
            Self::Game(process) => process.living(),
            Self::Shell(ending) => ending.ended.borrow().is_none().then_some(ending.pid),
        }
    }

    /// Ready when there is something to tell.
    pub(super) async fn changed(&mut self, console: &Console) {
        match self {
            Self::Game(process) => process.changed(console).await,
            Self::Shell(ending) => ending.changed(console).await,
        }
    }

    /// What is to be told to who has seen everything before `cursor`.
    pub(super) fn due(&mut self, cursor: u64) -> Option<ConsoleEvent> {
        match self {
            Self::Game(process) => process.due(cursor),
            Self::Shell(ending) => {
                ending.news.take_if(|(offset, _)| *offset <= cursor).map(|(_, event)| event)
            }
        }
    }
}

/// A shell's size, and its end.
pub(super) struct Ending {
    pid: i32,
    ended: watch::Receiver<Option<String>>,
    size: watch::Receiver<(u16, u16)>,
    news: Option<(u64, ConsoleEvent)>,
}

impl Ending {
    async fn changed(&mut self, console: &Console) {
        if self.news.is_some() {
            return std::future::pending().await;
        }
        let ended =
            async { self.ended.wait_for(Option::is_some).await.map(|how| how.clone().unwrap_or_default()) };
        let news = tokio::select! {
            Ok(reason) = ended => {
                let offset = console.head();
                Some((offset, ConsoleEvent::Closed { offset, reason }))
            }
            Ok(()) = self.size.changed() => {
                let (columns, rows) = *self.size.borrow_and_update();
                Some((0, ConsoleEvent::Size { columns, rows }))
            }
            else => None,
        };
        match news {
            Some(news) => self.news = Some(news),
            None => std::future::pending().await,
        }
    }
}

/// The process at the other end, as the published state tells it.
pub(super) struct Process {
    changes: watch::Receiver<Arc<Snapshot>>,
    pid: Option<i32>,
    /// News, and the offset behind which they are told.
    news: Option<(u64, ConsoleEvent)>,
}

impl Process {
    fn new(mut changes: watch::Receiver<Arc<Snapshot>>) -> Self {
        let pid = pid_of(&changes.borrow_and_update());
        Self { changes, pid, news: None }
    }

    fn living(&self) -> Option<i32> {
        self.pid
    }

    /// Until there is something to tell.
    async fn changed(&mut self, console: &Console) {
        if self.news.is_some() {
            return std::future::pending().await;
        }
        loop {
            if self.changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            let now = Arc::clone(&self.changes.borrow_and_update());
            let (before, pid) = (self.pid, pid_of(&now));
            self.pid = pid;
            let offset = console.head();
            self.news = match (before, pid) {
                (before, Some(pid)) if before != Some(pid) => Some((offset, ConsoleEvent::Started { pid })),
                (Some(_), None) => {
                    let crashed = now.state == zlh_api::State::Crashed || now.error.is_some();
                    let crash = now.last_crash.as_ref().filter(|_| crashed);
                    let crash = crash.map(|crash| Box::new(crash.into()));
                    Some((offset, ConsoleEvent::Exit { offset, state: now.state, crash }))
                }
                _ => continue,
            };
            return;
        }
    }

    fn due(&mut self, cursor: u64) -> Option<ConsoleEvent> {
        let (_, mut event) = self.news.take_if(|(offset, _)| *offset <= cursor)?;
        if let ConsoleEvent::Exit { offset, .. } = &mut event {
            *offset = cursor;
        }
        Some(event)
    }
}

fn pid_of(snapshot: &Snapshot) -> Option<i32> {
    snapshot.process.as_ref().map(|(pid, _)| *pid)
}
