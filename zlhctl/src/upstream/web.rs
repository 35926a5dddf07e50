//! Asking a publisher's server.
//!
//! Only the hosts that `data/upstreams.toml` names are asked, over HTTPS, and redirects are
//! followed five times at most and only among them. A server given with `--base-url` is
//! asked as it is. Everything that comes has a ceiling.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use reqwest::header::{LOCATION, TRANSFER_ENCODING};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Found;
use crate::exit::Hint;

/// The publishers' servers.
#[derive(Debug)]
pub(crate) struct Web {
    client: Client,
    publishers: BTreeMap<String, Publisher>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publisher {
    #[serde(deserialize_with = "read_url")]
    url: Url,
    hosts: Vec<String>,
    /// Given by the operator.
    #[serde(skip)]
    instead: Option<Url>,
}

impl Web {
    /// With other servers for some publishers.
    pub(crate) fn new(instead: &[(String, String)]) -> Result<Self> {
        let mut publishers: BTreeMap<String, Publisher> =
            toml::from_str(UPSTREAMS).context("the list of publishers that is built in is broken")?;
        for (name, url) in instead {
            let Some(publisher) = publishers.get_mut(name) else {
                return Err(anyhow!("--base-url {name}=…: nobody of that name is known"))
                    .hint(format!("there are: {}", super::NAMES.join(", ")));
            };
            publisher.instead =
                Some(Url::parse(url).with_context(|| format!("--base-url {name}: `{url}` is not a URL"))?);
        }
        Ok(Self { client: zlh_artifacts::http_client()?, publishers })
    }

    /// A URL below the publisher's.
    pub(crate) fn url(&self, name: &str, path: &str) -> Result<String> {
        let publisher = self.publisher(name)?;
        let base = publisher.instead.as_ref().unwrap_or(&publisher.url).as_str();
        Ok(format!("{}/{path}", base.trim_end_matches('/')))
    }

    /// A JSON document of the form that is expected.
    pub(crate) async fn json<T: DeserializeOwned>(&self, name: &str, url: &str) -> Result<T> {
        let bytes = self.small(name, url, MAX_DOCUMENT_BYTES).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let page = bytes.trim_ascii_start().starts_with(b"<");
            let error = anyhow::Error::new(error);
            error.context(match page {
                true => format!("`{url}` answered with a page instead of JSON"),
                false => format!("`{url}` did not answer in the form that is documented"),
            })
        })
    }

    /// A small text.
    pub(crate) async fn text(&self, name: &str, url: &str) -> Result<String> {
        let bytes = self.small(name, url, MAX_DOCUMENT_BYTES).await?;
        String::from_utf8(bytes).with_context(|| format!("`{url}` is not text"))
    }

    /// The same, or nothing if there is none.
    pub(crate) async fn text_if_any(&self, name: &str, url: &str) -> Result<Option<String>> {
        match self.text(name, url).await {
            Err(error) if error.downcast_ref::<NotThere>().is_some() => Ok(None),
            other => other.map(Some),
        }
    }

    pub(crate) async fn small(&self, name: &str, url: &str, limit: usize) -> Result<Vec<u8>> {
        let mut response = self.get(name, url).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunk(&mut response, url).await? {
            anyhow::ensure!(bytes.len() + chunk.len() <= limit, "`{url}` has more than {limit} bytes");
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Brings the file to `to` and verifies size and checksum.
    pub(crate) async fn download(
        &self,
        name: &str,
        found: &Found,
        to: &Path,
        progress: impl Fn(u64),
    ) -> Result<()> {
        let url = &found.url;
        let cannot = || format!("cannot write `{}`", to.display());
        let mut response = self.get(name, url).await?;
        let announced = found.size.or(response.content_length());
        if announced.is_none() && found.checksum.is_none() && !is_chunked(&response) {
            return Err(anyhow!(
                "`{url}` says neither how long the file is nor its checksum: one that was cut short would look complete"
            ))
            .hint("fetch it yourself, look at it, and use `zlhctl artifacts add`");
        }
        let mut file = File::create(to).with_context(cannot)?;
        let mut got = 0;
        while let Some(chunk) = chunk(&mut response, url).await? {
            got += chunk.len() as u64;
            anyhow::ensure!(
                got <= announced.unwrap_or(MAX_FILE_BYTES).min(MAX_FILE_BYTES),
                "`{url}` has more bytes than the {} that were announced",
                announced.unwrap_or(MAX_FILE_BYTES)
            );
            file.write_all(&chunk).with_context(cannot)?;
            progress(got);
        }
        if let Some(expected) = announced.filter(|expected| *expected != got) {
            return Err(anyhow!("`{url}` ended after {got} of {expected} bytes")).hint("try again");
        }
        if let Some(checksum) = found.checksum.clone() {
            let (path, shown) = (to.to_owned(), found.file_name.clone());
            tokio::task::spawn_blocking(move || checksum.check(&path, &shown)).await??;
        }
        Ok(())
    }

    fn publisher(&self, name: &str) -> Result<&Publisher> {
        self.publishers.get(name).ok_or_else(|| anyhow!("there is no publisher `{name}`"))
    }

    async fn get(&self, name: &str, url: &str) -> Result<Response> {
        let publisher = self.publisher(name)?;
        let shown = url;
        let mut url = Url::parse(url).with_context(|| format!("`{url}` is not a URL"))?;
        for _ in 0..=MAX_REDIRECTS {
            if !publisher.may_be_asked(&url) {
                return Err(anyhow!(
                    "{name}'s answer leads to {}, which is not known to be its host",
                    host(&url)
                ))
                .hint("--base-url NAME=URL names another server");
            }
            let response = self.send(&url).await?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                StatusCode::NOT_FOUND => return Err(NotThere(shown.to_owned()).into()),
                status if status.is_redirection() => {
                    let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                    let to = to.with_context(|| format!("`{shown}` redirects, and does not say where"))?;
                    url = url.join(to).with_context(|| format!("`{shown}` redirects to what is no URL"))?;
                }
                StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
                    return Err(anyhow!("`{shown}` answered {}", response.status()))
                        .hint("too many questions, perhaps: try again in an hour");
                }
                status => return Err(anyhow!("`{shown}` answered {status}")),
            }
        }
        Err(anyhow!("`{shown}` redirects more than {MAX_REDIRECTS} times"))
    }

    async fn send(&self, url: &Url) -> Result<Response> {
        let mut attempts = 0;
        loop {
            let sent = tokio::time::timeout(STALL, self.client.get(url.clone()).send()).await;
            attempts += 1;
            let again = match &sent {
                Ok(Ok(response)) => response.status().is_server_error(),
                _ => true,
            };
            if again && attempts < ATTEMPTS {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            return match sent {
                Ok(sent) => sent
                    .map_err(|error| anyhow::Error::new(error.without_url()))
                    .with_context(|| format!("no connection to {}", host(url)))
                    .hint("is this machine online? --base-url NAME=URL asks another server"),
                Err(_) => Err(anyhow!("{} does not answer", host(url))).hint("try again later"),
            };
        }
    }
}

