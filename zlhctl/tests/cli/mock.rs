//! An agent that says what it is told to say, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Handle on a mock that answers until it is dropped.
#[derive(Clone)]
pub(crate) struct Mock {
    pub(crate) address: String,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    /// Merged into the status, one after the other; the last one stays.
    statuses: Vec<Value>,
    operation: Option<Value>,
    log: Vec<u8>,
    /// How many more followers are cut off after what there is.
    cut_followers: u32,
    refuse: Option<(u16, Value)>,
    asked: Vec<String>,
}

impl Mock {
    pub(crate) async fn start() -> Self {
        let shared = Shared {
            statuses: vec![json!({})],
            operation: None,
            log: Vec::new(),
            cut_followers: 0,
            refuse: None,
            asked: Vec::new(),
        };
        let shared = Arc::new(Mutex::new(shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mock = Self { address, shared };
        let app = Router::new()
            .route("/status", get(status))
            .route("/version", get(|| async { Json(json!({"version": "v0.1.0"})) }))
            .route(
                "/game/players",
                get(|| async { Json(json!({"online": 1, "max": 20, "players": ["Alice\u{1b}[31m"]})) }),
            )
            .route("/operations", get(operations))
            .route("/history", get(history))
            .route("/operations/{id}", get(operation))
            .route("/start", post(accept))
            .route("/restart", post(accept))
            .route("/config", post(accept))
            .route("/stop", post(stop))
            .route("/console/command", post(command))
            .route("/console/log", get(log))
            .with_state(mock.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        mock
    }

    /// What `/status` says, one answer after the other.
    pub(crate) fn statuses(&self, statuses: Vec<Value>) {
        self.shared.lock().unwrap().statuses = statuses;
    }

    pub(crate) fn operation(&self, state: &str, error: Option<&str>) {
        let operation = json!({"id": "op-7", "type": "start", "state": state, "phase": "", "startedAt": "2026-01-01T00:00:00Z", "error": error});
        self.shared.lock().unwrap().operation = Some(operation);
    }

    pub(crate) fn log(&self, text: &[u8]) {
        self.shared.lock().unwrap().log.extend_from_slice(text);
    }

    pub(crate) fn cut_followers(&self, count: u32) {
        self.shared.lock().unwrap().cut_followers = count;
    }

    pub(crate) fn refuse(&self, status: u16, problem: Value) {
        self.shared.lock().unwrap().refuse = Some((status, problem));
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.lock().unwrap().asked.clone()
    }

    fn note(&self, what: impl Into<String>) {
        self.shared.lock().unwrap().asked.push(what.into());
    }
}

async fn status(State(mock): State<Mock>) -> Json<Value> {
    let mut shared = mock.shared.lock().unwrap();
    let mut status = json!({
        "state": "idle", "processRunning": false, "ready": false, "readySource": "", "readyError": "",
        "lastReadyAt": null, "installStep": "", "crashCount": 0, "lastCrashTime": null, "lastCrashExitCode": null,
        "lastCrashSignal": 0, "lastCrashUptimeSeconds": null, "lastCrashLogTail": [], "error": null,
        "config": {"variant": "paper", "version": "1.21.7", "ports": [25565]}, "timestamp": 1_767_225_600,
    });
    let over = if shared.statuses.len() > 1 { shared.statuses.remove(0) } else { shared.statuses[0].clone() };
    for (key, value) in over.as_object().unwrap() {
        status[key] = value.clone();
    }
    Json(status)
}

async fn operations(State(mock): State<Mock>) -> Json<Value> {
    let operation = mock.shared.lock().unwrap().operation.clone();
    Json(json!({ "operations": operation.into_iter().collect::<Vec<_>>() }))
}

async fn history(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Json<Value> {
    mock.note(format!("history {}", query.unwrap_or_default()));
    let summary = |window: &str| {
        json!({
            "window": window, "uptimePercent": 75.0, "readySeconds": 64_800, "intendedSeconds": 0,
            "unintendedSeconds": 21_600, "unknownSeconds": 0, "starts": 1, "crashes": 1,
            "longestOutageSeconds": 21_600, "meanSecondsBetweenCrashes": 64_800,
        })
    };
    Json(json!({
        "now": "2026-01-02T00:00:00Z", "window": "24h", "from": "2026-01-01T00:00:00Z", "coarse": false,
        "summaries": [summary("24h"), summary("7d"), summary("30d")],
        "segments": [
            {"state": "ready", "intended": false, "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T18:00:00Z"},
            {"state": "down", "intended": false, "from": "2026-01-01T18:00:00Z", "to": "2026-01-02T00:00:00Z"},
        ],
        "events": [
            {"seq": 9, "time": "2026-01-01T18:00:00Z", "kind": "gave_up", "detail": "port in use\u{1b}]0;x\u{7}"},
        ],
        "journal": {"since": "2026-01-01T00:00:00Z", "entries": 1, "pending": 3, "damaged": 2, "lost": 0},
    }))
}

async fn operation(State(mock): State<Mock>, Path(id): Path<String>) -> Response {
    let operation = mock.shared.lock().unwrap().operation.clone();
    match operation {
        Some(operation) if operation["id"] == id => Json(operation).into_response(),
        _ => problem(
            404,
            &json!({"type": "about:blank", "title": "Not Found", "status": 404, "error": "not_found", "detail": "gone"}),
        ),
    }
}

async fn accept(State(mock): State<Mock>, headers: HeaderMap, body: String) -> Response {
    let token = headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    mock.note(format!("accept {token} {body}"));
    let (refuse, operation) = {
        let shared = mock.shared.lock().unwrap();
        (shared.refuse.clone(), shared.operation.clone())
    };
    if let Some((status, body)) = refuse {
        return problem(status, &body);
    }
    let summary = operation.map(|operation| json!({"id": operation["id"], "type": operation["type"], "startedAt": operation["startedAt"]}));
    (StatusCode::ACCEPTED, Json(json!({"ok": true, "state": "starting", "operation": summary})))
        .into_response()
}

async fn stop(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Response {
    mock.note(query.map_or("stop".to_owned(), |query| format!("stop {query}")));
    (StatusCode::NO_CONTENT, [("location", "/operations/op-7")]).into_response()
}

async fn command(State(mock): State<Mock>, Json(body): Json<Value>) -> Response {
    let line = body["command"].as_str().unwrap().to_owned();
    mock.note(format!("command {line}"));
    mock.log(format!("{line}\r\ndid \u{1b}[32m{line}\u{1b}[0m\r\n").as_bytes());
    (StatusCode::NO_CONTENT, [("zlh-console-offset", "0")]).into_response()
}

async fn log(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    mock.note(format!("log {query}"));
    let number = |key: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
            .map(|text| text.parse::<usize>().unwrap())
    };
    let (bytes, offset, cut) = {
        let mut shared = mock.shared.lock().unwrap();
        let offset = match (number("since"), number("tail")) {
            (Some(since), _) => since,
            (None, Some(0)) => shared.log.len(),
            (None, _) => 0,
        };
        let cut = shared.cut_followers > 0;
        shared.cut_followers = shared.cut_followers.saturating_sub(1);
        (shared.log[offset.min(shared.log.len())..].to_vec(), offset, cut)
    };
    let headers = [
        ("zlh-console-offset", offset.to_string()),
        ("zlh-console-next", (offset + bytes.len()).to_string()),
    ];
    if !query.contains("follow=true") || cut {
        return (headers, bytes).into_response();
    }
    let first = offset + bytes.len();
    let live = futures_util::stream::unfold((mock, first), |(mock, at)| async move {
        loop {
            let new = mock.shared.lock().unwrap().log[at..].to_vec();
            if !new.is_empty() {
                let next = at + new.len();
                return Some((Ok::<_, std::convert::Infallible>(Bytes::from(new)), (mock, next)));
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let head = futures_util::stream::iter([Ok(Bytes::from(bytes))]);
    (headers, Body::from_stream(futures_util::StreamExt::chain(head, live))).into_response()
}

fn problem(status: u16, body: &Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), [("content-type", "application/problem+json")], body.to_string())
        .into_response()
}
