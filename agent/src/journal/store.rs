//! The journal's files: written at the end only, rotated by size, repaired when opened.
//!
//! ```text
//! state/journal/game/
//!   00000000000000000001.jsonl   named by the first entry it may hold
//!   00000000000000001812.jsonl   the one that grows
//!   broken-1767225600123         what could not be read and was kept aside
//! ```
//!
//! Invariants: a line is written at the known end of the file, so a write that failed or
//! was cut short is simply written over; the total never exceeds [`SEGMENTS`] times
//! [`SEGMENT_BYTES`]; nothing that might be more than a torn last line is thrown away.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zlh_shim::durable;
use zlh_shim::faults::point;

use super::entry::{Entry, MAX_SEQ, Stamp, What};

/// Largest segment, bytes.
pub(super) const SEGMENT_BYTES: u64 = 256 << 10;

/// Segments kept: 2 MiB in all. A quiet server writes some 20 KiB a day, so a month fits
/// more than three times.
pub(super) const SEGMENTS: usize = 8;

/// Longest line that is read, bytes.
pub(super) const MAX_LINE: usize = 4096;

/// Files kept aside.
const ASIDES: usize = 4;

/// A file as the store uses it; tests put faults in between.
pub(super) trait Medium: Send {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Length, and whether it still has a name.
    fn look(&self) -> io::Result<(u64, bool)>;
}

/// How segments are opened for writing.
pub(super) type Opener = Arc<dyn Fn(&Path) -> io::Result<Box<dyn Medium>> + Send + Sync>;

/// The files of one journal.
pub(super) struct Store {
    dir: PathBuf,
    opener: Opener,
    segments: VecDeque<Segment>,
    current: Option<Box<dyn Medium>>,
    next_seq: u64,
}

struct Segment {
    first: u64,
    path: PathBuf,
    end: u64,
}

impl Store {
    /// Opens what is in `dir`, and repairs it. The texts say what was found damaged.
    pub(super) fn open(dir: &Path, opener: Opener) -> io::Result<(Self, Vec<String>)> {
        crate::paths::make_dir(dir, 0o700)?;
        let mut store =
            Self { dir: dir.to_owned(), opener, segments: VecDeque::new(), current: None, next_seq: 1 };
        let mut notes = Vec::new();
        for (first, path) in list(dir)? {
            let meta = fs::symlink_metadata(&path)?;
            if !meta.is_file() || meta.len() > SEGMENT_BYTES + MAX_LINE as u64 {
                let aside = store.free_aside(&mut notes);
                fs::rename(&path, &aside)?;
                notes.push(format!(
                    "{} is no journal; it was set aside as {}",
                    path.display(),
                    aside.display()
                ));
                continue;
            }
            store.segments.push_back(Segment { first, path, end: meta.len() });
        }
        store.next_seq = store.segments.back().map_or(1, |segment| segment.first);
        store.repair(&mut notes)?;
        Ok((store, notes))
    }

