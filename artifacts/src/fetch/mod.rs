//! Fetching: streamed into the cache, hashed on the way, visible only when it is right.
//!
//! ```text
//! find in the cache ─► else lock the part ─► for each server in turn: ask from where the
//!                      (one fetches, others    part ends, write, hash ─► publish
//!                       wait and then find)
//! ```
//!
//! One byte more than the catalog says ends a transfer. Stalls, broken connections and 5xx
//! are tried again with growing, jittered pauses, as long as bytes come and three times
//! when none do; an answer that is wrong sends us to the next server. Dropping the future
//! of a fetch is its cancellation; the part stays for the next one.

mod cache;
mod error;
mod one;
mod part;
mod pin;
mod source;
mod transfer;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::spawn_blocking;
use zlh_catalog::{Artifact, RelPath};

use cache::Cache;
use part::Part;
use source::Source;

pub use cache::CacheWarning;
pub use error::{FetchError, Refusal};
pub use one::OneServer;
pub use pin::Pin;
pub use source::{S3Access, SystemResolver};

/// A client of one artifact server and its mirrors, with a cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    servers: Arc<[Server]>,
    cache: Arc<Cache>,
    tuning: Tuning,
}

/// Where files come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Servers {
    /// `http://…`, `https://…`, `file:///…`, or `s3+https://host/bucket/prefix`; asked in
    /// this order.
    pub urls: Vec<String>,
    /// For the buckets among them.
    pub s3: Option<S3Access>,
}

#[derive(Debug)]
struct Server {
    source: Arc<dyn Source>,
    /// It sent something wrong, or nothing: asked last from then on.
    demoted: AtomicBool,
}

/// Times and sizes; the default is right outside tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Longest time to connect.
    pub connect: Duration,
    /// Longest time without a single byte. There is no limit in total.
    pub stall: Duration,
    /// Bytes per second; what is slower for the time of a stall is one.
    pub min_rate: u32,
    /// Attempts after the first that bring nothing.
    pub retries: u32,
    /// Pause before the first retry; doubles each time, plus up to as much again.
    pub pause: Duration,
    /// Bytes the cache may hold.
    pub cache_budget: u64,
}

/// A verified file.
#[derive(Debug)]
pub struct Fetched {
    /// In the cache, read-only. To be copied, never to be changed.
    pub path: PathBuf,
    /// Whether nothing had to be transferred.
    pub from_cache: bool,
    /// A damaged copy that was replaced.
    pub warning: Option<CacheWarning>,
    /// Servers that were asked in vain.
    pub refused: Vec<Refusal>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            min_rate: 4096,
            retries: 3,
            pause: Duration::from_millis(500),
            cache_budget: 8 << 30,
        }
    }
}

impl Fetcher {
    /// One server; `cache_dir` is created. Blocks for a moment: it reads the cache directory.
    pub fn new(base_url: &str, cache_dir: PathBuf) -> Result<Self, FetchError> {
        Self::with_tuning(base_url, cache_dir, Tuning::default())
    }

    /// The same with other times.
    pub fn with_tuning(base_url: &str, cache_dir: PathBuf, tuning: Tuning) -> Result<Self, FetchError> {
        Self::of(&Servers { urls: vec![base_url.to_owned()], s3: None }, cache_dir, tuning)
    }

    /// A server and its mirrors. Blocks, as [`Fetcher::new`] does.
    pub fn of(servers: &Servers, cache_dir: PathBuf, tuning: Tuning) -> Result<Self, FetchError> {
        let made = servers.urls.iter().map(|url| {
            let source = source::source(url, servers.s3.as_ref(), &tuning)?;
            Ok(Server { source, demoted: AtomicBool::new(false) })
        });
        let servers = made.collect::<Result<Arc<[Server]>, FetchError>>()?;
        if servers.is_empty() {
            return Err(FetchError::BadUrl { url: String::new(), why: "none is given" });
        }
        Ok(Self { servers, cache: Arc::new(Cache::open(cache_dir, tuning.cache_budget)?), tuning })
    }

