//! Looking at an end: everything that is known of it is gathered and analysed.
//!
//! The first look follows the exit at once. Some servers write their crash report only
//! after that: a second look at the end of [`LATE`] amends the record.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use slog::{Logger, warn};
use tokio::sync::mpsc;
use zlh_api::CrashRecord;
use zlh_crash::gather::{self, ConsoleWindow, Gathered};
use zlh_crash::{Evidence, Exit as ExitEvidence, Facts, Text, analyse};
use zlh_shim::record::{Exit, ExitRecord};

use super::{Archive, LastGood, port_owner, wire};
use crate::console::Console;
use crate::game::payload::GameRequest;
use crate::game::plan::{Installed, JAVA};
use crate::game::worlds;

/// Lines of the console kept in a record.
pub(crate) const LOG_TAIL_LINES: usize = 200;

/// How long after an exit a crash report still belongs to it.
const LATE: Duration = Duration::from_secs(5);

/// One read of the console, bytes.
const READ: usize = 256 << 10;

/// What an inquest needs.
#[derive(Clone)]
pub(crate) struct Inquest {
    /// How it ended.
    pub exit: ExitRecord,
    /// The record so far: what the exit alone tells.
    pub record: CrashRecord,
    /// The server's folder.
    pub root: PathBuf,
    pub request: Option<GameRequest>,
    pub installed: Option<Installed>,
    pub console: Console,
    pub archive: Archive,
    pub last_good: LastGood,
    pub log: Logger,
}

impl Inquest {
    /// Looks, keeps what it finds, and tells it; twice, if a report may still come.
    pub(crate) async fn hold(self, tell: mpsc::Sender<CrashRecord>) {
        let window = self.console_of_the_run().await;
        let first = self.clone().look(window).await;
        if let Some(record) = &first {
            // Nobody listens any more when the agent ends: the record is kept.
            let _ = tell.send(record.clone()).await;
        }
        let ended = time_of(self.exit.ended_unix_ms);
        let late = SystemTime::now().duration_since(ended).unwrap_or_default();
        let Some(left) = LATE.checked_sub(late) else { return };
        tokio::time::sleep(left + Duration::from_millis(100)).await;
        let window = self.console_of_the_run().await;
        let second = self.clone().look(window).await;
        if let Some(record) = second.filter(|record| Some(record) != first.as_ref()) {
            let _ = tell.send(record).await;
        }
    }

