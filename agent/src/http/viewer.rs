//! `/console/stream` (alias `/console/ws`): the deployed console protocol.
//!
//! Raw terminal text in text frames, no envelope; what the client sends goes to
//! the terminal unchanged. A viewer has its own cursor into the log: it first
//! registers, then reads from up to 64 KiB behind the head, and simply goes on,
//! so there is no seam between what was and what comes, and no queue that a slow
//! viewer could fill. One that falls far behind skips ahead and is told so; one
//! that takes nothing, or answers no ping, is dropped. While nothing runs it waits.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use slog::debug;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use zlh_api::{ErrorCode, Problem};

use super::guard::Caller;
use super::problem::{Answer, Failure};
use super::server::stopped;
use super::utf8::Utf8Stream;
use super::{App, Limits};
use crate::console::{Chunk, Console};
use crate::workload::Handle;

/// The live console.
///
/// A WebSocket. **Server to client:** text frames of raw terminal output, escape sequences
/// included, no envelope; bytes that are no UTF-8 arrive as U+FFFD, and a character is never cut
/// by a frame's end. First up to the last 64 KiB of the log, from the beginning of a line where
/// there is one, then what comes. Ping every 5 s. **Client to server:** text (or binary) frames
/// of at most 65,536 bytes go to the terminal unchanged. **Notices** of the agent stand on lines
/// of their own: `[zlh: N bytes skipped]` when a viewer fell more than 1 MiB behind and was moved
/// ahead, `[zlh: input dropped: …]` when nothing takes input. A viewer that takes nothing for 30 s
/// is dropped, also one that answers no ping for 60 s. While nothing runs the socket waits. At most 200 viewers.
#[utoipa::path(get, path = "/console/stream", operation_id = "console_stream", tag = "console", responses(
    (status = 101, description = "A console follows"),
    (status = 400, description = "Not a WebSocket handshake", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn stream(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    open(app, caller, upgrade)
}

/// The live console, by its other deployed name.
#[utoipa::path(get, path = "/console/ws", operation_id = "console_ws", tag = "console", responses(
    (status = 101, description = "As `/console/stream`"),
    (status = 400, description = "Not a WebSocket handshake", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn ws(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    open(app, caller, upgrade)
}

fn open(
    app: App,
    caller: Caller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let upgrade = upgrade.map_err(|error| {
        let detail = format!("the console is a WebSocket: {}", error.body_text());
        Failure::new(ErrorCode::InvalidRequest, detail)
    })?;
    let permit = Arc::clone(&app.0.viewers).try_acquire_owned().map_err(|_| {
        Failure::new(
            ErrorCode::Busy,
            format!("there are {} viewers already; close one", app.0.limits.viewers),
        )
    })?;
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        view(&app, caller, socket).await;
        drop(permit);
    }))
}

async fn view(App(app): &App, mut caller: Caller, socket: WebSocket) {
    let (mut sink, source) = socket.split();
    let (notices, told) = mpsc::channel(1);
    let ended = tokio::select! {
        ended = write(&mut sink, app.handle.console(), &app.limits, told) => ended,
        ended = read(source, &app.handle, &app.limits, notices) => ended,
        () = stopped(&mut caller.shutdown) => End::Shutdown,
    };
    debug!(app.log, "viewer left"; "peer" => format!("{:?}", caller.peer), "end" => format!("{ended:?}"));
    if let Some(frame) = ended.close_frame() {
        let close = async {
            sink.send(Message::Close(Some(frame))).await?;
            sink.close().await
        };
        // Courtesy only: the peer may be the reason for the end.
        let _ = timeout(app.limits.ping, close).await;
    }
    drop(caller.seat);
}

/// Why a view is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client closed, or the connection broke.
    Left,
    /// The client sent what may not be sent.
    Broken,
    /// Nothing came for too long, not even an answer to a ping.
    Silent,
    /// The agent ends.
    Shutdown,
}

impl End {
    fn close_frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Left => return None,
            Self::Broken => (close_code::POLICY, "messages are text of at most 65536 bytes"),
            Self::Silent => (close_code::POLICY, "no answer to pings"),
            Self::Shutdown => (close_code::AWAY, "the agent is shutting down"),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    console: &Console,
    limits: &Limits,
    mut notices: mpsc::Receiver<String>,
) -> End {
    let mut head = console.subscribe();
    let mut feed = Feed::behind(*head.borrow());
    let mut ping = interval_at(tokio::time::Instant::now() + limits.ping, limits.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            biased;
            _ = ping.tick() => Message::Ping(Bytes::new()),
            Some(notice) = notices.recv() => Message::Text(notice.into()),
            text = next_text(console, &mut head, &mut feed) => match text {
                Some(text) if text.is_empty() => continue,
                Some(text) => Message::Text(text.into()),
                None => return End::Shutdown,
            },
        };
        if sink.send(message).await.is_err() {
            return End::Left;
        }
    }
}

/// The next piece, once there is one; none when the log's writer is gone.
/// Nothing is lost when this is dropped half way: the cursor moves last.
async fn next_text(console: &Console, head: &mut watch::Receiver<u64>, feed: &mut Feed) -> Option<String> {
    loop {
        let written = *head.borrow_and_update();
        feed.keep_up(written);
        if let Some(wanted) = written.checked_sub(feed.cursor).filter(|wanted| *wanted > 0) {
            let most = usize::try_from(wanted).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            match console.read(feed.cursor, most).await {
                Ok(chunk) if chunk.bytes.is_empty() && chunk.offset <= feed.cursor => {}
                Ok(chunk) => return Some(feed.take(chunk)),
                Err(error) => {
                    feed.cursor = written;
                    return Some(notice(&format!("the console log cannot be read: {error}")));
                }
            }
        }
        head.changed().await.ok()?;
    }
}

