//! The content of one entry, in memory, with a ceiling.

use std::io::Read;
use std::time::Instant;

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::{Record, Source, ZipError, u16_at};

/// Inflates an entry of at most `limit` bytes. The claimed size is only trusted when it is
/// too large.
pub(in crate::addons) fn read(
    source: Source<'_>,
    record: &Record<'_>,
    limit: u64,
    deadline: Instant,
) -> Result<Vec<u8>, ZipError> {
    let fail = |why: String| ZipError::Entry { name: crate::addons::clean(record.name, 80), why };
    if record.flags & 1 != 0 {
        return Err(fail("it is encrypted".to_owned()));
    }
    if record.size > limit {
        return Err(fail(format!("it is larger than {limit} bytes")));
    }
    let mut header = [0; 30];
    source.read_exact_at(&mut header, record.offset)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err(fail("it is not where the directory says".to_owned()));
    }
    let strings = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
    let packed = Packed { source, at: record.offset + 30 + strings, left: record.compressed };
    let bytes = match record.method {
        0 => collect(packed, limit, deadline),
        8 => collect(DeflateDecoder::new(packed), limit, deadline),
        other => return Err(fail(format!("its compression method {other} is unknown"))),
    };
    let bytes = bytes.map_err(|why| match why {
        Stop::Late => ZipError::Late,
        Stop::TooLarge => fail(format!("it is larger than {limit} bytes")),
        Stop::Io(error) => fail(error.to_string()),
    })?;
    let mut crc = Crc::new();
    crc.update(&bytes);
    if crc.sum() != record.crc {
        return Err(fail("its checksum is wrong".to_owned()));
    }
    Ok(bytes)
}

enum Stop {
    Late,
    TooLarge,
    Io(std::io::Error),
}

fn collect(mut from: impl Read, limit: u64, deadline: Instant) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(got) => bytes.extend_from_slice(&piece[..got]),
            Err(error) => return Err(Stop::Io(error)),
        }
        if bytes.len() as u64 > limit {
            return Err(Stop::TooLarge);
        }
        if Instant::now() > deadline {
            return Err(Stop::Late);
        }
    }
}

/// The packed bytes of an entry.
struct Packed<'a> {
    source: Source<'a>,
    at: u64,
    left: u64,
}

impl Read for Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let beyond = self.source.len().saturating_sub(self.at);
        let want = (buffer.len() as u64).min(self.left).min(beyond);
        let want = usize::try_from(want).unwrap_or(0);
        if want == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the jar ends before it"));
        }
        self.source.read_exact_at(&mut buffer[..want], self.at).map_err(std::io::Error::other)?;
        self.at += want as u64;
        self.left -= want as u64;
        Ok(want)
    }
}
