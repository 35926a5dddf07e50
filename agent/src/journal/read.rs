//! Reading the journal back: whatever became of the files, what is good in them is read.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::store::{MAX_LINE, SEGMENT_BYTES};

/// What a reading came across.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Entries handed out.
    pub entries: u64,
    /// Lines that are not as they were written, or stand where they do not belong.
    pub damaged: u64,
}

/// Hands out the entries of `files` (each up to a length) in order. A number that does not
/// rise is a copy or a leftover, and is skipped like a broken line.
pub(super) fn scan(files: &[(PathBuf, u64)], mut each: impl FnMut(Entry)) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut last = 0;
    let mut bytes = Vec::new();
    for (path, length) in files {
        // Rotated away since it was listed: then it is too old to be missed.
        if !fill(path, *length, &mut bytes)? {
            continue;
        }
        for line in bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            match decode(line).filter(|entry| entry.seq > last) {
                Some(entry) => {
                    last = entry.seq;
                    tally.entries += 1;
                    each(entry);
                }
                None => tally.damaged += 1,
            }
        }
    }
    Ok(tally)
}

fn decode(line: &[u8]) -> Option<Entry> {
    if line.len() > MAX_LINE { None } else { Entry::decode(line) }
}

fn fill(path: &Path, length: u64, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => {
            file.take(length.min(SEGMENT_BYTES + MAX_LINE as u64)).read_to_end(bytes)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
