//! The console log on disk: raw bytes in segments named by their absolute offset.
//!
//! ```text
//! console/00000000000000000000.log   bytes 0 … 1048575
//! console/00000000000001048576.log   bytes 1048576 … head
//! ```
//!
//! Offsets count every byte the workload ever printed and are never reset.
//! A segment that begins later than the one before it ends *is* the record of a
//! gap, exact to the byte. When the disk refuses a write the newest output stays
//! in memory ([`RING_BYTES`]) and is written once the disk takes it again.
//! One process writes (the shim, under the slot lock); any number read.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::spec::ConsoleLimits;

/// Output kept in memory while the disk refuses it.
pub const RING_BYTES: usize = 256 << 10;

/// How long after a refused write the next one is tried.
const RETRY: Duration = Duration::from_millis(500);

/// The one writer.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    limits: ConsoleLimits,
    /// Starts of the existing segments, ascending; the last is open in `file`.
    segments: VecDeque<u64>,
    file: Option<File>,
    /// End of what is in files.
    written: u64,
    /// Output after `written` (or after a gap behind it) that no file holds.
    ring: VecDeque<u8>,
    /// End of the log.
    head: u64,
    retry_at: Option<Instant>,
}

impl Writer {
    /// Opens the log in `dir`, which is made if absent. The log goes on at its end,
    /// but not before `at_least` (what an exit record says was printed).
    pub fn open(dir: &Path, limits: ConsoleLimits, at_least: u64) -> io::Result<Self> {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let segments: VecDeque<u64> = segment_starts(dir)?.into();
        let mut end = at_least;
        if let Some(&last) = segments.back() {
            end = end.max(last + fs::metadata(segment_path(dir, last))?.len());
        }
        Ok(Self {
            dir: dir.to_owned(),
            limits,
            segments,
            file: None,
            written: end,
            ring: VecDeque::new(),
            head: end,
            retry_at: None,
        })
    }

    /// End of the log.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// First byte that can still be read.
    pub fn start(&self) -> u64 {
        self.segments.front().copied().unwrap_or(self.head - self.ring.len() as u64)
    }

    /// Bytes at the end of the log that are in no file.
    pub fn unwritten(&self) -> u64 {
        self.head - self.written
    }

