//! `zlh.console.v1`: bytes by absolute offset, control messages beside them.
//!
//! Whatever the log still has is sent, however late a viewer is; what it has no more is a
//! `dropped` of exact size. So a viewer that comes back with the offset it had reached sees
//! every byte once. TCP is the flow control; with `?window=` also the viewer's own `ack`.

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::stream::{SplitSink, SplitStream};
use tokio::sync::{mpsc, watch};
use zlh_api::{ConsoleControl, ConsoleEvent, ErrorCode, Problem};

use super::place::Place;
use super::{Attach, End, PIECE_BYTES, REPLAY_BYTES, next, pings};
use crate::console::Console;
use crate::http::Inner;
use crate::http::audit::Typed;
use crate::http::guard::Caller;

/// Answers to a viewer's messages that may wait.
const ANSWERS: usize = 8;

/// Smallest window: one that is smaller would stop in the middle of a piece.
const LEAST_WINDOW: u64 = 64 * 1024;

pub(super) async fn serve(
    sink: &mut SplitSink<WebSocket, Message>,
    source: SplitStream<WebSocket>,
    app: &Inner,
    caller: &Caller,
    place: &Place,
    from: Attach,
) -> End {
    let (answers, answered) = mpsc::channel(ANSWERS);
    let (acked, acks) = watch::channel(0);
    tokio::select! {
        ended = write(sink, app, place, from, answered, acks) => ended,
        ended = read(source, app, caller, place, answers, acked) => ended,
    }
}

async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    app: &Inner,
    place: &Place,
    from: Attach,
    mut answers: mpsc::Receiver<ConsoleEvent>,
    mut acks: watch::Receiver<u64>,
) -> End {
    let console = place.console(app);
    let mut head = console.subscribe();
    let mut news = place.news(app);
    let mut ping = pings(&app.limits);
    let began = *head.borrow();
    let (mut cursor, screen) = match begin(place, console, from, began).await {
        Ok(begun) => begun,
        Err(error) => {
            let _ = send(sink, unreadable(&error)).await;
            return End::Left;
        }
    };
    let first = [
        Some(ConsoleEvent::Offset { offset: cursor, head: began }),
        Some(place.size(app)),
        news.living().map(|pid| ConsoleEvent::Started { pid }),
        screen,
    ];
    for event in first.into_iter().flatten() {
        if send(sink, event).await.is_err() {
            return End::Left;
        }
    }
    let (first, mut live) = (cursor, false);
    loop {
        let written = *head.borrow_and_update();
        if !live && cursor >= began {
            live = true;
            if send(sink, ConsoleEvent::Live { offset: cursor }).await.is_err() {
                return End::Left;
            }
        }
        // An end is told behind the last byte that was printed before it was known.
        if let Some(event) = news.due(cursor) {
            let over = matches!(event, ConsoleEvent::Closed { .. });
            if send(sink, event).await.is_err() {
                return End::Left;
            }
            if over {
                return End::Over;
            }
        }
        let room = from.window.map_or(u64::MAX, |window| {
            let dealt_with = (*acks.borrow_and_update()).max(first);
            dealt_with.saturating_add(window.max(LEAST_WINDOW)).saturating_sub(cursor)
        });
        let wanted = written.saturating_sub(cursor).min(room).min(PIECE_BYTES as u64);
        let message = tokio::select! {
            biased;
            _ = ping.tick() => Message::Ping(Bytes::new()),
            Some(event) = answers.recv() => text(&event),
            piece = console.read(cursor, usize::try_from(wanted).unwrap_or(PIECE_BYTES)), if wanted > 0 => {
                match piece {
                    Ok(piece) if piece.offset > cursor => {
                        let event = ConsoleEvent::Dropped { from: cursor, to: piece.offset };
                        if send(sink, event).await.is_err() {
                            return End::Left;
                        }
                        cursor = piece.offset + piece.bytes.len() as u64;
                        Message::Binary(piece.bytes)
                    }
                    // Told, and not to be read yet: not seen so far, and no reason to spin.
                    Ok(piece) if piece.bytes.is_empty() => {
                        let _ = tokio::time::timeout(app.limits.ping, head.changed()).await;
                        continue;
                    }
                    Ok(piece) => {
                        cursor += piece.bytes.len() as u64;
                        Message::Binary(piece.bytes)
                    }
                    Err(error) => {
                        let event = ConsoleEvent::Dropped { from: cursor, to: written };
                        if send(sink, unreadable(&error)).await.is_err() {
                            return End::Left;
                        }
                        cursor = written;
                        text(&event)
                    }
                }
            }
            changed = head.changed(), if wanted == 0 && room > 0 => match changed {
                Ok(()) => continue,
                Err(_) => return End::Shutdown,
            },
            Ok(()) = acks.changed(), if room == 0 => continue,
            () = news.changed(console) => continue,
        };
        if matches!(&message, Message::Binary(bytes) if bytes.is_empty()) {
            continue;
        }
        if sink.send(message).await.is_err() {
            return End::Left;
        }
    }
}

