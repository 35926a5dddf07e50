//! Where files come from: an HTTP server, or a directory.
//!
//! A redirect is followed at most five times and only within the origin that was
//! configured, so neither the scheme nor the host can change under way.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio::io::AsyncReadExt;
use zlh_catalog::RelPath;

use super::{FetchError, Tuning, dns, tls};

/// The artifact server.
#[derive(Debug)]
pub(crate) enum Source {
    Http { base: Url, client: Client, stall: Duration },
    Dir(PathBuf),
}

/// A file under way.
#[derive(Debug)]
pub(crate) enum Body {
    Http { response: Box<Response>, stall: Duration, path: String },
    File { file: tokio::fs::File, length: u64, path: PathBuf },
}

impl Source {
    pub(crate) fn new(base_url: &str, tuning: &Tuning) -> Result<Self, FetchError> {
        let shown = base_url.rsplit('@').next().unwrap_or(base_url).to_owned();
        let refused = |why| FetchError::BadUrl { url: shown.clone(), why };
        let base = Url::parse(base_url).map_err(|_| refused("it is not a URL"))?;
        if base.query().is_some() || base.fragment().is_some() {
            return Err(refused("it must not have a query or fragment"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(refused("it must not carry credentials"));
        }
        match base.scheme() {
            "file" => Ok(Self::Dir(base.to_file_path().map_err(|()| refused("it is not a local path"))?)),
            "http" | "https" => {
                let client = client(base.scheme() == "https", tuning)?;
                Ok(Self::Http { base, client, stall: tuning.stall })
            }
            _ => Err(refused("its scheme is not supported")),
        }
    }

    pub(crate) async fn open(&self, path: &RelPath) -> Result<Body, FetchError> {
        match self {
            Self::Http { base, client, stall } => {
                let response = follow(base, client, *stall, path).await?;
                Ok(Body::Http { response: Box::new(response), stall: *stall, path: path.to_string() })
            }
            Self::Dir(dir) => open_file(dir.join(path.as_str()), path).await,
        }
    }
}

impl Body {
    /// Bytes that were announced.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Http { response, .. } => response.content_length(),
            Self::File { length, .. } => Some(*length),
        }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        match self {
            Self::Http { response, stall, path } => {
                let chunk = tokio::time::timeout(*stall, response.chunk())
                    .await
                    .map_err(|_| FetchError::Stalled { path: path.clone(), after: *stall })?;
                match chunk {
                    Ok(chunk) => Ok(chunk),
                    // A body that ends before its announced length is an end: whoever counts
                    // the bytes says how many came and how many were expected.
                    Err(error) if ended_early(&error) => Ok(None),
                    Err(error) => Err(FetchError::Interrupted {
                        path: path.clone(),
                        source: error.without_url().into(),
                    }),
                }
            }
            Self::File { file, path, .. } => {
                let mut buffer = vec![0; FILE_CHUNK_BYTES];
                let read = file.read(&mut buffer).await.map_err(FetchError::io("read", path.as_path()))?;
                buffer.truncate(read);
                Ok((read > 0).then(|| buffer.into()))
            }
        }
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

async fn follow(
    base: &Url,
    client: &Client,
    stall: Duration,
    path: &RelPath,
) -> Result<Response, FetchError> {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path.components());
    }
    let mut hops = 0;
    loop {
        let response = tokio::time::timeout(stall, client.get(url.clone()).send())
            .await
            .map_err(|_| FetchError::Stalled { path: path.to_string(), after: stall })?
            .map_err(|error| {
                let (path, connect) = (path.to_string(), error.is_connect());
                let source = error.without_url().into();
                if connect {
                    FetchError::Connect { path, source }
                } else {
                    FetchError::Interrupted { path, source }
                }
            })?;
        if !response.status().is_redirection() {
            return accept(response, path);
        }
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
        let to: String = to.chars().filter(|c| !c.is_control()).take(MAX_SHOWN_URL_CHARS).collect();
        hops += 1;
        url = next_hop(base, &url, &to, hops).map_err(|why| FetchError::Redirect {
            path: path.to_string(),
            to,
            why,
        })?;
    }
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

fn accept(response: Response, path: &RelPath) -> Result<Response, FetchError> {
    let path = path.to_string();
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(FetchError::NotFound { path }),
        status => return Err(FetchError::Http { path, status: status.as_u16() }),
    }
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(FetchError::Encoded { path, encoding: encoding.to_str().unwrap_or("?").to_owned() })
        }
        _ => Ok(response),
    }
}

async fn open_file(file_path: PathBuf, path: &RelPath) -> Result<Body, FetchError> {
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            FetchError::NotFound { path: path.to_string() }
        }
        _ => FetchError::Io { what: "open", path: file_path.clone(), source: error },
    };
    // Looked at first: opening a FIFO would wait for its writer.
    let meta = tokio::fs::metadata(&file_path).await.map_err(missing)?;
    if !meta.is_file() {
        return Err(FetchError::NotFound { path: path.to_string() });
    }
    let file = tokio::fs::File::open(&file_path).await.map_err(missing)?;
    Ok(Body::File { file, length: meta.len(), path: file_path })
}

const MAX_REDIRECTS: usize = 5;
const MAX_SHOWN_URL_CHARS: usize = 2048;
const FILE_CHUNK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let tuning = Tuning::default();
        for good in ["http://127.0.0.1:8080", "https://artifacts.example/zlh/", "file:///srv/artifacts"] {
            assert!(Source::new(good, &tuning).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/srv/artifacts",
            "ftp://x/",
            "http://",
            "file://host/x",
            "http://x/?a=b",
            "http://u:secret@x/",
        ] {
            let error = Source::new(bad, &tuning).unwrap_err().to_string();
            assert!(error.contains("ZLH_ARTIFACTS_URL") && !error.contains("secret"), "{bad}: {error}");
        }
    }

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
