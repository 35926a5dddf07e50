//! `GET /console/log`: the console by absolute byte offset, also while stopped.
//!
//! The body is the bytes as logged, never a byte more or less: a caller counts
//! them to know where to go on. At a gap (output that the disk refused for too long,
//! or that was rotated away while a slow caller was reading) the answer ends instead
//! of skipping; the next call's `zlh-console-offset` shows the gap. With `grep=` the body is the
//! lines that match, and `zlh-console-next` is where to go on as ever.

use std::io;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, http::HeaderName};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::IntoParams;
use zlh_api::{CONSOLE_OFFSET_HEADER, ErrorCode, Problem};

use super::App;
use super::guard::Caller;
use super::problem::{Answer, Failure};
use super::server::stopped;
use crate::console::{Chunk, Console, text};

/// Which part of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Part {
    /// First byte wanted, an absolute offset.
    since: Option<u64>,
    /// At most this many of the last lines; 200 when `since` is absent too.
    tail: Option<usize>,
    /// At most this many bytes; 1 MiB unless followed, 16 MiB at most.
    max: Option<u64>,
    /// Go on with what comes until the caller leaves.
    #[serde(default)]
    follow: bool,
    /// Only lines that contain this text.
    grep: Option<String>,
    /// Only lines that match this regular expression (linear time: no look-around, no
    /// back-references; classes such as `\\d` are ASCII).
    grep_re: Option<String>,
}

/// The console log, raw bytes by absolute offset.
#[utoipa::path(get, path = "/console/log", operation_id = "console_log", tag = "console", params(Part), responses(
    (status = 200, description = "The bytes as logged", body = String, content_type = "text/plain; charset=utf-8", headers(
        ("zlh-console-offset" = u64, description = "Offset of the first byte; greater than asked when that is gone, smaller when it is not written yet"),
        ("zlh-console-next" = u64, description = "What to ask for next; absent when followed"))),
    (status = 400, description = "A query parameter is not of its form", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn log(
    State(App(app)): State<App>,
    Extension(caller): Extension<Caller>,
    part: Result<Query<Part>, QueryRejection>,
) -> Answer<Response> {
    let Query(part) = part.map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.body_text()))?;
    let pattern = Pattern::of(&part)?;
    let reader = Reader::open(app.handle.console().clone(), &part).await.map_err(unreadable)?;
    let mut response = [(CONSOLE_OFFSET_HEADER, reader.cursor.to_string())].into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    if !part.follow {
        headers.insert(NEXT_HEADER, reader.end.into());
    }
    let bytes = reader.bytes(caller);
    *response.body_mut() = match pattern {
        None => Body::from_stream(bytes),
        Some(pattern) => Body::from_stream(matching(bytes, Lines { pattern, partial: Vec::new() })),
    };
    Ok(response)
}

/// What a line has to have. Escape sequences are no part of a line, whoever coloured it.
enum Pattern {
    Text(String),
    Regex(Regex),
}

impl Pattern {
    fn of(part: &Part) -> Answer<Option<Self>> {
        let invalid = |why: String| Failure::new(ErrorCode::InvalidRequest, why);
        match (&part.grep, &part.grep_re) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(invalid("send grep or grep_re, not both".to_owned())),
            (Some(text), None) => Ok(Some(Self::Text(text.clone()))),
            (None, Some(source)) => RegexBuilder::new(source)
                .unicode(false)
                .size_limit(MAX_REGEX_BYTES)
                .dfa_size_limit(MAX_REGEX_BYTES)
                .build()
                .map(|regex| Some(Self::Regex(regex)))
                .map_err(|error| invalid(format!("grep_re is no regular expression: {error}"))),
        }
    }

    fn matches(&self, line: &[u8]) -> bool {
        let plain = text::plain(line);
        match self {
            Self::Text(text) => plain.contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(plain.trim_end().as_bytes()),
        }
    }
}

