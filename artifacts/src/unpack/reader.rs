//! A strict reader for the subset of tar that release archives use: ustar, the PAX and GNU
//! long names, files, directories, symbolic and hard links.
//!
//! Stricter than tar programs where leniency hides damage or smuggles entries: the end mark
//! must be there and nothing may follow it, an extended size must agree with the header's,
//! name records must not nest. Every byte out of the decompressor counts against a budget.

use std::io::{self, Read, Write};

use super::UnpackError;
use super::decode::failure;
use super::entry::{CopyError, Entries, Entry, Kind, text};
use super::header::{BLOCK, Header};
use super::limits::Budget;
use super::pax::Extensions;

pub(crate) struct TarReader<R> {
    input: R,
    budget: Budget,
    /// Bytes of the current entry's content that were not read yet.
    content: u64,
    padding: u64,
}

impl<R: Read> Entries for TarReader<R> {
    fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        self.skip()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                return if extensions.is_empty() {
                    self.end().map(|()| None)
                } else {
                    Err(UnpackError::Damaged("an extended header has no entry".to_owned()))
                };
            };
            match header.kind {
                b'x' => extensions.read(&self.record(&header)?)?,
                b'g' => {
                    let mut global = Extensions::default();
                    global.read(&self.record(&header)?)?;
                    if !global.is_empty() {
                        let why = "a global header may not name or size files";
                        return Err(UnpackError::Damaged(why.to_owned()));
                    }
                }
                b'L' | b'K' => {
                    if extensions.size.is_some() {
                        return Err(UnpackError::Damaged("a name record has an extended size".to_owned()));
                    }
                    let name = self.record(&header)?;
                    let name = name.strip_suffix(b"\0").unwrap_or(&name).to_vec();
                    let slot = if header.kind == b'L' { &mut extensions.path } else { &mut extensions.link };
                    if slot.replace(name).is_some() {
                        return Err(UnpackError::Damaged("an entry has two long names".to_owned()));
                    }
                }
                _ => return self.entry(header, extensions).map(Some),
            }
        }
    }

    fn copy(&mut self, out: &mut dyn Write, buffer: &mut [u8]) -> Result<bool, CopyError> {
        let want = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        self.fill(&mut buffer[..want]).map_err(CopyError::Read)?;
        out.write_all(&buffer[..want]).map_err(CopyError::Write)?;
        self.content -= want as u64;
        Ok(self.content > 0)
    }
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(input: R, budget: Budget) -> Self {
        Self { input, budget, content: 0, padding: 0 }
    }

    fn entry(&mut self, header: Header, extensions: Extensions) -> Result<Entry, UnpackError> {
        let path = text(extensions.path.unwrap_or(header.path))?;
        if extensions.size.is_some_and(|size| size != header.size && size <= MAX_HEADER_SIZE) {
            return Err(UnpackError::refused(&path, "its two sizes differ"));
        }
        let size = extensions.size.unwrap_or(header.size);
        let link = || text(extensions.link.unwrap_or(header.link));
        let kind = match header.kind {
            b'0' | b'\0' => Kind::File { size },
            b'5' => Kind::Dir,
            b'2' => Kind::Symlink { target: link()? },
            b'1' => Kind::Hardlink { target: link()? },
            other => {
                let what = match other {
                    b'3' | b'4' => "devices are not unpacked",
                    b'6' => "pipes are not unpacked",
                    b'S' => "sparse files are not unpacked",
                    _ => "its type is not known",
                };
                return Err(UnpackError::refused(&path, what));
            }
        };
        match kind {
            Kind::File { size } => self.expect(size),
            _ if size != 0 => return Err(UnpackError::refused(&path, "only files have content")),
            _ => {}
        }
        Ok(Entry { path, kind, mode: header.mode })
    }

    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Header::parse(&block).map(Some)
    }

    /// The content of a record that describes the next entry.
    fn record(&mut self, header: &Header) -> Result<Vec<u8>, UnpackError> {
        if header.size > MAX_RECORD_BYTES {
            return Err(UnpackError::Limit(format!("a name record of {} bytes", header.size)));
        }
        self.expect(header.size);
        let mut out = vec![0; usize::try_from(header.size).unwrap_or(0)];
        self.fill(&mut out)?;
        self.content = 0;
        self.skip()?;
        Ok(out)
    }

    fn expect(&mut self, size: u64) {
        self.content = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), UnpackError> {
        let mut buffer = [0; BLOCK];
        let mut left = self.content + self.padding;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.fill(&mut buffer[..want])?;
            left -= want as u64;
        }
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// After the first empty block: a second one, then nothing but zeros.
    fn end(&mut self) -> Result<(), UnpackError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        let mut zeros = 0;
        loop {
            if block.iter().any(|byte| *byte != 0) {
                return Err(UnpackError::Damaged("something follows the end of the archive".to_owned()));
            }
            let read = read_some(&mut self.input, &mut block)?;
            zeros += read;
            match read {
                0 => return Ok(()),
                _ if zeros > MAX_TRAILING_ZEROS => {
                    return Err(UnpackError::Limit("zeros after the end of the archive".to_owned()));
                }
                _ => block[read..].fill(0),
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), UnpackError> {
        self.budget.spend(buffer.len() as u64)?;
        self.input.read_exact(buffer).map_err(failure)
    }
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, UnpackError> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(failure),
        }
    }
}

/// The largest size that eleven octal digits can say.
const MAX_HEADER_SIZE: u64 = 0o77_777_777_777;
const MAX_RECORD_BYTES: u64 = 64 << 10;
const MAX_TRAILING_ZEROS: usize = 1 << 20;
