//! Every route: what it answers, and how it refuses.

use std::time::Duration;

use axum::Router;
use axum::http::Method;
use axum::routing::get;
use tower::ServiceExt;
use zlh_api::{ErrorCode, OperationKind};

use super::fixture::{Fixture, problem, request};
use crate::http::peer::Peer;
use crate::workload::Verb;

#[tokio::test]
async fn health_is_ok_and_nothing_else() {
    let reply = Fixture::new().get("/health").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "ok"));
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn version_leads_with_a_v() {
    let reply = Fixture::new().get("/version").await;
    assert_eq!(reply.json()["version"], format!("v{}", crate::version()));
    assert!(reply.json()["target"].as_str().unwrap().contains("linux"));
}

#[tokio::test]
async fn status_has_the_deployed_fields() {
    let status = Fixture::new().get("/status").await.json();
    for field in [
        "state",
        "processRunning",
        "ready",
        "readySource",
        "readyError",
        "lastReadyAt",
        "installStep",
        "crashCount",
        "lastCrashTime",
        "lastCrashExitCode",
        "lastCrashSignal",
        "lastCrashUptimeSeconds",
        "lastCrashLogTail",
        "error",
        "config",
        "timestamp",
    ] {
        assert!(status.get(field).is_some(), "{field} is missing");
    }
    assert_eq!(status["state"], "idle");
}

#[tokio::test]
async fn ready_is_503_until_it_is_true() {
    let fixture = Fixture::new();
    let reply = fixture.get("/ready").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["ready"]), (503, &false.into()));
    assert!(!reply.json()["reason"].as_str().unwrap().is_empty());
    fixture.snapshot.send_modify(|snapshot| std::sync::Arc::make_mut(snapshot).ready = true);
    let reply = fixture.get("/ready").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["ready"]), (200, &true.into()));
}

#[tokio::test]
async fn config_is_accepted_whatever_its_content_type() {
    let fixture = Fixture::new();
    let body = r#"{"vmid":5001,"game":"minecraft","variant":"paper","version":"1.21.7","ports":[25565],"new_field":1}"#;
    for kind in [None, Some("application/json"), Some("application/x-www-form-urlencoded")] {
        let mut request = request(Method::POST, "/config", body);
        if let Some(kind) = kind {
            request.headers_mut().insert("content-type", kind.parse().unwrap());
        }
        let reply = fixture.ask(Peer::Local(Some(0)), request).await;
        assert_eq!(reply.status.as_u16(), 202, "{}", reply.body);
        let json = reply.json();
        assert_eq!((&json["ok"], &json["state"]), (&true.into(), &"installing".into()));
        assert_eq!(
            reply.header("location"),
            format!("/operations/{}", json["operation"]["id"].as_str().unwrap())
        );
    }
    let script = fixture.script();
    let Some(Verb::Configure(config)) = script.verbs.first() else { panic!("not configured") };
    assert_eq!((config.vmid, config.version.as_deref()), (Some(5001), Some("1.21.7")));
    assert_eq!(config.extra["new_field"], 1);
}

#[tokio::test]
async fn bad_json_is_refused_and_reaches_nobody() {
    let fixture = Fixture::new();
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"vmid\":\"x\"}",
        "{\"vmid\":-1}",
        "{\"container_type\":\"vm\"}",
        "\u{0}",
        "{} {}",
    ] {
        fixture.post("/config", body).await.is_problem(400, "bad_json");
    }
    fixture.post("/config", vec![b'"', 0xff, b'"']).await.is_problem(400, "bad_json");
    let reply = fixture.post("/config", "{\"container_type\":\"vm\"}").await;
    assert!(reply.body.contains("`game` or `dev`"), "{}", reply.body);
    assert!(fixture.script().verbs.is_empty());
}

#[tokio::test]
async fn the_verbs_answer_as_deployed() {
    let fixture = Fixture::new();
    for (path, status) in [("/start", 202), ("/restart", 202), ("/stop", 204)] {
        // Some callers send a body that means nothing.
        for body in ["", "{}", "anything"] {
            let reply = fixture.post(path, body).await;
            assert_eq!(reply.status.as_u16(), status);
            let id = reply.header("location").strip_prefix("/operations/").unwrap().to_owned();
            let operation = fixture.get(&format!("/operations/{id}")).await;
            assert_eq!(operation.json()["id"], id);
            assert_eq!(reply.body.is_empty(), status == 204);
        }
    }
    assert!(matches!(
        fixture.script().verbs[..],
        [Verb::Start, Verb::Start, Verb::Start, Verb::Restart { now: false }, ..]
    ));
    fixture.script().verbs.clear();
    assert_eq!(fixture.post("/stop?now=true", "").await.status.as_u16(), 204);
    assert_eq!(fixture.post("/restart?now=true", "").await.status.as_u16(), 202);
    assert_eq!(fixture.post("/stop?serverId=5", "").await.status.as_u16(), 204);
    assert!(matches!(
        fixture.script().verbs[..],
        [Verb::Stop { now: true }, Verb::Restart { now: true }, Verb::Stop { now: false }]
    ));
    fixture.post("/stop?now=perhaps", "").await.is_problem(400, "invalid_request");
}

#[tokio::test]
async fn a_refusal_of_the_driver_is_passed_on_with_the_operation_in_the_way() {
    let fixture = Fixture::new();
    let running = fixture.operations.begin(OperationKind::Install, "downloading");
    fixture.script().refuse = Some(problem(ErrorCode::OperationInProgress).with_operation(running.clone()));
    for path in ["/start", "/stop", "/restart"] {
        let reply = fixture.post(path, "").await;
        reply.is_problem(409, "operation_in_progress");
        assert_eq!(reply.json()["operation"]["id"], running.id);
    }
}

