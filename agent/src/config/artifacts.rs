//! `[artifacts]`: mirrors, the cache, the channel, and what is put up with.

use std::fmt;

use zlh_artifacts::S3Access;
use zlh_catalog::{Id, STABLE};

use super::file::ArtifactsTable;
use super::{ConfigError, Environment, base_url, invalid};

/// Where artifacts come from, beside `artifacts_url`. `Debug` and `Display` show no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArtifactsConfig {
    /// Asked in this order when the artifact server fails.
    pub mirrors: Vec<String>,
    /// Bytes that fetched files may take.
    pub cache_bytes: u64,
    /// The channel that decides what "newest" is.
    pub channel: String,
    /// Whether a catalog without a signature is put up with, as long as there is no key.
    pub allow_unsigned: bool,
    /// Whether, without a key, a list without hashes will do: what comes first is pinned.
    pub allow_unpinned: bool,
    /// For buckets.
    pub s3: Option<S3Access>,
}

impl Default for ArtifactsConfig {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            cache_bytes: DEFAULT_CACHE_MB << 20,
            channel: STABLE.to_owned(),
            allow_unsigned: false,
            allow_unpinned: false,
            s3: None,
        }
    }
}

impl ArtifactsConfig {
    pub(super) fn of(table: &ArtifactsTable, environment: &Environment) -> Result<Self, ConfigError> {
        let mirrors =
            table.mirrors.iter().map(|url| base_url("artifacts.mirrors", url)).collect::<Result<_, _>>()?;
        let cache_mb = match table.cache_mb {
            None => DEFAULT_CACHE_MB,
            Some(mb @ 64..=1_048_576) => mb,
            Some(mb) => {
                return Err(invalid("artifacts.cache_mb", format!("= {mb} is not 64 to 1048576 MiB")));
            }
        };
        let channel = table.channel.clone().unwrap_or_else(|| STABLE.to_owned());
        Id::new(&channel).map_err(|error| invalid("artifacts.channel", format!("is no channel: {error}")))?;
        let s3 = match (&environment.s3_key, &environment.s3_secret) {
            (Some(key), Some(secret)) => Some(S3Access {
                key: key.clone(),
                secret: secret.clone(),
                region: environment.s3_region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            }),
            (None, None) => None,
            _ => {
                return Err(invalid(
                    "AWS_ACCESS_KEY_ID",
                    "and AWS_SECRET_ACCESS_KEY belong together: set both",
                ));
            }
        };
        Ok(Self {
            mirrors,
            cache_bytes: cache_mb << 20,
            channel,
            allow_unsigned: table.allow_unsigned.unwrap_or(false),
            allow_unpinned: table.allow_unpinned.unwrap_or(false),
            s3,
        })
    }
}

impl fmt::Display for ArtifactsConfig {
    /// As the table of a configuration file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[artifacts]\nmirrors = {:?}\ncache_mb = {}", self.mirrors, self.cache_bytes >> 20)?;
        writeln!(f, "channel = {:?}\nallow_unsigned = {}", self.channel, self.allow_unsigned)?;
        writeln!(f, "allow_unpinned = {}", self.allow_unpinned)
    }
}

/// Files that were fetched, MiB.
const DEFAULT_CACHE_MB: u64 = 8192;
/// What R2 calls its only one.
const DEFAULT_REGION: &str = "auto";
