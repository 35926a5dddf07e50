//! One line for each promise, as soon as it is known.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// What was kept and what was not.
#[derive(Debug)]
pub(crate) struct Report {
    begun: Instant,
    kept: u32,
    broken: u32,
}

impl Default for Report {
    fn default() -> Self {
        Self { begun: Instant::now(), kept: 0, broken: 0 }
    }
}

impl Report {
    /// Checks a promise; what `look` answers is what was seen.
    pub(crate) fn check(&mut self, promise: &str, look: impl FnOnce() -> Result<String>) {
        match look() {
            Ok(seen) => {
                self.kept += 1;
                self.row("kept", promise, &seen);
            }
            Err(error) => self.broken(promise, &format!("{error:#}")),
        }
    }

    /// A promise that was not kept.
    pub(crate) fn broken(&mut self, promise: &str, why: &str) {
        self.broken += 1;
        self.row("BROKEN", promise, why);
    }

    /// Whether everything was kept so far.
    pub(crate) const fn is_clean(&self) -> bool {
        self.broken == 0
    }

    /// The last line, and what the process ends with.
    pub(crate) fn end(&self) -> ExitCode {
        let seconds = self.begun.elapsed().as_secs();
        say(&format!("{} kept, {} broken, in {seconds} s", self.kept, self.broken));
        if self.is_clean() && self.kept > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn row(&self, mark: &str, promise: &str, seen: &str) {
        let at = self.begun.elapsed().as_secs_f32();
        say(&format!("{at:6.1} s  {mark:<6}  {promise:<66}  {seen}"));
    }
}

/// To whoever runs this.
pub(crate) fn say(line: &str) {
    // Nobody is left to be told when standard output is gone.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