async fn read(
    mut source: SplitStream<WebSocket>,
    handle: &Handle,
    limits: &Limits,
    notices: mpsc::Sender<String>,
) -> End {
    let mut told = false;
    loop {
        let bytes = match timeout(limits.silence, source.next()).await {
            Err(_) => return End::Silent,
            Ok(None | Some(Ok(Message::Close(_)))) => return End::Left,
            Ok(Some(Err(_))) => return End::Broken,
            Ok(Some(Ok(Message::Text(text)))) => text.as_bytes().to_vec(),
            Ok(Some(Ok(Message::Binary(bytes)))) => bytes.to_vec(),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
        };
        match handle.send_raw(bytes).await {
            Ok(()) => told = false,
            // Once: a notice for every key would drown the console.
            Err(_) if told => {}
            Err(problem) => {
                told = true;
                let _ = notices.try_send(notice(&format!("input dropped: {}", problem.detail)));
            }
        }
    }
}

/// A viewer's place in the log.
#[derive(Debug)]
struct Feed {
    /// First byte not read yet.
    cursor: u64,
    /// First byte not shown yet; behind the cursor only after a jump.
    shown: u64,
    /// The cursor may stand within a line.
    within_line: bool,
    text: Utf8Stream,
}

impl Feed {
    fn behind(head: u64) -> Self {
        let start = head.saturating_sub(REPLAY_BYTES);
        Self { cursor: start, shown: start, within_line: start > 0, text: Utf8Stream::default() }
    }

    /// Jumps ahead when it is hopelessly late.
    fn keep_up(&mut self, head: u64) {
        if head.saturating_sub(self.cursor) > MAX_LAG_BYTES {
            self.cursor = head - REPLAY_BYTES;
            self.within_line = true;
        }
    }

    /// Text of what was read, with a notice where something is missing.
    fn take(&mut self, chunk: Chunk) -> String {
        let first = self.within_line && self.shown == self.cursor;
        let overtaken = chunk.offset > self.cursor;
        let end = chunk.offset + chunk.bytes.len() as u64;
        let mut bytes = chunk.bytes;
        if (self.within_line || overtaken)
            && let Some(line_feed) = bytes.iter().position(|byte| *byte == b'\n')
        {
            bytes = bytes.slice(line_feed + 1..);
        }
        let skipped = end - bytes.len() as u64 - self.shown;
        let mut text = String::new();
        // What lies before the replay was never promised, so it is not missed.
        if skipped > 0 && (!first || overtaken) {
            text += self.text.finish();
            text += &notice(&format!("{skipped} bytes skipped"));
        }
        text += &self.text.decode(&bytes);
        (self.cursor, self.shown, self.within_line) = (end, end, false);
        text
    }
}

/// A line of the agent's among those of the console.
fn notice(text: &str) -> String {
    format!("\r\n[zlh: {text}]\r\n")
}

const MAX_MESSAGE_BYTES: usize = 64 * 1024;
const BUFFER_BYTES: usize = 4096;
const REPLAY_BYTES: u64 = 64 * 1024;
const PIECE_BYTES: usize = 32 * 1024;
const MAX_LAG_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, bytes: &'static [u8]) -> Chunk {
        Chunk { offset, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn a_short_log_is_replayed_from_its_first_byte() {
        let mut feed = Feed::behind(9);
        assert_eq!(feed.take(chunk(0, b"one\r\ntwo\n")), "one\r\ntwo\n");
        assert_eq!(feed.take(chunk(9, b"three")), "three");
    }

    #[test]
    fn a_long_log_is_replayed_from_a_line_and_without_a_notice() {
        let mut feed = Feed::behind(REPLAY_BYTES + 10);
        assert_eq!(feed.cursor, 10);
        assert_eq!(feed.take(chunk(10, b"rest of a line\nwhole\n")), "whole\n");
        let mut feed = Feed::behind(REPLAY_BYTES + 10);
        assert_eq!(feed.take(chunk(10, b"no line at all")), "no line at all");
    }

    #[test]
    fn a_late_viewer_jumps_and_is_told_how_far() {
        let mut feed = Feed::behind(0);
        assert_eq!(feed.take(chunk(0, b"abc\xf0\x9f")), "abc");
        feed.keep_up(5 + MAX_LAG_BYTES);
        assert_eq!(feed.cursor, 5);
        feed.keep_up(6 + MAX_LAG_BYTES);
        let at = 6 + MAX_LAG_BYTES - REPLAY_BYTES;
        assert_eq!(feed.cursor, at);
        let skipped = at + 2 - 5;
        assert_eq!(feed.take(chunk(at, b"x\ny")), format!("\u{fffd}\r\n[zlh: {skipped} bytes skipped]\r\ny"));
        assert_eq!(feed.take(chunk(at + 3, b"z")), "z");
    }

    #[test]
    fn what_was_rotated_away_is_reported() {
        let mut feed = Feed::behind(0);
        feed.take(chunk(0, b"abc"));
        assert_eq!(feed.take(chunk(100, b"de\nf")), "\r\n[zlh: 100 bytes skipped]\r\nf");
    }
}
