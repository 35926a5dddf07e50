//! Unpacking a verified archive into a private directory.
//!
//! ```text
//! tar.gz, tar.zst, tar.xz ──Decoder──► Ahead ──TarReader──┐
//!                          (a thread)                     ├─► Unpacker ──► directory
//! zip ──────────────────────────────────────ZipReader─────┘   (the policy, as nobody)
//! ```
//!
//! Reject, do not repair: one entry that a release archive has no business to contain fails
//! the whole, and the caller removes the directory. Owners and times are ignored; modes are
//! 0755 for directories and executables, 0644 for the rest; symbolic links that stay inside
//! are made last, so that nothing is ever written through one.

mod ahead;
mod decode;
mod entry;
mod error;
mod header;
mod limits;
mod pax;
mod reader;
mod tree;
mod unpacker;
mod unprivileged;
mod zip;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use zlh_catalog::MediaType;

use crate::beneath::Beneath;
use decode::{Decoder, Meter};
use reader::TarReader;
use unpacker::Unpacker;
use zip::ZipReader;

pub(crate) use tree::{Tree, check_path};

pub use error::UnpackError;
pub use limits::Limits;

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, directories and links named in the archive.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Is told the bytes of the archive that were read, and can end the work. Where we are root it
/// is called by a thread that is not.
pub type Progress<'a> = dyn FnMut(u64) -> ControlFlow<()> + Send + 'a;

/// Unpacks `archive` into `dest`, an existing empty directory that nobody else can reach,
/// with `strip_components` leading components less. Size and hash of the archive must have
/// been checked. Blocks. What is written is written by an unprivileged user and belongs to
/// `dest`'s owner in the end.
pub fn unpack(
    archive: &Path,
    media_type: MediaType,
    dest: &Path,
    strip_components: u8,
    limits: &Limits,
    progress: &mut Progress<'_>,
) -> Result<Unpacked, UnpackError> {
    let unreadable = |source| UnpackError::Read { path: archive.to_owned(), source };
    if !media_type.is_archive() {
        return Err(UnpackError::NotAnArchive(archive.to_owned()));
    }
    let file = File::open(archive).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let written = |source| UnpackError::Write { entry: String::new(), source };
    let root = Beneath::open(dest).map_err(written)?;
    let own = root.dir("").map_err(written)?;
    let work = || {
        let (meter, budget) = (Meter::default(), limits.budget(size));
        let unpacker = Unpacker::new(root, dest, limits, strip_components, &meter, progress);
        if media_type == MediaType::Zip {
            return unpacker.run(&mut ZipReader::open(&file, size, budget, limits.entries, &meter)?);
        }
        let decoder = Decoder::new(file, media_type, &meter)
            .map_err(unreadable)?
            .ok_or_else(|| UnpackError::NotAnArchive(archive.to_owned()))?;
        ahead::decode_ahead(decoder, &meter, |data| unpacker.run(&mut TarReader::new(data, budget)))
            .map_err(unreadable)?
    };
    unprivileged::confined(own, work).map_err(written)?
}
