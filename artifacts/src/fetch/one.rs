//! One server of several: for small files that belong together, such as a catalog and its
//! signature. Of two servers each file may be right, and the two of different days.

use std::sync::atomic::Ordering;

use zlh_catalog::RelPath;

use super::source::Source;
use super::{FetchError, Fetcher, Patience, Server, Tuning};

/// One of the servers of a [`Fetcher`].
#[derive(Debug, Clone, Copy)]
pub struct OneServer<'f> {
    server: &'f Server,
    tuning: &'f Tuning,
    hurried: bool,
}

impl Fetcher {
    /// Its servers, in the order in which they are asked.
    pub fn servers(&self) -> Vec<OneServer<'_>> {
        let one = |server| OneServer { server, tuning: &self.tuning, hurried: false };
        self.in_order().map(one).collect()
    }
}

impl<'f> OneServer<'f> {
    /// Its URL, without credentials.
    pub fn name(&self) -> &'f str {
        self.server.source.name()
    }

    /// The same server, but one that does not answer is not asked again: somebody else may.
    #[must_use]
    pub fn hurried(self) -> Self {
        Self { hurried: true, ..self }
    }

    /// A small unpinned file into memory.
    pub async fn get_small(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, FetchError> {
        small(self.server, path, limit, self.tuning, self.hurried).await
    }

    /// The same of a file that need not be there.
    pub async fn get_if_there(&self, path: &RelPath, limit: u64) -> Result<Option<Vec<u8>>, FetchError> {
        match self.get_small(path, limit).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(FetchError::NotFound { .. }) => Ok(None),
            Err(FetchError::Http { status: 403, .. }) if self.server.source.hides_what_is_missing() => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Has this fetcher ask it last from now on.
    pub fn demote(&self) {
        self.server.demoted.store(true, Ordering::Relaxed);
    }
}

pub(super) async fn small(
    server: &Server,
    path: &RelPath,
    limit: u64,
    tuning: &Tuning,
    hurried: bool,
) -> Result<Vec<u8>, FetchError> {
    let mut patience = Patience::new(tuning);
    loop {
        match read_small(&*server.source, path, limit).await {
            Err(error @ (FetchError::Connect { .. } | FetchError::Stalled { .. })) if hurried => {
                return Err(error);
            }
            Err(error) if error.is_transient() => patience.wait(error).await?,
            done => return done,
        }
    }
}

async fn read_small(source: &dyn Source, path: &RelPath, limit: u64) -> Result<Vec<u8>, FetchError> {
    let too_large = || FetchError::TooLarge { path: path.to_string(), limit };
    let mut body = source.open(path, None).await?;
    let announced = body.length;
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut out = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        if out.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_large());
        }
        out.extend_from_slice(&chunk);
    }
    match announced {
        Some(expected) if expected != out.len() as u64 => {
            Err(FetchError::Truncated { path: path.to_string(), expected, got: out.len() as u64 })
        }
        _ => Ok(out),
    }
}
