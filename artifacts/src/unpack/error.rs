//! Why an archive was refused.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use zlh_catalog::Shown;

/// Why an archive could not be unpacked. What was written so far is debris for the caller
/// to remove.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// One entry is not what a release archive contains. Nothing is repaired or skipped.
    #[error("archive entry {} is refused: {why}", Shown(.entry))]
    Refused {
        /// Path of the entry, as far as it could be read.
        entry: String,
        /// Which rule it breaks.
        why: String,
    },
    /// The archive itself is damaged or not of its type.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// Larger than anything that is installed.
    #[error("the archive exceeds a limit: {0}")]
    Limit(String),
    /// The media type is not an archive.
    #[error("`{}` is not an archive by its media type", .0.display())]
    NotAnArchive(PathBuf),
    /// The archive could not be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk is full.
    #[error("no room in `{}`: at least {needed} more bytes needed, {free} free", .dir.display())]
    NoSpace {
        /// Where it was unpacked to.
        dir: PathBuf,
        /// Bytes of the entry that did not fit.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// An entry could not be written.
    #[error("cannot write {}", Shown(.entry))]
    Write {
        /// Path of the entry.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The caller said so.
    #[error("unpacking was cancelled")]
    Cancelled,
}

impl UnpackError {
    pub(crate) fn refused(entry: &str, why: impl Into<String>) -> Self {
        Self::Refused { entry: entry.to_owned(), why: why.into() }
    }
}
