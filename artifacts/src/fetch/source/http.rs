//! An HTTP server.
//!
//! A redirect is followed at most five times and only within the origin that was
//! configured, so neither the scheme nor the host can change under way.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LOCATION, RANGE,
};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio::time::{Instant, timeout};
use zlh_catalog::RelPath;

use super::{Body, Bytestream, FetchError, Opening, Resume, Source, dns, tls};
use crate::fetch::Tuning;

#[derive(Debug)]
pub(super) struct Http {
    base: Url,
    name: String,
    client: Client,
    stall: Duration,
    /// Bytes per second below which it counts as stalled.
    min_rate: u32,
}

/// A body under way, and whether it still moves.
#[derive(Debug)]
pub(super) struct Stream {
    response: Response,
    path: String,
    stall: Duration,
    min_rate: u32,
    /// Time spent waiting for bytes, and what came, since the last look.
    waited: Duration,
    came: u64,
}

impl Http {
    pub(super) fn new(base: Url, name: String, client: Client, tuning: &Tuning) -> Self {
        Self { base, name, client, stall: tuning.stall, min_rate: tuning.min_rate }
    }

    /// The URL of a file.
    pub(super) fn url(&self, path: &RelPath) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.components());
        }
        url
    }

    /// Asks `url` for the file, and follows where it is led.
    pub(super) async fn get(
        &self,
        mut url: Url,
        path: &RelPath,
        from: Option<&Resume>,
    ) -> Result<Body, FetchError> {
        let mut hops = 0;
        loop {
            let mut request = self.client.get(url.clone());
            if let Some(from) = from {
                request = request.header(RANGE, format!("bytes={}-", from.offset));
                if let Some(tag) = &from.tag {
                    request = request.header(IF_RANGE, tag);
                }
            }
            let response = timeout(self.stall, request.send())
                .await
                .map_err(|_| FetchError::Stalled { path: path.to_string(), after: self.stall })?
                .map_err(|error| broken(path, error))?;
            if !response.status().is_redirection() {
                return self.accept(response, path, from);
            }
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
            let to: String = to.chars().filter(|c| !c.is_control()).take(MAX_SHOWN_URL_CHARS).collect();
            hops += 1;
            url = next_hop(&self.base, &url, &to, hops).map_err(|why| FetchError::Redirect {
                path: path.to_string(),
                to,
                why,
            })?;
        }
    }

    fn accept(&self, response: Response, path: &RelPath, from: Option<&Resume>) -> Result<Body, FetchError> {
        let named = path.to_string();
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let asked = |from: &Resume| format!("bytes {}-{}/{}", from.offset, from.size - 1, from.size);
        let begins = match (response.status(), from) {
            // Some buckets, rclone's among them, send the range that was asked for as a 200.
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT, Some(from)) if range == Some(&asked(from)) => {
                from.offset
            }
            (StatusCode::OK, _) => 0,
            (StatusCode::PARTIAL_CONTENT, Some(_)) => {
                let got = range.unwrap_or("none").chars().filter(|c| !c.is_control()).take(80).collect();
                return Err(FetchError::Range { path: named, got });
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                return Err(FetchError::Range { path: named, got: "416".to_owned() });
            }
            (StatusCode::NOT_FOUND, _) => return Err(FetchError::NotFound { path: named }),
            (status, _) => return Err(FetchError::Http { path: named, status: status.as_u16() }),
        };
        let headers = response.headers();
        if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            let encoding = encoding.to_str().unwrap_or("?").to_owned();
            return Err(FetchError::Encoded { path: named, encoding });
        }
        let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.filter(|tag| tag.starts_with('"') && tag.len() <= MAX_TAG_BYTES).map(str::to_owned);
        let length = response.content_length();
        let (stall, min_rate) = (self.stall, self.min_rate);
        let stream = Stream { response, path: named, stall, min_rate, waited: Duration::ZERO, came: 0 };
        Ok(Body { begins, length, tag, bytes: Bytestream::Http(Box::new(stream)) })
    }
}

impl Source for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn open<'a>(&'a self, path: &'a RelPath, from: Option<&'a Resume>) -> Opening<'a> {
        Box::pin(self.get(self.url(path), path, from))
    }
}

impl Stream {
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        let begun = Instant::now();
        let stalled = |path: &str, after| FetchError::Stalled { path: path.to_owned(), after };
        let chunk =
            timeout(self.stall, self.response.chunk()).await.map_err(|_| stalled(&self.path, self.stall))?;
        let chunk = match chunk {
            Ok(chunk) => chunk,
            // A body that ends before its announced length is an end: whoever counts the
            // bytes says how many came and how many were expected.
            Err(error) if ended_early(&error) => None,
            Err(error) => {
                let source = error.without_url().into();
                return Err(FetchError::Interrupted { path: self.path.clone(), source });
            }
        };
        let Some(bytes) = chunk else { return Ok(None) };
        self.waited += begun.elapsed();
        self.came += bytes.len() as u64;
        // A byte now and then is no transfer. Only the waiting counts, not our own disk.
        if self.waited >= self.stall {
            if (self.came as f64) < f64::from(self.min_rate) * self.waited.as_secs_f64() {
                return Err(stalled(&self.path, self.waited));
            }
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        Ok(Some(bytes))
    }
}

/// Whether the connection was closed in the middle of a body.
fn ended_early(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn broken(path: &RelPath, error: reqwest::Error) -> FetchError {
    let (path, connect) = (path.to_string(), error.is_connect());
    let source = error.without_url().into();
    if connect { FetchError::Connect { path, source } } else { FetchError::Interrupted { path, source } }
}

pub(super) fn client(https: bool, tuning: &Tuning) -> Result<Client, FetchError> {
    let tls = tls::config(https).map_err(|error| FetchError::Client(error.into()))?;
    let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(dns::SystemResolver::default())
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(tuning.connect)
        .user_agent(concat!("zlh-agent/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .build()
        .map_err(|error| FetchError::Client(error.into()))
}

fn next_hop(base: &Url, from: &Url, to: &str, hops: usize) -> Result<Url, &'static str> {
    if to.is_empty() {
        return Err("it does not say where");
    }
    let next = from.join(to).map_err(|_| "it is not a URL")?;
    if next.origin() != base.origin() {
        return Err("it leaves the configured artifact server");
    }
    if hops > MAX_REDIRECTS {
        return Err("there were more than five");
    }
    Ok(next)
}

const MAX_REDIRECTS: usize = 5;
const MAX_SHOWN_URL_CHARS: usize = 2048;
const MAX_TAG_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_at_its_origin() {
        let base = Url::parse("https://a.example:8443/zlh/").unwrap();
        for good in ["/other", "x", "https://a.example:8443/y"] {
            assert!(next_hop(&base, &base, good, 5).is_ok(), "{good}");
        }
        for bad in [
            "http://a.example:8443/",
            "https://a.example/",
            "https://b.example:8443/",
            "//b.example:8443/",
            "",
            "file:///etc/passwd",
            "https://127.0.0.1:8443/",
            "data:,x",
            "https://[::1]:8443/",
        ] {
            assert!(next_hop(&base, &base, bad, 1).is_err(), "{bad}");
        }
        assert_eq!(next_hop(&base, &base, "x", 6), Err("there were more than five"));
    }
}