impl Publisher {
    fn may_be_asked(&self, url: &Url) -> bool {
        let known =
            |host: &str| self.url.host_str() == Some(host) || self.hosts.iter().any(|one| one == host);
        self.instead.as_ref().is_some_and(|instead| instead.origin() == url.origin())
            || (url.scheme() == "https"
                && url.port().is_none()
                && url.username().is_empty()
                && url.host_str().is_some_and(known))
    }
}

fn read_url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text).map_err(serde::de::Error::custom)
}

/// 404.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not there (404)")]
pub(crate) struct NotThere(String);

async fn chunk(response: &mut Response, url: &str) -> Result<Option<bytes::Bytes>> {
    let next = tokio::time::timeout(STALL, response.chunk()).await;
    let next = next.map_err(|_| anyhow!("nothing came of `{url}` for {} s", STALL.as_secs()))?;
    next.map_err(|error| anyhow::Error::new(error.without_url()))
        .with_context(|| format!("the transfer of `{url}` broke off"))
        .hint("try again")
}

/// Whether the end of the body is marked: HTTP notices when it does not come.
fn is_chunked(response: &Response) -> bool {
    response.headers().get_all(TRANSFER_ENCODING).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.rsplit(',').next().unwrap_or_default().trim().eq_ignore_ascii_case("chunked")
        })
    })
}

fn host(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or("nowhere"))
}

const UPSTREAMS: &str = include_str!("../../data/upstreams.toml");
const MAX_DOCUMENT_BYTES: usize = 64 << 20;
const MAX_FILE_BYTES: u64 = 2 << 30;
const MAX_REDIRECTS: usize = 5;
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
const STALL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_publisher() {
        let web = Web::new(&[]).unwrap();
        let mut names = super::super::NAMES.to_vec();
        names.sort_unstable();
        assert_eq!(web.publishers.keys().map(String::as_str).collect::<Vec<_>>(), names);
        assert!(web.publishers.values().all(|one| one.url.scheme() == "https"));
        assert!(Web::new(&[("npm".to_owned(), "http://x".to_owned())]).is_err());
    }

    /// What comes of a file without a checksum, whose answer is this text.
    async fn downloaded(answer: &'static str) -> Result<String, String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let web = Web::new(&[("fabric".to_owned(), base.clone())]).unwrap();
        let found = Found {
            item: super::super::server("fabric").unwrap(),
            version: "1.21.7".to_owned(),
            url: format!("{base}/server.jar"),
            file_name: "server.jar".to_owned(),
            size: None,
            checksum: None,
        };
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("file");
        match web.download("fabric", &found, &to, |_| {}).await {
            Ok(()) => Ok(std::fs::read_to_string(to).unwrap()),
            Err(error) => Err(crate::exit::message(&error)),
        }
    }

    #[tokio::test]
    async fn a_file_without_checksum_has_to_have_an_end() {
        let whole = Ok("0123456789".to_owned());
        assert_eq!(downloaded("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789").await, whole);
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(downloaded(chunked).await, whole);
        for (cut, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n01234", "neither how long the file is nor its checksum"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n01234", "broke off"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234", "broke off"),
        ] {
            let error = downloaded(cut).await.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_known_hosts_are_asked() {
        let web = Web::new(&[("paper".to_owned(), "http://127.0.0.1:8080/x".to_owned())]).unwrap();
        let paper = web.publisher("paper").unwrap();
        let own = paper.url.to_string();
        for (url, fine) in [
            (own.as_str(), true),
            (&format!("https://{}/v1/objects", paper.hosts[0]), true),
            ("http://127.0.0.1:8080/other", true),
            ("http://127.0.0.1:8081/x", false),
            (&own.replace("https", "http"), false),
            ("https://169.254.169.254/", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(paper.may_be_asked(&Url::parse(url).unwrap()), fine, "{url}");
        }
    }
}
