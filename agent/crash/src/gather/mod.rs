//! What a run left behind in its server folder: crash reports, the JVM's fatal error log,
//! the state of the disk, and the console's head and tail.
//!
//! All of it belongs to a tenant. A file is read only if it is a regular file inside the
//! folder, reached without any link, changed during the run (until [`LATE`] after its
//! end), and only its head. Nothing is followed, nothing blocks, nothing is written; what
//! was refused is a note.

mod console;
mod named;

pub use console::{ConsoleWindow, HEAD_LINES, LINE_BYTES, TAIL_LINES};

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::FileType;

use crate::addons::text::file_name;
use crate::folder::{Folder, Stamp, entries, head, look};
use crate::{Disk, Text};

/// A run that ended.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// When it started.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// The pids of its Java processes, as they see themselves.
    pub pids: &'a [u32],
    /// Its arguments, for `-XX:ErrorFile=`.
    pub arguments: &'a [&'a str],
    /// Its console, for the report it names.
    pub console: &'a [Text<'a>],
}

/// What a run left behind.
#[derive(Debug, Clone, Default)]
pub struct Gathered {
    /// Crash reports of this run, newest first, at most [`MAX_REPORTS`], each cut at
    /// [`REPORT_BYTES`].
    pub reports: Vec<FileText>,
    /// `hs_err_pid<pid>.log`, cut at [`HS_ERR_BYTES`].
    pub hs_err: Option<FileText>,
    /// The disk that the folder is on, now.
    pub disk: Option<Disk>,
    /// What was refused, and why.
    pub notes: Vec<String>,
}

/// The head of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    /// Relative to the server folder.
    pub name: String,
    /// At most as many bytes as its kind may have.
    pub bytes: Vec<u8>,
    /// Bytes it has on disk.
    pub size: u64,
    /// When it was changed.
    pub changed: SystemTime,
}

impl FileText {
    /// As evidence.
    #[must_use]
    pub fn text(&self) -> Text<'_> {
        Text { name: &self.name, bytes: &self.bytes, first_line: 1 }
    }
}

/// Reads what a run left behind in `root`. Quick: at most 2 MiB are read.
///
/// # Errors
/// Only when the folder itself cannot be opened.
pub fn gather(root: &Path, run: &Run<'_>) -> io::Result<Gathered> {
    let folder = Folder::open(root)?;
    let mut gathered = Gathered { disk: disk(root), ..Gathered::default() };
    reports(&folder, root, run, &mut gathered);
    hs_err(&folder, root, run, &mut gathered);
    gathered.notes.truncate(MAX_NOTES);
    Ok(gathered)
}

/// The disk that a path is on: what the game's user can still write.
#[must_use]
pub fn disk(path: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_inodes: (stat.f_files > 0).then_some(stat.f_favail),
    })
}

