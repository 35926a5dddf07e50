//! Commands: their pace, what followed them, and who is said to have typed them.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::http::Method;
use futures_util::SinkExt;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use zlh_api::{HistoryKind, HistoryWindow};

use super::fixture::{Fixture, Reply, request, within};
use crate::http::peer::Peer;
use crate::journal::Query;

fn body(command: &str) -> String {
    serde_json::json!({ "command": command }).to_string()
}

async fn waits(fixture: &Fixture, command: &str, wait: u64) -> Reply {
    let reply = fixture.post(&format!("/console/command?wait={wait}"), body(command)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply
}

/// Who typed what, as the history tells it.
async fn typed(fixture: &Fixture, lines: usize) -> Vec<(String, String, Option<u64>)> {
    let query = Query { window: HistoryWindow::Day, before: None, limit: 1000 };
    let look = async {
        loop {
            let history = fixture.app.0.handle.journal().history(query).await.unwrap();
            let commands = history.events.into_iter().filter(|event| event.kind == HistoryKind::Command);
            let commands: Vec<_> =
                commands.map(|one| (one.who.unwrap(), one.detail.unwrap(), one.count)).collect();
            if commands.len() >= lines {
                return commands;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(look).await
}

#[tokio::test]
async fn whoever_waits_gets_the_lines_that_followed() {
    let fixture = Fixture::new();
    // The scripted driver says that what follows begins here.
    fixture.print(&[b'.'; 4710]);
    fixture.print(b"\n");
    let prints = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fixture.print(b"list\r\n");
        tokio::time::sleep(Duration::from_millis(400)).await;
        // At once: a pause between them would be measured against the silence that ends it.
        fixture.print(b"\x1b[32mThere are 2 of 20\x1b[0m\r\nAlice, Bob\r\n");
    };
    let began = std::time::Instant::now();
    let (reply, ()) = tokio::join!(waits(&fixture, "list", 10_000), prints);
    assert_eq!(reply.json()["lines"], serde_json::json!(["There are 2 of 20", "Alice, Bob"]));
    assert_eq!(reply.json()["offset"], 4711);
    assert_eq!(reply.json()["next"], fixture.app.0.handle.console().head());
    assert!(began.elapsed() < Duration::from_secs(10), "silence ends it");
    assert_eq!(reply.header("zlh-console-offset"), "4711");
    // Nothing comes, and a flood comes.
    let quiet = waits(&fixture, "quiet", 50).await.json();
    assert_eq!(quiet["lines"].as_array().unwrap().len(), 3, "another command's echo is a line: {quiet}");
    fixture.print("line of a flood\n".repeat(20_000).as_bytes());
    let flood = waits(&fixture, "flood", 10_000).await.json();
    assert_eq!((flood["truncated"].as_bool(), flood["lines"].as_array().unwrap().len()), (Some(true), 1000));
    for bad in ["?wait=10001", "?wait=-1", "?wait=soon"] {
        fixture.post(&format!("/console/command{bad}"), body("x")).await.is_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn too_many_commands_are_refused_with_a_time_to_wait() {
    let fixture = Fixture::new();
    let mut taken = 0;
    let refused = loop {
        let reply = fixture.post("/console/command", body("say hi")).await;
        if reply.status != 204 {
            break reply;
        }
        taken += 1;
        assert!(taken < 10_000, "no pace at all");
    };
    refused.is_problem(429, "too_many_requests");
    assert!(taken >= 500, "{taken}");
    assert!(!refused.header("retry-after").is_empty());
    let other = Peer::Remote(Ipv4Addr::new(10, 0, 0, 9).into());
    let reply = fixture.ask(other, request(Method::POST, "/console/command", body("say hi"))).await;
    assert_ne!(reply.status, 429, "another one's pace is his own");
    // What had no room in the journal is counted there.
    assert_eq!(fixture.script().input.len(), taken);
    let noted = typed(&fixture, 60).await;
    assert!(noted.len() < taken, "{}", noted.len());
}

#[tokio::test]
async fn who_typed_what_stands_in_the_history() {
    let fixture = Fixture::new();
    assert_eq!(fixture.post("/console/command", body("op Alice")).await.status, 204);
    let address = fixture.listen().await;
    let (mut viewer, _) = within(connect_async(format!("ws://{address}/console/stream"))).await.unwrap();
    for keys in ["st", "o", "p\r"] {
        within(viewer.send(Message::text(keys))).await.unwrap();
    }
    // Refused ones were not typed.
    fixture.post("/console/command", body("a\nb")).await.is_problem(400, "invalid_command");
    let me = format!("uid {} of this container", rustix::process::geteuid().as_raw());
    let line = |who: &str, line: &str| (who.to_owned(), line.to_owned(), None);
    assert_eq!(typed(&fixture, 2).await, [line("uid 0 of this container", "op Alice"), line(&me, "stop")]);
}
