//! The raw terminal.
//!
//! With an agent that speaks `zlh.console.v1` a broken connection is no end: the console
//! comes back at the byte it had reached, again and again, until it is left. With an older
//! one the deployed protocol is spoken, and a connection that breaks is an end.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use zlh_api::client::{Client, ClientError, Upgraded};
use zlh_api::{ConsoleControl, ConsoleEvent};

use super::record::Recording;
use crate::exit::{Exit, Hint};
use crate::printer::Printer;
use crate::terminal::{Key, RawMode, input};
use crate::ui::escape;
use crate::ui::units;

/// What is looked at.
pub(crate) enum Place {
    Game,
    Shell(String),
}

impl Place {
    /// What it is called, and what becomes of it when it is left.
    fn words(&self, name: &str) -> (String, &'static str) {
        match self {
            Self::Game => (format!("the console of {name}"), "the server goes on"),
            Self::Shell(session) => (format!("the shell {session} of {name}"), "it waits for you"),
        }
    }
}

pub(crate) async fn run(
    name: &str,
    client: &Client,
    place: Place,
    detach: Key,
    record: Option<&Path>,
    printer: Printer,
) -> Result<Exit> {
    let link = Link::open(client, &place, None).await?;
    let (what, after) = place.words(name);
    let is_shell = matches!(place, Place::Shell(_));
    let recording = record.map(|path| Recording::begin(path, name, window())).transpose()?;
    printer.note(&format!("connected to {what}; {detach} leaves it, {after}"));
    let ended = {
        let raw = RawMode::enter().context("cannot set the terminal to raw mode")?;
        let screen = Screen { recording, raw: Some(raw) };
        let ended = Session::new(client, place, detach, screen)?.hold(link).await;
        if is_shell {
            // What a full-screen program asked of our terminal ends with our look at it.
            let mut out = std::io::stdout().lock();
            out.write_all(RESET)?;
            out.flush()?;
        }
        ended
    };
    // The server's last line may have no end.
    printer.note("");
    match ended? {
        Ended::Detached => printer.note(&format!("left {what}; {after}")),
        Ended::Signal => return Ok(Exit::Failed),
        Ended::Over(reason) => printer.note(&format!("{what} has ended: {}", escape::one_line(&reason))),
        Ended::Closed(None) => printer.note("the agent closed the console"),
        Ended::Closed(Some(frame)) => {
            printer.note(&format!("the agent closed the console: {}", escape::one_line(&frame.reason)));
        }
    }
    Ok(Exit::Ok)
}

/// A connection to a console.
pub(super) struct Link {
    socket: WebSocketStream<Upgraded>,
    has_offsets: bool,
}

impl Link {
    async fn open(client: &Client, place: &Place, since: Option<u64>) -> Result<Self> {
        let key = generate_key();
        let console = match place {
            Place::Game => client.console_stream(&key, since).await?,
            Place::Shell(name) => client.shell_stream(name, &key, since).await?,
        };
        if console.accept != derive_accept_key(key.as_bytes()) {
            bail!("{} does not speak WebSocket", client.agent());
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let socket = WebSocketStream::from_raw_socket(console.stream, Role::Client, Some(config)).await;
        Ok(Self { socket, has_offsets: console.has_offsets })
    }

    async fn say(&mut self, control: ConsoleControl) -> Result<()> {
        if self.has_offsets {
            self.socket.send(Message::text(serde_json::to_string(&control)?)).await?;
        }
        Ok(())
    }
}

enum Ended {
    Detached,
    /// A shell is over: how.
    Over(String),
    Signal,
    Closed(Option<CloseFrame>),
}

/// How one connection came to its end.
enum Broken {
    Ended(Ended),
    /// Come back: why it broke.
    Lost(String),
}

/// Where a console is shown.
struct Screen {
    recording: Option<Recording>,
    raw: Option<RawMode>,
}

impl Screen {
    fn show(&mut self, bytes: &[u8]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()?;
        if let Some(recording) = &mut self.recording {
            recording.shown(bytes).context("the recording cannot be written")?;
        }
        Ok(())
    }

    /// A line of ours among the server's.
    fn remark(&mut self, text: &str) -> Result<()> {
        self.show(format!("\r\n[zlhctl: {}]\r\n", escape::one_line(text)).as_bytes())
    }

    /// Stops this process as the shell expects it, and goes on in raw mode afterwards.
    fn suspend(&mut self) -> Result<()> {
        self.raw = None;
        kill_process(getpid(), Signal::STOP).context("cannot stop")?;
        self.raw = Some(RawMode::enter().context("cannot set the terminal to raw mode")?);
        Ok(())
    }
}

struct Session<'a> {
    client: &'a Client,
    place: Place,
    detach: Key,
    screen: Screen,
    keys: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    typed: Typed,
    /// First byte not shown yet, where the agent tells.
    offset: Option<u64>,
    /// How the shell ended.
    over: Option<String>,
    terminate: Signals,
    hangup: Signals,
    resized: Signals,
    suspended: Signals,
}