    /// Appends output. Never fails: what the disk refuses is kept in memory, and
    /// when that is full the oldest of it is given up.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.ring.is_empty() && self.retry_at.is_none() {
            let stored = self.store(bytes);
            self.head += bytes.len() as u64;
            if stored < bytes.len() {
                self.retry_at = Some(Instant::now() + RETRY);
                self.keep(&bytes[stored..]);
            }
        } else {
            self.head += bytes.len() as u64;
            self.keep(bytes);
            if self.retry_at.is_none_or(|at| Instant::now() >= at) {
                self.recover();
            }
        }
    }

    /// When [`Writer::recover`] is due, if the disk refused a write.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Tries to write what the disk refused before.
    pub fn recover(&mut self) {
        let ring_start = self.head - self.ring.len() as u64;
        if ring_start > self.written {
            // Output was given up: a segment of its own makes the gap visible.
            self.file = None;
            self.written = ring_start;
        }
        let bytes: Vec<u8> = self.ring.iter().copied().collect();
        let stored = self.store(&bytes);
        self.ring.drain(..stored);
        if self.ring.is_empty() {
            self.ring.shrink_to_fit();
            self.retry_at = None;
        } else {
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    /// Reads from the files, and from memory what is in no file.
    pub fn read(&self, offset: u64, max: usize) -> io::Result<(u64, Vec<u8>)> {
        if offset < self.written {
            let (at, bytes) = Reader::new(&self.dir).read(offset, max)?;
            // In a gap behind the last file the memory goes on.
            if !bytes.is_empty() || self.ring.is_empty() {
                return Ok((at, bytes));
            }
        }
        let ring_start = self.head - self.ring.len() as u64;
        let from = offset.max(ring_start);
        let skip = usize::try_from(from - ring_start).unwrap_or(usize::MAX);
        Ok((from, self.ring.iter().skip(skip).take(max).copied().collect()))
    }

    fn keep(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(RING_BYTES)..];
        let over = (self.ring.len() + bytes.len()).saturating_sub(RING_BYTES);
        self.ring.drain(..over);
        self.ring.extend(bytes);
    }

    /// Writes as much as the disk takes, at `self.written`; answers how much.
    fn store(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let (written, segment_bytes) = (self.written, self.limits.segment_bytes);
            let Ok((file, segment_start)) = self.segment() else { break };
            let position = written - segment_start;
            let room = usize::try_from(segment_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
            let piece = &bytes[done..bytes.len().min(done + room.max(1))];
            match crate::faults::point("console.write").and_then(|()| file.write_at(piece, position)) {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    done += n;
                    self.written += n as u64;
                }
            }
        }
        done
    }

    /// The open segment with room at `self.written`, opening or rotating as needed.
    fn segment(&mut self) -> io::Result<(&File, u64)> {
        let last = self.segments.back().copied();
        let fits = last.is_some_and(|start| self.written - start < self.limits.segment_bytes);
        if self.file.is_none() || !fits {
            let (file, start) = match last {
                Some(start) if fits && self.continues(start) => {
                    (OpenOptions::new().write(true).open(segment_path(&self.dir, start))?, start)
                }
                _ => {
                    let start = self.written;
                    crate::faults::point("console.segment")?;
                    let file = OpenOptions::new()
                        .write(true)
                        .create(true)
                        .truncate(true)
                        .mode(0o600)
                        .open(segment_path(&self.dir, start))?;
                    if last != Some(start) {
                        self.segments.push_back(start);
                    }
                    (file, start)
                }
            };
            self.file = Some(file);
            self.rotate();
            return self.file.as_ref().map(|f| (f, start)).ok_or_else(|| io::Error::other("no segment"));
        }
        let start = last.unwrap_or(self.written);
        self.file.as_ref().map(|f| (f, start)).ok_or_else(|| io::Error::other("no segment"))
    }

    /// Whether the segment at `start` ends exactly where the next byte goes.
    fn continues(&self, start: u64) -> bool {
        fs::metadata(segment_path(&self.dir, start)).is_ok_and(|m| start + m.len() == self.written)
    }

    fn rotate(&mut self) {
        while self.segments.len() > self.limits.segments.max(1) {
            if let Some(oldest) = self.segments.pop_front() {
                // A segment that cannot be removed now is found again by the next writer.
                let _ = fs::remove_file(segment_path(&self.dir, oldest));
            }
        }
    }
}

/// A reader of the files. It holds nothing open and needs no cooperation.
#[derive(Debug, Clone)]
pub struct Reader {
    dir: PathBuf,
}

