//! The raw terminal.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use zlh_api::client::{Client, Upgraded};

use crate::exit::{Exit, Hint};
use crate::printer::Printer;
use crate::terminal::{Key, RawMode, input};

pub(crate) async fn run(name: &str, client: &Client, detach: Key, printer: Printer) -> Result<Exit> {
    let mut socket = connect(client).await?;
    printer.note(&format!("connected to {name}; {detach} leaves the console, the server goes on"));
    let ended = {
        let _raw = RawMode::enter().context("cannot set the terminal to raw mode")?;
        talk(&mut socket, detach).await
    };
    // The server's last line may have no end.
    printer.note("");
    let how = ended?;
    let _ = tokio::time::timeout(CLOSING, socket.close(None)).await;
    match how {
        Ended::Detached => printer.note(&format!("left the console of {name}; the server goes on")),
        Ended::Signal => return Ok(Exit::Failed),
        Ended::Closed(None) => printer.note("the agent closed the console"),
        Ended::Closed(Some(frame)) => {
            printer.note(&format!("the agent closed the console: {}", frame.reason));
        }
    }
    Ok(Exit::Ok)
}

pub(super) async fn connect(client: &Client) -> Result<WebSocketStream<Upgraded>> {
    let key = generate_key();
    let (stream, accept) = client.console_stream(&key).await?;
    if accept != derive_accept_key(key.as_bytes()) {
        bail!("{} does not speak WebSocket", client.agent());
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    Ok(WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await)
}

enum Ended {
    Detached,
    Signal,
    Closed(Option<CloseFrame>),
}

async fn talk(socket: &mut WebSocketStream<Upgraded>, detach: Key) -> Result<Ended> {
    let mut keys = input();
    let mut typed = Typed::default();
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    loop {
        tokio::select! {
            piece = keys.recv() => {
                let Some(bytes) = piece else { return Ok(Ended::Detached) };
                let (text, leave) = typed.push(&bytes?, detach);
                if !text.is_empty() {
                    socket.send(Message::text(text)).await.context("the console broke off")?;
                }
                if leave {
                    return Ok(Ended::Detached);
                }
            }
            message = tokio::time::timeout(SILENCE, socket.next()) => match message {
                Err(_) => return Err(anyhow!("no sign of life from the agent for {}", crate::ui::units::duration(SILENCE)))
                    .hint("`zlhctl status` shows whether it still answers"),
                Ok(None) => return Ok(Ended::Closed(None)),
                Ok(Some(message)) => match message.context("the console broke off")? {
                    Message::Text(text) => show(text.as_bytes())?,
                    Message::Binary(bytes) => show(&bytes)?,
                    Message::Close(frame) => return Ok(Ended::Closed(frame)),
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                },
            },
            _ = terminate.recv() => return Ok(Ended::Signal),
            _ = hangup.recv() => return Ok(Ended::Signal),
        }
    }
}

fn show(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
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

/// The agent pings every five seconds.
const SILENCE: Duration = Duration::from_secs(20);
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
        let mut socket = connect(&agent().await).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("replay\u{1b}[0m"));
        socket.send(Message::text("list\r")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("echo list\r"));
    }
}