/// Where a viewer begins; never behind the head.
async fn begin(
    place: &Place,
    console: &Console,
    from: Attach,
    head: u64,
) -> std::io::Result<(u64, Option<ConsoleEvent>)> {
    // A screen is worth more than the bytes that drew it.
    if let (Place::Shell(viewing), None, None) = (place, from.since, from.tail) {
        let (offset, bytes) = viewing.session().drawn().await?;
        let data = String::from_utf8_lossy(&bytes).into_owned();
        return Ok((offset, Some(ConsoleEvent::Screen { offset, data })));
    }
    let start = match (from.since, from.tail) {
        (Some(since), _) => since,
        (None, Some(lines)) => console.tail_offset(lines.min(MAX_TAIL)).await?,
        (None, None) => {
            // The whole lines of the last piece.
            let start = head.saturating_sub(REPLAY_BYTES);
            let piece = console.read(start, usize::try_from(head - start).unwrap_or(0)).await?;
            let line = piece.bytes.iter().position(|byte| *byte == b'\n').filter(|_| piece.offset > 0);
            piece.offset + line.map_or(0, |at| at as u64 + 1)
        }
    };
    Ok((start.min(head), None))
}

async fn read(
    mut source: SplitStream<WebSocket>,
    app: &Inner,
    caller: &Caller,
    place: &Place,
    answers: mpsc::Sender<ConsoleEvent>,
    acked: watch::Sender<u64>,
) -> End {
    let mut typed = Typed::default();
    let mut told = None;
    loop {
        let answer = match next(&mut source, &app.limits).await {
            Err(end) => return end,
            Ok(Message::Text(text)) => match serde_json::from_str(&text) {
                Ok(ConsoleControl::Ack { offset }) => {
                    acked.send_if_modified(|at| {
                        let more = offset > *at;
                        *at = offset.max(*at);
                        more
                    });
                    continue;
                }
                Ok(ConsoleControl::Resize { columns, rows }) => place.resize(app, columns, rows).await,
                Err(_) => return End::NoControl,
            },
            Ok(Message::Binary(bytes)) => {
                // What is typed into a shell may be a password: it is nobody's business.
                let lines = if place.is_noted() { typed.push(&bytes) } else { Vec::new() };
                match place.send(app, bytes.to_vec()).await {
                    Ok(()) => {
                        told = None;
                        app.audit.typed(caller.peer, lines);
                        continue;
                    }
                    // Once for each reason: an answer to every key would be a flood.
                    Err(problem) if told == Some(problem.error) => continue,
                    Err(Problem { error, detail, .. }) => {
                        told = Some(error);
                        ConsoleEvent::Refused { error, detail }
                    }
                }
            }
            Ok(_) => continue,
        };
        // A viewer that asks and does not read gets no more answers than fit.
        let _ = answers.try_send(answer);
    }
}

fn unreadable(error: &std::io::Error) -> ConsoleEvent {
    let detail = format!("the console log cannot be read: {error}");
    ConsoleEvent::Refused { error: ErrorCode::Internal, detail }
}

async fn send(sink: &mut SplitSink<WebSocket, Message>, event: ConsoleEvent) -> Result<(), axum::Error> {
    sink.send(text(&event)).await
}

fn text(event: &ConsoleEvent) -> Message {
    // A type of ours: it has no way not to be JSON.
    Message::Text(serde_json::to_string(event).unwrap_or_default().into())
}

const MAX_TAIL: usize = 100_000;
