//! The wire, byte for byte as the deployed callers know it.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::{Value, json};
use zlh_api::{ErrorCode, MASK, State, Status};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::http::Http;
use zlh_tests::harness::paths;
use zlh_tests::harness::store::{FakePlan, Store};

const TOKEN: &str = "correct-horse-battery-staple-0123456789";

/// Every route of this surface with its one method.
const ROUTES: [(&str, &str); 12] = [
    ("GET", "/health"),
    ("GET", "/version"),
    ("GET", "/status"),
    ("GET", "/ready"),
    ("GET", "/game/players"),
    ("GET", "/operations"),
    ("GET", "/console/log"),
    ("GET", "/openapi.json"),
    ("POST", "/config"),
    ("POST", "/start"),
    ("POST", "/restart"),
    ("POST", "/console/command"),
];

fn agent() -> Agent {
    Agent::with_fake(&FakePlan::new(&[]))
}

#[test]
fn the_small_answers_are_exactly_as_deployed() {
    let agent = agent();
    let health = agent.http().get("/health").unwrap().expect(200);
    assert_eq!(health.body, b"ok");
    let version: Value = agent.http().get("/version").unwrap().expect(200).json();
    assert_eq!(version["version"], concat!("v", env!("CARGO_PKG_VERSION")));
    for header in ["access-control-allow-origin", "server"] {
        assert_eq!(health.header(header), None, "{header}");
    }
}

#[test]
fn the_deployed_fields_of_the_status_are_there_with_their_types() {
    let agent = agent();
    let idle: Value = agent.http().get("/status").unwrap().expect(200).json();
    for (field, expected) in [
        ("state", json!("idle")),
        ("processRunning", json!(false)),
        ("ready", json!(false)),
        ("installStep", json!("")),
        ("crashCount", json!(0)),
        ("lastCrashTime", json!(null)),
        ("lastCrashExitCode", json!(null)),
        ("lastCrashSignal", json!(0)),
        ("lastCrashLogTail", json!([])),
        ("error", json!(null)),
        ("config", json!(null)),
        ("operationInProgress", json!(false)),
        ("maintenance", json!(false)),
    ] {
        assert_eq!(idle.get(field), Some(&expected), "{field}");
    }
    for field in ["readySource", "readyError"] {
        assert!(idle[field].is_string(), "{field}: {}", idle[field]);
    }
    for field in
        ["lastReadyAt", "lastCrashUptimeSeconds", "operationStartedAt", "operationMessage", "operationType"]
    {
        assert!(idle.get(field).is_some(), "{field} is absent");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(idle["timestamp"].as_u64().unwrap()) < 60, "Unix seconds: {}", idle["timestamp"]);
}

#[test]
fn every_route_has_its_methods_and_no_other() {
    let agent = agent();
    for (method, path) in ROUTES.into_iter().chain([("POST", "/stop")]) {
        for wrong in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if wrong == method {
                continue;
            }
            let answer = agent.http().send(wrong, path, Some(b"")).unwrap().expect(405);
            assert_eq!(answer.problem().error, ErrorCode::MethodNotAllowed, "{wrong} {path}");
            assert!(answer.header("allow").unwrap().contains(method), "{wrong} {path}: {answer:?}");
        }
    }
    assert_eq!(agent.status().state, State::Idle, "none of it did anything");
    let lost = agent.http().get("/nowhere").unwrap().expect(404).problem();
    assert_eq!(lost.error, ErrorCode::NotFound);
}

#[test]
fn the_document_is_the_one_that_is_checked_in() {
    let agent = agent();
    let served: Value = agent.http().get("/openapi.json").unwrap().expect(200).json();
    let path = paths::workspace().join("agent/api/openapi.json");
    let checked_in: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(served == checked_in, "{} is stale: run `make openapi`", path.display());
    for (method, path) in ROUTES.into_iter().chain([("POST", "/stop"), ("GET", "/console/stream")]) {
        let described = &served["paths"][path][method.to_lowercase()];
        assert!(described.is_object() || path == "/openapi.json", "{method} {path} is not described");
    }
}

