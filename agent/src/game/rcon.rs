//! RCON: a command whose answer is an answer.
//!
//! Source of the format: the "Source RCON Protocol" page of the Valve developer wiki, and the
//! Minecraft wiki's on its limits. A packet is a length, an id, a kind and text, little endian,
//! with two zero bytes at its end. Answers are cut into packets of 4,096 bytes; a second request of a kind that no server
//! knows is answered behind the last of them.
//!
//! Port and password stand in a file of the tenant's, so what listens there has to be the game
//! itself before anything is sent to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zlh_shim::process::descendants;

use super::files;
use crate::crash::listener;

/// What a server takes at most in one request, bytes.
pub(crate) const MAX_COMMAND: usize = 1446;

/// Longest packet that is read: 4,096 bytes of text, ids and ends, and room.
const MAX_PACKET: usize = 8 << 10;

/// From the connection to the answer to the password.
const LOGIN: Duration = Duration::from_secs(2);

const KIND_RESPONSE: i32 = 0;
const KIND_COMMAND: i32 = 2;
const KIND_LOGIN: i32 = 3;
/// What nobody knows; servers say so, in order.
const KIND_UNKNOWN: i32 = 200;

const DEFAULT_PORT: u16 = 25_575;

/// A server's RCON, as its own file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rcon {
    port: u16,
    password: String,
}

/// What a command answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its words.
    pub text: String,
    /// Whether there was more, or the time was up.
    pub truncated: bool,
}

impl Rcon {
    /// Whether the server that runs as `pid` below `root` has it enabled. Blocking.
    pub(crate) fn of(root: &Path, pid: i32) -> Option<Self> {
        let rcon = Self::parse(&files::read_text(root, "server.properties").ok()?)?;
        let owner = listener(rcon.port)?;
        let is_the_game = owner == pid || descendants(pid).iter().any(|child| child.pid == owner);
        is_the_game.then_some(rcon)
    }

    fn parse(text: &str) -> Option<Self> {
        // The last assignment wins, as in Java.
        let get = |key: &str| {
            let pairs = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', '!']));
            let pairs = pairs.rev().filter_map(|line| line.split_once('='));
            pairs
                .map(|(name, value)| (name.trim(), value.trim()))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
        };
        let enabled = get("enable-rcon").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let password = get("rcon.password").filter(|password| !password.is_empty())?.to_owned();
        let port = get("rcon.port").map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
        (enabled && port != 0).then_some(Self { port, password })
    }

    /// Connects and logs in. An error means that nothing was carried out.
    pub(crate) async fn login(&self) -> io::Result<Session> {
        let login = async {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
            let mut session = Session { stream: TcpStream::connect(address).await?, input: Vec::new() };
            session.send(1, KIND_LOGIN, &self.password).await?;
            loop {
                // Some send an empty response before the verdict.
                match session.packet().await? {
                    (_, KIND_RESPONSE, _) => {}
                    (1, ..) => return Ok(session),
                    _ => {
                        return Err(io::Error::new(
                            io::ErrorKind::PermissionDenied,
                            "it does not take its own password",
                        ));
                    }
                }
            }
        };
        tokio::time::timeout(LOGIN, login).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// A connection that is logged in.
#[derive(Debug)]
pub(crate) struct Session {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Session {
    /// Has a command carried out; what came until `within` is over, of `most` bytes at most.
    pub(crate) async fn run(mut self, command: &str, within: Duration, most: usize) -> Said {
        let mut said = Said { text: String::new(), truncated: true };
        let exchange = async {
            self.send(2, KIND_COMMAND, command).await?;
            self.send(3, KIND_UNKNOWN, "").await?;
            while said.text.len() < most {
                match self.packet().await? {
                    (2, _, text) => said.text.push_str(&text),
                    (3, ..) => {
                        said.truncated = false;
                        break;
                    }
                    _ => {}
                }
            }
            io::Result::Ok(())
        };
        // However it ends: what was said so far is what there is.
        drop(tokio::time::timeout(within, exchange).await);
        said
    }

    async fn send(&mut self, id: i32, kind: i32, text: &str) -> io::Result<()> {
        let length = i32::try_from(text.len() + 10).map_err(io::Error::other)?;
        let mut packet = Vec::with_capacity(text.len() + 14);
        for number in [length, id, kind] {
            packet.extend_from_slice(&number.to_le_bytes());
        }
        packet.extend_from_slice(text.as_bytes());
        packet.extend_from_slice(&[0, 0]);
        self.stream.write_all(&packet).await
    }

    async fn packet(&mut self) -> io::Result<(i32, i32, String)> {
        loop {
            if let Some(packet) = take(&mut self.input)? {
                return Ok(packet);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

/// One whole packet from the front: id, kind, text.
fn take(input: &mut Vec<u8>) -> io::Result<Option<(i32, i32, String)>> {
    let number =
        |at: usize| input.get(at..at + 4).and_then(|four| four.try_into().ok()).map(i32::from_le_bytes);
    let Some(length) = number(0) else { return Ok(None) };
    let length = usize::try_from(length).ok().filter(|length| (10..=MAX_PACKET).contains(length));
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not RCON"))?;
    let (Some(id), Some(kind)) = (number(4), number(8)) else { return Ok(None) };
    let Some(text) = input.get(12..4 + length) else { return Ok(None) };
    let text = text.strip_suffix(&[0, 0]).unwrap_or(text);
    let text = String::from_utf8_lossy(text).into_owned();
    input.drain(..4 + length);
    Ok(Some((id, kind, text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_is_enabled_with_a_password_is_rcon() {
        let rcon = |text: &str| Rcon::parse(text).map(|rcon| (rcon.port, rcon.password));
        assert_eq!(rcon("enable-rcon=true\nrcon.password=a=b\nrcon.port=1\n"), Some((1, "a=b".to_owned())));
        assert_eq!(rcon("enable-rcon = TRUE\nrcon.password = x"), Some((DEFAULT_PORT, "x".to_owned())));
        for none in [
            "",
            "enable-rcon=true",
            "enable-rcon=true\nrcon.password=",
            "enable-rcon=false\nrcon.password=x",
            "#enable-rcon=true\nrcon.password=x",
            "enable-rcon=true\nrcon.password=x\nrcon.port=0",
            "enable-rcon=true\nrcon.password=x\nrcon.port=70000",
            "enable-rcon=true\nrcon.password=x\nenable-rcon=false",
        ] {
            assert_eq!(rcon(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn noise_is_no_packet_and_does_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            while let Ok(Some(_)) = take(&mut bytes) {}
            prop_assert!(bytes.len() < 9000);
        }
    }
}
