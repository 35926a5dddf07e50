//! A typed client of one agent.
//!
//! A [`Connector`] is made once per process and shared; [`Connector::agent`]
//! gives a cheap [`Client`] for one address. What it holds to:
//!
//! - names resolve through the [`Resolve`] it was given and never through the C
//!   library, whose resolver crashes in a static glibc binary; without one only
//!   IP literals and `localhost` (127.0.0.1) work;
//! - no proxy from the environment, no redirects: an agent never sends one, and
//!   following it would hand the token to somebody else;
//! - every answer has a ceiling, every call a deadline, and every error names
//!   the agent.
//!
//! It refuses to send a token over anything but HTTP(S) and never shows it.

mod artifacts;
mod connect;
mod crashes;
mod error;
mod shells;

use std::time::Duration;

pub use self::artifacts::Kind;
pub use self::connect::Connector;
pub use self::error::ClientError;
pub use reqwest::Upgraded;
pub use reqwest::dns::{self, Resolve};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Accepted, CONSOLE_NEXT_HEADER, CONSOLE_OFFSET_HEADER, CONSOLE_PROTOCOL, CommandOutput, CommandRequest,
    DEFAULT_PORT, History, HistoryWindow, Maintenance, MaintenanceRequest, Operation, Operations, Players,
    Problem, Ready, Status, Version,
};

/// Talks to one agent.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<HeaderValue>,
    timeout: Duration,
}

/// 204 of `POST /stop` and of the console command: what the headers carried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Id of the operation that was begun, where there is one.
    pub operation: Option<String>,
    /// [`CONSOLE_OFFSET_HEADER`], where the agent sent it.
    pub console_offset: Option<u64>,
}

/// Which part of the console log is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// First byte wanted; the tail when absent.
    pub since: Option<u64>,
    /// Last lines wanted.
    pub tail_lines: Option<u64>,
}

/// A piece of the console log, bytes as the server wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Offset of the first byte.
    pub offset: u64,
    /// Where to go on.
    pub next: u64,
    /// The log itself, escape sequences and all.
    pub bytes: Vec<u8>,
}

/// A console, as far as the upgrade.
#[derive(Debug)]
pub struct ConsoleStream {
    /// The connection.
    pub stream: Upgraded,
    /// `Sec-WebSocket-Accept`, for the caller to check.
    pub accept: String,
    /// Whether it speaks [`CONSOLE_PROTOCOL`]; otherwise the deployed protocol.
    pub has_offsets: bool,
}

/// A console log that goes on.
#[derive(Debug)]
pub struct LogFollow {
    agent: String,
    response: Response,
    /// Offset of the next byte that [`LogFollow::chunk`] returns.
    pub next: u64,
}

impl Client {
    /// Host and port, for people.
    pub fn agent(&self) -> String {
        let host = self.base.host_str().unwrap_or("?");
        format!("{host}:{}", self.base.port_or_known_default().unwrap_or(DEFAULT_PORT))
    }

    /// Host without port.
    pub fn host(&self) -> &str {
        self.base.host_str().unwrap_or("?")
    }