#[test]
fn what_is_no_json_is_refused_where_it_goes_wrong() {
    let agent = agent();
    for path in ["/config", "/console/command"] {
        for body in
            ["", "{", "[]", "null", "\"x\"", "{\"vmid\":}", "{\"a\":1}{\"b\":2}", "\u{feff}{}", "nonsense"]
        {
            let answer = agent.http().send("POST", path, Some(body.as_bytes())).unwrap();
            assert_eq!(answer.status, 400, "{path} {body:?}: {}", answer.text());
            answer.problem();
        }
        let bad = agent.http().send("POST", path, Some(b"{\"vmid\":}")).unwrap().problem();
        assert_eq!(bad.error, ErrorCode::BadJson);
        assert!(bad.detail.contains("line 1"), "where: {}", bad.detail);
        let deep = "[".repeat(100_000);
        assert_eq!(agent.http().send("POST", path, Some(deep.as_bytes())).unwrap().status / 100, 4);
        let not_text = [b"{\"command\":\"".as_slice(), &[0xff, 0xfe], b"\"}"].concat();
        assert_eq!(agent.http().send("POST", path, Some(&not_text)).unwrap().status, 400);
    }
    assert_eq!(agent.status().state, State::Idle);
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let agent = agent();
    let before = agent.process().memory().unwrap();
    for path in ["/config", "/console/command", "/start"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10737418240\r\n\r\n{{"
        );
        let answer = agent.http().raw(head.as_bytes()).unwrap();
        assert_eq!(answer.status, 413, "{path}: {}", answer.text());
        assert_eq!(answer.problem().error, ErrorCode::BodyTooLarge);
    }
    // Without a length it is found out on the way.
    let mut peer = agent.http().connect().unwrap();
    peer.write_all(b"POST /config HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    let sent = (0..256).take_while(|_| peer.write_all(&chunk).is_ok()).count();
    let mut answer = Vec::new();
    let _ = peer.take(1 << 16).read_to_end(&mut answer);
    assert!(sent < 256, "a quarter of a gigabyte went in");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    let after = agent.process().memory().unwrap();
    assert!(after.rss_kib < before.rss_kib + (16 << 10), "{before:?} {after:?}");
}

#[test]
fn what_is_no_http_ends_the_connection_and_nothing_else() {
    let agent = agent();
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00".as_slice(),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /status HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let mut peer = agent.http().connect().unwrap();
        peer.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = peer.take(1 << 16).read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let long = format!("GET /status HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
    if let Ok(answer) = agent.http().raw(long.as_bytes()) {
        assert_eq!(answer.status / 100, 4);
    }
    assert_eq!(agent.http().get("/health").unwrap().text(), "ok");
}

#[test]
fn secrets_are_stored_privately_and_shown_to_nobody() {
    let agent = agent();
    let mut payload = agent.payload();
    payload["admin_user"] = json!("root");
    payload["admin_pass"] = json!("hunter2-hunter2");
    payload["steam_auth"] = json!("");
    payload["rcon_token"] = json!("swordfish-swordfish");
    agent.configure_with(&payload).expect(202);
    agent.wait_ready();
    let status: Status = agent.http().get("/status").unwrap().json();
    let config = status.config.unwrap();
    assert_eq!(config.admin_user.as_deref(), Some("root"));
    assert_eq!(config.admin_pass.as_deref(), Some(MASK));
    assert_eq!(config.steam_auth.as_deref(), Some(""));
    assert_eq!(config.extra["rcon_token"], MASK);
    let file = agent.root_path("opt/zlh-agent/config/payload.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(
        fs::read_to_string(&file).unwrap().contains("hunter2-hunter2"),
        "what was sent is what is stored"
    );
    let run = agent.game();
    let environ = fs::read(format!("/proc/{}/environ", run.pid)).unwrap();
    for secret in ["hunter2", "swordfish"] {
        assert!(!agent.log().contains(secret), "in the log");
        assert!(!String::from_utf8_lossy(&environ).contains(secret), "in the game's environment");
        assert!(!agent.http().get("/operations").unwrap().text().contains(secret));
    }
}

#[test]
fn a_corrupt_payload_is_set_aside_and_said() {
    for content in [
        b"{\"vmid\": 5001, \"ga".as_slice(),
        b"",
        b"\xff\xfe\0",
        b"[]",
        b"{\"game\":\"minecraft\",\"world\":\"../x\"}",
    ] {
        let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
        let file = agent.root_path("opt/zlh-agent/config/payload.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        agent.start();
        let status = agent.recalled();
        let said = format!("{:?} {:?}", status.error, status.warnings);
        assert!(said.contains("payload"), "{}: {said}", String::from_utf8_lossy(content));
        assert!(matches!(status.state, State::Error | State::Idle) && !status.process_running);
        agent.configure();
        agent.wait_ready();
    }
}

#[test]
fn another_user_of_this_machine_is_refused_without_a_token() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can start a process as another user");
        return;
    }
    let agent = agent();
    for (path, body) in
        [("/status", None), ("/console/log", None), ("/stop", Some("")), ("/config", Some("{}"))]
    {
        let answer = as_nobody(agent.http().address(), path, body);
        assert!(answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
        assert!(answer.contains("application/problem+json"), "{path}: {answer}");
    }
    assert_eq!(agent.status().state, State::Idle);
}

#[test]
fn guessing_tokens_is_slowed_down_and_the_right_one_is_not_told_apart() {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    agent.env("ZLH_AGENT_TOKEN", TOKEN);
    agent.start();
    let guess = |number: u32| agent.http().with_token(&format!("guess-{number:032}")).get("/status").unwrap();
    let refused =
        (0..100).map(guess).find(|answer| answer.status != 401).expect("a hundred guesses are too many");
    assert_eq!(refused.status, 429, "{}", refused.text());
    refused.problem();
    assert_eq!(agent.http().get("/health").unwrap().text(), "ok");
}

/// One request from a process of another user.
fn as_nobody(address: SocketAddr, path: &str, body: Option<&str>) -> String {
    let request = match body {
        None => format!("GET {path} HTTP/1.1\\r\\nhost: {address}\\r\\nconnection: close\\r\\n\\r\\n"),
        Some(body) => format!(
            "POST {path} HTTP/1.1\\r\\nhost: {address}\\r\\nconnection: close\\r\\ncontent-type: application/json\\r\\ncontent-length: {}\\r\\n\\r\\n{body}",
            body.len()
        ),
    };
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{} && printf '{request}' >&3 && cat <&3", address.port());
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir("/").uid(NOBODY).gid(NOBODY);
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

#[test]
fn with_a_token_everything_but_health_needs_it() {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    agent.env("ZLH_AGENT_TOKEN", TOKEN);
    agent.start();
    let with = agent.http().with_token(TOKEN);
    assert_eq!(agent.http().get("/health").unwrap().expect(200).text(), "ok");
    for (method, path) in ROUTES.into_iter().filter(|(_, path)| *path != "/health").chain([("POST", "/stop")])
    {
        let body = (method == "POST").then_some(b"{}".as_slice());
        let answer = agent.http().send(method, path, body).unwrap().expect(401);
        assert_eq!(answer.problem().error, ErrorCode::Unauthorized, "{method} {path}");
    }
    for wrong in [
        agent.http().with_token("wrong"),
        agent.http().with_token(&TOKEN[..TOKEN.len() - 1]),
        agent.http().with_token(&format!("{TOKEN}x")),
        agent.http().with("authorization", &format!("Basic {TOKEN}")),
        agent.http().with("authorization", TOKEN),
    ] {
        assert_eq!(wrong.get("/status").unwrap().expect(401).problem().error, ErrorCode::Unauthorized);
    }
    let status: Status = with.get("/status").unwrap().expect(200).json();
    assert_eq!(status.state, State::Idle, "none of it did anything");
    with.post_json("/config", &agent.payload()).unwrap().expect(202);
    zlh_tests::harness::wait::eventually("readiness", zlh_tests::harness::wait::SOON, || {
        let status: Status = with.get("/status").unwrap().json();
        if status.ready { Ok(()) } else { Err(Box::new(status)) }
    });
    let status: Status = with.get("/status").unwrap().json();
    let game = status.pid.unwrap();
    let environ = fs::read(format!("/proc/{game}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environ).contains(TOKEN), "the game must not know it");
    assert!(!agent.log().contains(TOKEN));
}

#[test]
fn a_browser_on_another_page_and_a_rebound_name_are_refused() {
    let agent = agent();
    for origin in ["http://evil.example", "null", "http://localhost.evil.example"] {
        let answer = agent.http().with("origin", origin).post("/stop").unwrap();
        assert_eq!(answer.status, 403, "{origin}: {}", answer.text());
        assert_eq!(answer.problem().error, ErrorCode::Forbidden);
    }
    for host in ["evil.example", "evil.example:18888"] {
        let answer = Http::new(agent.http().address()).with("host", host).get("/status").unwrap();
        assert!(matches!(answer.status, 403 | 421), "{host}: {}", answer.text());
    }
    let port = agent.http().address().port();
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), "127.0.0.1".to_owned()] {
        agent.http().with("host", &host).get("/status").unwrap().expect(200);
    }
}

#[test]
fn a_console_command_is_one_line() {
    let agent = Agent::with_ready_fake(&[]);
    for bad in
        ["", " ", "say hi\nstop", "say hi\rstop", "say \0", "say \u{1b}[2J", "say \u{3}", "say a\u{2028}stop"]
    {
        let answer = agent.http().post_json("/console/command", &json!({ "command": bad })).unwrap();
        assert_eq!(answer.status, 400, "{bad:?}: {}", answer.text());
        assert_eq!(answer.problem().error, ErrorCode::InvalidCommand);
    }
    let huge = "x".repeat(1 << 20);
    let answer = agent.http().post_json("/console/command", &json!({ "command": huge })).unwrap();
    assert!(matches!(answer.status, 400 | 413), "{}", answer.status);
    let answer =
        agent.http().post_json("/console/command", &json!({ "cmd": "say from an old caller" })).unwrap();
    let offset: usize = answer.expect(204).header("zlh-console-offset").unwrap().parse().unwrap();
    agent.wait_console("[Server] from an old caller");
    let log = agent.http().get(&format!("/console/log?since={offset}")).unwrap().expect(200).text();
    assert!(log.contains("[Server] from an old caller"), "{log}");
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let late = agent.http().post_json("/console/command", &json!({ "command": "list" })).unwrap().expect(409);
    assert_eq!(late.problem().error, ErrorCode::NotRunning);
}

const NOBODY: u32 = 65534;
