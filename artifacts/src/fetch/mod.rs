//! Fetching: streamed into the cache, hashed on the way, visible only when it is right.
//!
//! One byte more than the catalog says ends a transfer. Stalls, broken connections and 5xx
//! are tried again (three times, with growing, jittered pauses); an answer that is wrong is
//! final. Dropping the future of a fetch is its cancellation: the partial file goes with it.

mod cache;
mod dns;
mod error;
mod source;
mod tls;

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use zlh_catalog::{Artifact, RelPath};

use crate::hash::HashingWriter;
use cache::{Cache, Part};
use source::Source;

pub use cache::CacheWarning;
pub use dns::SystemResolver;
pub use error::FetchError;

/// A client of one artifact server, with a cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    source: Arc<Source>,
    cache: Arc<Cache>,
    tuning: Tuning,
}

/// Times; the default is right outside tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Longest time to connect.
    pub connect: Duration,
    /// Longest time without a single byte. There is no limit in total.
    pub stall: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// Pause before the first retry; doubles each time, plus up to as much again.
    pub pause: Duration,
}

/// A verified file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// In the cache, read-only. To be copied, never to be changed.
    pub path: PathBuf,
    /// Whether nothing had to be transferred.
    pub from_cache: bool,
    /// A damaged copy that was replaced.
    pub warning: Option<CacheWarning>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            retries: 3,
            pause: Duration::from_millis(500),
        }
    }
}

impl Fetcher {
    /// `base_url` is `http://…`, `https://…` or `file:///…`; `cache_dir` is created. Blocks
    /// for a moment: it reads the cache directory.
    pub fn new(base_url: &str, cache_dir: PathBuf) -> Result<Self, FetchError> {
        Self::with_tuning(base_url, cache_dir, Tuning::default())
    }

    /// The same with other times.
    pub fn with_tuning(base_url: &str, cache_dir: PathBuf, tuning: Tuning) -> Result<Self, FetchError> {
        let source = Arc::new(Source::new(base_url, &tuning)?);
        Ok(Self { source, cache: Arc::new(Cache::open(cache_dir)?), tuning })
    }

    /// Brings a file into the cache, or finds it there. `progress` gets the bytes so far
    /// and starts over with each attempt.
    pub async fn fetch(
        &self,
        artifact: &Artifact,
        progress: impl Fn(u64) + Send,
    ) -> Result<Fetched, FetchError> {
        let (cache, wanted) = (Arc::clone(&self.cache), artifact.clone());
        let warning = match blocking(move || cache.find(&wanted)).await? {
            Ok(path) => {
                progress(artifact.size);
                return Ok(Fetched { path, from_cache: true, warning: None });
            }
            Err(warning) => warning,
        };
        let path = self.persist(|| self.attempt(artifact, &progress)).await?;
        Ok(Fetched { path, from_cache: false, warning })
    }

    /// A small unpinned file, such as the catalog and its signature, into memory.
    pub async fn get_small(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, FetchError> {
        self.persist(|| async {
            let too_large = || FetchError::TooLarge { path: path.to_string(), limit };
            let mut body = self.source.open(path).await?;
            let announced = body.length();
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
        })
        .await
    }

    /// Runs attempts until one ends for good.
    async fn persist<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, FetchError>>,
    {
        let mut pause = self.tuning.pause;
        for _ in 0..self.tuning.retries {
            match attempt().await {
                Err(error) if error.is_transient() => tokio::time::sleep(jittered(pause)).await,
                done => return done,
            }
            pause *= 2;
        }
        attempt().await
    }

    async fn attempt(
        &self,
        artifact: &Artifact,
        progress: &(impl Fn(u64) + Send),
    ) -> Result<PathBuf, FetchError> {
        let path = || artifact.path.to_string();
        let expected = artifact.size;
        let mut body = self.source.open(&artifact.path).await?;
        if let Some(got) = body.length().filter(|length| *length != expected) {
            return Err(FetchError::SizeMismatch { path: path(), expected, got });
        }
        let (cache, wanted) = (Arc::clone(&self.cache), artifact.clone());
        let part = blocking(move || cache.begin(&wanted)).await?;
        let mut transfer = Transfer::new(&part).map_err(|error| self.cache.io_error(expected, error))?;
        let mut got = 0;
        while let Some(chunk) = body.chunk().await? {
            got += chunk.len() as u64;
            if got > expected {
                return Err(FetchError::SizeMismatch { path: path(), expected, got });
            }
            transfer = transfer.write(chunk).await.map_err(|error| self.cache.io_error(expected, error))?;
            progress(got);
        }
        if got < expected {
            return Err(FetchError::Truncated { path: path(), expected, got });
        }
        let got = transfer.finish().await.map_err(|error| self.cache.io_error(expected, error))?;
        if got != artifact.sha256 {
            return Err(FetchError::HashMismatch { path: path(), expected: artifact.sha256, got });
        }
        self.publish(part, artifact).await
    }

    async fn publish(&self, part: Part, artifact: &Artifact) -> Result<PathBuf, FetchError> {
        let (cache, sha256) = (Arc::clone(&self.cache), artifact.sha256);
        blocking(move || cache.publish(part, &sha256)).await
    }
}

/// An HTTP client as the fetchers have one, for other servers: the system's authorities, no
/// proxy, and no redirect followed unasked.
pub fn http_client() -> Result<reqwest::Client, FetchError> {
    source::client(true, &Tuning::default())
}

/// Collects chunks and writes and hashes them, 1 MiB at a time, off the async threads.
struct Transfer {
    writer: HashingWriter<File>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
}

impl Transfer {
    fn new(part: &Part) -> std::io::Result<Self> {
        Ok(Self { writer: HashingWriter::new(part.writer()?), pending: Vec::new(), pending_bytes: 0 })
    }

    async fn write(mut self, chunk: Bytes) -> std::io::Result<Self> {
        self.pending_bytes += chunk.len();
        self.pending.push(chunk);
        if self.pending_bytes < WRITE_BYTES { Ok(self) } else { self.flush().await }
    }

    async fn flush(mut self) -> std::io::Result<Self> {
        let written = spawn_blocking(move || {
            for chunk in self.pending.drain(..) {
                self.writer.write_all(&chunk)?;
            }
            self.pending_bytes = 0;
            Ok(self)
        });
        written.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    async fn finish(self) -> std::io::Result<zlh_catalog::Sha256> {
        let (_, _, sha256) = self.flush().await?.writer.finish();
        Ok(sha256)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(FetchError::Client(error.into())))
}

/// Between one and two times `pause`, so that a fleet does not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    pause + pause.mul_f64(f64::from(u16::try_from(random % 1000).unwrap_or(0)) / 1000.0)
}

const WRITE_BYTES: usize = 1 << 20;
