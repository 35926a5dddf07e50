//! Who typed what: commands and lines of viewers, in the journal.
//!
//! The journal is bounded, and a month of starts, ends and crashes stands in it, too: lines get
//! so many a minute and about half of its bytes a month, the rest is counted, and the agent's
//! log has them all.

use std::sync::Mutex;
use std::time::Instant;

use slog::{Logger, info};

use super::peer::Peer;
use crate::bucket::Bucket;
use crate::journal::{Journal, What};

/// Lines noted at once, and how many a second come back.
const BURST: f64 = 60.0;
const A_SECOND: f64 = 1.0;

/// Bytes of the journal that lines may take at once, and in thirty days: with the latter about
/// half of it.
const HOARD: f64 = 128.0 * 1024.0;
const A_MONTH: f64 = 896.0 * 1024.0;
const MONTH_S: f64 = 30.0 * 24.0 * 3600.0;

/// What an entry takes besides its line, bytes.
const AROUND: usize = 256;

/// Longest line that is put together from keys, bytes.
const MAX_LINE: usize = 1024;

/// Notes who typed what.
pub(crate) struct Audit {
    journal: Journal,
    log: Logger,
    budget: Mutex<Budget>,
}

/// What may still be noted.
#[derive(Debug)]
struct Budget {
    lines: Bucket,
    bytes: Bucket,
    unnoted: u64,
}

impl Budget {
    fn full(now: Instant) -> Self {
        Self { lines: Bucket::full(BURST, now), bytes: Bucket::full(HOARD, now), unnoted: 0 }
    }

    /// How many were not noted before this line; none when it is not noted, either.
    fn take(&mut self, line: &str, now: Instant) -> Option<u64> {
        #[allow(clippy::cast_precision_loss, reason = "a request's body is small")]
        let bytes = (line.len() + AROUND) as f64;
        let fits = self.lines.take(BURST, A_SECOND, now).is_ok()
            && self.bytes.spend(bytes, HOARD, A_MONTH / MONTH_S, now).is_ok();
        if !fits {
            self.unnoted += 1;
            return None;
        }
        Some(std::mem::take(&mut self.unnoted))
    }
}

impl Audit {
    pub(crate) fn new(journal: Journal, log: Logger) -> Self {
        Self { journal, log, budget: Mutex::new(Budget::full(Instant::now())) }
    }

    /// A command, or a line of a viewer's, that was passed on.
    pub(crate) fn command(&self, peer: Peer, line: &str) {
        let who = peer.to_string();
        info!(self.log, "typed"; "peer" => &who, "line" => line);
        let budget = || self.budget.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(unnoted) = budget().take(line, Instant::now()) else { return };
        self.journal.record(What::Command { who, line: line.to_owned(), unnoted });
    }

    /// Lines that keys became.
    pub(crate) fn typed(&self, peer: Peer, lines: Vec<String>) {
        for line in lines {
            self.command(peer, &line);
        }
    }
}

/// Puts lines together from the keys of one viewer. What an editor in between would make of
/// them is not known: arrows and such are left out.
#[derive(Debug, Default)]
pub(crate) struct Typed {
    line: Vec<u8>,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    Sequence,
}

impl Typed {
    /// The lines that these bytes end.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            match (self.escape, byte) {
                (Escape::None, 0x1b) => self.escape = Escape::Begun,
                (Escape::Begun, b'[' | b'O') => self.escape = Escape::Sequence,
                (Escape::Begun, _) | (Escape::Sequence, 0x40..=0x7e) => self.escape = Escape::None,
                (Escape::Sequence, _) => {}
                (Escape::None, b'\r' | b'\n') => {
                    let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim().to_owned();
                    if !line.is_empty() {
                        lines.push(line);
                    }
                }
                (Escape::None, 0x08 | 0x7f) => {
                    while self.line.pop().is_some_and(|gone| gone & 0xc0 == 0x80) {}
                }
                // Control-C and control-U begin anew.
                (Escape::None, 0x03 | 0x15) => self.line.clear(),
                (Escape::None, 0x00..=0x1f) => {}
                (Escape::None, _) if self.line.len() < MAX_LINE => self.line.push(byte),
                (Escape::None, _) => {}
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever types as fast as is noted, for a month.
    #[test]
    fn a_month_of_typing_leaves_room_for_a_month_of_history() {
        let begun = Instant::now();
        let mut budget = Budget::full(begun);
        let line = "x".repeat(40);
        let (mut noted, mut counted) = (0, 0);
        for second in 0..30 * 24 * 3600 {
            if let Some(unnoted) = budget.take(&line, begun + std::time::Duration::from_secs(second)) {
                noted += 1;
                counted += unnoted + 1;
            }
        }
        let bytes = noted * (line.len() + AROUND);
        assert!((512 << 10..=1024 << 10).contains(&bytes), "{bytes} of 2 MiB");
        assert_eq!(counted + budget.unnoted, 30 * 24 * 3600, "each is noted or counted");
    }

    #[test]
    fn keys_become_lines() {
        let mut typed = Typed::default();
        assert!(typed.push(b"op Ali").is_empty());
        assert_eq!(typed.push("c\u{7f}ce\rsay ünï\u{8}\u{8}n\r\n".as_bytes()), ["op Alice", "say ün"]);
        assert_eq!(typed.push(b"\x1b[A\x1bOBnever\x15li\x1b[1;5Cst\n\n  \n"), ["list"]);
        assert!(typed.push(&vec![b'x'; 1 << 20]).is_empty());
        assert_eq!(typed.push(b"\n")[0].len(), MAX_LINE, "bounded");
        assert_eq!(typed.push(b"\xff\n"), ["\u{fffd}"]);
    }
}
