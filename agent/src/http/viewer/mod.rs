//! `/console/stream` (alias `/console/ws`): the live console, in two protocols.
//!
//! ```text
//!             ┌─ raw.rs  text frames, as deployed: a viewer far behind skips ahead
//! upgrade ────┤
//!             └─ v1.rs   zlh.console.v1: bytes by offset, nothing skipped that is kept
//! ```
//!
//! A viewer has its own cursor into the log: it first registers, then reads, and simply goes
//! on, so there is no seam between what was and what comes, and no queue that a slow
//! viewer could fill. One that takes nothing, or answers no ping, is dropped. While nothing
//! runs it waits.

mod place;
mod raw;
mod v1;

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::response::Response;
use futures_util::stream::SplitStream;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use slog::debug;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval_at, timeout};
use utoipa::IntoParams;
use zlh_api::{CONSOLE_PROTOCOL, ErrorCode, Problem};

use super::audit::Typed;
use super::guard::Caller;
use super::problem::{Answer, Failure};
use super::server::stopped;
use super::shells::{Named, named};
use super::{App, Inner, Limits};
use crate::shell::Session;

use place::Place;

/// Where a viewer begins; only `zlh.console.v1` looks at it.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Attach {
    /// `zlh.console.v1`: first byte wanted, an absolute offset.
    since: Option<u64>,
    /// `zlh.console.v1`: begin this many lines before the end, without `since`.
    tail: Option<usize>,
    /// `zlh.console.v1`: at most so many bytes beyond the last `ack`; at least 65,536.
    window: Option<u64>,
}

type Asked = Result<Query<Attach>, QueryRejection>;
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

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
///
/// **With the subprotocol `zlh.console.v1`** (`docs/console-protocol.md`): binary frames are the
/// bytes of the log, text frames are control messages (schemas `ConsoleEvent` and
/// `ConsoleControl`); `?since=OFFSET` goes on exactly where a viewer was.
#[utoipa::path(get, path = "/console/stream", operation_id = "console_stream", tag = "console", params(Attach), responses(
    (status = 101, description = "A console follows"),
    (status = 400, description = "Not a WebSocket handshake, or a query parameter is not of its form", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There are 200 viewers", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn stream(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    from: Asked,
    upgrade: Upgrade,
) -> Answer<Response> {
    open(app, caller, from, upgrade, None)
}

/// The live console, by its other deployed name.
#[utoipa::path(get, path = "/console/ws", operation_id = "console_ws", tag = "console", params(Attach), responses(
    (status = 101, description = "As `/console/stream`"),
    (status = 400, description = "Not a WebSocket handshake, or a query parameter is not of its form", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There are 200 viewers", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn ws(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    from: Asked,
    upgrade: Upgrade,
) -> Answer<Response> {
    open(app, caller, from, upgrade, None)
}