    /// The head and the tail of what this run printed; at most what the console log keeps.
    async fn console_of_the_run(&self) -> ConsoleWindow {
        let mut window = ConsoleWindow::default();
        let (mut at, end) = (self.exit.console_start, self.exit.console_end);
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(READ).min(READ);
            let Ok(chunk) = self.console.read(at, most).await else { break };
            if chunk.bytes.is_empty() || chunk.offset >= end {
                break;
            }
            window.push(&chunk.bytes);
            at = chunk.offset + chunk.bytes.len() as u64;
        }
        window
    }

    async fn look(self, window: ConsoleWindow) -> Option<CrashRecord> {
        let log = self.log.clone();
        match tokio::task::spawn_blocking(move || self.look_now(window)).await {
            Ok(record) => Some(record),
            Err(error) => {
                warn!(log, "a crash could not be analysed"; "error" => %error);
                None
            }
        }
    }

    fn look_now(self, mut window: ConsoleWindow) -> CrashRecord {
        let console = window.texts();
        let found = self.gather(&console);
        let index = self.last_good.index(&self.root);
        let reports: Vec<Text<'_>> = found.reports.iter().map(gather::FileText::text).collect();
        let evidence = Evidence {
            exit: Some(self.exit_evidence()),
            console,
            reports,
            hs_err: found.hs_err.as_ref().map(gather::FileText::text),
            disk: found.disk,
            addons: Some(&index),
            facts: self.facts(),
        };
        let analysis = analyse(&evidence);
        drop(evidence);
        let changes = self.last_good.changes(
            &self.root,
            &index,
            facts_of(self.request.as_ref(), self.installed.as_ref()),
        );
        let java = self.java().is_some();
        let mut record = self.record;
        record.server = self.request.as_ref().map(server_of).unwrap_or_default();
        wire::fill(&mut record, analysis, changes, java);
        record.seen_before = self.archive.seen(&record.fingerprint, &record.id);
        let _ = zlh_shim::faults::point("crash.keep");
        self.archive.keep(&record);
        record
    }

    fn gather(&self, console: &[Text<'_>]) -> Gathered {
        let ended = time_of(self.exit.ended_unix_ms);
        let pids: Vec<u32> =
            self.exit.child.and_then(|child| u32::try_from(child.pid).ok()).into_iter().collect();
        let run = gather::Run {
            started: ended
                .checked_sub(Duration::from_millis(self.exit.uptime_ms))
                .unwrap_or(SystemTime::UNIX_EPOCH),
            ended,
            pids: &pids,
            arguments: &[],
            console,
        };
        match gather::gather(&self.root, &run) {
            Ok(found) => {
                for note in &found.notes {
                    warn!(self.log, "evidence was left alone"; "why" => note);
                }
                found
            }
            Err(_) => Gathered::default(),
        }
    }

    fn exit_evidence(&self) -> ExitEvidence {
        let (code, signal) = match &self.exit.exit {
            Exit::Exited { code } => (Some(*code), None),
            Exit::Killed { signal, .. } => (None, Some(*signal)),
            Exit::ExecFailed { .. } => (Some(127), None),
            Exit::Lost { .. } => (None, None),
        };
        ExitEvidence {
            code,
            signal,
            requested: false,
            oom_kills: self.exit.oom.map_or(0, |oom| oom.after.saturating_sub(oom.before)),
            uptime: Some(Duration::from_millis(self.exit.uptime_ms)),
            reached_ready: Some(self.record.was_ready),
        }
    }

    fn facts(&self) -> Facts {
        let request = self.request.as_ref();
        let port = request.map(|request| request.port);
        let taken = port.filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_err());
        let locked = worlds::held_locks(&self.root).into_iter().find_map(|lock| lock.pid);
        Facts {
            game_version: request.map(|request| request.version.clone()),
            variant: request.map(|request| request.variant.clone()),
            java_have: self.java(),
            heap_bytes: request.map(|request| request.heap_mb() << 20),
            memory_limit_bytes: memory_limit(),
            port,
            port_owner: taken.and_then(port_owner::listener).map(port_owner::words),
            world_owner: locked.map(port_owner::words),
        }
    }

    fn java(&self) -> Option<u32> {
        let runtime =
            self.installed.as_ref()?.runtime.as_ref().filter(|runtime| runtime.id.as_str() == JAVA)?;
        runtime.version.split(['.', '+', '-']).next()?.parse().ok()
    }
}

/// Which server that is, for people and for comparing.
pub(crate) fn server_of(request: &GameRequest) -> String {
    format!("{}/{}/{}", request.game, request.variant, request.world)
}

/// What a person understands of how it was started.
pub(crate) fn facts_of(
    request: Option<&GameRequest>,
    installed: Option<&Installed>,
) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    if let Some(request) = request {
        facts.insert("version".to_owned(), format!("{} {}", request.variant, request.version));
        facts.insert("memory".to_owned(), format!("{} MiB", request.memory_mb));
        facts.insert("port".to_owned(), request.port.to_string());
    }
    if let Some(runtime) = installed.and_then(|installed| installed.runtime.as_ref()) {
        facts.insert(runtime.id.to_string(), runtime.version.clone());
    }
    facts
}

fn time_of(unix_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)
}

/// The container's memory limit, bytes, where there is one (v2, then v1).
fn memory_limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"].into_iter().find_map(
        |path| {
            let text = zlh_shim::durable::read_bounded(Path::new(path), 64).ok()?;
            let limit: u64 = std::str::from_utf8(&text).ok()?.trim().parse().ok()?;
            // v1 says "none" as nearly the largest number there is.
            (limit < 1 << 60).then_some(limit)
        },
    )
}