impl<'a> Session<'a> {
    fn new(client: &'a Client, place: Place, detach: Key, screen: Screen) -> Result<Self> {
        Ok(Self {
            client,
            place,
            detach,
            screen,
            keys: input(),
            typed: Typed::default(),
            offset: None,
            over: None,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            resized: signal(SignalKind::window_change())?,
            suspended: signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?,
        })
    }

    /// Until it is left, however often the connection breaks.
    async fn hold(mut self, mut link: Link) -> Result<Ended> {
        loop {
            let why = match self.talk(&mut link).await? {
                Broken::Ended(how) => {
                    let _ = tokio::time::timeout(CLOSING, link.socket.close(None)).await;
                    return Ok(how);
                }
                Broken::Lost(why) => why,
            };
            let Some(offset) = self.offset.filter(|_| link.has_offsets) else {
                return Err(anyhow!(why)).hint("`zlhctl status` shows whether it still answers");
            };
            self.screen.remark(&format!("{why}; coming back, {} leaves", self.detach))?;
            link = match self.come_back(offset).await? {
                Ok(link) => link,
                Err(how) => return Ok(how),
            };
            self.screen.remark("connected again")?;
        }
    }

    /// Tries until there is a connection again, or the console is left.
    async fn come_back(&mut self, offset: u64) -> Result<Result<Link, Ended>> {
        let mut pause = tokio::time::interval(RETRY);
        loop {
            let attempt = async {
                pause.tick().await;
                Link::open(self.client, &self.place, Some(offset)).await
            };
            tokio::select! {
                link = attempt => match link {
                    Ok(link) => return Ok(Ok(link)),
                    Err(error) => match error.downcast_ref::<ClientError>() {
                        Some(ClientError::Unreachable { .. } | ClientError::Timeout { .. } | ClientError::Broken { .. }) => {}
                        // It answers, and will not have us: that is for a person.
                        _ => return Err(error),
                    },
                },
                piece = self.keys.recv() => {
                    let Some(bytes) = piece else { return Ok(Err(Ended::Detached)) };
                    if bytes?.contains(&self.detach.0) {
                        return Ok(Err(Ended::Detached));
                    }
                    // Nobody hears it: neither sent late nor lost without a sound.
                    self.screen.show(b"\x07")?;
                }
                _ = self.suspended.recv() => self.screen.suspend()?,
                _ = self.terminate.recv() => return Ok(Err(Ended::Signal)),
                _ = self.hangup.recv() => return Ok(Err(Ended::Signal)),
            }
        }
    }

    async fn talk(&mut self, link: &mut Link) -> Result<Broken> {
        let (columns, rows) = window();
        // A connection that is broken already tells below.
        let _ = link.say(ConsoleControl::Resize { columns, rows }).await;
        loop {
            tokio::select! {
                piece = self.keys.recv() => {
                    let Some(bytes) = piece else { return Ok(Broken::Ended(Ended::Detached)) };
                    let (text, leave) = self.typed.push(&bytes?, self.detach);
                    if !text.is_empty() {
                        let message =
                            if link.has_offsets { Message::binary(text.into_bytes()) } else { Message::text(text) };
                        if let Err(error) = link.socket.send(message).await {
                            return Ok(Broken::Lost(format!("the console broke off: {error}")));
                        }
                    }
                    if leave {
                        return Ok(Broken::Ended(Ended::Detached));
                    }
                }
                message = tokio::time::timeout(SILENCE, link.socket.next()) => match message {
                    Err(_) => {
                        let silence = units::duration(SILENCE);
                        return Ok(Broken::Lost(format!("no sign of life from the agent for {silence}")));
                    }
                    Ok(None) => return Ok(Broken::Lost("the agent closed the console".to_owned())),
                    Ok(Some(Err(error))) => return Ok(Broken::Lost(format!("the console broke off: {error}"))),
                    Ok(Some(Ok(Message::Text(text)))) if link.has_offsets => self.told(&text)?,
                    Ok(Some(Ok(Message::Text(text)))) => self.screen.show(text.as_bytes())?,
                    Ok(Some(Ok(Message::Binary(bytes)))) => {
                        self.screen.show(&bytes)?;
                        self.offset = self.offset.map(|offset| offset + bytes.len() as u64);
                    }
                    Ok(Some(Ok(Message::Close(frame)))) => return Ok(match frame {
                        Some(frame) if frame.code == CloseCode::Away && link.has_offsets => {
                            Broken::Lost(frame.reason.to_string())
                        }
                        frame => Broken::Ended(match self.over.take() {
                            Some(reason) => Ended::Over(reason),
                            None => Ended::Closed(frame),
                        }),
                    }),
                    Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
                },
                _ = self.resized.recv() => {
                    let (columns, rows) = window();
                    if let Some(recording) = &mut self.screen.recording {
                        recording.resized(columns, rows).context("the recording cannot be written")?;
                    }
                    let _ = link.say(ConsoleControl::Resize { columns, rows }).await;
                }
                _ = self.suspended.recv() => self.screen.suspend()?,
                _ = self.terminate.recv() => return Ok(Broken::Ended(Ended::Signal)),
                _ = self.hangup.recv() => return Ok(Broken::Ended(Ended::Signal)),
            }
        }
    }

