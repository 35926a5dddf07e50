//! `history`.

use serde_json::Value;

use crate::mock::Mock;
use crate::{fleet, run, zlhctl};

#[tokio::test]
async fn it_is_drawn_in_the_readers_zone_and_without_anybodys_escapes() {
    let mock = Mock::start().await;
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let output = zlhctl(&path, &["history", "lobby"]).env("TZ", "UTC").output().await.unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(out.starts_with("lobby, down; the journal goes back 1d 0h\n"), "{out}");
    let bar = format!("24h ago [{}{}] now\n", "#".repeat(45), "X".repeat(15));
    assert!(out.contains(&bar), "{out}");
    assert!(out.ends_with("Jan 01 18:00:00  gave up  port in use\n"), "{out}");
    assert!(err.contains("3 entries wait") && err.contains("2 damaged lines"), "{err}");
    assert_eq!(mock.asked(), ["history window=30d&limit=100"], "one question for all of it");
}

#[tokio::test]
async fn documents_are_the_agents_answer_for_the_window() {
    let mock = Mock::start().await;
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let ran = run(&path, &["history", "lobby", "--window", "7d", "-n", "5", "-o", "json"]).await;
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["summaries"][0]["uptimePercent"], 75.0);
    assert_eq!(mock.asked(), ["history window=7d&limit=5"]);
    let by_address = run(&path, &["history", &mock.address, "-o", "yaml"]).await;
    assert!(by_address.out.contains("uptimePercent: 75.0"), "{}", by_address.out);
    assert_eq!(run(&path, &["history", "lobby", "--window", "1y"]).await.code, 2);
}
