//! What every archive format says about an entry, and how its content is read.

use std::io::{self, Write};

use super::UnpackError;

/// One entry, its names checked for form but not for meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) mode: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File { size: u64 },
    Dir,
    Symlink { target: String },
    Hardlink { target: String },
}

/// A format's own rules end here; what an entry may do is the [`Unpacker`]'s to say.
///
/// [`Unpacker`]: super::unpacker::Unpacker
pub(crate) trait Entries {
    /// The next entry; `None` after a proper end of the archive.
    fn next(&mut self) -> Result<Option<Entry>, UnpackError>;

    /// Copies the next piece of the content of the entry that [`Entries::next`] returned
    /// last, and says whether there is more.
    fn copy(&mut self, out: &mut dyn Write, buffer: &mut [u8]) -> Result<bool, CopyError>;
}

/// Whose fault a failed copy was.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(UnpackError),
    Write(io::Error),
}

/// A name has to be UTF-8.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, UnpackError> {
    String::from_utf8(bytes).map_err(|error| {
        UnpackError::refused(&String::from_utf8_lossy(error.as_bytes()), "its name is not UTF-8")
    })
}
