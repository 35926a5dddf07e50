//! The Server List Ping: readiness and players, asked of the server itself.
//!
//! Source of the format: the "Server List Ping" page of the Minecraft protocol
//! documentation (1.7 and later). Everything read has a ceiling and the whole
//! exchange one deadline, because the peer is a tenant's process.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zlh_api::Players;

/// Largest status answer, bytes: 32,767 characters of JSON and its frame.
const MAX_ANSWER: usize = 128 << 10;

/// Most names that are passed on.
const MAX_NAMES: usize = 200;

/// Longest name that is passed on, characters.
const MAX_NAME: usize = 64;

/// Why there is no answer. The words end in `readyError`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PingError {
    /// Nothing listens.
    #[error("nothing answers on port {0}")]
    Refused(u16),
    /// It listens and does not answer in time.
    #[error("port {port} is open, but there was no answer within {within:?}")]
    TooLate {
        /// Port.
        port: u16,
        /// The deadline.
        within: Duration,
    },
    /// It answers something else.
    #[error("what answers on port {port} is not a Minecraft server: {what}")]
    Malformed {
        /// Port.
        port: u16,
        /// What is wrong with it.
        what: String,
    },
    /// The connection broke.
    #[error("the server on port {port} closed the connection: {source}")]
    Io {
        /// Port.
        port: u16,
        /// The cause.
        source: std::io::Error,
    },
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// Who is online.
    pub players: Players,
}

/// Asks once.
pub(crate) async fn ping(address: SocketAddr, within: Duration) -> Result<Answer, PingError> {
    let port = address.port();
    match tokio::time::timeout(within, exchange(address)).await {
        Ok(result) => result,
        Err(_) => Err(PingError::TooLate { port, within }),
    }
}

async fn exchange(address: SocketAddr) -> Result<Answer, PingError> {
    let port = address.port();
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::ConnectionRefused => PingError::Refused(port),
        _ => PingError::Io { port, source },
    };
    let mut stream = TcpStream::connect(address).await.map_err(io)?;
    stream.set_nodelay(true).map_err(io)?;
    stream.write_all(&request(port)).await.map_err(io)?;
    let mut input = Vec::with_capacity(1024);
    let mut buffer = [0_u8; 4096];
    loop {
        let malformed = |what: &str| PingError::Malformed { port, what: what.to_owned() };
        match decode(&input) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(what) => return Err(malformed(what)),
        }
        match stream.read(&mut buffer).await.map_err(io)? {
            0 => return Err(io(std::io::ErrorKind::UnexpectedEof.into())),
            n => input.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Handshake (next state: status) and status request in one write.
fn request(port: u16) -> Vec<u8> {
    const HOST: &[u8] = b"localhost";
    let mut handshake = vec![0];
    // -1: "which version do you speak?"
    put_varint(&mut handshake, u32::MAX);
    put_varint(&mut handshake, u32::try_from(HOST.len()).unwrap_or(0));
    handshake.extend_from_slice(HOST);
    handshake.extend_from_slice(&port.to_be_bytes());
    handshake.push(1);
    let mut out = Vec::new();
    put_varint(&mut out, u32::try_from(handshake.len()).unwrap_or(0));
    out.extend(handshake);
    out.extend_from_slice(&[1, 0]);
    out
}

/// Decodes the answer once it is whole.
fn decode(input: &[u8]) -> Result<Option<Answer>, &'static str> {
    let mut rest = input;
    let Some(length) = take_varint(&mut rest)? else { return Ok(None) };
    let length = usize::try_from(length).map_err(|_| "its frame is too long")?;
    if length > MAX_ANSWER {
        return Err("its frame is too long");
    }
    let Some(mut frame) = rest.get(..length) else { return Ok(None) };
    if take_varint(&mut frame)? != Some(0) {
        return Err("its answer is of another kind");
    }
    let text = take_varint(&mut frame)?.and_then(|n| frame.get(..usize::try_from(n).ok()?));
    let text = text.ok_or("its text is cut short")?;
    const UNEXPECTED: &str = "its text is not the expected JSON";
    // An object by all means: a struct would also be read from a list.
    let mut document: Map<String, Value> = serde_json::from_slice(text).map_err(|_| UNEXPECTED)?;
    if !document.contains_key("version") && !document.contains_key("players") {
        return Err(UNEXPECTED);
    }
    let players = match document.remove("players") {
        None | Some(Value::Null) => Players::default(),
        Some(list) => serde_json::from_value::<PlayerList>(list).map_err(|_| UNEXPECTED)?.into_players(),
    };
    Ok(Some(Answer { players }))
}

#[derive(Deserialize)]
struct PlayerList {
    #[serde(default)]
    online: i64,
    #[serde(default)]
    max: i64,
    #[serde(default)]
    sample: Option<Vec<Sample>>,
}

#[derive(Deserialize)]
struct Sample {
    #[serde(default)]
    name: String,
}

impl PlayerList {
    fn into_players(self) -> Players {
        let count = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
        Players {
            online: count(self.online),
            max: count(self.max),
            players: self
                .sample
                .unwrap_or_default()
                .into_iter()
                .take(MAX_NAMES)
                .map(|sample| plain(&sample.name))
                .filter(|name| !name.is_empty())
                .collect(),
        }
    }
}

/// Without colour codes and control characters: a server may put anything there.
fn plain(name: &str) -> String {
    let mut out = String::new();
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        if c == '\u{a7}' {
            chars.next();
        } else if !c.is_control() && out.chars().count() < MAX_NAME {
            out.push(c);
        }
    }
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn take_varint(input: &mut &[u8]) -> Result<Option<u32>, &'static str> {
    let mut value: u64 = 0;
    for index in 0..5 {
        let Some(&byte) = input.get(index) else { return Ok(None) };
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *input = &input[index + 1..];
            return u32::try_from(value).map(Some).map_err(|_| "a number in it is too long");
        }
    }
    Err("a number in it is too long")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(json: &str) -> Vec<u8> {
        let mut frame = vec![0];
        put_varint(&mut frame, u32::try_from(json.len()).unwrap());
        frame.extend_from_slice(json.as_bytes());
        let mut out = Vec::new();
        put_varint(&mut out, u32::try_from(frame.len()).unwrap());
        out.extend(frame);
        out
    }

    #[test]
    fn a_whole_answer_is_read_and_a_part_waits() {
        let wire = answer(
            r#"{"version":{"name":"1.18.2"},"players":{"max":10,"online":2,"sample":[{"name":"\u00a7cAlice\u001b[2J"},{"name":"Bob"}]}}"#,
        );
        for cut in 0..wire.len() {
            assert_eq!(decode(&wire[..cut]), Ok(None), "cut at {cut}");
        }
        let players = decode(&wire).unwrap().unwrap().players;
        assert_eq!((players.online, players.max), (2, 10));
        assert_eq!(players.players, ["Alice[2J", "Bob"]);
    }

    #[test]
    fn lies_about_length_and_kind_are_refused() {
        assert!(decode(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err(), "4 GiB");
        assert!(decode(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err(), "six bytes of length");
        assert!(decode(b"HTTP/1.1 400 Bad Request\r\n\r\n and so on and on and on and on and on and on and on and on").is_err());
        for json in ["[]", "{}", "7", r#"{"players":7}"#, "{"] {
            assert!(decode(&answer(json)).is_err(), "{json}");
        }
        assert!(decode(&[3, 0, 200, 1]).is_err(), "text longer than its frame");
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&noise);
        }

        #[test]
        fn numbers_survive(value in any::<u32>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(take_varint(&mut out.as_slice()), Ok(Some(value)));
        }
    }
}
