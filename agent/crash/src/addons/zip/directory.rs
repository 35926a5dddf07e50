//! The central directory: where it is, and its records one after the other.
//!
//! It is found the way Java does: backwards from the end record, so that a jar behind a
//! shell script works and a forged start offset changes nothing. An archive with zip64
//! records is understood as long as it stays below the same ceilings.

use std::ops::ControlFlow;

use super::{Source, ZipError, u16_at, u32_at, u64_at};

/// The directory of an archive.
#[derive(Debug, Clone, Copy)]
pub(in crate::addons) struct Directory {
    start: u64,
    size: u64,
    /// Bytes before the archive itself.
    shift: u64,
}

/// One record. Sizes and offset are claims.
#[derive(Debug, Clone, Copy)]
pub(in crate::addons) struct Record<'a> {
    pub name: &'a [u8],
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub compressed: u64,
    pub size: u64,
    /// Where its local header is, from the start of the source.
    pub offset: u64,
}

impl Directory {
    pub(in crate::addons) fn find(source: Source<'_>) -> Result<Self, ZipError> {
        let len = source.len();
        if len < END as u64 {
            return Err(ZipError::NoEnd(len));
        }
        let tail_len = usize::try_from(len).unwrap_or(usize::MAX).min(END + u16::MAX as usize);
        let base = len - tail_len as u64;
        let mut tail = vec![0; tail_len];
        source.read_exact_at(&mut tail, base)?;
        for at in (0..=tail.len() - END).rev() {
            if tail[at..].starts_with(b"PK\x05\x06")
                && at + END + usize::from(u16_at(&tail, at + 20)) <= tail.len()
                && let Some(found) = Self::at_end_record(source, &tail[at..], base + at as u64)?
            {
                return Ok(found);
            }
        }
        Err(ZipError::NoEnd(len))
    }

    /// What an end record says; none if nothing is where it says.
    fn at_end_record(source: Source<'_>, end: &[u8], at: u64) -> Result<Option<Self>, ZipError> {
        let (mut size, mut offset, mut behind) = (u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)), at);
        let large = u16_at(end, 10) == u16::MAX || size == MAX32 || offset == MAX32;
        if large && let Some((size64, offset64, at64)) = zip64(source, at) {
            (size, offset, behind) = (size64, offset64, at64);
        }
        let Some(start) = behind.checked_sub(size) else { return Ok(None) };
        let Some(shift) = start.checked_sub(offset) else { return Ok(None) };
        if size > 0 {
            let mut magic = [0; 4];
            source.read_exact_at(&mut magic, start)?;
            if magic != *RECORD_MAGIC {
                return Ok(None);
            }
        }
        if size > MAX_DIRECTORY {
            return Err(ZipError::TooLarge(format!("its directory is {} MiB large", size >> 20)));
        }
        Ok(Some(Self { start, size, shift }))
    }

    /// Hands out the records until `each` breaks. Memory: one piece of the directory.
    pub(in crate::addons) fn walk(
        &self,
        source: Source<'_>,
        mut each: impl FnMut(Record<'_>) -> ControlFlow<ZipError>,
    ) -> Result<(), ZipError> {
        let mut window = Vec::new();
        let (mut read, mut at) = (0, 0);
        loop {
            // A record and its three strings are at most RECORD + 3 * 65,535 bytes.
            if window.len() - at < LARGEST && read < self.size {
                window.drain(..at);
                at = 0;
                let more = usize::try_from((self.size - read).min(PIECE)).unwrap_or(0);
                let old = window.len();
                window.resize(old + more, 0);
                source.read_exact_at(&mut window[old..], self.start + read)?;
                read += more as u64;
                continue;
            }
            let rest = &window[at..];
            if rest.is_empty() {
                return Ok(());
            }
            if rest.len() < RECORD || !rest.starts_with(RECORD_MAGIC) {
                return Err(ZipError::Damaged("its directory breaks off"));
            }
            let [name, extra, comment] = [28, 30, 32].map(|field| usize::from(u16_at(rest, field)));
            let whole = RECORD + name + extra + comment;
            if rest.len() < whole {
                return Err(ZipError::Damaged("its directory breaks off"));
            }
            let record = self.record(&rest[..whole], name, extra)?;
            if let ControlFlow::Break(error) = each(record) {
                return Err(error);
            }
            at += whole;
        }
    }

    fn record<'a>(&self, bytes: &'a [u8], name: usize, extra: usize) -> Result<Record<'a>, ZipError> {
        let (mut compressed, mut size, mut offset) =
            (u64::from(u32_at(bytes, 20)), u64::from(u32_at(bytes, 24)), u64::from(u32_at(bytes, 42)));
        if [compressed, size, offset].contains(&MAX32) {
            let extra = &bytes[RECORD + name..RECORD + name + extra];
            let mut values = zip64_extra(extra);
            for field in [&mut size, &mut compressed, &mut offset] {
                if *field == MAX32
                    && let Some((first, rest)) = values.split_first_chunk::<8>()
                {
                    *field = u64::from_le_bytes(*first);
                    values = rest;
                }
            }
        }
        Ok(Record {
            name: &bytes[RECORD..RECORD + name],
            flags: u16_at(bytes, 8),
            method: u16_at(bytes, 10),
            crc: u32_at(bytes, 16),
            compressed,
            size,
            offset: offset
                .checked_add(self.shift)
                .ok_or(ZipError::Damaged("an entry lies beyond its end"))?,
        })
    }
}

/// Size and offset of the directory, and where the zip64 end record is.
fn zip64(source: Source<'_>, end: u64) -> Option<(u64, u64, u64)> {
    let mut locator = [0; 20];
    source.read_exact_at(&mut locator, end.checked_sub(20)?).ok()?;
    let mut record = [0; 56];
    let at = u64_at(&locator, 8);
    source.read_exact_at(&mut record, at).ok()?;
    let good = locator.starts_with(b"PK\x06\x07") && record.starts_with(b"PK\x06\x06");
    good.then(|| (u64_at(&record, 40), u64_at(&record, 48), at))
}

/// The values in the zip64 field among a record's extra fields.
fn zip64_extra(mut extra: &[u8]) -> &[u8] {
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(value) = extra.get(4..4 + len) else { break };
        if id == 1 {
            return value;
        }
        extra = &extra[4 + len..];
    }
    &[]
}

/// Length of an end record without its comment.
const END: usize = 22;
/// Length of a record without its strings.
const RECORD: usize = 46;
const RECORD_MAGIC: &[u8; 4] = b"PK\x01\x02";
const LARGEST: usize = RECORD + 3 * u16::MAX as usize;
/// Bytes read at once.
const PIECE: u64 = 256 << 10;
/// Largest directory that is read: about 200,000 entries.
const MAX_DIRECTORY: u64 = 24 << 20;
const MAX32: u64 = u32::MAX as u64;
