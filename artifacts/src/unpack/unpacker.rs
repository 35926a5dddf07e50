//! The policy: what the entries of an archive, of whatever format, become on disk.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Mode};

use super::decode::Meter;
use super::entry::{CopyError, Entries, Entry, Kind};
use super::tree::{self, Tree};
use super::{Limits, Progress, UnpackError, Unpacked};
use crate::beneath::{Beneath, create_new};

pub(crate) struct Unpacker<'a> {
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
    /// Bytes that were written when the room was looked at.
    looked: u64,
    /// Bytes that stay free: a game that saves meanwhile needs them.
    spare: u64,
    buffer: Vec<u8>,
    meter: &'a Meter,
    progress: &'a mut Progress<'a>,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(
        root: Beneath,
        dest: &'a Path,
        limits: &'a Limits,
        strip: u8,
        meter: &'a Meter,
        progress: &'a mut Progress<'a>,
    ) -> Self {
        let spare = root.total_bytes().map_or(SPARE_BYTES, |total| SPARE_BYTES.min(total / 20));
        Self {
            root,
            dest,
            limits,
            strip,
            stripped: None,
            tree: Tree::default(),
            links: Vec::new(),
            parent: None,
            done: Unpacked { entries: 0, bytes: 0 },
            looked: 0,
            spare,
            buffer: vec![0; COPY_BYTES],
            meter,
            progress,
        }
    }

    /// Writes all entries. Nothing of the archive is trusted until its end was seen; what
    /// was written before is the caller's to remove.
    pub(crate) fn run(mut self, entries: &mut dyn Entries) -> Result<Unpacked, UnpackError> {
        while let Some(entry) = entries.next()? {
            self.entry(&entry, entries)?;
            self.report()?;
        }
        self.report()?;
        self.finish()
    }

    fn entry(&mut self, entry: &Entry, reader: &mut dyn Entries) -> Result<(), UnpackError> {
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
        match (self.progress)(self.meter.read.load(Ordering::Relaxed)) {
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
        reader: &mut dyn Entries,
    ) -> Result<(), UnpackError> {
        let mode = if executable { 0o755 } else { 0o644 };
        self.check_room(size)?;
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

    /// Now and then: whether what stays free after a file is enough for others.
    fn check_room(&mut self, size: u64) -> Result<(), UnpackError> {
        let written = self.done.bytes.saturating_add(size);
        if written - self.looked < LOOK_BYTES {
            return Ok(());
        }
        self.looked = self.done.bytes;
        let needed = size.saturating_add(self.spare);
        match self.root.free_bytes() {
            Ok(free) if free < needed => {
                Err(UnpackError::NoSpace { dir: self.dest.to_owned(), needed, free })
            }
            // What cannot be known is found out.
            _ => Ok(()),
        }
    }

    fn hardlink(&mut self, path: &str, from: &str) -> io::Result<()> {
        let (from_dir, from_name) = from.rsplit_once('/').unwrap_or(("", from));
        let from_dir = self.root.dir(from_dir)?;
        let (dir, name) = self.parent(path)?;
        Ok(rustix::fs::linkat(from_dir, from_name, dir, name, AtFlags::empty())?)
    }

    /// Links come last, when it is known where each leads; if one leads wrong, none is made.
    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        let links = std::mem::take(&mut self.links);
        for (path, _) in &links {
            self.tree.check_link(path).map_err(|why| UnpackError::refused(path, why))?;
        }
        for (path, target) in links {
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
                free: self.root.free_bytes().unwrap_or(0),
            },
            _ => UnpackError::Write { entry: path.to_owned(), source },
        }
    }
}

const DIR_MODE: u32 = 0o755;
const COPY_BYTES: usize = 64 << 10;
/// What stays free at most; of a small file system, a twentieth.
const SPARE_BYTES: u64 = 64 << 20;
/// The room is looked at again after so many bytes.
const LOOK_BYTES: u64 = 4 << 20;
