//! The head and the tail of a console, out of any amount of it.

use std::collections::VecDeque;

use crate::Text;

/// Keeps the first [`HEAD_LINES`] and the last [`TAIL_LINES`] lines of what is pushed, 1 MiB
/// at most, each line cut at [`LINE_BYTES`].
#[derive(Debug, Default)]
pub struct ConsoleWindow {
    head: Vec<u8>,
    head_lines: u64,
    tail: VecDeque<u8>,
    /// Bytes of each line in the tail, the last one unfinished or empty.
    lengths: VecDeque<usize>,
    /// Lines that stood between head and tail.
    dropped: u64,
    /// Bytes of the line that is being written.
    line: usize,
    /// Whether a line is being written.
    open: bool,
}

impl ConsoleWindow {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, end) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let fits = &text[..text.len().min(LINE_BYTES.saturating_sub(self.line))];
            self.line += fits.len();
            self.add(fits, end);
            self.open = !end;
            if end {
                self.line = 0;
            }
        }
    }

    /// The texts for the evidence: one, or two where there is a gap between them.
    pub fn texts(&mut self) -> Vec<Text<'_>> {
        if self.dropped == 0 {
            self.head.extend(self.tail.drain(..));
            self.lengths.clear();
            return vec![Text { name: "console", bytes: &self.head, first_line: 1 }];
        }
        let first_line = 1 + self.head_lines + self.dropped;
        vec![
            Text { name: "console", bytes: &self.head, first_line: 1 },
            Text { name: "console", bytes: self.tail.make_contiguous(), first_line },
        ]
    }

    fn add(&mut self, text: &[u8], end: bool) {
        let end_bytes: &[u8] = if end { b"\n" } else { b"" };
        // A line that began in the head ends there.
        let room = self.head_lines < HEAD_LINES && self.head.len() < HEAD_BYTES;
        if self.lengths.is_empty() && (room || self.open) {
            self.head.extend_from_slice(text);
            self.head.extend_from_slice(end_bytes);
            self.head_lines += u64::from(end);
            return;
        }
        if self.lengths.is_empty() {
            self.lengths.push_back(0);
        }
        self.tail.extend(text);
        self.tail.extend(end_bytes);
        if let Some(last) = self.lengths.back_mut() {
            *last += text.len() + end_bytes.len();
        }
        if end {
            self.lengths.push_back(0);
        }
        while self.lengths.len() > 1 && (self.lengths.len() > TAIL_LINES + 1 || self.tail.len() > TAIL_BYTES)
        {
            let first = self.lengths.pop_front().unwrap_or_default();
            self.tail.drain(..first);
            self.dropped += 1;
        }
    }
}

/// Lines kept from the start.
pub const HEAD_LINES: u64 = 300;
/// Lines kept from the end.
pub const TAIL_LINES: usize = 2_000;
/// Bytes kept of a line.
pub const LINE_BYTES: usize = 8 << 10;
const HEAD_BYTES: usize = 256 << 10;
const TAIL_BYTES: usize = 768 << 10;
