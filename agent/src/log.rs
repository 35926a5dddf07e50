//! The root logger: lines for people on a terminal, one JSON object a line otherwise.
//!
//! Invariants: `component` and `vmid` are on every line, the "messages were
//! dropped" line included, because the drain writes them and not each logger;
//! a key occurs once in a line (the innermost logger wins); text from outside
//! cannot break out of its line or speak to the terminal; and logging never
//! blocks and never panics, whatever became of the pipe behind it: a queue that
//! is full drops and counts, a write that fails is forgotten.
//!
//! Records of foreign crates are not bridged: the few that have any would need
//! three more crates, and their errors reach us as values anyway.

mod line;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

use self::line::Line;
use crate::cli::{LogFormat, LogLevel};

/// The container's Proxmox id as the log shows it; known only once configured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vmid(Arc<AtomicU32>);

impl Vmid {
    /// Starts with what the configuration says.
    pub(crate) fn new(vmid: Option<u32>) -> Self {
        Self(Arc::new(AtomicU32::new(vmid.unwrap_or(0))))
    }

    /// Every line from now on shows `vmid`.
    pub(crate) fn set(&self, vmid: u32) {
        self.0.store(vmid, Ordering::Relaxed);
    }

    fn get(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|vmid| *vmid != 0)
    }
}

/// Keeps the writer's thread; [`LogGuard::flush`] it last.
pub(crate) struct LogGuard(Option<AsyncGuard>);

impl LogGuard {
    /// Writes what is queued, but waits no longer than `limit` for a pipe nobody reads.
    pub(crate) fn flush(mut self, limit: Duration) {
        let Some(guard) = self.0.take() else { return };
        let (done, wait) = mpsc::channel();
        let spawned = std::thread::Builder::new().name("log-flush".to_owned()).spawn(move || {
            drop(guard);
            let _ = done.send(());
        });
        if spawned.is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(guard) = self.0.take() {
            Self(Some(guard)).flush(FLUSH_ON_DROP);
        }
    }
}

/// The root logger of the process, for standard error or standard output.
pub(crate) fn root(format: LogFormat, level: LogLevel, vmid: Vmid) -> (Logger, LogGuard) {
    let terminal = io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    if human {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        build(Form::Human { colour }, level, vmid, io::stderr())
    } else {
        build(Form::Json, level, vmid, io::stdout())
    }
}

/// The logger of one part of the agent.
pub(crate) fn component(parent: &Logger, name: &'static str) -> Logger {
    parent.new(o!("component" => name))
}

fn build(form: Form, level: LogLevel, vmid: Vmid, writer: impl Write + Send + 'static) -> (Logger, LogGuard) {
    let lines = Lines { form, vmid, writer: std::sync::Mutex::new(writer) };
    let (queue, guard) = Async::new(lines)
        .chan_size(QUEUED_LINES)
        .overflow_strategy(OverflowStrategy::DropAndReport)
        .thread_name("log".to_owned())
        .build_with_guard();
    let least = match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warning => Level::Warning,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    };
    (Logger::root(queue.filter_level(least).ignore_res(), o!()), LogGuard(Some(guard)))
}

/// Form of a line.
#[derive(Debug, Clone, Copy)]
enum Form {
    Human { colour: bool },
    Json,
}

/// Writes each record as one line with one `write`.
struct Lines<W> {
    form: Form,
    vmid: Vmid,
    writer: std::sync::Mutex<W>,
}

impl<W: Write + Send> Drain for Lines<W> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let line = Line::collect(record, values, self.vmid.get());
        let text = match self.form {
            Form::Human { colour } => line.human(colour),
            Form::Json => line.json(),
        };
        let mut writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A log that cannot be written has nowhere to say so.
        let _ = writer.write_all(text.as_bytes()).and_then(|()| writer.flush());
        Ok(())
    }
}

const QUEUED_LINES: usize = 1024;
const FLUSH_ON_DROP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
