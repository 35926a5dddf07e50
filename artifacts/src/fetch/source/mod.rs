//! Where files come from: an HTTP server, an S3-compatible bucket, or a directory.

mod dir;
mod dns;
mod http;
mod s3;
mod tls;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Url;
use zlh_catalog::RelPath;

use super::{FetchError, Tuning};
use dir::Dir;
use http::Http;
use s3::S3;

pub use dns::SystemResolver;
pub use s3::S3Access;

/// A server of artifacts.
pub(crate) trait Source: fmt::Debug + Send + Sync {
    /// Its URL, for people and to tell it from others. Without credentials.
    fn name(&self) -> &str;

    /// Opens a file; `from`: at that place, if the server can and the file is still the same.
    fn open<'a>(&'a self, path: &'a RelPath, from: Option<&'a Resume>) -> Opening<'a>;

    /// Whether it says 403 of what is not there.
    fn hides_what_is_missing(&self) -> bool {
        false
    }
}

pub(crate) type Opening<'a> = Pin<Box<dyn Future<Output = Result<Body, FetchError>> + Send + 'a>>;

/// Where a transfer is to be taken up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resume {
    /// Bytes that are here.
    pub(crate) offset: u64,
    /// Bytes in all.
    pub(crate) size: u64,
    /// The strong entity tag that the bytes came with, if they came from this server.
    pub(crate) tag: Option<String>,
}

/// A file under way.
#[derive(Debug)]
pub(crate) struct Body {
    /// Place of its first byte in the file.
    pub(crate) begins: u64,
    /// Bytes that were announced, from there.
    pub(crate) length: Option<u64>,
    /// Its strong entity tag.
    pub(crate) tag: Option<String>,
    bytes: Bytestream,
}

#[derive(Debug)]
enum Bytestream {
    Http(Box<http::Stream>),
    File(dir::Stream),
}

impl Body {
    /// The next bytes; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        match &mut self.bytes {
            Bytestream::Http(stream) => stream.chunk().await,
            Bytestream::File(stream) => stream.chunk().await,
        }
    }
}

/// A client for other servers than artifact servers.
pub(crate) fn http_client(tuning: &Tuning) -> Result<reqwest::Client, FetchError> {
    http::client(true, tuning)
}

/// The source that a URL names: `http`, `https`, `file`, or `s3+http` and `s3+https` for
/// a bucket (`s3+https://host/bucket/prefix`).
pub(crate) fn source(
    url: &str,
    access: Option<&S3Access>,
    tuning: &Tuning,
) -> Result<Arc<dyn Source>, FetchError> {
    let shown = url.rsplit('@').next().unwrap_or(url).to_owned();
    let refused = |why| FetchError::BadUrl { url: shown.clone(), why };
    let (bucket, plain) = match url.strip_prefix("s3+") {
        Some(plain) => (true, plain),
        None => (false, url),
    };
    let base = Url::parse(plain).map_err(|_| refused("it is not a URL"))?;
    if base.query().is_some() || base.fragment().is_some() {
        return Err(refused("it must not have a query or fragment"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(refused("it must not carry credentials"));
    }
    match base.scheme() {
        "file" if !bucket => {
            let dir = base.to_file_path().map_err(|()| refused("it is not a local path"))?;
            Ok(Arc::new(Dir::new(dir, shown)))
        }
        "http" | "https" => {
            let client = http::client(base.scheme() == "https", tuning)?;
            let http = Http::new(base.clone(), shown.clone(), client, tuning);
            Ok(if bucket { Arc::new(S3::new(http, &base, access).map_err(refused)?) } else { Arc::new(http) })
        }
        _ => Err(refused("its scheme is not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let tuning = Tuning::default();
        let access = S3Access { key: "k".into(), secret: "s".into(), region: "auto".into() };
        for good in [
            "http://127.0.0.1:8080",
            "https://artifacts.example/zlh/",
            "file:///srv/artifacts",
            "s3+https://s3.example/bucket",
            "s3+http://127.0.0.1:9000/bucket/a/b/",
        ] {
            let made = source(good, Some(&access), &tuning);
            assert_eq!(made.unwrap().name(), good);
        }
        for bad in [
            "",
            "/srv/artifacts",
            "ftp://x/",
            "http://",
            "file://host/x",
            "http://x/?a=b",
            "http://u:secret@x/",
            "s3+file:///x",
            "s3+https://s3.example/",
            "s3+https://s3.example",
        ] {
            let error = source(bad, Some(&access), &tuning).unwrap_err().to_string();
            assert!(error.contains("ZLH_ARTIFACTS_URL") && !error.contains("secret"), "{bad}: {error}");
        }
        assert!(source("s3+https://s3.example/b", None, &tuning).unwrap_err().to_string().contains("AWS_"));
    }
}
