//! The console log on disk: raw bytes in segments named by their absolute offset.
//!
//! ```text
//! console/00000000000000000000.log   bytes 0 … 1048575
//! console/00000000000001048576.log   bytes 1048576 … head
//! ```
//!
//! Old segments may be packed ([`pack_one`]): `NNN.logz` holds the same bytes as `NNN.log`.
//!
//! Offsets count every byte the workload ever printed and are never reset.
//! A segment that begins later than the one before it ends *is* the record of a
//! gap, exact to the byte. When the disk refuses a write the newest output stays
//! in memory ([`RING_BYTES`]) and is written once the disk takes it again.
//! One process writes (the shim, under the slot lock); any number read; the agent packs.

mod packed;

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
            end = end.max(last + Segment::open(dir, last)?.length()?);
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
                let _ = fs::remove_file(packed_path(&self.dir, oldest));
            }
        }
    }
}

/// Packs the oldest segment that can be: not one of the last two, which may be written to. `keep`
/// bytes before the end are the log's bound: what is packed and lies before them goes, whoever was to
/// remove it. Answers whether there may be more to do.
pub fn pack_one(dir: &Path, keep: u64) -> io::Result<bool> {
    for entry in fs::read_dir(dir)?.flatten() {
        // One that was killed had begun it.
        if entry.path().extension().is_some_and(|extension| extension == "new") {
            let _ = fs::remove_file(entry.path());
        }
    }
    let starts = segment_starts(dir)?;
    let Some(&last) = starts.last() else { return Ok(false) };
    let old = &starts[..starts.len().saturating_sub(2)];
    for (&start, &next) in old.iter().zip(&starts[1..]) {
        if next + keep < last && packed_path(dir, start).exists() {
            let _ = fs::remove_file(packed_path(dir, start));
        }
    }
    let Some(&start) = old.iter().find(|start| segment_path(dir, **start).exists()) else { return Ok(false) };
    let (raw, to) = (segment_path(dir, start), packed_path(dir, start));
    if !to.exists() {
        packed::pack(&raw, &to)?;
    }
    crate::faults::point("console.packed")?;
    // Rotated away meanwhile: then its packed form is one too many.
    if let Err(error) = fs::remove_file(&raw) {
        let _ = fs::remove_file(&to);
        return if error.kind() == io::ErrorKind::NotFound { Ok(true) } else { Err(error) };
    }
    Ok(true)
}

/// A segment in one of its forms.
enum Segment {
    Raw(File),
    Packed(packed::Packed),
}

impl Segment {
    /// The raw form, while there is one.
    fn open(dir: &Path, start: u64) -> io::Result<Self> {
        match File::open(segment_path(dir, start)) {
            Ok(file) => Ok(Self::Raw(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                packed::Packed::open(&packed_path(dir, start)).map(Self::Packed)
            }
            Err(error) => Err(error),
        }
    }

    fn length(&self) -> io::Result<u64> {
        match self {
            Self::Raw(file) => Ok(file.metadata()?.len()),
            Self::Packed(packed) => Ok(packed.length()),
        }
    }

    fn read_at(&self, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::Raw(file) => {
                let mut bytes = vec![0_u8; max];
                let read = file.read_at(&mut bytes, offset)?;
                bytes.truncate(read);
                Ok(bytes)
            }
            Self::Packed(packed) => packed.read_at(offset, max),
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
            match Segment::open(&self.dir, start).and_then(|segment| segment.length()) {
                Ok(length) => end = end.max(start + length),
                // Rotated away since the folder was read, or damaged: a gap.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(end)
    }

    /// First readable byte and end of what is in files.
    pub fn range(&self) -> io::Result<(u64, u64)> {
        let starts = segment_starts(&self.dir)?;
        let (Some(&first), Some(&last)) = (starts.first(), starts.last()) else { return Ok((0, 0)) };
        match Segment::open(&self.dir, last).and_then(|segment| segment.length()) {
            Ok(length) => Ok((first, last + length)),
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
            let segment = match Segment::open(&self.dir, start) {
                // What is damaged is as good as gone: a gap up to the next one.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    index += 1;
                    continue;
                }
                other => other?,
            };
            let length = segment.length()?;
            if offset < start + length {
                let left = usize::try_from(start + length - offset).unwrap_or(usize::MAX);
                match segment.read_at(offset - start, left.min(max)) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                    other => return Ok((offset, other?)),
                }
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
            let name = name.to_str()?;
            let digits = name.strip_suffix(".log").or_else(|| name.strip_suffix(".logz"))?;
            (digits.len() == 20).then(|| digits.parse().ok())?
        })
        .collect();
    starts.sort_unstable();
    // A segment may be there in both forms.
    starts.dedup();
    Ok(starts)
}

fn segment_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.log"))
}

