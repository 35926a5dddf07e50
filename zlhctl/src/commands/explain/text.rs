//! A log of any size in bounded memory: its head and its tail.

use std::io::{self, Read};

use zlh_crash::Text;

/// Bytes kept of the head and of the tail.
const HEAD: usize = 4 << 20;
const TAIL: usize = 12 << 20;

/// What was kept.
#[derive(Debug, Default)]
pub(super) struct Log {
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Number of the tail's first line.
    tail_line: u64,
}

impl Log {
    /// As evidence.
    pub(super) fn texts<'a>(&'a self, name: &'a str) -> Vec<Text<'a>> {
        let mut texts = vec![Text { name, bytes: &self.head, first_line: 1 }];
        if !self.tail.is_empty() {
            texts.push(Text { name, bytes: &self.tail, first_line: self.tail_line });
        }
        texts
    }
}

/// Reads to the end; of more than [`HEAD`] and [`TAIL`] the middle is dropped.
pub(super) fn read(source: &mut impl Read) -> io::Result<Log> {
    let mut log = Log::default();
    source.by_ref().take(HEAD as u64).read_to_end(&mut log.head)?;
    let (mut lines, mut chunk) = (lines_in(&log.head), vec![0; 1 << 20]);
    let mut dropped = false;
    loop {
        let got = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        log.tail.extend_from_slice(&chunk[..got]);
        // Not at every read: that would copy the whole tail each time.
        if log.tail.len() >= 2 * TAIL {
            lines += drop_front(&mut log.tail);
            dropped = true;
        }
    }
    if log.tail.len() > TAIL {
        lines += drop_front(&mut log.tail);
        dropped = true;
    }
    if dropped {
        log.tail_line = lines + 1;
    } else {
        // No gap: one text.
        log.head.append(&mut log.tail);
    }
    Ok(log)
}

/// Cuts the front off at a line's end; answers how many lines that were.
fn drop_front(tail: &mut Vec<u8>) -> u64 {
    let surplus = tail.len() - TAIL;
    let end = tail[surplus..].iter().position(|byte| *byte == b'\n').map_or(surplus, |at| surplus + at + 1);
    let lines = lines_in(&tail[..end]);
    tail.drain(..end);
    lines
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_large_log_head_and_tail_stay_with_their_numbers() {
        let line = |n: u64| format!("line {n:>10}\n").into_bytes();
        let count = 4_000_000_u64;
        let mut at = 0;
        let mut source = std::iter::from_fn(|| {
            at += 1;
            (at <= count).then(|| line(at))
        })
        .flatten();
        struct Stream<'a>(&'a mut dyn Iterator<Item = u8>);
        impl Read for Stream<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let mut got = 0;
                for (slot, byte) in buffer.iter_mut().zip(&mut self.0) {
                    *slot = byte;
                    got += 1;
                }
                Ok(got)
            }
        }
        let log = read(&mut Stream(&mut source)).unwrap();
        let texts = log.texts("x");
        assert!(texts[0].bytes.len() + texts[1].bytes.len() <= HEAD + TAIL);
        let first = String::from_utf8_lossy(&texts[1].bytes[..15]).into_owned();
        assert_eq!(first.trim(), format!("line {:>10}", texts[1].first_line));
        assert!(texts[1].bytes.ends_with(&line(count)));
    }

    #[test]
    fn a_small_log_is_one_text() {
        let log = read(&mut &b"a\nb\n"[..]).unwrap();
        assert_eq!(log.texts("x").len(), 1);
    }
}
