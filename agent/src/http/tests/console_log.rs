//! `GET /console/log`.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::{Fixture, exchange, read_all, within};

#[tokio::test]
async fn a_part_is_addressed_by_offset() {
    let fixture = Fixture::new();
    fixture.print(b"one\r\ntwo\r\nthree\r\n");
    let reply = fixture.get("/console/log?since=5&max=3").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "two"));
    assert_eq!((reply.header("zlh-console-offset"), reply.header("zlh-console-next")), ("5", "8"));
    assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
    let rest = fixture.get("/console/log?since=8").await;
    assert_eq!((rest.body.as_str(), rest.header("zlh-console-next")), ("\r\nthree\r\n", "17"));
    let end = fixture.get("/console/log?since=17").await;
    assert_eq!((end.body.as_str(), end.header("zlh-console-next")), ("", "17"));
    let beyond = fixture.get("/console/log?since=999999999999").await;
    assert_eq!((beyond.body.as_str(), beyond.header("zlh-console-offset")), ("", "17"));
}

#[tokio::test]
async fn the_tail_is_200_lines_unless_asked() {
    let fixture = Fixture::new();
    let text: String = (0..500).map(|line| format!("line {line}\n")).collect();
    fixture.print(text.as_bytes());
    let reply = fixture.get("/console/log").await;
    assert_eq!(reply.body.lines().count(), 200);
    assert!(reply.body.starts_with("line 300\n") && reply.body.ends_with("line 499\n"));
    assert_eq!(fixture.get("/console/log?tail=2").await.body, "line 498\nline 499\n");
    assert_eq!(fixture.get("/console/log?tail=0").await.body, "");
    assert_eq!(fixture.get("/console/log?tail=18446744073709551615").await.body.lines().count(), 500);
    let later = fixture.get(&format!("/console/log?tail=10&since={}", text.len() - 9)).await;
    assert_eq!(later.body, "line 499\n");
}

#[tokio::test]
async fn pages_that_follow_next_are_the_whole_log() {
    let fixture = Fixture::new();
    let text: Vec<u8> = (0..300_000_u32).flat_map(|i| i.to_le_bytes()).collect();
    fixture.print(&text);
    let address = fixture.listen().await;
    let (mut next, mut whole) = (0, Vec::new());
    while next < text.len() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let ask = format!("GET /console/log?since={next}&max=70000 HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.unwrap();
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        whole.extend_from_slice(&answer[split + 4..]);
        let stated = head.lines().find_map(|line| line.strip_prefix("zlh-console-next: ")).unwrap();
        next = stated.parse().unwrap();
        assert_eq!(next, whole.len());
    }
    assert!(whole == text);
}

#[tokio::test]
async fn what_was_rotated_away_shows_in_the_offset() {
    let fixture = Fixture::new();
    for _ in 0..8 {
        fixture.print(&[b'x'; 1 << 20]);
    }
    let reply = fixture.get("/console/log?since=0&max=10").await;
    let offset: u64 = reply.header("zlh-console-offset").parse().unwrap();
    assert!(offset >= 4 << 20, "{offset}");
    assert_eq!(reply.header("zlh-console-next"), (offset + reply.body.len() as u64).to_string());
}

#[tokio::test]
async fn following_goes_on_until_the_caller_leaves_or_the_agent_ends() {
    let fixture = Fixture::new();
    fixture.print(b"before\n");
    let address = fixture.listen().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /console/log?follow=true&tail=1 HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        .await
        .unwrap();
    let mut seen = Vec::new();
    for line in ["before\n", "after\n", "last\n"] {
        if line != "before\n" {
            fixture.print(line.as_bytes());
        }
        while !seen.ends_with(line.as_bytes()) {
            assert_ne!(within(stream.read_buf(&mut seen)).await.unwrap(), 0, "ended early");
        }
    }
    fixture.shut_down();
    assert_eq!(read_all(&mut stream).await, "");
    within(fixture.quiet()).await;
}

#[tokio::test]
async fn a_follower_that_reads_nothing_is_dropped() {
    let fixture = Fixture::with(|_| {}, |limits| limits.write_stall = Duration::from_millis(200));
    let address = fixture.listen().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /console/log?follow=true HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.unwrap();
    let flood = async {
        while fixture.app.0.connections.available_permits() == 512 {
            tokio::task::yield_now().await;
        }
        while fixture.app.0.connections.available_permits() < 512 {
            fixture.print(&[b'x'; 64 * 1024]);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(flood).await;
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let fixture = Fixture::new();
    for query in ["since=-1", "since=x", "tail=1.5", "follow=maybe", "max=99999999999999999999999"] {
        fixture.get(&format!("/console/log?{query}")).await.is_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn html_in_the_log_stays_text() {
    let fixture = Fixture::new();
    fixture.print(b"<script>alert(1)</script>\n");
    let address = fixture.listen().await;
    let answer = exchange(address, b"GET /console/log HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.contains("x-content-type-options: nosniff") && answer.contains("<script>"), "{answer}");
}

#[tokio::test]
async fn lines_are_chosen_by_text_or_by_a_regular_expression() {
    let fixture = Fixture::new();
    fixture.print(b"\x1b[31mERR\x1b[0mOR one\r\nfine\r\nerror 22\r\nunfinished ERROR");
    let lines = async |query: &str| {
        let reply = fixture.get(&format!("/console/log?since=0&{query}")).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(reply.header("zlh-console-next"), fixture.app.0.handle.console().head().to_string());
        reply.body
    };
    assert_eq!(lines("grep=ERROR").await, "\u{1b}[31mERR\u{1b}[0mOR one\r\nunfinished ERROR");
    assert_eq!(lines("grep_re=%5Eerror%20%5Cd%2B%24").await, "error 22\r\n", "of the plain line");
    assert_eq!(lines("grep_re=(%3Fi)error").await.matches("\n").count(), 2);
    assert_eq!(lines("grep=nothing").await, "");
    for bad in ["grep_re=(", "grep=a&grep_re=b", "grep_re=a%7B1000%7D%7B1000%7D%7B1000%7D", "grep_re=(a)%5C1"]
    {
        let reply = fixture.get(&format!("/console/log?{bad}")).await;
        reply.is_problem(400, "invalid_request");
    }
    // A flood without an end of line is looked at piece by piece.
    fixture.print(&vec![b'x'; 1 << 20]);
    fixture.print(b"\nneedle\n");
    assert!(lines("grep=needle&max=4000000").await.ends_with("needle\n"));
}

#[tokio::test]
async fn a_regular_expression_costs_time_in_proportion() {
    let fixture = Fixture::new();
    fixture.print(&vec![b'a'; 1 << 20]);
    let reply = within(fixture.get("/console/log?since=0&grep_re=(a%2B)%2B%24b")).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, ""));
}
