//! As much of the zip format as a look into a jar needs, and no more.
//!
//! Only the directory at the end is walked, in pieces; single entries are inflated into
//! memory with a ceiling; nothing is extracted, no name becomes a path. Offsets and sizes
//! are claims: each is checked against the bytes that are there.

mod directory;
mod entry;

pub(super) use directory::{Directory, Record};
pub(super) use entry::read;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The bytes of an archive.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// A file, and how long it was when it was opened.
    File(&'a File, u64),
    /// An archive within an archive.
    Bytes(&'a [u8]),
}

/// Why an archive or an entry cannot be read. The text goes behind "mods/x.jar: ".
#[derive(Debug, thiserror::Error)]
pub(super) enum ZipError {
    #[error("it is not a complete jar ({0} bytes): its directory at the end is missing")]
    NoEnd(u64),
    #[error("it is a damaged jar: {0}")]
    Damaged(&'static str),
    #[error("{0}")]
    TooLarge(String),
    #[error("entry {name} cannot be read: {why}")]
    Entry { name: String, why: String },
    #[error("it could not be read in time")]
    Late,
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl Source<'_> {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File(_, len) => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `buffer` from `offset`; what lies beyond the end is an error.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ZipError> {
        const SHORT: ZipError = ZipError::Damaged("it ends before its directory says so");
        let end = offset.checked_add(buffer.len() as u64).ok_or(SHORT)?;
        if end > self.len() {
            return Err(SHORT);
        }
        match self {
            Self::File(file, _) => match file.read_exact_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(SHORT),
                other => Ok(other?),
            },
            Self::Bytes(bytes) => {
                let from = usize::try_from(offset).map_err(|_| SHORT)?;
                buffer.copy_from_slice(bytes.get(from..from + buffer.len()).ok_or(SHORT)?);
                Ok(())
            }
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