    /// A control message of the agent's.
    fn told(&mut self, text: &str) -> Result<()> {
        let event = serde_json::from_str(text).context("the agent sent what is no control message")?;
        match event {
            ConsoleEvent::Offset { offset, .. } => {
                if let Some(before) = self.offset.filter(|before| *before > offset) {
                    self.screen.remark(&format!(
                        "the log is shorter than it was: {offset} instead of {before} bytes"
                    ))?;
                }
                self.offset = Some(offset);
            }
            ConsoleEvent::Screen { offset, data } => {
                self.screen.show(data.as_bytes())?;
                self.offset = Some(offset);
            }
            ConsoleEvent::Closed { reason, .. } => self.over = Some(reason),
            ConsoleEvent::Dropped { from, to } => {
                self.screen.remark(&format!("{} bytes are no longer kept", to.saturating_sub(from)))?;
                self.offset = Some(to);
            }
            ConsoleEvent::Exit { crash: Some(crash), .. } => {
                let how = match crash.exit_code {
                    Some(code) => format!("exit code {code}"),
                    None if crash.signal != 0 => format!("signal {}", crash.signal),
                    None => "nobody saw how".to_owned(),
                };
                self.screen.remark(&format!("the server crashed ({how}); `zlhctl explain` says why"))?;
            }
            ConsoleEvent::Exit { .. } => self.screen.remark("the server has ended")?,
            ConsoleEvent::Refused { detail, .. } => {
                self.screen.remark(&format!("input dropped: {detail}"))?;
            }
            ConsoleEvent::Live { .. }
            | ConsoleEvent::Started { .. }
            | ConsoleEvent::Size { .. }
            | ConsoleEvent::Unknown => {}
        }
        Ok(())
    }
}

/// Columns and rows of our own terminal.
pub(crate) fn window() -> (u16, u16) {
    crossterm::terminal::size().unwrap_or((80, 24))
}

/// Keys as text frames: a character may arrive in pieces.
#[derive(Debug, Default)]
struct Typed {
    partial: Vec<u8>,
}

impl Typed {
    /// The text to send, and whether the detach key was hit. What follows it is dropped.
    fn push(&mut self, bytes: &[u8], detach: Key) -> (String, bool) {
        let end = bytes.iter().position(|&b| b == detach.0);
        self.partial.extend_from_slice(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default());
        let keep = match std::str::from_utf8(&self.partial) {
            // Only the start of a character at the very end is worth waiting for.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.partial.len(),
        };
        let rest = self.partial.split_off(keep);
        let text = String::from_utf8_lossy(&std::mem::replace(&mut self.partial, rest)).into_owned();
        (text, end.is_some())
    }
}

/// Out of the other screen, cursor shown, keys and mouse as usual, plain text.
const RESET: &[u8] =
    b"\x1b[?1049l\x1b[?25h\x1b[?1l\x1b>\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[0m";

/// The agent pings every five seconds.
const SILENCE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_secs(1);
const CLOSING: Duration = Duration::from_millis(500);
/// A replay is 64 KiB; this is generous.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use axum::extract::ws::{WebSocket, WebSocketUpgrade};
    use axum::routing::get;
    use zlh_api::client::Connector;

    use super::*;

    const DETACH: Key = Key(0x1d);

    #[test]
    fn keys_become_text() {
        let mut typed = Typed::default();
        assert_eq!(typed.push(b"say \xc3", DETACH), ("say ".to_owned(), false));
        assert_eq!(typed.push(b"\xa9\x03\r", DETACH), ("é\u{3}\r".to_owned(), false));
        assert_eq!(typed.push(b"ab\x1dstop\r", DETACH), ("ab".to_owned(), true));
        assert_eq!(typed.push(b"\xff", DETACH), ("\u{fffd}".to_owned(), false));
    }

    /// Greets, then answers what it is sent, as the deployed protocol does.
    async fn agent() -> Client {
        async fn echo(mut socket: WebSocket) {
            use axum::extract::ws::Message;
            socket.send(Message::text("replay\u{1b}[0m")).await.unwrap();
            while let Some(Ok(message)) = socket.recv().await {
                if let Message::Text(text) = message {
                    socket.send(Message::text(format!("echo {text}"))).await.unwrap();
                }
            }
        }
        let route = get(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo) });
        let app = axum::Router::new().route("/console/stream", route);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Connector::new(Duration::from_secs(5), None).agent(&address, None).unwrap()
    }

    #[tokio::test]
    async fn a_console_is_a_websocket_of_text_frames() {
        let mut socket = Link::open(&agent().await, &Place::Game, None).await.unwrap().socket;
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("replay\u{1b}[0m"));
        socket.send(Message::text("list\r")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("echo list\r"));
    }
}
