//! HTTP/1.1 by hand, on blocking sockets: the tests see the bytes of the contract,
//! and can send what no proper client would.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use zlh_api::Problem;

/// A client of one address. Every request has a connection of its own.
#[derive(Debug, Clone)]
pub struct Http {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body, unchunked.
    pub body: Vec<u8>,
}

impl Http {
    /// A client without credentials.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new() }
    }

    /// The same with one more header on every request.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// Where it connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> io::Result<Response> {
        self.send("GET", path, None)
    }

    /// `POST path` without a body.
    pub fn post(&self, path: &str) -> io::Result<Response> {
        self.send("POST", path, Some(b""))
    }

    /// `DELETE path`.
    pub fn delete(&self, path: &str) -> io::Result<Response> {
        self.send("DELETE", path, None)
    }

    /// `POST path` with a JSON body.
    pub fn post_json(&self, path: &str, body: &Value) -> io::Result<Response> {
        self.send("POST", path, Some(body.to_string().as_bytes()))
    }

    /// Any request; a body is announced as JSON unless it is empty.
    pub fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            if !body.is_empty() {
                head += "content-type: application/json\r\n";
            }
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        self.raw(&[head.as_bytes(), body.unwrap_or_default()].concat())
    }

    /// Sends bytes and reads whatever answer comes.
    pub fn raw(&self, request: &[u8]) -> io::Result<Response> {
        let mut peer = self.connect()?;
        // A server that refuses a body half way answers before it was read: that
        // answer counts, not the broken pipe.
        let sent = peer.write_all(request);
        read_response(&mut BufReader::new(peer)).map_err(|error| sent.err().unwrap_or(error))
    }

    /// A connection with the harness's patience set.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let peer = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        peer.set_read_timeout(Some(PATIENCE))?;
        peer.set_write_timeout(Some(PATIENCE))?;
        peer.set_nodelay(true)?;
        Ok(peer)
    }
}

impl Response {
    /// The first header of a name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as a wire type; panics with the body otherwise.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{} {error}: {}", self.status, self.text()),
        }
    }

    /// The body as a problem document, after checking that it is a proper one.
    #[track_caller]
    pub fn problem(&self) -> Problem {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status, "the document's status is the response's");
        assert_eq!(problem.error.status(), self.status, "the code's status is the response's");
        problem
    }

    /// Itself, after checking the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

fn read_response(from: &mut impl BufRead) -> io::Result<Response> {
    let status_line = read_line(from)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad(format!("`{status_line}` is no status line")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(from)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        if headers.len() > 100 {
            return Err(bad("more than 100 headers".to_owned()));
        }
    }
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut body = Vec::new();
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        read_chunks(from, &mut body)?;
    } else if let Some(length) = header("content-length") {
        let length: u64 = length.parse().map_err(|_| bad(format!("content-length `{length}`")))?;
        let read = from.take(length.min(MAX_BODY)).read_to_end(&mut body)?;
        if (read as u64) < length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body ends early"));
        }
    } else if status != 204 && status != 304 {
        from.take(MAX_BODY).read_to_end(&mut body)?;
    }
    Ok(Response { status, headers, body })
}

fn read_chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(from)?;
        let length = u64::from_str_radix(&line, 16).map_err(|_| bad(format!("chunk `{line}`")))?;
        if length == 0 {
            return Ok(());
        }
        if body.len() as u64 + length > MAX_BODY {
            return Err(bad("an endless body".to_owned()));
        }
        from.take(length).read_to_end(body)?;
        read_line(from)?;
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(1 << 16).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the head ends early"));
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

const PATIENCE: Duration = Duration::from_secs(20);
const MAX_BODY: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_every_framing() {
        let read = |text: &str| read_response(&mut text.as_bytes());
        let plain = read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore").unwrap();
        assert_eq!((plain.status, plain.text().as_str()), (200, "ok"));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap().text(), "ok!");
        assert_eq!(read("HTTP/1.1 204 No Content\r\nx: y\r\n\r\n").unwrap().header("x"), Some("y"));
        assert!(read("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").is_err());
        assert!(read("").is_err());
    }
}