fn packed_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.logz"))
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
        fn what_was_printed_is_what_is_read(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..30), reopen in 1_usize..10, pack in 1_usize..6) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::open(dir.path(), limits(256, 4), 0).unwrap();
            let mut printed = Vec::new();
            for (i, piece) in pieces.iter().enumerate() {
                if i % reopen == 0 {
                    writer = Writer::open(dir.path(), limits(256, 4), 0).unwrap();
                }
                writer.append(piece);
                printed.extend_from_slice(piece);
                if i % pack == 0 {
                    while pack_one(dir.path(), 256 * 4).unwrap() {}
                }
            }
            prop_assert_eq!(writer.head(), printed.len() as u64);
            let (start, kept) = read_all(dir.path(), 0);
            let start = usize::try_from(start).unwrap();
            prop_assert_eq!(&printed[start..], &kept[..]);
            prop_assert!(kept.len() >= printed.len().min(256 * 3), "at least the last three full segments stay");
            prop_assert!(kept.len() <= 256 * 4);
            prop_assert!(fs::read_dir(dir.path()).unwrap().count() <= 4, "nothing of what was rotated away is left");
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
    fn a_killed_packer_leaves_one_whole_form_and_a_damaged_one_is_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), limits(1000, 64), 0).unwrap();
        let text: Vec<u8> = (0..1000_u32).flat_map(|n| format!("line {n:04}\n").into_bytes()).collect();
        writer.append(&text);
        // Killed between the two: both are there, and nothing is twice.
        packed::pack(&segment_path(dir.path(), 0), &packed_path(dir.path(), 0)).unwrap();
        fs::write(dir.path().join("00000000000000001000.new"), "half").unwrap();
        assert_eq!(read_all(dir.path(), 0), (0, text.clone()));
        while pack_one(dir.path(), 64_000).unwrap() {}
        assert_eq!(read_all(dir.path(), 0), (0, text.clone()));
        assert_eq!(Reader::new(dir.path()).contiguous_end(0).unwrap(), writer.head());
        let raw = |dir: &Path| {
            fs::read_dir(dir)
                .unwrap()
                .flatten()
                .filter(|e| e.path().extension().is_some_and(|e| e == "log"))
                .count()
        };
        assert_eq!(raw(dir.path()), 2);
        assert!(!dir.path().join("00000000000000001000.new").exists());
        // The writer goes on, and rotates both forms.
        let mut writer = Writer::open(dir.path(), limits(1000, 3), 0).unwrap();
        writer.append(&[b'x'; 2000]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        // One that a disk damaged costs itself.
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), limits(1000, 64), 0).unwrap();
        writer.append(&text);
        while pack_one(dir.path(), 64_000).unwrap() {}
        fs::write(packed_path(dir.path(), 3000), "nonsense of more than twelve bytes").unwrap();
        let (at, bytes) = Reader::new(dir.path()).read(3500, 10).unwrap();
        assert_eq!((at, bytes), (4000, text[4000..4010].to_vec()));
        assert_eq!(Reader::new(dir.path()).contiguous_end(0).unwrap(), 3000);
    }

    #[test]
    fn what_an_older_writer_does_not_rotate_is_removed_by_the_packer() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), limits(1000, 64), 0).unwrap();
        writer.append(&[b'x'; 20_000]);
        while pack_one(dir.path(), 5000).unwrap() {}
        let starts = segment_starts(dir.path()).unwrap();
        assert!(starts[0] >= 13_000 && starts.len() <= 8, "{starts:?}");
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
