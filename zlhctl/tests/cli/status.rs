//! `status`, `get`, `players`, `operations`.

use serde_json::{Value, json};

use crate::mock::Mock;
use crate::{fleet, run, zlhctl};

/// An address where nobody listens, and that nobody is given by chance.
fn nobody() -> String {
    "127.0.0.1:1".to_owned()
}

fn running() -> Value {
    json!({"state": "running", "processRunning": true, "ready": true, "port": 25565})
}

#[tokio::test]
async fn some_unreachable_is_3_and_all_is_1() {
    let mock = Mock::start().await;
    mock.statuses(vec![running()]);
    let gone = nobody();
    let (_folder, path) = fleet(&[("lobby", &mock.address), ("gone", &gone)]);

    let ran = run(&path, &["status"]).await;
    assert_eq!(ran.code, 3, "{}", ran.err);
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(lines[1].starts_with("lobby  running      yes    1/20     paper 1.21.7"), "{}", ran.out);
    assert!(
        lines[2].starts_with("gone   unreachable") && lines[2].contains("connection refused"),
        "{}",
        ran.out
    );

    assert_eq!(run(&path, &["status", "lobby"]).await.code, 0);
    assert_eq!(run(&path, &["status", "gone"]).await.code, 1);
    assert_eq!(run(&path, &["status", "-l", "id=lobby"]).await.code, 0);
    assert_eq!(run(&path, &["status", "-l", "id=other"]).await.code, 1);
    assert_eq!(run(&path, &["status", &mock.address]).await.code, 0, "an address needs no fleet entry");
}

#[tokio::test]
async fn an_agent_that_is_silent_takes_two_seconds_not_ten() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (_folder, path) = fleet(&[("silent", &silent.local_addr().unwrap().to_string())]);
    let ran = run(&path, &["status"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("no answer within 2s"), "{}", ran.out);
}

#[tokio::test]
async fn documents_parse_and_names_are_names() {
    let mock = Mock::start().await;
    mock.statuses(vec![running()]);
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let ran = run(&path, &["status", "-o", "json"]).await;
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document[0]["status"]["state"], "running");
    assert!(!ran.out.contains('\u{1b}'));
    assert_eq!(run(&path, &["status", "-o", "name"]).await.out, "lobby\n");
    assert!(run(&path, &["status", "-o", "yaml"]).await.out.contains("state: running"));

    let ran = run(&path, &["get", "lobby", "-o", "json"]).await;
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["version"]["version"], "v0.1.0");
    assert!(run(&path, &["get", "lobby"]).await.out.contains("State           running, ready"));
    assert_eq!(
        run(&path, &["players", "lobby"]).await.out,
        "PLAYER\nAlice\n",
        "escape sequences are stripped"
    );
    assert_eq!(run(&path, &["operations", "lobby", "-o", "json"]).await.out, "[]\n");
}

#[tokio::test]
async fn an_unknown_name_has_a_hint() {
    let (_folder, path) = fleet(&[("lobby", "127.0.0.1:1")]);
    let ran = run(&path, &["get", "loby"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: there is no agent called `loby`"), "{}", ran.err);
    assert!(ran.err.contains("\nhint: did you mean `lobby`?\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_error() {
    let mock = Mock::start().await;
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = zlhctl(&path, &["status"]).stdout(writer).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
