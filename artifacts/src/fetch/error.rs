//! What can go wrong with a fetch, and whether trying again can help.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use zlh_catalog::Sha256;

/// Why a file could not be fetched. `path` is the one below the artifact server's URL.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The base URL cannot be used.
    #[error(
        "artifact server `{url}` cannot be used: {why}; set ZLH_ARTIFACTS_URL to an http, https or file URL"
    )]
    BadUrl {
        /// As it was given, without its credentials.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No connection.
    #[error("no connection to the artifact server for `{path}`")]
    Connect {
        /// What was asked for.
        path: String,
        /// Name resolution, TCP or TLS.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke.
    #[error("the transfer of `{path}` broke off")]
    Interrupted {
        /// What was asked for.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came for too long.
    #[error("the artifact server sent nothing of `{path}` for {} s", .after.as_secs_f32())]
    Stalled {
        /// What was asked for.
        path: String,
        /// How long.
        after: Duration,
    },
    /// The body ended early.
    #[error("`{path}` ended after {got} of {expected} bytes")]
    Truncated {
        /// What was asked for.
        path: String,
        /// Size in the catalog.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// The server has a file of another size.
    #[error(
        "`{path}` has {got} bytes or more, the catalog says {expected}: publish the catalog again, or restore the file"
    )]
    SizeMismatch {
        /// What was asked for.
        path: String,
        /// Size in the catalog.
        expected: u64,
        /// Announced or received bytes; at least.
        got: u64,
    },
    /// The server has other bytes.
    #[error(
        "`{path}` has the wrong hash: expected {expected}, got {got}; publish the catalog again, or restore the file"
    )]
    HashMismatch {
        /// What was asked for.
        path: String,
        /// Hash in the catalog.
        expected: Sha256,
        /// Hash of what came.
        got: Sha256,
    },
    /// 404, or no such file.
    #[error("`{path}` is not on the artifact server (404): publish it, or check ZLH_ARTIFACTS_URL")]
    NotFound {
        /// What was asked for.
        path: String,
    },
    /// Another status than 200.
    #[error("the artifact server answered {status} for `{path}`")]
    Http {
        /// What was asked for.
        path: String,
        /// The status code.
        status: u16,
    },
    /// A redirect that is not followed.
    #[error("the redirect of `{path}` to `{to}` is not followed: {why}")]
    Redirect {
        /// What was asked for.
        path: String,
        /// Where it led.
        to: String,
        /// Which rule it broke.
        why: &'static str,
    },
    /// A body that is not the file as it is.
    #[error("the artifact server sends `{path}` with content encoding `{encoding}`: serve files as they are")]
    Encoded {
        /// What was asked for.
        path: String,
        /// The encoding.
        encoding: String,
    },
    /// Larger than the caller reads.
    #[error("`{path}` is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        path: String,
        /// The ceiling.
        limit: u64,
    },
    /// The disk is full.
    #[error("no room in `{}`: {needed} bytes needed, {free} free", .dir.display())]
    NoSpace {
        /// The cache.
        dir: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The cache cannot be used.
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

impl FetchError {
    /// Whether the next attempt may end differently.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Interrupted { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. } => true,
            Self::Http { status, .. } => *status >= 500,
            _ => false,
        }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }
}
