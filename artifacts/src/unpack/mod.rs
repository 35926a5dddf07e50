//! Unpacking a verified archive into a private directory.
//!
//! Reject, do not repair: one entry that a release archive has no business to contain fails
//! the whole, and the caller removes the directory. Owners and times are ignored; modes are
//! 0755 for directories and executables, 0644 for the rest; symbolic links that stay inside
//! are made last, so that nothing is ever written through one.

mod decode;
mod error;
mod header;
mod pax;
mod reader;
mod tree;

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode};
use zlh_catalog::MediaType;

use crate::beneath::{Beneath, create_new, free_bytes};
use decode::Decoder;
use reader::{CopyError, Entry, Kind, TarReader};

pub(crate) use tree::{Tree, check_path};

pub use error::UnpackError;

/// Ceilings for one archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories and links together.
    pub entries: u64,
    /// Bytes after decompression, headers included.
    pub total_bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes after decompression per byte of the archive, above 64 MiB.
    pub ratio: u64,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, directories and links named in the archive.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 200_000, total_bytes: 8 << 30, file_bytes: 2 << 30, ratio: 100 }
    }
}

/// Unpacks `archive` into `dest`, an existing empty directory that nobody else can reach,
/// with `strip_components` leading components less. Size and hash of the archive must have
/// been checked. Blocks. `progress` gets the bytes of the archive that were read, and can
/// end it.
pub fn unpack(
    archive: &Path,
    media_type: MediaType,
    dest: &Path,
    strip_components: u8,
    limits: &Limits,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Unpacked, UnpackError> {
    let unreadable = |source| UnpackError::Read { path: archive.to_owned(), source };
    let file = File::open(archive).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let read = Arc::new(AtomicU64::new(0));
    let decoder = Decoder::new(file, media_type, Arc::clone(&read))
        .map_err(unreadable)?
        .ok_or_else(|| UnpackError::NotAnArchive(archive.to_owned()))?;
    let root = Beneath::open(dest).map_err(|source| UnpackError::Write { entry: String::new(), source })?;

    let mut reader = TarReader::new(decoder, limits.budget(size));
    let mut unpacker = Unpacker {
        root,
        dest,
        limits,
        strip: strip_components,
        stripped: None,
        tree: Tree::default(),
        links: Vec::new(),
        parent: None,
        done: Unpacked { entries: 0, bytes: 0 },
        buffer: vec![0; COPY_BYTES],
        read,
        progress,
    };
    while let Some(entry) = reader.next()? {
        unpacker.entry(&entry, &mut reader)?;
        unpacker.report()?;
    }
    reader.into_inner().finish()?;
    unpacker.finish()
}

struct Unpacker<'a> {
    root: Beneath,
    dest: &'a Path,
    limits: &'a Limits,
    strip: u8,
    stripped: Option<String>,
    tree: Tree,
    links: Vec<(String, String)>,
    /// The directory of the last entry, since most follow one of the same directory.
    parent: Option<(String, OwnedFd)>,
    done: Unpacked,
    buffer: Vec<u8>,
    read: Arc<AtomicU64>,
    progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry, reader: &mut TarReader<Decoder>) -> Result<(), UnpackError> {
        self.done.entries += 1;
        if self.done.entries > self.limits.entries {
            return Err(UnpackError::Limit(format!("more than {} entries", self.limits.entries)));
        }
        let refused = |why| UnpackError::refused(&entry.path, why);
        if entry.mode & 0o7000 != 0 {
            return Err(refused("setuid, setgid and sticky bits are not unpacked"));
        }
        let Some(path) = tree::inside(&entry.path, entry.kind == Kind::Dir, self.strip).map_err(refused)?
        else {
            return Ok(());
        };
        self.check_stripped(&entry.path)?;
        match &entry.kind {
            Kind::Dir => {
                self.tree.add_dir(path).map_err(refused)?;
                self.root.create_dirs(path, DIR_MODE, None).map_err(|error| self.failed(path, 0, error))?;
            }
            Kind::File { size } => {
                if *size > self.limits.file_bytes {
                    return Err(UnpackError::Limit(format!("a file of {size} bytes")));
                }
                self.tree.add_file(path).map_err(refused)?;
                self.file(path, *size, entry.mode & 0o111 != 0, reader)?;
            }
            Kind::Symlink { target } => {
                self.tree.add_symlink(path, target).map_err(refused)?;
                self.links.push((path.to_owned(), target.clone()));
            }
            Kind::Hardlink { target } => {
                let from = tree::inside(target, false, self.strip).ok().flatten();
                let from = from.ok_or_else(|| refused("its hard link leads out of the tree"))?;
                self.tree.add_hardlink(path, from).map_err(refused)?;
                self.hardlink(path, from).map_err(|error| self.failed(path, 0, error))?;
            }
        }
        Ok(())
    }

    /// Tells how much of the archive was read, and hears whether to go on.
    fn report(&mut self) -> Result<(), UnpackError> {
        match (self.progress)(self.read.load(Ordering::Relaxed)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(UnpackError::Cancelled),
        }
    }

    fn check_stripped(&mut self, path: &str) -> Result<(), UnpackError> {
        let top = tree::stripped(path, self.strip);
        if self.stripped.get_or_insert_with(|| top.to_owned()) != top {
            return Err(UnpackError::refused(
                path,
                "not all entries begin with the same stripped components",
            ));
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &str,
        size: u64,
        executable: bool,
        reader: &mut TarReader<Decoder>,
    ) -> Result<(), UnpackError> {
        let mode = if executable { 0o755 } else { 0o644 };
        let created = self.parent(path).and_then(|(dir, name)| create_new(dir, name));
        let mut file = created.map_err(|error| self.failed(path, size, error))?;
        loop {
            match reader.copy(&mut file, &mut self.buffer) {
                Ok(true) => self.report()?,
                Ok(false) => break,
                Err(CopyError::Read(error)) => return Err(error),
                Err(CopyError::Write(error)) => return Err(self.failed(path, size, error)),
            }
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
            .map_err(|error| self.failed(path, 0, error.into()))?;
        self.done.bytes += size;
        Ok(())
    }

    fn hardlink(&mut self, path: &str, from: &str) -> io::Result<()> {
        let (from_dir, from_name) = from.rsplit_once('/').unwrap_or(("", from));
        let from_dir = self.root.dir(from_dir)?;
        let (dir, name) = self.parent(path)?;
        Ok(rustix::fs::linkat(from_dir, from_name, dir, name, AtFlags::empty())?)
    }

    /// Links come last, when it is known where each leads.
    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        for (path, target) in std::mem::take(&mut self.links) {
            self.tree.check_link(&path).map_err(|why| UnpackError::refused(&path, why))?;
            let made =
                self.parent(&path).and_then(|(dir, name)| Ok(rustix::fs::symlinkat(&target, dir, name)?));
            made.map_err(|error| self.failed(&path, 0, error))?;
        }
        Ok(self.done)
    }

    /// The open directory of a path, and the last component.
    fn parent<'p>(&mut self, path: &'p str) -> io::Result<(&OwnedFd, &'p str)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.parent.as_ref().is_none_or(|(open, _)| open != dir) {
            self.parent = Some((dir.to_owned(), self.root.create_dirs(dir, DIR_MODE, None)?));
        }
        match &self.parent {
            Some((_, open)) => Ok((open, name)),
            None => unreachable!("set above"),
        }
    }

    fn failed(&self, path: &str, needed: u64, source: io::Error) -> UnpackError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => UnpackError::NoSpace {
                dir: self.dest.to_owned(),
                needed,
                free: free_bytes(self.dest).unwrap_or(0),
            },
            _ => UnpackError::Write { entry: path.to_owned(), source },
        }
    }
}

const DIR_MODE: u32 = 0o755;
const COPY_BYTES: usize = 64 << 10;