/// Cuts pieces into lines and keeps those that match, as they were logged.
struct Lines {
    pattern: Pattern,
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            // A line without an end is looked at in pieces.
            if piece.ends_with(b"\n") || self.partial.len() >= MAX_LINE_BYTES {
                self.finish(out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.partial.is_empty() && self.pattern.matches(&self.partial) {
            out.extend_from_slice(&self.partial);
        }
        self.partial.clear();
    }
}

fn matching(
    bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    lines: Lines,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((Box::pin(bytes), Some(lines)), |(mut bytes, mut lines)| async move {
        loop {
            let Some(open) = &mut lines else { return Ok(None) };
            let mut out = Vec::new();
            match bytes.next().await.transpose()? {
                Some(piece) => open.push(&piece, &mut out),
                None => {
                    open.finish(&mut out);
                    lines = None;
                }
            }
            if !out.is_empty() {
                return Ok(Some((Bytes::from(out), (bytes, lines))));
            }
        }
    })
}

/// Reads from `cursor` to `end`, waiting for bytes that are not written yet.
struct Reader {
    console: Console,
    head: watch::Receiver<u64>,
    first: Bytes,
    cursor: u64,
    end: u64,
}

impl Reader {
    async fn open(console: Console, part: &Part) -> io::Result<Self> {
        let head = console.subscribe();
        let written = *head.borrow();
        let start = match (part.since, part.tail) {
            (Some(since), None) => since,
            (Some(since), Some(tail)) => since.max(console.tail_offset(tail.min(MAX_TAIL)).await?),
            (None, tail) => console.tail_offset(tail.unwrap_or(DEFAULT_TAIL).min(MAX_TAIL)).await?,
        };
        let start = start.min(written);
        let most = match part.max {
            Some(max) => max.min(MAX_BYTES),
            None if part.follow => u64::MAX,
            None => DEFAULT_BYTES,
        };
        let limit = if part.follow { u64::MAX } else { written };
        let wanted = most.min(limit - start);
        // Read before the headers go out: only now is it known what is still there.
        let first = if start < written && wanted > 0 {
            console.read(start, piece(wanted.min(written - start))).await?
        } else {
            Chunk { offset: start, bytes: Bytes::new() }
        };
        let mut end = first.offset.saturating_add(most).min(limit).max(first.offset);
        if !part.follow && end > first.offset {
            // The next call then begins behind the gap, and says so.
            end = console.contiguous_end(first.offset, end).await?;
        }
        Ok(Self { console, head, first: first.bytes, cursor: first.offset, end })
    }

    fn bytes(self, caller: Caller) -> impl Stream<Item = io::Result<Bytes>> {
        let mut shutdown = caller.shutdown;
        stream::try_unfold(
            self,
            |mut reader| async move { Ok(reader.next().await?.map(|bytes| (bytes, reader))) },
        )
        .take_until(async move { stopped(&mut shutdown).await })
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut bytes = std::mem::take(&mut self.first);
        while bytes.is_empty() {
            if self.cursor >= self.end {
                return Ok(None);
            }
            let written = (*self.head.borrow_and_update()).min(self.end);
            if self.cursor < written {
                let chunk = self.console.read(self.cursor, piece(written - self.cursor)).await?;
                if chunk.offset != self.cursor {
                    // A gap: who follows comes again and is told where it goes on.
                    return if self.end == u64::MAX {
                        Ok(None)
                    } else {
                        Err(io::Error::other("overtaken by rotation"))
                    };
                }
                bytes = chunk.bytes;
            }
            if bytes.is_empty() && self.head.changed().await.is_err() {
                return Ok(None);
            }
        }
        bytes.truncate(usize::try_from(self.end - self.cursor).unwrap_or(usize::MAX));
        self.cursor += bytes.len() as u64;
        Ok(Some(bytes))
    }
}

fn piece(wanted: u64) -> usize {
    usize::try_from(wanted).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)
}

fn unreadable(error: io::Error) -> Failure {
    Failure::new(ErrorCode::Internal, format!("the console log cannot be read: {error}"))
}

/// Where to go on.
const NEXT_HEADER: HeaderName = HeaderName::from_static(zlh_api::CONSOLE_NEXT_HEADER);
const MAX_REGEX_BYTES: usize = 1 << 20;
const MAX_LINE_BYTES: usize = 64 * 1024;
const DEFAULT_TAIL: usize = 200;
const MAX_TAIL: usize = 100_000;
const DEFAULT_BYTES: u64 = 1024 * 1024;
const MAX_BYTES: u64 = 16 * 1024 * 1024;
const PIECE_BYTES: usize = 32 * 1024;
