//! A Server List Ping as a player's client sends it: how the tests know, without
//! the agent, whether a server really answers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake::wire::{frame, put_string, put_varint, read_packet, read_string, read_varint, write_packet};

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status document.
    pub status: Value,
    /// From the last byte sent to the pong.
    pub round_trip: Duration,
}

/// Asks the server on a loopback port; the whole exchange has `within`.
pub fn ping(port: u16, within: Duration) -> io::Result<Answer> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let peer = TcpStream::connect_timeout(&address, within)?;
    peer.set_nodelay(true)?;
    let mut peer = Hurried { peer, end: Instant::now() + within };
    peer.write_all(&hello("127.0.0.1", port))?;
    let body = read_packet(&mut peer)?;
    let mut rest = body.as_slice();
    if read_varint(&mut rest)? != 0 {
        return Err(invalid("not a status response"));
    }
    let status = serde_json::from_str(&read_string(&mut rest)?).map_err(invalid)?;
    let begun = Instant::now();
    let mark = [&[1_u8], 0x0123_4567_89ab_cdef_u64.to_be_bytes().as_slice()].concat();
    write_packet(&mut peer, &mark)?;
    if read_packet(&mut peer)? != mark {
        return Err(invalid("not the pong"));
    }
    Ok(Answer { status, round_trip: begun.elapsed() })
}

/// What a client says first: that it comes for the status of `host`, and that it wants it now.
pub fn hello(host: &str, port: u16) -> Vec<u8> {
    let mut hello = Vec::new();
    for value in [0, 758] {
        put_varint(&mut hello, value);
    }
    put_string(&mut hello, host);
    hello.extend_from_slice(&port.to_be_bytes());
    put_varint(&mut hello, 1);
    [frame(&hello), frame(&[0])].concat()
}

/// A connection with one deadline for everything: a byte now and then does not prolong it.
struct Hurried {
    peer: TcpStream,
    end: Instant,
}

impl Read for Hurried {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        self.peer.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        self.peer.read(into)
    }
}

impl Write for Hurried {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.peer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.peer.flush()
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
