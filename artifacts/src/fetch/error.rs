//! What can go wrong with a fetch, and whether trying again can help.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use zlh_catalog::Sha256;

/// A server that was asked in vain.
#[derive(Debug, Error)]
#[error("{server}: {error}")]
pub struct Refusal {
    /// Its URL.
    pub server: String,
    /// What came of it.
    pub error: FetchError,
}

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
    /// A file that nobody pins, of which nobody says how long it is, or which is empty.
    #[error(
        "`{path}` is pinned by no catalog, and the artifact server does not say how long it is: whether it came whole could not be told"
    )]
    NoLength {
        /// What was asked for.
        path: String,
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
    /// A range that is not the one that was asked for. The next attempt asks for the whole.
    #[error("the artifact server answered a request for the rest of `{path}` with {got}")]
    Range {
        /// What was asked for.
        path: String,
        /// Its `Content-Range`, or the status.
        got: String,
    },
    /// The whole is wrong, of which a part was here before. The next attempt begins anew.
    #[error("what was fetched of `{path}` before does not fit to the rest")]
    Resumed {
        /// What was asked for.
        path: String,
        /// What the whole is.
        #[source]
        source: Box<FetchError>,
    },
    /// Neither the server nor a mirror has it.
    #[error("`{path}` could not be fetched from any of {} servers: {}", .refused.len(), Refusals(.refused))]
    All {
        /// What was asked for.
        path: String,
        /// Each of them and why.
        refused: Vec<Refusal>,
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
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Interrupted { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::Range { .. }
            | Self::Resumed { .. } => true,
            Self::Http { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }

    /// Whether no other server could help.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::Io { .. } | Self::Client(_))
    }

    /// Whether the server, or one of several, has other bytes than the catalog says.
    pub fn is_wrong_content(&self) -> bool {
        match self {
            Self::HashMismatch { .. } | Self::SizeMismatch { .. } | Self::Encoded { .. } => true,
            Self::All { refused, .. } => refused.iter().any(|one| one.error.is_wrong_content()),
            _ => false,
        }
    }

    /// Of one server its error; of several all of them.
    pub(crate) fn of_all(path: &str, mut refused: Vec<Refusal>) -> Self {
        match refused.len() {
            1 => refused.swap_remove(0).error,
            _ => Self::All { path: path.to_owned(), refused },
        }
    }

    /// Whether every server that was asked says that there is no such file.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::All { refused, .. } => refused.iter().all(|one| one.error.is_not_found()),
            _ => false,
        }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }
}

struct Refusals<'a>(&'a [Refusal]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, refusal) in self.0.iter().enumerate() {
            write!(f, "{}{refusal}", if at > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}