fn reports(folder: &Folder, root: &Path, run: &Run<'_>, gathered: &mut Gathered) {
    let mut found: Vec<(Stamp, String)> = Vec::new();
    if let Ok(dir) = folder.dir(REPORTS) {
        let mut budget = MAX_NAMES;
        let (names, cut) = entries(&dir, &mut budget).unwrap_or_default();
        if cut {
            gathered.notes.push(format!("{REPORTS}: more than {MAX_NAMES} files, not all were looked at"));
        }
        for entry in names.iter().filter(|entry| is_report(entry.name.to_bytes())) {
            let path = format!("{REPORTS}/{}", file_name(entry.name.to_bytes()));
            match look(&dir, &entry.name) {
                Ok((FileType::RegularFile, stamp)) if run.wrote(&stamp) => found.push((stamp, path)),
                Ok((FileType::RegularFile, _)) | Err(_) => {}
                Ok(_) => gathered.notes.push(format!("{path}: it is no regular file, and was not read")),
            }
        }
    }
    for named in named::reports(run.console) {
        match named::inside(root, &named) {
            Some(path) if found.iter().any(|(_, other)| *other == path) => {}
            // A chat line can name anything: it has to look like a report to be read as one.
            Some(path) if is_report(path.rsplit('/').next().unwrap_or_default().as_bytes()) => {
                match folder.file(&path) {
                    Ok((_, stamp)) if run.wrote(&stamp) => found.push((stamp, path)),
                    Ok(_) => {}
                    Err(error) => gathered.notes.push(format!("{}: {error}", file_name(path.as_bytes()))),
                }
            }
            Some(_) => {}
            None => gathered.notes.push(format!(
                "{}: the console names it, but it lies outside the server folder",
                file_name(named.as_bytes())
            )),
        }
    }
    // Newest first.
    found.sort_by(|a, b| (b.0.mtime, &b.1).cmp(&(a.0.mtime, &a.1)));
    for (_, path) in found {
        if gathered.reports.len() < MAX_REPORTS {
            match read(folder, &path, REPORT_BYTES, run) {
                Ok(text) => gathered.reports.extend(text),
                Err(error) => gathered.notes.push(format!("{path}: {error}")),
            }
        }
    }
}

fn hs_err(folder: &Folder, root: &Path, run: &Run<'_>, gathered: &mut Gathered) {
    for pid in run.pids {
        let chosen = named::error_file(run.arguments, *pid);
        let chosen = chosen.and_then(|path| match named::inside(root, &path) {
            Some(path) => Some(path),
            None => {
                let path = file_name(path.as_bytes());
                gathered.notes.push(format!("{path}: -XX:ErrorFile lies outside the server folder"));
                None
            }
        });
        // Java falls back to its working directory when it cannot write where it was told to.
        for path in chosen.into_iter().chain([format!("hs_err_pid{pid}.log")]) {
            match read(folder, &path, HS_ERR_BYTES, run) {
                Ok(Some(text)) => {
                    gathered.hs_err = Some(text);
                    return;
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => gathered.notes.push(format!("{}: {error}", file_name(path.as_bytes()))),
            }
        }
    }
}

/// The head of a file; none if it is not of this run.
fn read(folder: &Folder, path: &str, limit: usize, run: &Run<'_>) -> io::Result<Option<FileText>> {
    let (file, stamp) = folder.file(path)?;
    if !run.wrote(&stamp) {
        return Ok(None);
    }
    let bytes = head(&file, limit)?;
    let name = file_name(path.as_bytes());
    Ok(Some(FileText { name, bytes, size: stamp.size, changed: stamp.changed() }))
}

impl Run<'_> {
    /// Whether a file was last written during the run, or just after it.
    fn wrote(&self, stamp: &Stamp) -> bool {
        // The file system's clock is that of the last tick.
        let from = self.started.checked_sub(TICK).unwrap_or(self.started);
        stamp.changed() >= from && self.ended.checked_add(LATE).is_none_or(|until| stamp.changed() <= until)
    }
}

/// `crash-<time>-{server,fml,client}.txt`
fn is_report(name: &[u8]) -> bool {
    let Some(name) = name.strip_prefix(b"crash-").and_then(|name| name.strip_suffix(b".txt")) else {
        return false;
    };
    name.ends_with(b"-server") || name.ends_with(b"-fml") || name.ends_with(b"-client")
}

/// How long after the end a report may still be written.
pub const LATE: Duration = Duration::from_secs(5);
/// Reports that are read.
pub const MAX_REPORTS: usize = 3;
/// Bytes of a report, from its head.
pub const REPORT_BYTES: usize = 512 << 10;
/// Bytes of a fatal error log, from its head.
pub const HS_ERR_BYTES: usize = 64 << 10;
const REPORTS: &str = "crash-reports";
/// Names looked at among the reports.
const MAX_NAMES: usize = 20_000;
const MAX_NOTES: usize = 20;
const TICK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests;
