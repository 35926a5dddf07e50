//! A file that no catalog pins: what it is at first sight.
//!
//! Fetched whole from one server, never gone on with: there is no hash that would tell
//! whether two halves belong together. For the same reason its length has to be announced: an
//! end that came too early would look like any other. Who asks has to remember the answer, and to fetch by
//! it from then on.

use std::sync::Arc;

use zlh_catalog::{Artifact, Id, MediaType, RelPath, Sha256};

use super::part::Part;
use super::transfer::{Piece, publish};
use super::{FetchError, Fetcher, LOOK_AGAIN, Patience, Refusal, Server, blocking};
use crate::hash::hash_bytes;

/// Size and hash of a file, and that file is in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// Bytes.
    pub size: u64,
    /// Of the whole file.
    pub sha256: Sha256,
}

impl Fetcher {
    /// Brings a file of at most `limit` bytes into the cache, whatever it is. `progress` gets
    /// the bytes so far, and how many there will be.
    pub async fn pin(
        &self,
        path: &RelPath,
        limit: u64,
        progress: impl Fn(u64, u64) + Send,
    ) -> Result<Pin, FetchError> {
        let mut refused = Vec::new();
        for server in self.in_order() {
            let mut patience = Patience::new(&self.tuning);
            let error = loop {
                match self.see(server, path, limit, &progress).await {
                    Ok(pin) => return Ok(pin),
                    Err(error) if error.is_local() => return Err(error),
                    Err(error) if error.is_transient() => {
                        if let Err(error) = patience.wait(error).await {
                            break error;
                        }
                    }
                    Err(error) => break error,
                }
            };
            refused.push(Refusal { server: server.source.name().to_owned(), error });
        }
        Err(FetchError::of_all(path.as_str(), refused))
    }

    async fn see(
        &self,
        server: &Server,
        path: &RelPath,
        limit: u64,
        progress: &(impl Fn(u64, u64) + Send),
    ) -> Result<Pin, FetchError> {
        let mut part = self.nameless(path).await?;
        let mut body = server.source.open(path, None).await?;
        let announced = match body.length {
            Some(length) if length > limit => {
                return Err(FetchError::TooLarge { path: path.to_string(), limit });
            }
            Some(length @ 1..) => length,
            _ => return Err(FetchError::NoLength { path: path.to_string() }),
        };
        let cache = Arc::clone(&self.cache);
        part = blocking(move || cache.reserve(&part, announced, &Sha256::from_bytes([0; 32])).map(|()| part))
            .await?;
        let disk = |error| self.cache.io_error(announced, error);
        let mut piece = Piece::new(part.writer(0).map_err(disk)?);
        let mut got = 0;
        while let Some(chunk) = body.chunk().await? {
            got += chunk.len() as u64;
            if got > announced {
                break;
            }
            piece = piece.push(chunk).await.map_err(disk)?;
            progress(got, announced);
        }
        if got != announced {
            return Err(FetchError::Truncated { path: path.to_string(), expected: announced, got });
        }
        let sha256 = piece.flush().await.map_err(disk)?.hash();
        publish(&self.cache, part, sha256).await?;
        Ok(Pin { size: got, sha256 })
    }

    /// A part of this path, which only one writes at a time. Dropped early, nothing is left.
    async fn nameless(&self, path: &RelPath) -> Result<Part, FetchError> {
        let artifact = Artifact {
            name: Id::new("unpinned").unwrap_or_else(|_| unreachable!("a literal id")),
            path: path.clone(),
            size: 0,
            sha256: hash_bytes(format!("unpinned {path}").as_bytes()),
            media_type: MediaType::File,
            tree_sha256: None,
        };
        loop {
            let (cache, wanted) = (Arc::clone(&self.cache), artifact.clone());
            let begun = blocking(move || {
                let begun = cache.begin(&wanted)?;
                Ok(begun.ok().map(|mut part| part.clear().map(|()| part)))
            });
            match begun.await? {
                Some(part) => return part.map_err(|error| self.cache.io_error(0, error)),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}