#[tokio::test]
async fn posts_never_answer_to_get() {
    let fixture = Fixture::new();
    for path in ["/config", "/start", "/stop", "/restart", "/console/command"] {
        let reply = fixture.get(path).await;
        reply.is_problem(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), "POST", "{path}");
    }
    let reply = fixture.post("/status", "").await;
    reply.is_problem(405, "method_not_allowed");
    assert_eq!(reply.header("allow"), "GET,HEAD");
    assert!(fixture.script().verbs.is_empty());
}

#[tokio::test]
async fn an_unknown_route_is_a_problem_too() {
    let fixture = Fixture::new();
    for path in [
        "/",
        "/nope",
        "/config/",
        "//config",
        "/%63onfig",
        "/health/../config",
        "/operations/none",
        "/operations/%ff",
    ] {
        fixture.get(path).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn cors_preflight_gets_no_permission() {
    let fixture = Fixture::new();
    let mut preflight = request(Method::OPTIONS, "/config", "");
    preflight.headers_mut().insert("access-control-request-method", "POST".parse().unwrap());
    let reply = fixture.ask(Peer::Local(Some(0)), preflight).await;
    reply.is_problem(405, "method_not_allowed");
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control")));
}

#[tokio::test]
async fn a_command_is_typed_as_one_line() {
    let fixture = Fixture::new();
    for body in [r#"{"command":"say hi"}"#, r#"{"cmd":"say hi"}"#, r#"{"command":"say hi","extra":1}"#] {
        let reply = fixture.post("/console/command", body).await;
        assert_eq!((reply.status.as_u16(), reply.header("zlh-console-offset")), (204, "4711"));
    }
    let expected = (b"say hi\n".to_vec(), false);
    assert_eq!(fixture.script().input, vec![expected.clone(), expected.clone(), expected]);
}

#[tokio::test]
async fn c1_a_command_is_one_line_or_refused() {
    let fixture = Fixture::new();
    for command in
        ["say hi\nstop", "say hi\rstop", "a\0b", "a\u{2028}b", "a\u{2029}b", "a\u{85}b", "a\u{7f}", "", " "]
    {
        let body = serde_json::json!({ "command": command }).to_string();
        fixture.post("/console/command", body).await.is_problem(400, "invalid_command");
    }
    let reply = fixture.post("/console/command", format!("{{\"command\":\"{}\"}}", "a".repeat(8192))).await;
    reply.is_problem(400, "invalid_command");
    let reply =
        fixture.post("/console/command", format!("{{\"command\":\"{}\"}}", "a".repeat(1 << 20))).await;
    reply.is_problem(413, "body_too_large");
    fixture.post("/console/command", "{}").await.is_problem(400, "bad_json");
    fixture.post("/console/command", r#"{"command":"a","cmd":"b"}"#).await.is_problem(400, "bad_json");
    assert!(fixture.script().input.is_empty());
}

#[tokio::test]
async fn players_are_the_drivers() {
    let reply = Fixture::new().get("/game/players").await;
    assert_eq!(reply.json(), serde_json::json!({"online": 1, "max": 20, "players": ["Alice"]}));
}

#[tokio::test]
async fn operations_are_listed_newest_first() {
    let fixture = Fixture::new();
    fixture.operations.begin(OperationKind::Install, "one");
    let last = fixture.operations.begin(OperationKind::Start, "two");
    let list = fixture.get("/operations").await.json();
    assert_eq!(list["operations"][0]["id"], last.id);
    assert_eq!(list["operations"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_document_is_served() {
    let reply = Fixture::new().get("/openapi.json").await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(reply.json()["paths"].get("/console/stream").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_does_not_answer_costs_one_request_30_seconds() {
    let fixture = Fixture::new();
    fixture.script().hang = true;
    let started = tokio::time::Instant::now();
    fixture.post("/start", "").await.is_problem(503, "busy");
    assert_eq!(started.elapsed().as_secs(), Duration::from_secs(30).as_secs());
    assert_eq!(fixture.get("/health").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_panic_in_a_handler_is_an_answer() {
    let fixture = Fixture::new();
    let guard = axum::middleware::from_fn_with_state(fixture.app.clone(), crate::http::guard::guard);
    async fn panics() -> &'static str {
        panic!("as the test wants it")
    }
    // Under the one path that is open without a connection.
    let router: Router = Router::new().route("/health", get(panics)).layer(guard);
    let response = router.oneshot(request(Method::GET, "/health", "")).await.unwrap();
    assert_eq!(response.status().as_u16(), 500);
}

#[tokio::test]
async fn without_a_connection_nothing_is_granted() {
    let fixture = Fixture::new();
    let router = crate::http::router(fixture.app.clone());
    let response = router.oneshot(request(Method::GET, "/status", "")).await.unwrap();
    assert_eq!(response.status().as_u16(), 403);
}

#[tokio::test]
async fn history_has_every_window_and_refuses_others() {
    let fixture = Fixture::new();
    let history = fixture.get("/history?window=7d").await.json();
    assert_eq!(history["window"], "7d");
    let windows: Vec<_> = (0..3).map(|index| history["summaries"][index]["window"].clone()).collect();
    assert_eq!(windows, ["24h", "7d", "30d"]);
    assert_eq!(
        (&history["summaries"][0]["uptimePercent"], &history["segments"]),
        (&().into(), &serde_json::json!([]))
    );
    fixture.get("/history?window=1y").await.is_problem(400, "invalid_request");
    fixture.get("/history?limit=x").await.is_problem(400, "invalid_request");
}