    /// A client of the same agent with another deadline per call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// `GET /health`: whether the agent answers at all.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn health(&self) -> Result<(), ClientError> {
        let response = self.send(self.request(Method::GET, "health")).await?;
        let body = self.body(response, MAX_PROBLEM_BYTES).await?;
        if body.trim_ascii() == b"ok" { Ok(()) } else { Err(self.protocol("`/health` does not say `ok`")) }
    }

    /// `GET /version`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("version").await
    }

    /// `GET /status`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("status").await
    }

    /// `GET /ready`; not being ready is an answer, not an error.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn ready(&self) -> Result<Ready, ClientError> {
        let response = self.exchange(self.request(Method::GET, "ready"), self.timeout).await?;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            let body = self.body(response, MAX_JSON_BYTES).await?;
            // A saturated agent answers 503 as well, with a problem.
            return serde_json::from_slice(&body).map_err(|_| {
                match serde_json::from_slice::<Problem>(&body) {
                    Ok(problem) => self.refused(problem),
                    Err(error) => self.protocol(&error.to_string()),
                }
            });
        }
        let response = self.check(response).await?;
        self.json(response).await
    }

    /// `POST /config` with the payload as it is.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn configure(&self, payload: &Value) -> Result<Accepted, ClientError> {
        let response = self.send(self.request(Method::POST, "config").json(payload)).await?;
        self.json(response).await
    }

    /// `POST /start`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn start(&self) -> Result<Accepted, ClientError> {
        let response = self.send(self.request(Method::POST, "start")).await?;
        self.json(response).await
    }

    /// `POST /restart`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn restart(&self) -> Result<Accepted, ClientError> {
        let response = self.send(self.request(Method::POST, "restart")).await?;
        self.json(response).await
    }

    /// `POST /stop`; returns once it was accepted.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stop(&self) -> Result<Done, ClientError> {
        let response = self.send(self.request(Method::POST, "stop")).await?;
        Ok(done(response.headers()))
    }

    /// `POST /stop?now=true`: without warning players.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stop_now(&self) -> Result<Done, ClientError> {
        let response = self.send(self.unwarned("stop")).await?;
        Ok(done(response.headers()))
    }

    /// `POST /restart?now=true`: without warning players.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn restart_now(&self) -> Result<Accepted, ClientError> {
        let response = self.send(self.unwarned("restart")).await?;
        self.json(response).await
    }

    /// `POST /console/command`: types one line into the server's console.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn command(&self, line: &str) -> Result<Done, ClientError> {
        let body = CommandRequest { command: line.to_owned() };
        let response = self.send(self.request(Method::POST, "console/command").json(&body)).await?;
        Ok(done(response.headers()))
    }

    /// `POST /console/command?wait=`: types one line, and answers with what followed it.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn command_and_wait(&self, line: &str, wait: Duration) -> Result<CommandOutput, ClientError> {
        let mut url = self.url("console/command");
        url.query_pairs_mut().append_pair("wait", &wait.as_millis().to_string());
        let body = CommandRequest { command: line.to_owned() };
        let request = self.authorize(self.http.post(url)).json(&body);
        let response = self.exchange(request, self.timeout + wait).await?;
        let response = self.check(response).await?;
        self.json(response).await
    }

    /// `PUT /maintenance`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn begin_maintenance(&self, request: &MaintenanceRequest) -> Result<Maintenance, ClientError> {
        let response = self.send(self.request(Method::PUT, "maintenance").json(request)).await?;
        self.json(response).await
    }

    /// `DELETE /maintenance`. `start`: what was meant to run is started again.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn end_maintenance(&self, start: bool) -> Result<Maintenance, ClientError> {
        let mut url = self.url("maintenance");
        if !start {
            url.query_pairs_mut().append_pair("start", "false");
        }
        let response = self.send(self.authorize(self.http.delete(url))).await?;
        self.json(response).await
    }

    /// `GET /game/players`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn players(&self) -> Result<Players, ClientError> {
        self.get("game/players").await
    }

    /// `GET /operations`, newest first.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn operations(&self) -> Result<Vec<Operation>, ClientError> {
        Ok(self.get::<Operations>("operations").await?.operations)
    }

    /// `GET /operations/{id}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn operation(&self, id: &str) -> Result<Operation, ClientError> {
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err(self.protocol("it named an operation by something that is not an id"));
        }
        self.get(&format!("operations/{id}")).await
    }

    /// `GET /history`: the newest `limit` events of the window (the agent's own limit
    /// without one), or those before the event `before`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn history(
        &self,
        window: HistoryWindow,
        limit: Option<u32>,
        before: Option<u64>,
    ) -> Result<History, ClientError> {
        let mut url = self.url("history");
        url.query_pairs_mut().append_pair("window", window.as_str());
        if let Some(limit) = limit {
            url.query_pairs_mut().append_pair("limit", &limit.to_string());
        }
        if let Some(before) = before {
            url.query_pairs_mut().append_pair("before", &before.to_string());
        }
        let response = self.send(self.authorize(self.http.get(url))).await?;
        self.json(response).await
    }

    /// `GET /console/log`: a piece of the log. Read on at [`LogChunk::next`] until
    /// it no longer moves.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn console_log(&self, query: LogQuery) -> Result<LogChunk, ClientError> {
        let request = self.http.get(self.log_url(query, false));
        let response = self.send(self.authorize(request)).await?;
        let (offset, next) = self.log_range(&response)?;
        let bytes = self.body(response, MAX_LOG_BYTES).await?;
        Ok(LogChunk { offset, next: next.unwrap_or(offset.saturating_add(bytes.len() as u64)), bytes })
    }

    /// `GET /console/log?follow=true`: the log from there on, for as long as both
    /// sides like. Only the first answer has a deadline.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn console_follow(&self, query: LogQuery) -> Result<LogFollow, ClientError> {
        let request = self.authorize(self.http.get(self.log_url(query, true)));
        let response = self.open(request).await?;
        let (offset, _) = self.log_range(&response)?;
        Ok(LogFollow { agent: self.agent(), response, next: offset })
    }

    /// `GET /console/stream` as far as the upgrade, in [`CONSOLE_PROTOCOL`] where the agent
    /// speaks it: `key` is the WebSocket key, `since` the first byte wanted.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn console_stream(&self, key: &str, since: Option<u64>) -> Result<ConsoleStream, ClientError> {
        self.attach("console/stream", key, since).await
    }

    /// As [`Client::console_stream`], of a shell.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn shell_stream(
        &self,
        name: &str,
        key: &str,
        since: Option<u64>,
    ) -> Result<ConsoleStream, ClientError> {
        self.attach(&format!("shells/{}/stream", name.replace('/', "")), key, since).await
    }

    async fn attach(&self, path: &str, key: &str, since: Option<u64>) -> Result<ConsoleStream, ClientError> {
        let mut url = self.url(path);
        if let Some(since) = since {
            url.query_pairs_mut().append_pair("since", &since.to_string());
        }
        let request = self
            .http
            .get(url)
            .header(header::SEC_WEBSOCKET_PROTOCOL, CONSOLE_PROTOCOL)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, key);
        let response = self.open(self.authorize(request)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.protocol("the console did not become a WebSocket"));
        }
        let accept =
            text_header(response.headers(), header::SEC_WEBSOCKET_ACCEPT.as_str()).unwrap_or_default();
        let protocol = text_header(response.headers(), header::SEC_WEBSOCKET_PROTOCOL.as_str());
        let stream = response.upgrade().await.map_err(|error| self.transport(error, self.timeout))?;
        Ok(ConsoleStream { stream, accept, has_offsets: protocol.as_deref() == Some(CONSOLE_PROTOCOL) })
    }

    /// Fifty records with their logs.
    async fn get_large<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        let body = self.body(response, MAX_LIST_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| self.protocol(&error.to_string()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        self.json(response).await
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        url
    }

    fn log_url(&self, query: LogQuery, follow: bool) -> Url {
        let mut url = self.url("console/log");
        {
            let mut pairs = url.query_pairs_mut();
            if let Some(since) = query.since {
                pairs.append_pair("since", &since.to_string());
            }
            if let Some(lines) = query.tail_lines {
                pairs.append_pair("tail", &lines.to_string());
            }
            if follow {
                pairs.append_pair("follow", "true");
            }
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        url
    }

    /// A verb that does not wait for players to be warned.
    fn unwarned(&self, verb: &str) -> RequestBuilder {
        let mut url = self.url(verb);
        url.query_pairs_mut().append_pair("now", "true");
        self.authorize(self.http.post(url))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.authorize(self.http.request(method, self.url(path)))
    }

    fn authorize(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = self.exchange(request, self.timeout).await?;
        self.check(response).await
    }

    /// For answers that stay open: the deadline covers the head only.
    async fn open(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = tokio::time::timeout(self.timeout, request.send())
            .await
            .map_err(|_| ClientError::Timeout { agent: self.agent(), after: self.timeout })?
            .map_err(|error| self.transport(error, self.timeout))?;
        self.check(response).await
    }

    async fn exchange(&self, request: RequestBuilder, timeout: Duration) -> Result<Response, ClientError> {
        request.timeout(timeout).send().await.map_err(|error| self.transport(error, timeout))
    }

    async fn check(&self, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = self.body(response, MAX_PROBLEM_BYTES).await?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => self.refused(problem),
            Err(_) => self.protocol(&format!("HTTP {status} without a problem document")),
        })
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let body = self.body(response, MAX_JSON_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| self.protocol(&error.to_string()))
    }

    async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(error, self.timeout))? {
            if body.len() + chunk.len() > limit {
                return Err(self.protocol(&format!("the answer is larger than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn log_range(&self, response: &Response) -> Result<(u64, Option<u64>), ClientError> {
        let offset = number_header(response.headers(), CONSOLE_OFFSET_HEADER)
            .ok_or_else(|| self.protocol(&format!("the log came without `{CONSOLE_OFFSET_HEADER}`")))?;
        Ok((offset, number_header(response.headers(), CONSOLE_NEXT_HEADER)))
    }

    fn refused(&self, problem: Problem) -> ClientError {
        ClientError::Refused { agent: self.agent(), problem: Box::new(problem) }
    }

    fn protocol(&self, reason: &str) -> ClientError {
        ClientError::Protocol { agent: self.agent(), reason: reason.to_owned() }
    }

    fn transport(&self, error: reqwest::Error, after: Duration) -> ClientError {
        let agent = self.agent();
        if error.is_timeout() {
            return ClientError::Timeout { agent, after };
        }
        let reason = innermost(&error);
        if error.is_body() || error.is_decode() {
            return ClientError::Broken { agent, reason };
        }
        ClientError::Unreachable { agent, reason, source: error }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("agent", &self.agent()).finish_non_exhaustive()
    }
}

impl LogFollow {
    /// The next bytes; `None` when the agent ended the stream.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let chunk = self
            .response
            .chunk()
            .await
            .map_err(|error| ClientError::Broken { agent: self.agent.clone(), reason: innermost(&error) })?;
        Ok(chunk.map(|bytes| {
            self.next = self.next.saturating_add(bytes.len() as u64);
            bytes.to_vec()
        }))
    }
}

fn done(headers: &HeaderMap) -> Done {
    Done {
        operation: text_header(headers, header::LOCATION.as_str())
            .and_then(|location| location.rsplit('/').next().map(str::to_owned))
            .filter(|id| !id.is_empty()),
        console_offset: number_header(headers, CONSOLE_OFFSET_HEADER),
    }
}

fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn number_header(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The cause that says most: the last of the chain, without the wrappers.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(io) => match io.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
            _ => without_code(&io.to_string()),
        },
        None => cause.to_string(),
    }
}

/// `No route to host (os error 113)` → `no route to host`.
fn without_code(text: &str) -> String {
    text.split(" (os error").next().unwrap_or(text).to_lowercase()
}

const MAX_JSON_BYTES: usize = 4 << 20;
const MAX_LIST_BYTES: usize = 16 << 20;
const MAX_PROBLEM_BYTES: usize = 64 << 10;
const MAX_LOG_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests;
