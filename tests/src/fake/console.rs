//! The server's terminal: Minecraft's log lines, and raw bytes where a test wants them.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// The only thing that writes to stdout. Every call is one `write`, so lines of
/// several threads never mix.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Console;

impl Console {
    /// One line as the server thread logs it.
    pub(crate) fn info(self, message: &str) {
        self.line("Server thread", "INFO", message);
    }

    /// One line with its thread and level.
    pub(crate) fn line(self, thread: &str, level: &str, message: &str) {
        self.raw(format!("[{}] [{thread}/{level}]: {message}\n", time_of_day()).as_bytes());
    }

    /// Bytes as they are. Like a JVM, a server whose terminal is gone goes on.
    pub(crate) fn raw(self, bytes: &[u8]) {
        let _ = self.try_raw(bytes);
    }

    /// As [`Console::raw`], for writers that end when nobody can read any more.
    pub(crate) fn try_raw(self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }
}

/// A word to whoever called the program wrongly.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// `HH:MM:SS`, UTC.
fn time_of_day() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    format!("{:02}:{:02}:{:02}", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}
