//! `start`, `stop`, `configure`, `wait`.

use serde_json::json;

use crate::mock::Mock;
use crate::{fleet, run, run_with_input};

#[tokio::test]
async fn a_start_waits_until_ready() {
    let mock = Mock::start().await;
    mock.operation("succeeded", None);
    mock.statuses(vec![
        json!({"state": "starting", "processRunning": true, "readyError": "connection refused"}),
        json!({"state": "running", "processRunning": true, "ready": true}),
    ]);
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let ran = run(&path, &["start", "lobby"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert!(ran.err.contains("lobby: starting: connection refused\n"), "{}", ran.err);
    assert!(ran.err.contains("lobby ready ("), "{}", ran.err);
}

#[tokio::test]
async fn a_failed_operation_is_the_reason_and_one_of_two_is_3() {
    let (good, bad) = (Mock::start().await, Mock::start().await);
    good.statuses(vec![json!({"state": "running", "ready": true})]);
    bad.operation("failed", Some("port 25565 is in use\u{1b}]0;x\u{7}"));
    bad.statuses(vec![json!({"state": "error", "error": "port 25565 is in use"})]);
    let (_folder, path) = fleet(&[("good", &good.address), ("bad", &bad.address)]);
    let ran = run(&path, &["start", "good", "bad", "-q"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.starts_with("error: bad: port 25565 is in use\n"), "{:?}", ran.err);
    assert_eq!(run(&path, &["start", "bad", "-q"]).await.code, 1);
}

#[tokio::test]
async fn no_wait_returns_at_once() {
    let mock = Mock::start().await;
    mock.operation("running", None);
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    for verb in ["start", "restart", "stop"] {
        let ran = run(&path, &[verb, "lobby", "--no-wait"]).await;
        assert_eq!(ran.code, 0, "{verb}: {}", ran.err);
    }
    assert_eq!(mock.asked().iter().filter(|asked| *asked == "stop").count(), 1);
    let ran = run(&path, &["stop", "lobby", "--no-wait", "--now"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(mock.asked().iter().any(|asked| asked == "stop now=true"), "{:?}", mock.asked());
}

#[tokio::test]
async fn a_stop_waits_until_idle() {
    let mock = Mock::start().await;
    mock.statuses(vec![json!({"state": "stopping", "processRunning": true}), json!({"state": "idle"})]);
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let ran = run(&path, &["stop", "lobby"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("lobby: stopping\n") && ran.err.contains("lobby idle ("), "{}", ran.err);
}

#[tokio::test]
async fn waiting_ends_at_once_on_error_and_gives_up_in_time() {
    let mock = Mock::start().await;
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    mock.statuses(vec![json!({"state": "error", "error": "server.jar: hash mismatch"})]);
    let ran = run(&path, &["wait", "lobby", "-q"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: lobby: server.jar: hash mismatch\n"), "{}", ran.err);
    mock.statuses(vec![json!({"state": "starting"})]);
    let ran = run(&path, &["wait", "lobby", "--timeout", "300ms", "-q"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("error: lobby: not ready after 0.3s: starting\n"), "{}", ran.err);
    mock.statuses(vec![json!({"state": "idle"})]);
    assert_eq!(run(&path, &["wait", "lobby", "--for", "stopped"]).await.code, 0);
}

#[tokio::test]
async fn waiting_survives_an_agent_that_is_not_there_yet() {
    // Nobody is given this port by chance.
    let (_folder, path) = fleet(&[("lobby", "127.0.0.1:1")]);
    let ran = run(&path, &["wait", "lobby", "--timeout", "2500ms"]).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("not ready after 2.5s") && ran.err.contains("connection refused"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_payload_goes_through_as_it_is_with_the_token() {
    let mock = Mock::start().await;
    mock.statuses(vec![json!({"state": "running", "ready": true})]);
    let (folder, path) = fleet(&[("lobby", &mock.address)]);
    let token = folder.path().join("token");
    std::fs::write(&token, "sesame-sesame-sesame").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let token = token.to_str().unwrap();
    let args = ["configure", "lobby", "-f", "-", "--token-file", token];
    let ran = run_with_input(&path, &args, r#"{"vmid":5001,"portal_tag":"blue"}"#).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(mock.asked(), [r#"accept Bearer sesame-sesame-sesame {"portal_tag":"blue","vmid":5001}"#]);
}

#[tokio::test]
async fn a_refusal_is_the_agents_words_and_a_hint() {
    let mock = Mock::start().await;
    mock.refuse(409, json!({"type": "about:blank", "title": "Conflict", "status": 409, "error": "not_configured", "detail": "nothing is configured"}));
    let (_folder, path) = fleet(&[("lobby", &mock.address)]);
    let ran = run(&path, &["start", "lobby", "-q"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("nothing is configured\nhint: send a payload first"), "{}", ran.err);
}
