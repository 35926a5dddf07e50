//! One attempt: from a server into a part, from where the part ends.

use std::fs::File;
use std::io::{self, Write};

use bytes::Bytes;
use tokio::task::spawn_blocking;
use zlh_catalog::{Artifact, Sha256};

use super::cache::Cache;
use super::part::Part;
use super::source::Source;
use super::{FetchError, blocking};
use crate::hash::HashingWriter;

/// Fills the part with the whole file; it is right when this returns well. After an error
/// the part has what is worth to be gone on with.
pub(super) async fn transfer(
    source: &dyn Source,
    part: &mut Part,
    artifact: &Artifact,
    cache: &Cache,
    progress: &(impl Fn(u64) + Send),
) -> Result<(), FetchError> {
    let path = || artifact.path.to_string();
    let expected = artifact.size;
    let disk = |error| cache.io_error(expected, error);
    if part.len() >= expected {
        // All of it is here, from a process that did not come to publish it.
        let writer = part.writer(expected).map_err(disk)?;
        let (_, _, got) = writer.finish();
        if got == artifact.sha256 {
            return Ok(());
        }
        part.clear().map_err(disk)?;
    }
    let from = part.resume(source.name(), expected);
    let mut body = match source.open(&artifact.path, from.as_ref()).await {
        Err(error @ FetchError::Range { .. }) => {
            part.clear().map_err(disk)?;
            return Err(error);
        }
        opened => opened?,
    };
    if let Some(got) = body.length.map(|length| length.saturating_add(body.begins))
        && got != expected
    {
        part.clear().map_err(disk)?;
        return Err(FetchError::SizeMismatch { path: path(), expected, got });
    }
    part.note(source.name(), body.tag.as_deref());
    let begins = body.begins;
    let writer = part.writer(begins).map_err(disk)?;
    let mut piece = Piece::new(writer);
    let mut got = begins;
    loop {
        let chunk = match body.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) if got < expected => {
                piece.flush().await.map_err(disk)?;
                part.wrote(got);
                return Err(FetchError::Truncated { path: path(), expected, got });
            }
            Ok(None) => break,
            Err(error) => {
                // What came is kept: a connection that always breaks still arrives.
                piece.flush().await.map_err(disk)?;
                part.wrote(got);
                return Err(error);
            }
        };
        got += chunk.len() as u64;
        if got > expected {
            part.clear().map_err(disk)?;
            return Err(FetchError::SizeMismatch { path: path(), expected, got });
        }
        let pushed = piece.push(chunk).await;
        piece = pushed.map_err(|error| {
            let _ = part.clear();
            disk(error)
        })?;
        part.wrote(got - piece.pending_bytes as u64);
        progress(got);
    }
    let hash = piece.flush().await.map_err(disk)?.hash();
    part.wrote(got);
    if hash == artifact.sha256 {
        return Ok(());
    }
    part.clear().map_err(disk)?;
    let error = FetchError::HashMismatch { path: path(), expected: artifact.sha256, got: hash };
    // The bytes that were here before may have been the wrong ones.
    Err(if begins > 0 { FetchError::Resumed { path: path(), source: Box::new(error) } } else { error })
}

/// Collects chunks and writes and hashes them, 1 MiB at a time, off the async threads.
pub(super) struct Piece {
    writer: HashingWriter<File>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
}

impl Piece {
    pub(super) fn new(writer: HashingWriter<File>) -> Self {
        Self { writer, pending: Vec::new(), pending_bytes: 0 }
    }

    pub(super) async fn push(mut self, chunk: Bytes) -> io::Result<Self> {
        self.pending_bytes += chunk.len();
        self.pending.push(chunk);
        if self.pending_bytes < WRITE_BYTES { Ok(self) } else { self.flush().await }
    }

    pub(super) async fn flush(mut self) -> io::Result<Self> {
        let written = spawn_blocking(move || {
            for chunk in self.pending.drain(..) {
                self.writer.write_all(&chunk)?;
            }
            self.pending_bytes = 0;
            Ok(self)
        });
        written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    pub(super) fn hash(self) -> Sha256 {
        self.writer.finish().2
    }
}

/// Makes a verified part durable and visible.
pub(super) async fn publish(
    cache: &std::sync::Arc<Cache>,
    part: Part,
    sha256: Sha256,
) -> Result<std::path::PathBuf, FetchError> {
    let cache = std::sync::Arc::clone(cache);
    blocking(move || cache.publish(part, &sha256)).await
}

const WRITE_BYTES: usize = 1 << 20;
