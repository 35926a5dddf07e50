//! The Server List Ping, answered as told.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::events::{Events, What};
use super::wire::{frame, put_string, put_varint, read_packet, read_string, read_varint, write_packet};

/// How a ping is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PingMode {
    /// Completely, by the protocol.
    #[default]
    Answer,
    /// The connection is accepted and nothing ever said.
    Silent,
    /// The port is never opened; once it is, every connection is closed at once.
    Refuse,
    /// Bytes that are no packet.
    Garbage,
    /// The first half of a good answer, then the end of the connection.
    Truncated,
    /// The first half of a good answer, then silence.
    Stalled,
    /// A packet that says it has 2 GiB, and megabytes of it.
    Huge,
    /// A good answer, one byte every 200 ms.
    Slow,
    /// A good packet whose text is no JSON.
    BadJson,
    /// A packet of another kind.
    WrongPacket,
}

/// What the ping tells, shared with the game.
#[derive(Debug, Clone)]
pub(crate) struct PingState {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    mode: PingMode,
    motd: String,
    max: u32,
    players: Vec<String>,
}

impl PingState {
    pub(crate) fn new(mode: PingMode, motd: String, max: u32, players: Vec<String>) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { mode, motd, max, players })) }
    }

    pub(crate) fn set_mode(&self, mode: PingMode) {
        self.lock().mode = mode;
    }

    pub(crate) fn join(&self, name: &str) {
        self.lock().players.push(name.to_owned());
    }

    pub(crate) fn leave(&self, name: &str) {
        self.lock().players.retain(|player| player != name);
    }

    pub(crate) fn players(&self) -> (Vec<String>, u32) {
        let inner = self.lock();
        (inner.players.clone(), inner.max)
    }

    fn mode(&self) -> PingMode {
        self.lock().mode
    }

    fn status(&self) -> Value {
        let inner = self.lock();
        // A real server tells a sample of twelve, and online may be more.
        let sample: Vec<Value> = inner
            .players
            .iter()
            .take(12)
            .zip(1_u32..)
            .map(
                |(name, number)| json!({"name": name, "id": format!("00000000-0000-0000-0000-{number:012}")}),
            )
            .collect();
        json!({
            "version": {"name": "1.18.2", "protocol": PROTOCOL},
            "players": {"max": inner.max, "online": inner.players.len(), "sample": sample},
            "description": {"text": inner.motd},
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the port and answers for ever in threads of its own.
pub(crate) fn listen(port: u16, state: PingState, events: Events) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    events.record(What::Listening, listener.local_addr()?.port().to_string());
    std::thread::Builder::new().name("ping".to_owned()).spawn(move || accept(&listener, &state, &events))?;
    Ok(())
}

fn accept(listener: &TcpListener, state: &PingState, events: &Events) {
    let open = Arc::new(AtomicUsize::new(0));
    let first = Arc::new(AtomicBool::new(true));
    for connection in listener.incoming().flatten() {
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            continue;
        }
        let (state, events, open, first) =
            (state.clone(), events.clone(), Arc::clone(&open), Arc::clone(&first));
        open.fetch_add(1, Ordering::Relaxed);
        let spawned = std::thread::Builder::new().name("ping".to_owned()).spawn(move || {
            if matches!(serve(connection, &state), Ok(true)) && first.swap(false, Ordering::Relaxed) {
                events.record(What::FirstPing, "");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
        drop(spawned);
    }
}

/// One connection; true when a status was answered completely.
fn serve(mut peer: TcpStream, state: &PingState) -> io::Result<bool> {
    peer.set_read_timeout(Some(PATIENCE))?;
    peer.set_write_timeout(Some(PATIENCE))?;
    peer.set_nodelay(true)?;
    match state.mode() {
        PingMode::Refuse => return peer.shutdown(Shutdown::Both).map(|()| false),
        PingMode::Silent => return drain(&mut peer).map(|()| false),
        PingMode::Garbage => {
            peer.write_all(&[0xff; 64])?;
            return drain(&mut peer).map(|()| false);
        }
        _ => {}
    }
    let wants = handshake(&read_packet(&mut peer)?)?;
    if wants != NEXT_STATUS {
        return log_in(&mut peer).map(|()| false);
    }
    if read_packet(&mut peer)? != [STATUS] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a status request"));
    }
    let answered = answer(&mut peer, state)?;
    // The client may go, or ask for the round trip.
    if let Ok(ping) = read_packet(&mut peer)
        && ping.first() == Some(&PING)
    {
        write_packet(&mut peer, &ping)?;
    }
    Ok(answered)
}

fn answer(peer: &mut TcpStream, state: &PingState) -> io::Result<bool> {
    let good = frame(&status_body(&state.status().to_string()));
    let half = &good[..good.len() / 2];
    match state.mode() {
        PingMode::Truncated => {
            peer.write_all(half)?;
            peer.shutdown(Shutdown::Both)?;
        }
        PingMode::Stalled => {
            peer.write_all(half)?;
            drain(peer)?;
        }
        PingMode::Huge => {
            let mut lie = Vec::new();
            put_varint(&mut lie, i32::MAX);
            peer.write_all(&lie)?;
            for _ in 0..64 {
                peer.write_all(&[b' '; 1 << 16])?;
            }
            drain(peer)?;
        }
        PingMode::Slow => {
            for byte in &good {
                peer.write_all(std::slice::from_ref(byte))?;
                std::thread::sleep(SLOW_BYTE);
            }
            return Ok(true);
        }
        PingMode::BadJson => write_packet(peer, &status_body("{\"version\": no json"))?,
        PingMode::WrongPacket => write_packet(peer, &[0x42, 1, 2, 3])?,
        PingMode::Answer => return peer.write_all(&good).map(|()| true),
        PingMode::Silent | PingMode::Refuse | PingMode::Garbage => {}
    }
    Ok(false)
}

/// The state the client wants to go to.
fn handshake(packet: &[u8]) -> io::Result<i32> {
    let mut rest = packet;
    let id = read_varint(&mut rest)?;
    let _protocol = read_varint(&mut rest)?;
    let _host = read_string(&mut rest)?;
    let mut port = [0; 2];
    rest.read_exact(&mut port)?;
    let wants = read_varint(&mut rest)?;
    if id == 0 && rest.is_empty() {
        Ok(wants)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "no handshake"))
    }
}

/// Nobody plays here: a login is refused politely.
fn log_in(peer: &mut TcpStream) -> io::Result<()> {
    let mut body = vec![0];
    put_string(&mut body, &json!({"text": "this is a fake game"}).to_string());
    write_packet(peer, &body)
}

fn status_body(text: &str) -> Vec<u8> {
    let mut body = vec![STATUS];
    put_string(&mut body, text);
    body
}

/// Reads until the client gives up.
fn drain(peer: &mut TcpStream) -> io::Result<()> {
    let mut sink = [0; 4096];
    while peer.read(&mut sink)? > 0 {}
    Ok(())
}

const STATUS: u8 = 0x00;
const PING: u8 = 0x01;
const NEXT_STATUS: i32 = 1;
/// Minecraft 1.18.2.
const PROTOCOL: i32 = 758;
const MAX_CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);
const SLOW_BYTE: Duration = Duration::from_millis(200);
