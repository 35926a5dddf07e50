//! Where the directory is: the records at the very end of a zip.

use std::io::Read;

use super::content::Section;
use super::record::{u16_at, u32_at, u64_at};
use crate::unpack::UnpackError;
use crate::unpack::decode::failure;

/// The central directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) entries: u64,
}

/// Reads the end record, which has to be the last thing in the file, and the zip64 one if
/// there is a locator. All numbers that are told twice have to be the same.
pub(super) fn find(archive: &Section<'_>, size: u64) -> Result<Directory, UnpackError> {
    let at = size.checked_sub(END_BYTES as u64).ok_or_else(|| damaged("it is too short for a zip"))?;
    let end: [u8; END_BYTES] = read(archive, at)?;
    if end[..4] != *b"PK\x05\x06" || u16_at(&end, 20) != 0 {
        return Err(damaged("it does not end with its end record: cut off, with a comment or more data"));
    }
    if u16_at(&end, 4) != 0 || u16_at(&end, 6) != 0 {
        return Err(damaged("it is a part of several"));
    }
    if u16_at(&end, 8) != u16_at(&end, 10) {
        return Err(damaged("its two counts of entries differ"));
    }
    let plain = Plain { entries: u16_at(&end, 10), bytes: u32_at(&end, 12), start: u32_at(&end, 16) };
    match at.checked_sub(LOCATOR_BYTES as u64) {
        Some(locator_at) => {
            let locator: [u8; LOCATOR_BYTES] = read(archive, locator_at)?;
            // Also where the bytes of a directory only look like it: some programs would
            // believe them.
            if locator[..4] == *b"PK\x06\x07" {
                wide(archive, &locator, locator_at, plain)
            } else {
                plain.end_at(at)
            }
        }
        None => plain.end_at(at),
    }
}

/// What the end record itself says.
#[derive(Clone, Copy)]
struct Plain {
    entries: u16,
    bytes: u32,
    start: u32,
}

impl Plain {
    fn end_at(self, at: u64) -> Result<Directory, UnpackError> {
        let (start, bytes) = (u64::from(self.start), u64::from(self.bytes));
        Directory { start, end: at, entries: self.entries.into() }.checked(bytes)
    }
}

impl Directory {
    /// That it ends where the next record begins.
    fn checked(self, bytes: u64) -> Result<Self, UnpackError> {
        if self.start.checked_add(bytes) != Some(self.end) {
            return Err(damaged("its directory is not in front of its end record"));
        }
        Ok(self)
    }
}

fn wide(
    archive: &Section<'_>,
    locator: &[u8; LOCATOR_BYTES],
    locator_at: u64,
    plain: Plain,
) -> Result<Directory, UnpackError> {
    let contradiction = || damaged("its zip64 records contradict the others");
    let at = locator_at.checked_sub(WIDE_END_BYTES as u64).ok_or_else(contradiction)?;
    if u32_at(locator, 4) != 0 || u64_at(locator, 8) != at || u32_at(locator, 16) != 1 {
        return Err(contradiction());
    }
    let end: [u8; WIDE_END_BYTES] = read(archive, at)?;
    // The size of the record counts from behind itself; longer ones carry what nobody reads.
    let well_formed = end[..4] == *b"PK\x06\x06" && u64_at(&end, 4) == WIDE_END_BYTES as u64 - 12;
    if !well_formed || u32_at(&end, 16) != 0 || u32_at(&end, 20) != 0 {
        return Err(contradiction());
    }
    let (entries, bytes, start) = (u64_at(&end, 32), u64_at(&end, 40), u64_at(&end, 48));
    let agree = u64_at(&end, 24) == entries
        && (plain.entries == u16::MAX || u64::from(plain.entries) == entries)
        && (plain.bytes == u32::MAX || u64::from(plain.bytes) == bytes)
        && (plain.start == u32::MAX || u64::from(plain.start) == start);
    if !agree {
        return Err(contradiction());
    }
    Directory { start, end: at, entries }.checked(bytes)
}

fn read<const N: usize>(archive: &Section<'_>, at: u64) -> Result<[u8; N], UnpackError> {
    let mut bytes = [0; N];
    archive.part(at..at + N as u64).read_exact(&mut bytes).map_err(failure)?;
    Ok(bytes)
}

fn damaged(why: &str) -> UnpackError {
    UnpackError::Damaged(why.to_owned())
}

const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
const WIDE_END_BYTES: usize = 56;