    /// Brings a file into the cache, or finds it there. Of several that ask for the same
    /// file, in any process, one fetches it and the others wait. `progress` gets the bytes
    /// so far; it starts over when another server begins anew.
    pub async fn fetch(
        &self,
        artifact: &Artifact,
        progress: impl Fn(u64) + Send,
    ) -> Result<Fetched, FetchError> {
        let mut warning = None;
        let mut part = loop {
            let (cache, wanted) = (Arc::clone(&self.cache), artifact.clone());
            match blocking(move || cache.find(&wanted)).await? {
                Ok(path) => {
                    progress(artifact.size);
                    return Ok(Fetched { path, from_cache: true, warning, refused: Vec::new() });
                }
                Err(damaged) => warning = damaged.or(warning),
            }
            let (cache, wanted) = (Arc::clone(&self.cache), artifact.clone());
            // Found missing and then locked, it may have been published in between.
            let begun = blocking(move || {
                Ok(match cache.begin(&wanted)? {
                    Ok(part) => match cache.find(&wanted)? {
                        Ok(path) => Begun::There(path),
                        Err(_) => Begun::Ours(part),
                    },
                    Err(bytes) => Begun::Theirs(bytes),
                })
            });
            match begun.await? {
                Begun::Ours(part) => break part,
                Begun::There(path) => {
                    progress(artifact.size);
                    return Ok(Fetched { path, from_cache: true, warning, refused: Vec::new() });
                }
                Begun::Theirs(bytes) => {
                    if bytes > 0 {
                        progress(bytes.min(artifact.size));
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        };
        let mut refused = Vec::new();
        for server in self.in_order() {
            match self.fill(server, &mut part, artifact, &progress).await {
                Ok(()) => {
                    let path = transfer::publish(&self.cache, part, artifact.sha256).await?;
                    return Ok(Fetched { path, from_cache: false, warning, refused });
                }
                Err(error) if error.is_local() => return Err(error),
                Err(error) => {
                    if error.is_wrong_content() {
                        server.demoted.store(true, Ordering::Relaxed);
                    }
                    refused.push(Refusal { server: server.source.name().to_owned(), error });
                }
            }
        }
        Err(FetchError::of_all(artifact.path.as_str(), refused))
    }

    /// A small unpinned file, such as the catalog and its signature, into memory.
    pub async fn get_small(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>, FetchError> {
        let mut refused = Vec::new();
        for server in self.in_order() {
            match one::small(server, path, limit, &self.tuning, false).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => refused.push(Refusal { server: server.source.name().to_owned(), error }),
            }
        }
        Err(FetchError::of_all(path.as_str(), refused))
    }

    /// Those that sent nothing wrong first.
    fn in_order(&self) -> impl Iterator<Item = &Server> {
        let demoted = |server: &&Server| server.demoted.load(Ordering::Relaxed);
        let good = self.servers.iter().filter(move |server| !demoted(server));
        good.chain(self.servers.iter().filter(demoted)).collect::<Vec<_>>().into_iter()
    }

    /// Attempts with one server, as long as they bring something, and a few that do not.
    async fn fill(
        &self,
        server: &Server,
        part: &mut Part,
        artifact: &Artifact,
        progress: &(impl Fn(u64) + Send),
    ) -> Result<(), FetchError> {
        let mut patience = Patience::new(&self.tuning);
        loop {
            let before = part.len();
            let done = transfer::transfer(&*server.source, part, artifact, &self.cache, progress).await;
            let Err(error) = done else { return Ok(()) };
            if !error.is_transient() {
                return Err(error);
            }
            if part.len() >= before + part::WORTH_BYTES {
                patience = Patience::new(&self.tuning);
            }
            patience.wait(error).await?;
        }
    }
}

/// An HTTP client as the fetchers have one, for other servers: the system's authorities, no
/// proxy, and no redirect followed unasked.
pub fn http_client() -> Result<reqwest::Client, FetchError> {
    source::http_client(&Tuning::default())
}

/// What came of asking for a part.
enum Begun {
    Ours(Part),
    Theirs(u64),
    There(PathBuf),
}

/// How often, and after which pauses, something is tried again.
struct Patience {
    left: u32,
    pause: Duration,
}

impl Patience {
    fn new(tuning: &Tuning) -> Self {
        Self { left: tuning.retries, pause: tuning.pause }
    }

    /// Pauses before the next attempt, or gives the error back when there is none.
    async fn wait(&mut self, error: FetchError) -> Result<(), FetchError> {
        self.left = self.left.checked_sub(1).ok_or(error)?;
        tokio::time::sleep(jittered(self.pause)).await;
        self.pause *= 2;
        Ok(())
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

/// At what somebody else is fetching.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