    /// Brings the last segment back to its last good line.
    fn repair(&mut self, notes: &mut Vec<String>) -> io::Result<()> {
        let Some(last) = self.segments.back() else { return Ok(()) };
        let path = last.path.clone();
        let bytes = fs::read(&path)?;
        let (mut good_end, mut at) = (0, 0);
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            at += line.len();
            if let Some(entry) = line.strip_suffix(b"\n").and_then(Entry::decode) {
                good_end = at;
                self.next_seq = self.next_seq.max(entry.seq + 1);
            }
        }
        let tail = bytes.get(good_end..).unwrap_or_default();
        if !tail.is_empty() {
            // Without a line feed in it, it is the line that a kill cut short.
            if tail.contains(&b'\n') || tail.len() > MAX_LINE {
                let aside = self.free_aside(notes);
                durable::write(&aside, tail, 0o600)?;
                notes.push(format!(
                    "the last {} bytes of {} are damaged; they were set aside as {}",
                    tail.len(),
                    path.display(),
                    aside.display()
                ));
            }
            let mut medium = (self.opener)(&path)?;
            medium.cut(good_end as u64)?;
            medium.sync()?;
        }
        if let Some(last) = self.segments.back_mut() {
            last.end = good_end as u64;
        }
        Ok(())
    }

    /// Number of the next entry.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// What there is to read, oldest first: files and how much of each.
    pub(super) fn readable(&self) -> Vec<(PathBuf, u64)> {
        self.segments.iter().map(|segment| (segment.path.clone(), segment.end)).collect()
    }

    /// Writes as many of `entries` as it can, in order: how many, and what was in the way
    /// of the rest.
    pub(super) fn append<'a>(
        &mut self,
        entries: impl Iterator<Item = (&'a Stamp, &'a What)>,
    ) -> (usize, Option<io::Error>) {
        let mut written = 0;
        let mut block = Block::default();
        for (stamp, what) in entries {
            let seq = self.next_seq + block.entries as u64;
            let line = match Entry::encode(seq, stamp, what) {
                Ok(line) => line,
                Err(error) => return (written, Some(error)),
            };
            if self.is_full(block.bytes.len() + line.len())
                && let Err(error) = self.write(&mut block, &mut written).and_then(|()| self.rotate())
            {
                return (written, Some(error));
            }
            block.bytes.extend_from_slice(&line);
            block.entries += 1;
            block.durable |= what.is_durable();
        }
        let error = self.write(&mut block, &mut written).err();
        (written, error)
    }

    fn is_full(&self, more: usize) -> bool {
        self.segments.back().is_some_and(|last| last.end + more as u64 > SEGMENT_BYTES)
    }

    fn write(&mut self, block: &mut Block, written: &mut usize) -> io::Result<()> {
        if block.entries == 0 {
            return Ok(());
        }
        self.hold()?;
        let (Some(medium), Some(last)) = (&mut self.current, self.segments.back_mut()) else {
            return Err(io::Error::other("the journal has no file"));
        };
        let result = medium.write_at(&block.bytes, last.end);
        if let Err(error) = result.and_then(|()| if block.durable { medium.sync() } else { Ok(()) }) {
            // Best effort: the next try writes over it, the next open cuts it.
            let _ = medium.cut(last.end);
            self.current = None;
            return Err(error);
        }
        last.end += block.bytes.len() as u64;
        self.next_seq += block.entries as u64;
        *written += block.entries;
        *block = Block::default();
        Ok(())
    }

    /// Makes sure that the growing segment is open and is what we left.
    fn hold(&mut self) -> io::Result<()> {
        let Some(last) = self.segments.back() else { return self.rotate() };
        if self.current.is_none() {
            // A file that is gone is not made anew under its old name.
            match fs::symlink_metadata(&last.path) {
                Ok(_) => self.current = Some((self.opener)(&last.path)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.rotate(),
                Err(error) => return Err(error),
            }
        }
        let untouched = match &self.current {
            Some(medium) => medium.look()? == (last.end, true),
            None => false,
        };
        // Somebody cut it, added to it or removed it: what they left is not written over.
        if untouched { Ok(()) } else { self.rotate() }
    }

    /// Begins another segment, and lets the oldest go.
    fn rotate(&mut self) -> io::Result<()> {
        self.current = None;
        crate::paths::make_dir(&self.dir, 0o700)?;
        while self.segments.len() >= SEGMENTS {
            let Some(oldest) = self.segments.front() else { break };
            match fs::remove_file(&oldest.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.segments.pop_front(),
            };
        }
        // Past every name there is: two segments never share one.
        let taken = self.segments.back().map_or(0, |last| last.first);
        self.next_seq = self.next_seq.max(taken + 1);
        let path = self.dir.join(format!("{:020}.jsonl", self.next_seq));
        let medium = (self.opener)(&path)?;
        self.segments.push_back(Segment { first: self.next_seq, path, end: 0 });
        self.current = Some(medium);
        durable::sync_dir(&self.dir)
    }

    /// A name for something that is kept aside; the oldest of too many gives way.
    fn free_aside(&self, notes: &mut Vec<String>) -> PathBuf {
        let mut old: Vec<PathBuf> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(ASIDE)))
            .map(|entry| entry.path())
            .collect();
        old.sort();
        for path in old.iter().take((old.len() + 1).saturating_sub(ASIDES)) {
            if fs::remove_file(path).is_ok() {
                notes.push(format!("{} was removed to make room for newer damage", path.display()));
            }
        }
        let mut stamp = crate::clock::now().as_millisecond();
        loop {
            let path = self.dir.join(format!("{ASIDE}{stamp:015}"));
            if !path.exists() {
                return path;
            }
            stamp += 1;
        }
    }
}

impl Medium for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        point("journal.write")?;
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        point("journal.sync")?;
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn look(&self) -> io::Result<(u64, bool)> {
        let meta = self.metadata()?;
        Ok((meta.len(), meta.nlink() > 0))
    }
}

/// Opens a segment of its own file system.
pub(super) fn open_file(path: &Path) -> io::Result<Box<dyn Medium>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // A link here would lead the agent, who may be root, to somebody else's file.
    options.custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    Ok(Box::new(options.open(path)?))
}

/// Lines that are written at once.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    entries: usize,
    durable: bool,
}

/// The segments in a directory, oldest first.
fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".jsonl"))
            .filter(|digits| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|&first| first <= MAX_SEQ);
        if let Some(first) = number {
            found.push((first, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Begins the names of what is kept aside.
const ASIDE: &str = "broken-";

#[cfg(test)]
#[path = "store_tests.rs"]
pub(super) mod tests;
