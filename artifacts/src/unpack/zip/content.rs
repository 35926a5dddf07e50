//! The bytes of one entry, decompressed and checked.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::record::{Central, Method};
use crate::unpack::UnpackError;
use crate::unpack::decode::{Meter, failure};

/// A part of the archive.
#[derive(Clone)]
pub(super) struct Section<'a> {
    file: &'a File,
    meter: &'a Meter,
    range: Range<u64>,
}

impl<'a> Section<'a> {
    pub(super) fn new(file: &'a File, meter: &'a Meter, range: Range<u64>) -> Self {
        Self { file, meter, range }
    }

    /// Another part of the same archive.
    pub(super) fn part(&self, range: Range<u64>) -> Self {
        Self { range, ..self.clone() }
    }

    /// Of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.range.start
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end.saturating_sub(self.range.start)).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..want], self.range.start)?;
        self.range.start += read as u64;
        self.meter.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

pub(super) struct Content<'a> {
    input: BufReader<Section<'a>>,
    inflate: Decompress,
    method: Method,
    /// Bytes that have yet to come out.
    left: u64,
    crc: Crc,
    expected_crc: u32,
    ended: bool,
}

impl<'a> Content<'a> {
    pub(super) fn new(nothing: Section<'a>) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER_BYTES, nothing),
            inflate: Decompress::new(false),
            method: Method::Stored,
            left: 0,
            crc: Crc::new(),
            expected_crc: 0,
            ended: true,
        }
    }

    /// Goes to the data of an entry. Nothing of the one before is left: it was finished.
    pub(super) fn enter(&mut self, data: Section<'a>, central: &Central) {
        *self.input.get_mut() = data;
        self.inflate.reset(false);
        self.method = central.method;
        self.left = central.size;
        self.crc.reset();
        self.expected_crc = central.crc;
        self.ended = false;
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Fills the buffer, which is not larger than what is left.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), UnpackError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => return Err(damaged("an entry has less content than it says")),
                more => filled += more,
            }
        }
        self.crc.update(buffer);
        self.left = self.left.saturating_sub(buffer.len() as u64);
        Ok(())
    }

    /// After the last byte: that there is no more, and that it was right.
    pub(super) fn finish(&mut self) -> Result<(), UnpackError> {
        let more = !self.ended && self.read(&mut [0])? != 0;
        if more || !self.input.fill_buf().map_err(failure)?.is_empty() {
            return Err(damaged("an entry has more content than it says"));
        }
        if self.method == Method::Deflated && !self.ended {
            return Err(damaged("the data of an entry ends too early"));
        }
        if self.crc.sum() != self.expected_crc {
            return Err(damaged("an entry does not match its checksum"));
        }
        Ok(())
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        if self.method == Method::Stored {
            return self.input.read(out).map_err(failure);
        }
        while !self.ended {
            let input = self.input.fill_buf().map_err(failure)?;
            let nothing_left = input.is_empty();
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, out, FlushDecompress::None)
                .map_err(|_| damaged("the data of an entry is no deflate stream"))?;
            let used = usize::try_from(self.inflate.total_in() - before_in).unwrap_or(usize::MAX);
            let made = usize::try_from(self.inflate.total_out() - before_out).unwrap_or(usize::MAX);
            self.input.consume(used);
            self.ended = status == Status::StreamEnd;
            if made > 0 || (nothing_left && !self.ended) {
                return Ok(made);
            }
        }
        Ok(0)
    }
}

fn damaged(why: &str) -> UnpackError {
    UnpackError::Damaged(why.to_owned())
}

const BUFFER_BYTES: usize = 64 << 10;