/// A shell's terminal, with `zlh.console.v1`: the screen as it is, then what follows; with
/// `since` the bytes themselves. Its size is that of the smallest viewer. Ends with the shell.
#[utoipa::path(get, path = "/shells/{name}/stream", operation_id = "shell_stream", tag = "shells",
    params(("name" = String, Path, description = "As in `GET /shells`"), Attach), responses(
    (status = 101, description = "A terminal follows"),
    (status = 400, description = "Not a WebSocket handshake, not `zlh.console.v1`, or a query parameter is not of its form", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "There is no such shell", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There are 200 viewers", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn shell(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Named,
    from: Asked,
    upgrade: Upgrade,
) -> Answer<Response> {
    let session = app.0.shells.get(&named(name)?)?;
    open(app, caller, from, upgrade, Some(&session))
}

fn open(
    app: App,
    caller: Caller,
    from: Asked,
    upgrade: Upgrade,
    shell: Option<&Arc<Session>>,
) -> Answer<Response> {
    let upgrade = upgrade.map_err(|error| {
        let detail = format!("the console is a WebSocket: {}", error.body_text());
        Failure::new(ErrorCode::InvalidRequest, detail)
    })?;
    let upgrade = upgrade.protocols([CONSOLE_PROTOCOL]);
    // Deployed callers may send whatever they like in the query.
    let from = match (upgrade.selected_protocol(), from) {
        (None, _) => None,
        (Some(_), Ok(Query(from))) => Some(from),
        (Some(_), Err(error)) => {
            return Err(Failure::new(ErrorCode::InvalidRequest, error.body_text()));
        }
    };
    if shell.is_some() && from.is_none() {
        let detail =
            format!("a shell is attached to with the WebSocket subprotocol {CONSOLE_PROTOCOL}; offer it");
        return Err(Failure::new(ErrorCode::InvalidRequest, detail));
    }
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
    let place = shell.map_or(Place::Game, |session| Place::Shell(session.view()));
    Ok(upgrade.on_upgrade(move |socket| async move {
        view(&app, caller, place, from, socket).await;
        drop(permit);
    }))
}

async fn view(App(app): &App, caller: Caller, place: Place, from: Option<Attach>, socket: WebSocket) {
    let (mut sink, source) = socket.split();
    let mut shutdown = caller.shutdown.clone();
    let ended = match from {
        None => {
            let (notices, told) = mpsc::channel(1);
            tokio::select! {
                ended = raw::write(&mut sink, app.handle.console(), &app.limits, told) => ended,
                ended = read(source, app, &caller, notices) => ended,
                () = stopped(&mut shutdown) => End::Shutdown,
            }
        }
        Some(from) => {
            tokio::select! {
                ended = v1::serve(&mut sink, source, app, &caller, &place, from) => ended,
                () = stopped(&mut shutdown) => End::Shutdown,
            }
        }
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
    /// The client sent a text frame that is no control message.
    NoControl,
    /// Nothing came for too long, not even an answer to a ping.
    Silent,
    /// What was looked at has ended.
    Over,
    /// The agent ends.
    Shutdown,
}

impl End {
    fn close_frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Left => return None,
            Self::Broken => (close_code::POLICY, "messages are text of at most 65536 bytes"),
            Self::NoControl => {
                (close_code::POLICY, "text frames are control messages here; bytes go in binary frames")
            }
            Self::Silent => (close_code::POLICY, "no answer to pings"),
            Self::Over => (close_code::NORMAL, "it has ended"),
            Self::Shutdown => (close_code::AWAY, "the agent is shutting down"),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

fn pings(limits: &Limits) -> Interval {
    let mut ping = interval_at(tokio::time::Instant::now() + limits.ping, limits.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping
}

/// The next message of a client; its end when there is none.
async fn next(source: &mut SplitStream<WebSocket>, limits: &Limits) -> Result<Message, End> {
    match timeout(limits.silence, source.next()).await {
        Err(_) => Err(End::Silent),
        Ok(None | Some(Ok(Message::Close(_)))) => Err(End::Left),
        Ok(Some(Err(_))) => Err(End::Broken),
        Ok(Some(Ok(message))) => Ok(message),
    }
}

async fn read(
    mut source: SplitStream<WebSocket>,
    app: &Inner,
    caller: &Caller,
    notices: mpsc::Sender<String>,
) -> End {
    let mut told = false;
    let mut typed = Typed::default();
    loop {
        let bytes = match next(&mut source, &app.limits).await {
            Err(end) => return end,
            Ok(Message::Text(text)) => text.as_bytes().to_vec(),
            Ok(Message::Binary(bytes)) => bytes.to_vec(),
            Ok(_) => continue,
        };
        let lines = typed.push(&bytes);
        match app.handle.send_raw(bytes).await {
            Ok(()) => {
                told = false;
                app.audit.typed(caller.peer, lines);
            }
            // Once: a notice for every key would drown the console.
            Err(_) if told => {}
            Err(problem) => {
                told = true;
                let _ = notices.try_send(raw::notice(&format!("input dropped: {}", problem.detail)));
            }
        }
    }
}

const MAX_MESSAGE_BYTES: usize = 64 * 1024;
const BUFFER_BYTES: usize = 4096;
const REPLAY_BYTES: u64 = 64 * 1024;
const PIECE_BYTES: usize = 16 * 1024;
