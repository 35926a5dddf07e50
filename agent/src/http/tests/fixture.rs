//! An app over a fake driver and a real console log, in process or on a socket.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request as HttpRequest, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;
use zlh_api::{ErrorCode, OperationKind, Problem, State};
use zlh_shim::console_log::Writer;
use zlh_shim::spec::ConsoleLimits;

use crate::change::Changer;
use crate::cli::{LogFormat, LogLevel, RunOptions};
use crate::config::{AgentConfig, Environment};
use crate::console::Console;
use crate::crash::Archive;
use crate::http::access::Policy;
use crate::http::guard::{Caller, Seat};
use crate::http::peer::Peer;
use crate::http::{App, Limits};
use crate::journal::Journal;
use crate::paths::Paths;
use crate::shell::Shells;
use crate::update::Updater;
use crate::workload::{Handle, Launcher, Operations, Outcome, Request, Snapshot, Verb};

/// What the fake driver answers, and what it was asked.
#[derive(Default)]
pub(super) struct Script {
    /// Answer nothing at all.
    pub hang: bool,
    /// Refuse every verb with this.
    pub refuse: Option<Problem>,
    /// Refuse input with this.
    pub refuse_input: Option<Problem>,
    /// Verbs, in order.
    pub verbs: Vec<Verb>,
    /// Console input and whether it was raw, in order.
    pub input: Vec<(Vec<u8>, bool)>,
}

pub(super) struct Fixture {
    pub app: App,
    pub operations: Operations,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    script: Arc<Mutex<Script>>,
    log: Mutex<Writer>,
    head: watch::Sender<u64>,
    shutdown: watch::Sender<bool>,
    pub(super) archive: Archive,
    _dir: tempfile::TempDir,
}

/// A response with its body read.
pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts a problem document with this code.
    pub(super) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.header("content-type")),
            (status, "application/problem+json"),
            "{}",
            self.body
        );
        assert_eq!(
            (&self.json()["error"], &self.json()["status"]),
            (&Value::from(code), &Value::from(status))
        );
        assert!(!self.json()["detail"].as_str().unwrap().is_empty());
    }
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    pub(super) fn with(configure: impl FnOnce(&mut AgentConfig), limit: impl FnOnce(&mut Limits)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = RunOptions {
            root: dir.path().to_owned(),
            config: None,
            listen: None,
            artifacts_url: None,
            catalog_keys: Vec::new(),
            log_format: LogFormat::Json,
            log_level: LogLevel::Error,
        };
        let mut config = AgentConfig::load(&options, &Environment::default()).unwrap();
        configure(&mut config);
        let mut limits = Limits::default();
        limit(&mut limits);

        let limit = ConsoleLimits { segment_bytes: 1 << 20, segments: 4 };
        let log = Writer::open(&dir.path().join("console"), limit, 0).unwrap();
        let (head, head_seen) = watch::channel(log.head());
        let (_, shim) = watch::channel(None);
        let console = Console::new(&dir.path().join("console"), head_seen, shim);
        let (requests, asked) = mpsc::channel(8);
        let (snapshot, snapshot_seen) = watch::channel(Arc::new(Snapshot::initial()));
        let operations = Operations::default();
        let script = Arc::default();
        tokio::spawn(drive(asked, Arc::clone(&script), operations.clone()));
        let quiet = slog::Logger::root(slog::Discard, slog::o!());
        let journal = Journal::open(&dir.path().join("journal"), quiet.clone());
        let archive = Archive::new(dir.path().join("crashes"), quiet.clone());
        let handle = Handle::new(
            requests,
            snapshot_seen,
            operations.clone(),
            console,
            journal,
            archive.clone(),
            Paths::new(dir.path()),
        );
        let uid = rustix::process::geteuid().as_raw();
        let launcher = Launcher::new(Some(false), false, &quiet);
        let shells = Shells::new(Paths::new(dir.path()), config.shell.clone(), launcher, &quiet);
        let config = Arc::new(config);
        let changer = Changer::new(handle.clone(), Paths::new(dir.path()), config.clone(), &quiet);
        let (updater, _) = Updater::new(handle.clone(), Paths::new(dir.path()), config.clone(), &quiet);
        let app = App::with(handle, shells, changer, updater, Policy::new(&config, uid), limits, quiet);
        let (shutdown, _) = watch::channel(false);
        Self { app, operations, snapshot, script, log: Mutex::new(log), head, shutdown, archive, _dir: dir }
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// The game prints.
    pub(super) fn print(&self, bytes: &[u8]) {
        let mut log = self.log.lock().unwrap();
        log.append(bytes);
        self.head.send_replace(log.head());
    }

    /// One request as `peer`, through the whole stack but the socket.
    pub(super) async fn ask(&self, peer: Peer, request: HttpRequest<Body>) -> Reply {
        let mut request = request;
        let permit = Arc::clone(&self.app.0.connections).try_acquire_owned().unwrap();
        let place = self.app.0.quota.take(peer.into(), usize::MAX).unwrap();
        let seat = Arc::new(Seat { _permit: permit, _place: place, known: false.into() });
        request.extensions_mut().insert(Caller { peer, seat, shutdown: self.shutdown.subscribe() });
        let response = crate::http::router(self.app.clone()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.ask(Peer::Local(Some(0)), request(Method::GET, path, "")).await
    }

    pub(super) async fn post(&self, path: &str, body: impl Into<Body>) -> Reply {
        self.ask(Peer::Local(Some(0)), request(Method::POST, path, body)).await
    }

    /// Serves on a free port of the loopback.
    pub(super) async fn listen(&self) -> SocketAddr {
        let listener = crate::http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(crate::http::serve(listener, self.app.clone(), self.shutdown.subscribe()));
        address
    }

    pub(super) fn shut_down(&self) {
        self.shutdown.send_replace(true);
    }

    /// Waits until no connection is open.
    pub(super) async fn quiet(&self) {
        let all = u32::try_from(self.app.0.limits.connections).unwrap();
        let permits = self.app.0.connections.acquire_many(all);
        drop(within(permits).await.unwrap());
    }
}

pub(super) fn request(method: Method, path: &str, body: impl Into<Body>) -> HttpRequest<Body> {
    HttpRequest::builder()
        .method(method)
        .uri(path)
        .header("host", "127.0.0.1:18888")
        .body(body.into())
        .unwrap()
}

pub(super) fn problem(code: ErrorCode) -> Problem {
    Problem::new(code, "because the test says so")
}

/// Writes `bytes` and reads what comes until the end of the connection.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may close before everything is written.
    let _ = stream.write_all(bytes).await;
    read_all(&mut stream).await
}

