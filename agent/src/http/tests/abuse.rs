//! W9 and its kin: what a hostile or broken client sends.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::TokenHash;

use super::fixture::{Fixture, exchange, read_all, until, within};

async fn alive(fixture: &Fixture) {
    assert_eq!(fixture.get("/health").await.body, "ok");
}

#[tokio::test]
async fn w9_deep_json_is_refused() {
    let fixture = Fixture::new();
    let deep = |depth| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    fixture.post("/config", deep(100_000)).await.is_problem(413, "body_too_large");
    fixture.post("/config", deep(30_000)).await.is_problem(400, "bad_json");
    fixture.post("/config", "[".repeat(60_000)).await.is_problem(400, "bad_json");
    fixture.post("/config", "{\"a\":".repeat(10_000)).await.is_problem(400, "bad_json");
    alive(&fixture).await;
    assert!(fixture.script().verbs.is_empty());
}

#[tokio::test]
async fn w9_duplicate_keys_are_refused() {
    let fixture = Fixture::new();
    for body in [
        r#"{"game":"minecraft","game":"minecraft"}"#,
        r#"{"game":"minecraft","unknown":1,"unknown":2}"#,
        r#"{"game":"minecraft","deep":{"a":[{"k":1,"k":2}]}}"#,
    ] {
        let reply = fixture.post("/config", body).await;
        reply.is_problem(400, "bad_json");
        assert!(reply.body.contains("occurs twice"), "{}", reply.body);
    }
    fixture.post("/console/command", r#"{"command":"a","command":"b"}"#).await.is_problem(400, "bad_json");
    assert!(fixture.script().verbs.is_empty() && fixture.script().input.is_empty());
}

#[tokio::test]
async fn w9_a_body_over_the_limit_is_refused_on_every_post() {
    let fixture = Fixture::new();
    for path in ["/config", "/start", "/stop", "/restart", "/console/command"] {
        fixture.post(path, vec![b' '; 64 * 1024 + 1]).await.is_problem(413, "body_too_large");
        let endless = Body::from_stream(stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 1024]))
        }));
        fixture.post(path, endless).await.is_problem(413, "body_too_large");
    }
    assert!(fixture.script().verbs.is_empty());
}

#[tokio::test]
async fn w9_endless_chunks_end_with_413() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let flood = tokio::spawn(async move {
        let head = b"POST /config HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = [b"400\r\n".as_slice(), &[b' '; 1024], b"\r\n"].concat();
        let mut sent = writing.write_all(head).await;
        while sent.is_ok() {
            sent = writing.write_all(&chunk).await;
        }
    });
    let answer = read_all(&mut reading).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    within(flood).await.unwrap();
}

#[tokio::test]
async fn w9_an_announced_length_over_the_limit_is_refused_before_it_is_sent() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    for length in ["65537", "9223372036854775807"] {
        let head = format!(
            "POST /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        );
        let answer = exchange(address, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{length}: {answer}");
    }
}

#[tokio::test]
async fn w9_a_body_that_ends_early_changes_nothing() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(
            b"POST /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{\"game\":\"minecraft\"}",
        )
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 403"),
        "{answer}"
    );
    // One that is longer than it says: the rest is another, malformed request.
    let answer = exchange(
        address,
        b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}garbage\r\n\r\n",
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("HTTP/1.1 400"), "{answer}");
    assert_eq!(fixture.script().verbs.len(), 1);
}

#[tokio::test]
async fn w9_smuggling_pairs_are_one_request_or_none() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Content-Length: 4\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Content-Length: +4",
        "Content-Length: 0x4",
    ] {
        let bytes = format!(
            "POST /health HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n0\r\n\r\nPOST /stop HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(!answer.contains("HTTP/1.1 204"), "{framing}: {answer}");
    }
    assert!(fixture.script().verbs.is_empty());
}

