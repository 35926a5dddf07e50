//! A strict reader for zip archives.
//!
//! ```text
//! 0                                                                      end of the file
//! │ local header, data, descriptor │ … │ central directory │ [zip64 end] │ end │
//! └── in the directory's order, each where the one before it ends ───────────────┘
//! ```
//!
//! A zip names everything twice, and programs differ in whom they believe. Here both have
//! to say the same, and every byte of the file has to belong to exactly one record: no gap,
//! no overlap, nothing in front, behind or in comments. So there is only one way to read
//! it. The directory is read in pieces; no claim of an archive is ever allocated.
//!
//! Stored and deflated entries only; modes come from Unix attributes where there are any.
//! Symbolic links (as `zip -y` writes them) are held to the same rules as those of a tar.

mod content;
mod end;
mod record;

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::sync::atomic::Ordering;

use super::UnpackError;
use super::decode::{Meter, failure};
use super::entry::{CopyError, Entries, Entry, Kind, text};
use super::limits::Budget;
use content::{Content, Section};
use end::Directory;
use record::{Central, Local, check_descriptor};

pub(crate) struct ZipReader<'a> {
    archive: Section<'a>,
    directory: Directory,
    records: BufReader<Section<'a>>,
    /// Records of the directory that were not read yet.
    left: u64,
    /// Where the next local header has to be.
    at: u64,
    content: Content<'a>,
    budget: Budget,
}

impl<'a> ZipReader<'a> {
    /// Finds the directory. `entries` is the most that it may have.
    pub(crate) fn open(
        file: &'a File,
        size: u64,
        budget: Budget,
        entries: u64,
        meter: &'a Meter,
    ) -> Result<Self, UnpackError> {
        // The end is looked at more than once; what is counted is counted once.
        let directory = end::find(&Section::new(file, &Meter::default(), 0..size), size)?;
        meter.read.fetch_add(size.saturating_sub(directory.end), Ordering::Relaxed);
        let archive = Section::new(file, meter, 0..size);
        if directory.entries > entries {
            return Err(UnpackError::Limit(format!("more than {entries} entries")));
        }
        let records = archive.part(directory.start..directory.end);
        Ok(Self {
            content: Content::new(archive.part(0..0)),
            archive,
            records: BufReader::with_capacity(DIRECTORY_BUFFER_BYTES, records),
            left: directory.entries,
            directory,
            at: 0,
            budget,
        })
    }

    fn record(&mut self) -> Result<Central, UnpackError> {
        let central = Central::read(&mut self.records)?;
        self.left -= 1;
        if central.offset != self.at {
            let why = "its entries overlap, leave gaps or are not in the order of the directory";
            return Err(UnpackError::Damaged(why.to_owned()));
        }
        Ok(central)
    }

    /// Checks the local half of a record and leads the content to its data.
    fn enter(&mut self, path: &str, central: &Central) -> Result<(), UnpackError> {
        let mut here = self.archive.part(self.at..self.directory.start);
        let local = Local::read(&mut here)?;
        central.check_local(path, &local)?;
        let start = here.position();
        let end = start.checked_add(central.packed).filter(|end| *end <= self.directory.start);
        let end = end.ok_or_else(|| UnpackError::Damaged("an entry runs into the directory".to_owned()))?;
        let mut after = self.archive.part(end..self.directory.start);
        if central.has_descriptor() {
            check_descriptor(&mut after, path, central, local.wide)?;
        }
        self.at = after.position();
        self.content.enter(self.archive.part(start..end), central);
        Ok(())
    }

    fn kind(&mut self, path: &str, central: &Central) -> Result<Kind, UnpackError> {
        match central.unix_type() {
            Some(S_IFLNK) if !path.ends_with('/') => {
                if central.size > MAX_TARGET_BYTES {
                    return Err(UnpackError::refused(path, "its link target is too long"));
                }
                let mut target = vec![0; usize::try_from(central.size).unwrap_or(0)];
                self.content.fill(&mut target)?;
                self.content.finish()?;
                Ok(Kind::Symlink { target: text(target)? })
            }
            None | Some(S_IFDIR) if path.ends_with('/') => {
                if central.size != 0 {
                    return Err(UnpackError::refused(path, "only files have content"));
                }
                self.content.finish()?;
                Ok(Kind::Dir)
            }
            None | Some(S_IFREG) if !path.ends_with('/') && !central.is_dos_dir() => {
                Ok(Kind::File { size: central.size })
            }
            None | Some(S_IFREG | S_IFDIR | S_IFLNK) => {
                Err(UnpackError::refused(path, "its type and the end of its name contradict each other"))
            }
            Some(S_IFCHR | S_IFBLK) => Err(UnpackError::refused(path, "devices are not unpacked")),
            Some(S_IFIFO) => Err(UnpackError::refused(path, "pipes are not unpacked")),
            Some(_) => Err(UnpackError::refused(path, "its type is not known")),
        }
    }

    fn end(&mut self) -> Result<(), UnpackError> {
        let mut more = [0];
        if self.records.read(&mut more).map_err(failure)? != 0 {
            return Err(UnpackError::Damaged("its directory has more than it counts".to_owned()));
        }
        if self.at != self.directory.start {
            return Err(UnpackError::Damaged("something lies between its entries and directory".to_owned()));
        }
        Ok(())
    }
}

impl Entries for ZipReader<'_> {
    fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        if self.left == 0 {
            return self.end().map(|()| None);
        }
        let central = self.record()?;
        let path = central.path()?;
        self.budget.spend(central.header_bytes().saturating_add(central.size))?;
        self.enter(&path, &central)?;
        let kind = self.kind(&path, &central)?;
        let mode = central.mode();
        Ok(Some(Entry { path, kind, mode }))
    }

    fn copy(&mut self, out: &mut dyn Write, buffer: &mut [u8]) -> Result<bool, CopyError> {
        let want = usize::try_from(self.content.left()).unwrap_or(usize::MAX).min(buffer.len());
        self.content.fill(&mut buffer[..want]).map_err(CopyError::Read)?;
        out.write_all(&buffer[..want]).map_err(CopyError::Write)?;
        if self.content.left() > 0 {
            return Ok(true);
        }
        self.content.finish().map_err(CopyError::Read)?;
        Ok(false)
    }
}

const DIRECTORY_BUFFER_BYTES: usize = 64 << 10;
const MAX_TARGET_BYTES: u64 = 1024;
const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
