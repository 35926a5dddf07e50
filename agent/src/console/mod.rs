//! The console log as the agent reads it: absolute byte offsets, one path for
//! history and live output.
//!
//! A reader takes the head from [`Console::subscribe`] first and then reads from
//! its own offset until it reaches the head, so there is no seam between what
//! was and what comes. Each reader has its own cursor; a slow one is overtaken
//! by rotation (its next chunk starts later than asked) and never slows others.

pub(crate) mod packer;
pub(crate) mod text;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, watch};
use zlh_shim::console_log::Reader;

use crate::workload::ShimClient;

/// Bytes one look back for line starts reads at most.
const TAIL_WINDOW: u64 = 8 << 20;

/// Reads at once.
const TURNS: usize = 8;

/// Pieces that are kept of what was read last near the end, their size, and how near, bytes.
const RECENT: usize = 8;
const RECENT_PIECE: usize = 16 << 10;
const RECENT_BYTES: u64 = 128 << 10;

/// A piece of the log.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// Offset of the first byte; greater than asked when what was asked for is gone.
    pub offset: u64,
    /// The bytes, empty at the head.
    pub bytes: Bytes,
}

/// A clonable reader of one workload's console log.
#[derive(Clone)]
pub(crate) struct Console {
    dir: Arc<PathBuf>,
    head: watch::Receiver<u64>,
    shim: watch::Receiver<Option<ShimClient>>,
    /// Reads of the disk at once: each takes a thread, whoever waits takes none.
    turns: Arc<Semaphore>,
    /// What was read last near the end.
    recent: Arc<Mutex<VecDeque<Chunk>>>,
}

impl Console {
    /// A reader of the log in `dir`. `head` follows its end; `shim` is who holds the
    /// workload, if somebody does: it has what a full disk refused.
    pub(crate) fn new(
        dir: &Path,
        head: watch::Receiver<u64>,
        shim: watch::Receiver<Option<ShimClient>>,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(TURNS));
        Self { dir: Arc::new(dir.to_owned()), head, shim, turns, recent: Arc::default() }
    }

    /// The end of the log, and its every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// The end of the log, bytes.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Reads at most `max` bytes from `offset` on.
    pub(crate) async fn read(&self, offset: u64, max: usize) -> io::Result<Chunk> {
        let head = self.head();
        if offset >= head {
            return Ok(Chunk { offset, bytes: Bytes::new() });
        }
        if max > RECENT_PIECE || head - offset > RECENT_BYTES {
            return self.read_anew(offset, max, head).await;
        }
        // Two hundred viewers want the same bytes at the same moment: one reads them.
        let mut recent = self.recent.lock().await;
        let holds =
            |chunk: &&Chunk| (chunk.offset..chunk.offset + chunk.bytes.len() as u64).contains(&offset);
        if let Some(chunk) = recent.iter().rev().find(holds) {
            let skip = usize::try_from(offset - chunk.offset).unwrap_or(usize::MAX);
            let end = chunk.bytes.len().min(skip.saturating_add(max));
            return Ok(Chunk { offset, bytes: chunk.bytes.slice(skip..end) });
        }
        let chunk = self.read_anew(offset, RECENT_PIECE, head).await?;
        if !chunk.bytes.is_empty() {
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(chunk.clone());
        }
        drop(recent);
        let end = chunk.bytes.len().min(max);
        Ok(Chunk { offset: chunk.offset, bytes: chunk.bytes.slice(..end) })
    }

    async fn read_anew(&self, offset: u64, max: usize, head: u64) -> io::Result<Chunk> {
        let dir = Arc::clone(&self.dir);
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(io::Error::other)?;
        let read = move || {
            let piece = Reader::new(&dir).read(offset, max);
            drop(turn);
            piece
        };
        let (at, bytes) = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        if !bytes.is_empty() {
            return Ok(Chunk { offset: at, bytes: bytes.into() });
        }
        // In no file: the disk refused it, or it is gone for good.
        let shim = self.shim.borrow().clone();
        if let Some(shim) = shim
            && let Ok(data) = shim.read(offset, u32::try_from(max).unwrap_or(u32::MAX)).await
            && !data.bytes.is_empty()
        {
            return Ok(Chunk { offset: data.offset, bytes: data.bytes.into() });
        }
        Ok(Chunk { offset: head, bytes: Bytes::new() })
    }

    /// The end of what can be read from `from` on without a gap, `end` at most.
    pub(crate) async fn contiguous_end(&self, from: u64, end: u64) -> io::Result<u64> {
        let dir = Arc::clone(&self.dir);
        let in_files = move || Reader::new(&dir).contiguous_end(from);
        let stop = tokio::task::spawn_blocking(in_files).await.map_err(io::Error::other)??;
        if stop >= end {
            return Ok(end);
        }
        // What is in no file may be in the shim's memory, up to the head.
        let next = self.read(stop, 1).await?;
        let goes_on = next.offset == stop && !next.bytes.is_empty();
        Ok(if goes_on { end } else { stop })
    }

    /// The offset at which the last `lines` lines begin.
    pub(crate) async fn tail_offset(&self, lines: usize) -> io::Result<u64> {
        let head = self.head();
        if lines == 0 {
            return Ok(head);
        }
        let floor = head.saturating_sub(TAIL_WINDOW);
        let mut end = head;
        let mut missing = lines;
        let mut last_byte = true;
        while end > floor {
            let start = end.saturating_sub(STEP).max(floor);
            let (first, bytes) = self.read_range(start, end).await?;
            if bytes.is_empty() {
                break;
            }
            for (index, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let position = first + index as u64;
                // The newline that ends the last line begins no further one.
                if last_byte && position + 1 == head {
                    continue;
                }
                missing -= 1;
                if missing == 0 {
                    return Ok(position + 1);
                }
            }
            last_byte = false;
            if first > start {
                return Ok(first);
            }
            end = start;
        }
        Ok(end.max(floor))
    }

    /// The last lines from `from` on, without escape sequences, each at most `width` bytes.
    pub(crate) async fn tail_lines(&self, from: u64, lines: usize, width: usize) -> io::Result<Vec<String>> {
        let start = self.tail_offset(lines).await?.max(from);
        let (_, bytes) = self.read_range(start, self.head()).await?;
        let text = text::plain(&bytes);
        let kept: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        Ok(kept[kept.len().saturating_sub(lines)..]
            .iter()
            .map(|line| text::cut(line, width).to_owned())
            .collect())
    }

    /// The last `window` bytes from `from` on as plain text.
    pub(crate) async fn tail_text(&self, from: u64, window: u64) -> io::Result<String> {
        let head = self.head();
        let (_, bytes) = self.read_range(head.saturating_sub(window).max(from), head).await?;
        Ok(text::plain(&bytes))
    }

    /// The readable bytes of `start..end`, and the offset of the first.
    async fn read_range(&self, start: u64, end: u64) -> io::Result<(u64, Vec<u8>)> {
        let mut first = start;
        let mut bytes = Vec::new();
        let mut offset = start;
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX).min(READ);
            let chunk = self.read(offset, left).await?;
            if chunk.bytes.is_empty() {
                break;
            }
            if chunk.offset > offset {
                // A gap: what lies before it is not contiguous with what follows.
                bytes.clear();
                first = chunk.offset;
            }
            offset = chunk.offset + chunk.bytes.len() as u64;
            bytes.extend_from_slice(&chunk.bytes);
        }
        if offset > end {
            let surplus = usize::try_from(offset - end).unwrap_or(0);
            bytes.truncate(bytes.len().saturating_sub(surplus));
        }
        Ok((first, bytes))
    }
}

