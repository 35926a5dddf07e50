//! The client against answers no agent should give.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::connect::parse_address;
use super::*;
use crate::{CrashAction, CrashActionId, ErrorCode, HistoryKind, HistoryState, OperationKind};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Answers every connection with `answer` and returns what it was asked.
async fn server(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.windows(4).any(|w| w == b"\r\n\r\n") {
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).await.unwrap();
            asked.extend_from_slice(&buffer[..n]);
        }
        // A client that has read enough may be gone already.
        let _ = stream.write_all(answer.as_bytes()).await;
        String::from_utf8(asked).unwrap()
    });
    (address, task)
}

fn client(address: &str, token: Option<&str>) -> Client {
    Connector::new(TIMEOUT, None).agent(address, token).unwrap()
}

#[test]
fn addresses() {
    for (given, url) in [
        ("10.0.0.2", "http://10.0.0.2:18888/"),
        ("10.0.0.2:80", "http://10.0.0.2/"),
        ("host:1234", "http://host:1234/"),
        ("::1", "http://[::1]:18888/"),
        ("[::1]:99", "http://[::1]:99/"),
        ("https://mc.example.org", "https://mc.example.org/"),
        ("http://h:1/agents/7", "http://h:1/agents/7"),
    ] {
        assert_eq!(parse_address(given).unwrap().as_str(), url, "{given}");
    }
    for refused in ["", "ftp://h", "http://user:pw@h", "http://h/?a=b", "h:notaport", "a b", "file:///etc"] {
        assert!(matches!(parse_address(refused), Err(ClientError::Address { .. })), "{refused}");
    }
}

#[test]
fn a_base_path_is_kept() {
    let client = client("http://127.0.0.1:1/agents/7/", None);
    assert_eq!(client.url("console/log").as_str(), "http://127.0.0.1:1/agents/7/console/log");
    let query = LogQuery { since: Some(3), tail_lines: Some(9) };
    assert!(client.log_url(query, true).as_str().ends_with("/console/log?since=3&tail=9&follow=true"));
    assert!(client.log_url(LogQuery::default(), false).as_str().ends_with("/console/log"));
}

#[test]
fn a_token_is_never_shown() {
    let client = client("127.0.0.1:1", Some("hunter2hunter2hunter2"));
    assert!(!format!("{client:?} {:?}", client.token).contains("hunter2"));
}

#[tokio::test]
async fn the_token_is_sent_and_localhost_needs_no_resolver() {
    let (address, task) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let port = address.rsplit(':').next().unwrap();
    client(&format!("localhost:{port}"), Some("sesame")).health().await.unwrap();
    assert!(task.await.unwrap().to_lowercase().contains("authorization: bearer sesame"));
}

#[tokio::test]
async fn a_problem_comes_back_as_one() {
    let (address, _task) = server(concat!(
        "HTTP/1.1 409 Conflict\r\ncontent-length: 109\r\n\r\n",
        r#"{"type":"about:blank","title":"Conflict","status":409,"error":"operation_in_progress","detail":"is starting"}"#,
    ))
    .await;
    let error = client(&address, None).start().await.unwrap_err();
    assert_eq!(error.to_string(), format!("{address}: is starting"));
    assert!(matches!(error, ClientError::Refused { problem, .. } if problem.status == 409));
}

#[tokio::test]
async fn a_reason_of_a_newer_agent_is_told_in_its_own_words() {
    let body = r#"{"type":"about:blank","title":"Conflict","status":409,"error":"world_is_asleep","detail":"wake it first"}"#;
    let answer = format!("HTTP/1.1 409 Conflict\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (address, _task) = server(answer.leak()).await;
    let error = client(&address, None).start().await.unwrap_err();
    assert_eq!(error.to_string(), format!("{address}: wake it first"));
    assert!(
        matches!(error, ClientError::Refused { problem, .. } if problem.status == 409 && problem.error == ErrorCode::Unknown)
    );
}

#[test]
fn words_of_a_newer_agent_are_read() {
    let history = r#"{"now":"2026-01-02T00:00:00Z","window":"24h","from":"2026-01-01T00:00:00Z","summaries":[],
        "segments":[{"state":"napping","intended":true,"from":"2026-01-01T00:00:00Z","to":"2026-01-02T00:00:00Z"}],
        "coarse":false,"events":[{"seq":1,"time":"2026-01-01T00:00:00Z","kind":"napped","detail":"nobody played",
        "operation":{"id":"1","type":"nap"},"who":"x","mood":"fine"}],
        "journal":{"entries":1,"pending":0,"damaged":0,"lost":0},"weather":"rain"}"#;
    let history: History = serde_json::from_str(history).unwrap();
    assert_eq!(history.segments[0].state, HistoryState::Unknown);
    let event = &history.events[0];
    assert_eq!(event.kind, HistoryKind::Unknown);
    assert_eq!(event.detail.as_deref(), Some("nobody played"));
    assert_eq!(event.operation.as_ref().map(|operation| operation.kind), Some(OperationKind::Unknown));
    let action: CrashAction = serde_json::from_str(r#"{"id":"wake_it","available":true}"#).unwrap();
    assert_eq!(action.id, CrashActionId::Unknown);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (address, _task) =
        server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
    let error = client(&address, Some("sesame")).status().await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_over_the_ceiling_is_refused() {
    let body = "x".repeat(MAX_JSON_BYTES + 1);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (address, _task) = server(answer.leak()).await;
    let error = client(&address, None).status().await.unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[tokio::test]
async fn a_truncated_answer_is_broken() {
    let (address, _task) = server("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await;
    let error = client(&address, None).status().await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_is_unreachable_with_the_reason() {
    // Nobody is given this port by chance.
    let address = "127.0.0.1:1";
    let error = client(address, None).status().await.unwrap_err();
    assert_eq!(error.to_string(), format!("{address} is unreachable: connection refused"));
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = client(&address, None).with_timeout(Duration::from_millis(50));
    assert!(matches!(client.status().await.unwrap_err(), ClientError::Timeout { .. }));
    assert!(matches!(
        client.console_follow(LogQuery::default()).await.unwrap_err(),
        ClientError::Timeout { .. }
    ));
}

#[tokio::test]
async fn log_offsets_are_read() {
    let (address, task) = server(
        "HTTP/1.1 200 OK\r\nzlh-console-offset: 10\r\nzlh-console-next: 15\r\ncontent-length: 5\r\n\r\nhello",
    )
    .await;
    let query = LogQuery { since: Some(10), tail_lines: None };
    let chunk = client(&address, None).console_log(query).await.unwrap();
    assert_eq!(chunk, LogChunk { offset: 10, next: 15, bytes: b"hello".to_vec() });
    assert!(task.await.unwrap().starts_with("GET /console/log?since=10 HTTP/1.1"));
}

#[tokio::test]
async fn an_id_from_the_agent_is_not_a_path() {
    let error = client("127.0.0.1:1", None).operation("../stop").await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
}