#[tokio::test]
async fn w9_huge_headers_are_refused() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let large = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: a\r\n".repeat(100));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000));
    for (what, bytes) in [("one large", large), ("many", many), ("a long path", long)] {
        let answer = exchange(address, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer:.200}");
    }
    assert!(
        exchange(address, b"\x16\x03\x01\x02\x00\x01\x00 not tls here\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    alive(&fixture).await;
}

#[tokio::test]
async fn a_slow_loris_is_cut_off() {
    let fixture = Fixture::with(|_| {}, |limits| limits.header = Duration::from_secs(2));
    let address = fixture.listen().await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let dripping = TcpStream::connect(address).await.unwrap();
    let (mut answers, mut drops) = dripping.into_split();
    let drip = tokio::spawn(async move {
        // One byte at a time never resets the deadline.
        let mut sent = drops.write_all(b"GET /health HTTP/1.1\r\nX: ").await;
        while sent.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            sent = drops.write_all(b"a").await;
        }
    });
    assert_eq!(read_all(&mut silent).await, "");
    read_all(&mut answers).await;
    within(drip).await.unwrap();
    // An idle connection after a request ends the same way.
    let answer = exchange(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.ends_with("ok"), "{answer}");
    within(fixture.quiet()).await;
}

#[tokio::test]
async fn who_proves_nothing_is_shown_out_and_who_did_stays() {
    let short = Duration::from_secs(2);
    let fixture = Fixture::with(
        |config| config.token = Some(TokenHash::new("a-secret-of-16-chars").unwrap()),
        |limits| limits.unknown = short,
    );
    let address = fixture.listen().await;
    let begun = Instant::now();
    let request = |path: &str, token: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let mut known = TcpStream::connect(address).await.unwrap();
    known.write_all(request("/version", "a-secret-of-16-chars").as_bytes()).await.unwrap();
    let mut first = [0_u8; 12];
    known.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut silent = TcpStream::connect(address).await.unwrap();
    // Asking what everybody may ask, or with a wrong token, buys no time.
    let mut asking = TcpStream::connect(address).await.unwrap();
    let mut wrong = TcpStream::connect(address).await.unwrap();
    asking.write_all(request("/health", "a-secret-of-16-chars").as_bytes()).await.unwrap();
    wrong.write_all(request("/version", "guess").as_bytes()).await.unwrap();
    assert_eq!(read_all(&mut silent).await, "");
    assert!(read_all(&mut asking).await.ends_with("ok"));
    assert!(read_all(&mut wrong).await.starts_with("HTTP/1.1 401"));
    assert!(begun.elapsed() >= short, "{:?}", begun.elapsed());
    let last =
        request("/version", "a-secret-of-16-chars").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    known.write_all(last.as_bytes()).await.unwrap();
    let rest = read_all(&mut known).await;
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 1, "{rest}");
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let fixture = Fixture::with(|_| {}, |limits| limits.connections = 3);
    let address = fixture.listen().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    until("three connections", || fixture.app.0.connections.available_permits() == 0).await;
    let answer = exchange(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"error\":\"busy\""), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("retry-after"), "{answer}");
    held.pop();
    until("a free place", || fixture.app.0.connections.available_permits() == 1).await;
    let answer =
        exchange(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_cut_off() {
    let fixture = Fixture::with(|_| {}, |limits| limits.write_stall = Duration::from_millis(300));
    let address = fixture.listen().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let requests = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let flood = async { while stream.write_all(&requests).await.is_ok() {} };
    within(flood).await;
    within(fixture.quiet()).await;
}

#[tokio::test]
async fn at_the_end_open_requests_are_answered_and_idle_connections_closed() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut busy = TcpStream::connect(address).await.unwrap();
    let head =
        b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    busy.write_all(head).await.unwrap();
    // The server says so once the handler waits for the body: now the request is open.
    let mut proceed = [0; 25];
    within(busy.read_exact(&mut proceed)).await.unwrap();
    assert_eq!(&proceed, b"HTTP/1.1 100 Continue\r\n\r\n");
    until("two connections", || fixture.app.0.connections.available_permits() == 510).await;
    fixture.shut_down();
    assert_eq!(read_all(&mut idle).await, "");
    busy.write_all(b"x").await.unwrap();
    let answer = read_all(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    until("a closed listener", || std::net::TcpStream::connect(address).is_err()).await;
}