/// How far one look back goes, bytes.
const STEP: u64 = 64 << 10;

/// One read, bytes.
const READ: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use zlh_shim::console_log::Writer;
    use zlh_shim::spec::ConsoleLimits;

    use super::*;

    fn console(text: &[u8]) -> (tempfile::TempDir, watch::Sender<u64>, Console) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer =
            Writer::open(dir.path(), ConsoleLimits { segment_bytes: 100_000, segments: 3 }, 0).unwrap();
        writer.append(text);
        let (sender, head) = watch::channel(writer.head());
        let (_, shim) = watch::channel(None);
        let console = Console::new(dir.path(), head, shim);
        (dir, sender, console)
    }

    #[tokio::test]
    async fn the_last_lines_are_the_last_lines() {
        let text: String = (0..50_000).map(|i| format!("line {i}\r\n")).collect();
        let (_dir, _head, console) = console(text.as_bytes());
        for lines in [1, 2, 3, 100, 9000] {
            let offset = console.tail_offset(lines).await.unwrap();
            let (at, bytes) = console.read_range(offset, console.head()).await.unwrap();
            assert_eq!(at, offset);
            let got = String::from_utf8(bytes).unwrap();
            assert_eq!(got.lines().count(), lines);
            assert!(got.starts_with(&format!("line {}\r\n", 50_000 - lines)), "{}", &got[..20]);
        }
        assert_eq!(console.tail_offset(0).await.unwrap(), console.head());
    }

    #[tokio::test]
    async fn what_others_have_just_read_is_the_same_from_every_offset() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(|n| format!("{n:06}\n").into_bytes()).collect();
        let (_dir, _head, console) = console(&text);
        let end = text.len();
        for back in [1, 100, 16_384, 16_385, 40_000, 131_072, 131_073, 139_000] {
            let from = end - back;
            for max in [1, 7, 16_384, 20_000] {
                let chunk = console.read(from as u64, max).await.unwrap();
                assert_eq!(chunk.offset, from as u64);
                assert!(!chunk.bytes.is_empty() && chunk.bytes.len() <= max);
                assert_eq!(chunk.bytes, text[from..from + chunk.bytes.len()], "{back} {max}");
            }
        }
        assert!(console.recent.lock().await.len() <= RECENT);
    }

    #[tokio::test]
    async fn an_unfinished_last_line_counts() {
        let (_dir, _head, console) = console(b"one\ntwo\nthr");
        assert_eq!(console.tail_lines(0, 2, 100).await.unwrap(), ["two", "thr"]);
        assert_eq!(console.tail_lines(4, 10, 2).await.unwrap(), ["tw", "th"]);
    }
}
