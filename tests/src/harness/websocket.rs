//! A console viewer: a WebSocket on a blocking socket, with everything it received.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, HandshakeError, Message, WebSocket};
use zlh_api::{CONSOLE_PROTOCOL, ConsoleControl, ConsoleEvent};

use super::wait::SOON;

/// An open console.
#[derive(Debug)]
pub struct Viewer {
    socket: WebSocket<TcpStream>,
    received: Vec<u8>,
    pings: u32,
    closed: bool,
    has_offsets: bool,
    offset: u64,
    events: Vec<ConsoleEvent>,
}

/// Why no console was opened.
#[derive(Debug)]
pub enum Refused {
    /// The agent answered with this status instead.
    Status(u16),
    /// Something else went wrong.
    Other(String),
}

impl Viewer {
    /// Opens `path` with more headers.
    pub fn open(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<Self, Refused> {
        let other = |error: &dyn std::fmt::Display| Refused::Other(error.to_string());
        let mut request =
            format!("ws://{address}{path}").into_client_request().map_err(|error| other(&error))?;
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|error| other(&error))?;
            request.headers_mut().insert(*name, value);
        }
        let stream = TcpStream::connect_timeout(&address, SOON).map_err(|error| other(&error))?;
        stream.set_read_timeout(Some(SOON)).map_err(|error| other(&error))?;
        let (socket, answer) = tungstenite::client(request, stream).map_err(|error| match error {
            HandshakeError::Failure(Error::Http(answer)) => Refused::Status(answer.status().as_u16()),
            error => other(&error),
        })?;
        socket.get_ref().set_read_timeout(Some(TICK)).map_err(|error| other(&error))?;
        let protocol = answer.headers().get("sec-websocket-protocol");
        Ok(Self {
            socket,
            received: Vec::new(),
            pings: 0,
            closed: false,
            has_offsets: protocol.is_some_and(|protocol| protocol == CONSOLE_PROTOCOL),
            offset: 0,
            events: Vec::new(),
        })
    }

    /// Types into the terminal.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.socket.send(Message::text(text)).context("send to the console")
    }

    /// Types bytes as they are, as `zlh.console.v1` has it.
    #[track_caller]
    pub fn type_bytes(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).expect("send to the terminal");
    }

    /// Tells the size of a window.
    #[track_caller]
    pub fn resize(&mut self, columns: u16, rows: u16) {
        let control = serde_json::to_string(&ConsoleControl::Resize { columns, rows }).expect("a message");
        self.socket.send(Message::text(control)).expect("send to the terminal");
    }

    /// Everything received so far, as it came.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Everything received so far, as lines.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).replace("\r\n", "\n")
    }

    /// `zlh.console.v1`: the first byte not received yet.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// `zlh.console.v1`: control messages so far.
    pub fn events(&self) -> &[ConsoleEvent] {
        &self.events
    }

    /// Keepalives seen so far.
    pub fn pings(&self) -> u32 {
        self.pings
    }

    /// Whether the agent ended the connection.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Receives until `enough`, or panics at the deadline with what came.
    #[track_caller]
    pub fn receive_until(&mut self, what: &str, within: Duration, enough: impl Fn(&Self) -> bool) {
        let end = Instant::now() + within;
        while !enough(self) {
            let late = Instant::now() >= end;
            let (received, events) = (self.received.len(), &self.events);
            assert!(!late && !self.closed, "{what}: got {received} bytes and {events:?}: {}", self.tail());
            self.receive();
        }
    }

    /// Receives and forgets until told to stop: how many bytes.
    #[track_caller]
    pub fn drain_until(&mut self, enough: impl Fn() -> bool) -> u64 {
        let mut count = 0;
        while !enough() {
            assert!(!self.closed, "the viewer was cut off");
            self.receive();
            count += self.received.len() as u64;
            self.received.clear();
        }
        count
    }

    /// Receives until `text` was seen.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        self.receive_until(text, SOON, |viewer| viewer.text().contains(text));
    }

    /// One message, or nothing for a moment.
    fn receive(&mut self) {
        match self.socket.read() {
            Ok(Message::Text(text)) if self.has_offsets => {
                let event = serde_json::from_str(&text).expect("a control message");
                match &event {
                    ConsoleEvent::Offset { offset: next, .. }
                    | ConsoleEvent::Dropped { to: next, .. }
                    | ConsoleEvent::Screen { offset: next, .. } => self.offset = *next,
                    _ => {}
                }
                self.events.push(event);
            }
            Ok(Message::Text(text)) => self.received.extend_from_slice(text.as_bytes()),
            Ok(Message::Binary(bytes)) => {
                self.offset += bytes.len() as u64;
                self.received.extend_from_slice(&bytes);
            }
            Ok(Message::Ping(_)) => self.pings += 1,
            Ok(Message::Close(_)) => self.closed = true,
            Ok(_) => {}
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.closed = true,
        }
    }

    fn tail(&self) -> String {
        let text = self.text();
        text.chars().rev().take(500).collect::<Vec<_>>().into_iter().rev().collect()
    }
}

const TICK: Duration = Duration::from_millis(50);