pub(super) async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = async {
        loop {
            match stream.read_buf(&mut answer).await {
                Ok(0) => return,
                Ok(_) => {}
                // After the answer, a reset says no more than an end.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("{error}"),
            }
        }
    };
    within(read).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Fails the test instead of hanging it.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing happened for 20 s")
}

/// Waits for a state, looking again after each tick.
pub(super) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn drive(mut asked: mpsc::Receiver<Request>, script: Arc<Mutex<Script>>, operations: Operations) {
    let mut parked = Vec::new();
    while let Some(request) = asked.recv().await {
        let mut script = script.lock().unwrap();
        if script.hang {
            parked.push(request);
            continue;
        }
        match request {
            Request::Verb(verb, reply) => {
                let (state, kind) = match verb {
                    Verb::Configure(_) | Verb::Reconfigure(_) => (State::Installing, OperationKind::Install),
                    Verb::Start | Verb::TakeBack { .. } => (State::Starting, OperationKind::Start),
                    Verb::Stop { .. } => (State::Stopping, OperationKind::Stop),
                    Verb::Restart { .. } => (State::Stopping, OperationKind::Restart),
                    Verb::Maintain { .. } => (State::Stopping, OperationKind::Stop),
                    Verb::EndMaintenance { .. } => (State::Starting, OperationKind::Start),
                    Verb::Repair { .. } => (State::Idle, OperationKind::Repair),
                    Verb::Tend(_) | Verb::Reread { .. } => (State::Idle, OperationKind::Verify),
                };
                script.verbs.push(verb);
                let answer = match &script.refuse {
                    Some(problem) => Err(problem.clone()),
                    None => Ok(Outcome { state, operation: Some(operations.begin(kind, "testing")) }),
                };
                let _ = reply.send(answer);
            }
            Request::Input { bytes, raw, reply } => {
                let answer = match &script.refuse_input {
                    Some(problem) => Err(problem.clone()),
                    None => {
                        script.input.push((bytes, raw));
                        Ok(4711)
                    }
                };
                let _ = reply.send(answer);
            }
            Request::Settled(reply) => drop(reply.send(())),
            Request::Players(reply) => {
                let names = vec!["Alice".to_owned()];
                let _ = reply.send(Ok(zlh_api::Players { online: 1, max: 20, players: names }));
            }
            // No route asks for it.
            Request::Leave(_) => {}
            Request::ShutDown(done) => drop(done.send(())),
        }
    }
}
