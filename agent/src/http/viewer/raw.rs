//! The deployed protocol: raw terminal text in text frames, no envelope.

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::sync::{mpsc, watch};

use super::{End, PIECE_BYTES, REPLAY_BYTES, pings};
use crate::console::{Chunk, Console};
use crate::http::Limits;
use crate::http::utf8::Utf8Stream;

pub(super) async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    console: &Console,
    limits: &Limits,
    mut notices: mpsc::Receiver<String>,
) -> End {
    let mut head = console.subscribe();
    let mut feed = Feed::behind(*head.borrow());
    let mut ping = pings(limits);
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
pub(super) fn notice(text: &str) -> String {
    format!("\r\n[zlh: {text}]\r\n")
}

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