impl Reader {
    /// A reader of the log in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where the files break off, read from `from` on: at a gap, or at their end.
    pub fn contiguous_end(&self, from: u64) -> io::Result<u64> {
        let mut end = from;
        for start in segment_starts(&self.dir)? {
            if start > end {
                break;
            }
            match fs::metadata(segment_path(&self.dir, start)) {
                Ok(meta) => end = end.max(start + meta.len()),
                // Rotated away since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(end)
    }

    /// First readable byte and end of what is in files.
    pub fn range(&self) -> io::Result<(u64, u64)> {
        let starts = segment_starts(&self.dir)?;
        let (Some(&first), Some(&last)) = (starts.first(), starts.last()) else { return Ok((0, 0)) };
        match fs::metadata(segment_path(&self.dir, last)) {
            Ok(meta) => Ok((first, last + meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((first, last)),
            Err(error) => Err(error),
        }
    }

    /// Reads at most `max` bytes from `offset` on. The answer's offset is greater than
    /// asked when those bytes are gone, and its bytes are empty at the end.
    pub fn read(&self, offset: u64, max: usize) -> io::Result<(u64, Vec<u8>)> {
        // A segment can be rotated away between listing and opening: look again.
        for _ in 0..3 {
            match self.read_once(offset, max) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        Ok((offset, Vec::new()))
    }

    fn read_once(&self, offset: u64, max: usize) -> io::Result<(u64, Vec<u8>)> {
        let starts = segment_starts(&self.dir)?;
        let mut index = starts.partition_point(|&start| start <= offset).saturating_sub(1);
        let mut offset = offset;
        while let Some(&start) = starts.get(index) {
            offset = offset.max(start);
            let file = File::open(segment_path(&self.dir, start))?;
            let length = file.metadata()?.len();
            if offset < start + length {
                let left = usize::try_from(start + length - offset).unwrap_or(usize::MAX);
                let mut bytes = vec![0_u8; left.min(max)];
                let read = file.read_at(&mut bytes, offset - start)?;
                bytes.truncate(read);
                return Ok((offset, bytes));
            }
            index += 1;
        }
        Ok((offset, Vec::new()))
    }
}

/// Starts of the segments in `dir`, ascending. Foreign files are not ours to judge.
fn segment_starts(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut starts: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let digits = name.to_str()?.strip_suffix(".log")?;
            (digits.len() == 20).then(|| digits.parse().ok())?
        })
        .collect();
    starts.sort_unstable();
    Ok(starts)
}

fn segment_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(segment_bytes: u64, segments: usize) -> ConsoleLimits {
        ConsoleLimits { segment_bytes, segments }
    }

    fn read_all(dir: &Path, mut offset: u64) -> (u64, Vec<u8>) {
        let reader = Reader::new(dir);
        let mut first = None;
        let mut all = Vec::new();
        loop {
            let (at, bytes) = reader.read(offset, 1000).unwrap();
            if bytes.is_empty() {
                return (first.unwrap_or(at), all);
            }
            first.get_or_insert(at);
            offset = at + bytes.len() as u64;
            all.extend(bytes);
        }
    }

    proptest! {
        #[test]
        fn what_was_printed_is_what_is_read(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..30), reopen in 1_usize..10) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::open(dir.path(), limits(256, 4), 0).unwrap();
            let mut printed = Vec::new();
            for (i, piece) in pieces.iter().enumerate() {
                if i % reopen == 0 {
                    writer = Writer::open(dir.path(), limits(256, 4), 0).unwrap();
                }
                writer.append(piece);
                printed.extend_from_slice(piece);
            }
            prop_assert_eq!(writer.head(), printed.len() as u64);
            let (start, kept) = read_all(dir.path(), 0);
            let start = usize::try_from(start).unwrap();
            prop_assert_eq!(&printed[start..], &kept[..]);
            prop_assert!(kept.len() >= printed.len().min(256 * 3), "at least the last three full segments stay");
            prop_assert!(kept.len() <= 256 * 4);
        }
    }

    #[test]
    fn a_refused_disk_leaves_an_exact_gap_and_recovers() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("console");
        let mut writer = Writer::open(&dir, limits(1 << 20, 4), 0).unwrap();
        writer.append(b"before\n");
        // The directory vanishes: every write of a new segment is refused, as on a full disk.
        fs::rename(&dir, base.path().join("away")).unwrap();
        writer.file = None;
        writer.append(b"lost?\n");
        assert_eq!((writer.head(), writer.unwritten()), (13, 6));
        assert_eq!(writer.read(7, 100).unwrap(), (7, b"lost?\n".to_vec()));
        writer.append(&vec![b'x'; RING_BYTES + 100]);
        // Tried and refused again: what is in memory is found from in front of the gap, too.
        writer.recover();
        assert_eq!(writer.read(7, 3).unwrap(), (13 + 100, vec![b'x'; 3]));
        fs::rename(base.path().join("away"), &dir).unwrap();
        writer.recover();
        assert_eq!(writer.unwritten(), 0);
        let (at, bytes) = Reader::new(&dir).read(7, 10).unwrap();
        assert_eq!((at, bytes), (13 + 100, vec![b'x'; 10]), "the gap is exactly what the ring gave up");
        let ends = [0, 7, 13 + 100].map(|from| Reader::new(&dir).contiguous_end(from).unwrap());
        assert_eq!(ends, [7, 7, writer.head()]);
    }

    #[test]
    fn offsets_go_on_after_what_an_exit_record_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), limits(100, 2), 0).unwrap();
        writer.append(b"abc");
        let mut writer = Writer::open(dir.path(), limits(100, 2), 50).unwrap();
        assert_eq!(writer.head(), 50);
        writer.append(b"def");
        assert_eq!(Reader::new(dir.path()).read(3, 10).unwrap(), (50, b"def".to_vec()));
    }
}
