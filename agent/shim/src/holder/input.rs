//! Input on its way to the terminal: bounded, never blocking, whole lines whole.
//!
//! A canonical terminal cuts a line at 4,095 bytes. A longer one is passed with
//! canonical mode off, and the mode returns once the workload has taken it all.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// Bytes that may wait; more is refused as busy.
const CAPACITY: usize = 64 << 10;

/// Longest line a canonical terminal takes, its newline included.
const CANONICAL_LINE: usize = 4095;

/// How long a workload may take over an overlong line before canonical mode returns anyway.
const LONG_LINE_PATIENCE: Duration = Duration::from_secs(10);

/// How often an overlong line is looked after.
const LONG_LINE_TICK: Duration = Duration::from_millis(10);

/// Control-U: erases the line so far, for the terminal and for the editors of servers alike.
const ERASE_LINE: u8 = 0x15;

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    done: usize,
    long_line: bool,
}

/// The queue before the terminal.
#[derive(Debug, Default)]
pub(super) struct InputQueue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Canonical mode is off until this instant at the latest.
    raw_until: Option<Instant>,
    /// Somebody typed a line and did not end it.
    half_typed: bool,
}

impl InputQueue {
    /// Queues bytes; false when there is no room for all of them.
    pub(super) fn push(&mut self, bytes: Vec<u8>, line: bool) -> bool {
        if self.bytes + bytes.len() > CAPACITY {
            return false;
        }
        self.bytes += bytes.len();
        self.half_typed = !line && !matches!(bytes.last(), None | Some(b'\n' | b'\r'));
        let long_line = line && bytes.len() > CANONICAL_LINE;
        self.pieces.push_back(Piece { bytes, done: 0, long_line });
        true
    }

    /// Queues a line before everything that waits and was not begun: what an operator typed
    /// to a workload that does not read is worth less than the command that ends it.
    /// A line that a viewer has half typed is erased: it must not become part of the command.
    pub(super) fn preempt(&mut self, mut bytes: Vec<u8>) {
        if std::mem::take(&mut self.half_typed) {
            bytes.insert(0, ERASE_LINE);
        }
        let begun = self.pieces.pop_front().filter(|piece| piece.done > 0);
        self.pieces = begun.into_iter().collect();
        self.bytes = self.pieces.iter().map(|piece| piece.bytes.len()).sum();
        self.bytes += bytes.len();
        let long_line = bytes.len() > CANONICAL_LINE;
        self.pieces.push_back(Piece { bytes, done: 0, long_line });
    }

    /// Whether the terminal's readiness to take bytes matters now.
    pub(super) fn wants_write(&self) -> bool {
        self.raw_until.is_none() && !self.pieces.is_empty()
            || self.pieces.front().is_some_and(|p| p.long_line && p.done < p.bytes.len())
    }

    /// When [`InputQueue::write`] is due even without readiness.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.raw_until.map(|_| now + LONG_LINE_TICK)
    }

    /// Writes what the terminal takes.
    pub(super) fn write(&mut self, master: &OwnedFd, slave: &OwnedFd, now: Instant) {
        loop {
            if let Some(until) = self.raw_until {
                let passed = self.pieces.front().is_none_or(|p| !p.long_line || p.done == p.bytes.len());
                let taken = is_empty(slave);
                if (passed && taken) || now >= until {
                    self.end_long_line(master);
                    continue;
                }
            }
            let Some(piece) = self.pieces.front_mut() else { return };
            if piece.long_line && self.raw_until.is_none() {
                set_canonical(master, false);
                self.raw_until = Some(now + LONG_LINE_PATIENCE);
            }
            if piece.done == piece.bytes.len() {
                if piece.long_line {
                    return; // passed, waiting until it is taken
                }
                self.pop();
                continue;
            }
            if self.raw_until.is_some() && !piece.long_line {
                return;
            }
            match rustix::io::write(master, &piece.bytes[piece.done..]) {
                Ok(0) => return,
                Ok(n) => piece.done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn end_long_line(&mut self, master: &OwnedFd) {
        set_canonical(master, true);
        self.raw_until = None;
        if self.pieces.front().is_some_and(|p| p.long_line) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(piece) = self.pieces.pop_front() {
            self.bytes -= piece.bytes.len();
        }
    }
}

/// Whether the workload has taken everything. `poll` first pushes what still waits below the
/// line discipline (a count of readable bytes would not), so "nothing" means nothing.
fn is_empty(slave: &OwnedFd) -> bool {
    let mut set = [PollFd::new(slave, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut set, Some(&now)).is_ok_and(|ready| ready == 0)
}

/// Best effort: a terminal that does not take the mode still takes short lines.
fn set_canonical(terminal: impl AsFd, on: bool) {
    let change = || -> io::Result<()> {
        let mut mode = tcgetattr(&terminal)?;
        mode.local_modes.set(LocalModes::ICANON, on);
        tcsetattr(&terminal, OptionalActions::Now, &mode)?;
        Ok(())
    };
    let _ = change();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_keeps_what_it_has() {
        let mut queue = InputQueue::default();
        assert!(queue.push(vec![b'a'; CAPACITY - 1], false));
        assert!(!queue.push(b"bb".to_vec(), false));
        assert!(queue.push(b"b".to_vec(), false));
        assert_eq!(queue.bytes, CAPACITY);
    }

    #[test]
    fn a_stop_does_not_wait_behind_what_nobody_reads() {
        let mut queue = InputQueue::default();
        for _ in 0..64 {
            assert!(queue.push(vec![b'a'; CAPACITY / 64], true));
        }
        queue.pieces[0].done = 1;
        queue.preempt(b"stop\n".to_vec());
        let left: Vec<_> = queue.pieces.iter().map(|piece| piece.bytes.len()).collect();
        assert_eq!(left, [CAPACITY / 64, 5], "a line that was begun is ended first");
        assert_eq!(queue.bytes, CAPACITY / 64 + 5);
    }

    #[test]
    fn a_half_typed_line_does_not_become_part_of_a_stop() {
        let last = |typed: &[u8]| {
            let mut queue = InputQueue::default();
            assert!(queue.push(typed.to_vec(), false));
            queue.preempt(b"stop\n".to_vec());
            queue.pieces.pop_back().unwrap().bytes
        };
        assert_eq!(last(b"say hel"), b"\x15stop\n");
        assert_eq!(last(b"say hello\r"), b"stop\n");
    }
}
