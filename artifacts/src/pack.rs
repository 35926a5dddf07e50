//! Packing a directory so that the same content gives the same bytes, on any machine.
//!
//! Entries are sorted, times and owners are zero, modes are 0755 or 0644. Whatever
//! [`crate::unpack`] would refuse is refused here, with the path: links that leave the
//! tree, devices, names that are not UTF-8.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header, HeaderMode};
use thiserror::Error;
use zlh_catalog::{MediaType, Sha256};

use crate::beneath::unique;
use crate::hash::HashingWriter;

/// What to pack, and how.
pub struct Pack<'a> {
    /// The directory; it is not itself an entry.
    pub src: &'a Path,
    /// The archive, replaced atomically.
    pub out: &'a Path,
    /// [`MediaType::TarGz`] or [`MediaType::TarZst`].
    pub media_type: MediaType,
    /// 1 to 9 for gzip, 1 to 19 for zstd; `None` takes 6 and 3.
    pub level: Option<u32>,
    /// Says which paths, relative to `src`, to leave out with all that is below. The mark of
    /// an installed tree is always left out.
    pub exclude: &'a dyn Fn(&str) -> bool,
}

/// What the catalog has to say about the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the archive.
    pub size: u64,
    /// Of the archive.
    pub sha256: Sha256,
    /// Files, directories and links.
    pub entries: u64,
}

/// Why a directory could not be packed.
#[derive(Debug, Error)]
pub enum PackError {
    /// The media type is not one that is written.
    #[error("only gzip- and zstd-compressed tar archives can be packed")]
    NotAnArchive,
    /// Something that an archive for installing must not have.
    #[error("cannot pack `{}`: {why}", .path.display())]
    Refused {
        /// What.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// Reading or writing failed.
    #[error("cannot {what} `{}`", .path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Packs a directory. Blocks.
pub fn pack_dir(pack: &Pack<'_>) -> Result<Packed, PackError> {
    let entries = collect(pack)?;
    let name = pack.out.file_name().unwrap_or_default().to_string_lossy();
    let temp = Temp(pack.out.with_file_name(format!(".{name}.{}", unique())));
    let unwritable = |source| PackError::Io { what: "write", path: pack.out.to_owned(), source };
    let file = File::options().write(true).create_new(true).open(&temp.0).map_err(unwritable)?;
    let hashing = HashingWriter::new(BufWriter::new(file));
    let done = match pack.media_type {
        MediaType::TarGz => {
            let level = flate2::Compression::new(pack.level.unwrap_or(6).clamp(1, 9));
            let encoder = flate2::GzBuilder::new().mtime(0).write(hashing, level);
            write(encoder, pack, &entries)?.finish().map_err(unwritable)?
        }
        MediaType::TarZst => {
            let level = i32::try_from(pack.level.unwrap_or(3).clamp(1, 19)).unwrap_or(3);
            let mut encoder = zstd::Encoder::new(hashing, level).map_err(unwritable)?;
            encoder.include_checksum(true).map_err(unwritable)?;
            encoder
                .window_log(MAX_WINDOW_LOG.min(20 + u32::try_from(level / 5).unwrap_or(0)))
                .map_err(unwritable)?;
            write(encoder, pack, &entries)?.finish().map_err(unwritable)?
        }
        MediaType::TarXz | MediaType::Zip | MediaType::File | MediaType::Jar => {
            return Err(PackError::NotAnArchive);
        }
    };
    let (buffered, size, sha256) = done.finish();
    let file = buffered.into_inner().map_err(|error| unwritable(error.into_error()))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(unwritable)?;
    file.sync_all().map_err(unwritable)?;
    std::fs::rename(&temp.0, pack.out).map_err(unwritable)?;
    Ok(Packed { size, sha256, entries: entries.len() as u64 })
}

enum What {
    Dir,
    File { executable: bool },
    Link(String),
}

/// All paths relative to the source, sorted, parents before their content.
fn collect(pack: &Pack<'_>) -> Result<Vec<(String, What)>, PackError> {
    let mut out = Vec::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        let path = pack.src.join(&dir);
        let failed = |source| PackError::Io { what: "read", path: path.clone(), source };
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let refused = |why| PackError::Refused { path: path.clone(), why };
            let name = entry.file_name().into_string().map_err(|_| refused("its name is not UTF-8"))?;
            let rel = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            if rel == crate::store::MARK || rel == crate::store::MANIFEST || (pack.exclude)(&rel) {
                continue;
            }
            let meta = entry.metadata().map_err(failed)?;
            let kind = meta.file_type();
            let what = if kind.is_dir() {
                todo.push(rel.clone());
                What::Dir
            } else if kind.is_file() {
                What::File { executable: meta.permissions().mode() & 0o111 != 0 }
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).map_err(failed)?;
                let target = target.into_os_string().into_string();
                What::Link(target.map_err(|_| refused("its link target is not UTF-8"))?)
            } else {
                return Err(refused("only files, directories and links can be packed"));
            };
            crate::unpack::check_path(&rel).map_err(refused)?;
            out.push((rel, what));
        }
    }
    out.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
    check_links(pack, &out)?;
    Ok(out)
}

/// The links have to lead to something that is packed too.
fn check_links(pack: &Pack<'_>, entries: &[(String, What)]) -> Result<(), PackError> {
    let mut tree = crate::unpack::Tree::default();
    for (rel, what) in entries {
        let added = match what {
            What::Dir => tree.add_dir(rel),
            What::File { .. } => tree.add_file(rel),
            What::Link(target) => tree.add_symlink(rel, target),
        };
        added.map_err(|why| PackError::Refused { path: pack.src.join(rel), why })?;
    }
    for (rel, what) in entries {
        if matches!(what, What::Link(_)) {
            tree.check_link(rel).map_err(|why| PackError::Refused { path: pack.src.join(rel), why })?;
        }
    }
    Ok(())
}

fn write<W: Write>(out: W, pack: &Pack<'_>, entries: &[(String, What)]) -> Result<W, PackError> {
    let mut builder = Builder::new(out);
    builder.mode(HeaderMode::Deterministic);
    for (rel, what) in entries {
        let path = pack.src.join(rel);
        append(&mut builder, rel, what, &path).map_err(|source| PackError::Io {
            what: "pack",
            path: path.clone(),
            source,
        })?;
    }
    builder.into_inner().map_err(|source| PackError::Io { what: "write", path: pack.out.to_owned(), source })
}

fn append<W: Write>(builder: &mut Builder<W>, rel: &str, what: &What, path: &Path) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mode(0o755);
    match what {
        What::Dir => {
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, format!("{rel}/"), io::empty())
        }
        What::File { executable } => {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if *executable { 0o755 } else { 0o644 });
            header.set_size(size);
            // A file that changes while it is packed must not shift what follows it.
            let mut exact = Exact { file, left: size };
            builder.append_data(&mut header, rel, &mut exact)?;
            if exact.left > 0 { Err(io::Error::other("it became shorter meanwhile")) } else { Ok(()) }
        }
        What::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, rel, target)
        }
    }
}

struct Exact {
    file: File,
    left: u64,
}

impl io::Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..want])?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Removed when dropped; after the rename nothing is there any more.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// 8 MiB: what unpacking allows.
const MAX_WINDOW_LOG: u32 = 23;
