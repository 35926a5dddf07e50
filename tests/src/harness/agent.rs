//! One agent as a process, with its root, its artifact server and everything it starts.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use zlh_api::{Operation, OperationState, State, Status};

use super::artifact_server::ArtifactServer;
use super::http::{Http, Response};
use super::paths;
use super::ports::Port;
use super::process::{Process, living_in};
use super::store::{FakePlan, Store, VARIANT, VERSION};
use super::wait::{SOON, eventually, until};
use crate::fake::MAY_END;
use crate::fake::events::{self, Event, What};

/// A container as the tests see it: a root, an artifact server, and an agent that may come and go.
pub struct Agent {
    /// Removed with everything below it in the end.
    home: TempDir,
    /// Everything the agent writes lies below this.
    root: PathBuf,
    /// Where it fetches from; can be told to misbehave.
    pub server: ArtifactServer,
    /// What it fetches.
    pub store: Store,
    /// The port its game is configured for.
    pub port: Port,
    listen: u16,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    open_files: Option<u64>,
    keyed: bool,
    child: Option<Child>,
    address: Option<SocketAddr>,
    log: PathBuf,
}

impl Agent {
    /// An agent that is not started yet.
    pub fn prepare(store: Store) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("zlh-").tempdir()?;
        // The game may run as another user, who has to get this far.
        fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let server = ArtifactServer::serve(store.dir())?;
        let log = store.path("agent.log");
        Ok(Self {
            root: home.path().to_owned(),
            home,
            server,
            store,
            port: Port::lease()?,
            listen: 0,
            arguments: Vec::new(),
            environment: Vec::new(),
            open_files: None,
            keyed: true,
            child: None,
            address: None,
            log,
        })
    }

    /// A running agent without a configuration, whose store has the fake game.
    #[track_caller]
    pub fn with_fake(plan: &FakePlan) -> Self {
        let store = Store::fake(plan).expect("build a store");
        let mut agent = Self::prepare(store).expect("prepare a root");
        agent.start();
        agent
    }

    /// A running agent whose fake game is ready.
    #[track_caller]
    pub fn with_ready_fake(flags: &[&str]) -> Self {
        let agent = Self::with_fake(&FakePlan::new(flags));
        agent.configure();
        agent.wait_ready();
        agent
    }

    /// Listens on this port from the next start on, not on whichever is free.
    pub fn listen_on(&mut self, port: u16) {
        self.listen = port;
    }

    /// One more argument for every start from now on.
    pub fn arg(&mut self, argument: impl Into<String>) -> &mut Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more environment variable for every start from now on.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// It trusts no key, from the next start on.
    pub fn without_key(&mut self) {
        self.keyed = false;
    }

    /// How many descriptors it may have at most, from the next start on.
    pub fn limit_open_files(&mut self, most: u64) {
        self.open_files = Some(most);
    }

    /// Starts the agent and waits until it answers; the time from exec to the first
    /// answer is returned.
    #[track_caller]
    pub fn start(&mut self) -> Duration {
        let begun = Instant::now();
        self.spawn().expect("start the agent");
        let listen = self.root_path("run/zlh-agent/listen");
        let address = eventually("the agent's address", SOON, || {
            let child = self.child.as_mut().expect("it was just started");
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the agent ended with {status}:\n{}", log_tail(&self.log));
            }
            let text = fs::read_to_string(&listen).map_err(|error| error.to_string())?;
            let address: SocketAddr = text.trim().parse().map_err(|_| text)?;
            let health = Http::new(address).get("/health").map_err(|error| error.to_string())?;
            if health.text() == "ok" { Ok(address) } else { Err(health.text()) }
        });
        self.address = Some(address);
        begun.elapsed()
    }

    /// The status once it is known what an earlier agent left behind. An agent answers before
    /// that when the machine is slow; its driver, which is asked here, does not.
    #[track_caller]
    pub fn recalled(&self) -> Status {
        eventually("the end of the recall", SOON * 3, || self.http().get("/game/players"));
        self.status()
    }

    /// From the last exec to listening, as the agent's own log has it.
    #[track_caller]
    pub fn listened_after(&self) -> Duration {
        eventually("the line that it listens", SOON, || {
            let log = self.log();
            let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut lines = lines.take_while(|line| {
                line["msg"].as_str().is_none_or(|text| !text.starts_with("starting ZeroLagHub Agent"))
            });
            let found = lines.find_map(|line| line["since_exec_ms"].as_u64());
            found.map(Duration::from_millis).ok_or("not yet")
        })
    }

    /// As [`Agent::start`], when it cannot tell where it listens: see [`Agent::listen_on`].
    #[track_caller]
    pub fn start_at_known_address(&mut self) {
        self.spawn().expect("start the agent");
        let address = SocketAddr::from(([127, 0, 0, 1], self.listen));
        eventually("the agent's answer", SOON, || match Http::new(address).get("/health") {
            Ok(health) if health.text() == "ok" => Ok(()),
            other => Err(format!("{other:?}\n{}", log_tail(&self.log))),
        });
        self.address = Some(address);
    }

    /// Finds out where an agent listens that was only [spawned](Agent::spawn), if it does by now.
    pub fn try_connect(&mut self) -> Option<SocketAddr> {
        let text = fs::read_to_string(self.root_path("run/zlh-agent/listen")).ok()?;
        let address: SocketAddr = text.trim().parse().ok()?;
        Http::new(address).get("/health").ok()?;
        self.address = Some(address);
        Some(address)
    }

    /// Where it listens.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.address.expect("an agent that was started")
    }

    /// Starts the agent's process and waits for nothing.
    pub fn spawn(&mut self) -> Result<()> {
        // A stale address is nobody's.
        let _ = fs::remove_file(self.root_path("run/zlh-agent/listen"));
        self.child = Some(self.spawn_logging_to(&self.log)?);
        Ok(())
    }

    /// Starts another agent on the same root, and waits for its end: its status and its words.
    #[track_caller]
    pub fn run_another(&self) -> (ExitStatus, String) {
        let log = self.log.with_extension("another");
        let mut child = self.spawn_logging_to(&log).expect("start another agent");
        let end = Instant::now() + SOON;
        let status = loop {
            match child.try_wait().expect("wait for it") {
                Some(status) => break status,
                None if Instant::now() > end => {
                    let _ = child.kill();
                    break child.wait().expect("wait for it");
                }
                None => std::thread::sleep(super::wait::STEP),
            }
        };
        (status, fs::read_to_string(log).unwrap_or_default())
    }

    fn spawn_logging_to(&self, log: &Path) -> Result<Child> {
        let log = File::options().create(true).append(true).open(log).context("open the log")?;
        let program = paths::binary("zlh-agent")?;
        let mut command = match self.open_files {
            None => Command::new(program),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {most}; exec \"$@\""), "sh"]).arg(program);
                shell
            }
        };
        command
            .args(["run", "--root"])
            .arg(self.root())
            .args(["--listen", &format!("127.0.0.1:{}", self.listen)]);
        command.args(["--artifacts-url", &self.server.url()]);
        if self.keyed {
            command.args(["--catalog-key", &self.store.public_key()?]);
        }
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        for name in ["ZLH_AGENT_TOKEN", "ZLH_ARTIFACTS_URL"] {
            if !self.environment.iter().any(|(set, _)| set == name) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command.spawn()?)
    }

    /// Ends the agent, and only the agent, the hard way.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the agent, and only the agent, as an init system does.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.process().signal(Signal::SIGTERM);
        self.wait_exit()
    }

    /// Waits for the agent to end by itself.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running agent");
        let log = self.log.clone();
        let status = eventually("the end of the agent", SOON, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            _ => Err(log_tail(&log)),
        });
        drop(child);
        status
    }

    /// The agent's process.
    #[track_caller]
    pub fn process(&self) -> Process {
        let child = self.child.as_ref().expect("a running agent");
        Process::of(child.id().cast_signed()).expect("the agent runs")
    }

    /// Talks to it.
    #[track_caller]
    pub fn http(&self) -> Http {
        Http::new(self.address())
    }

    /// Where everything of this container lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Lives in another folder below the first one from the next start on.
    pub fn move_root(&mut self, to: &Path) {
        assert!(to.starts_with(self.home.path()), "{} is not removed in the end", to.display());
        to.clone_into(&mut self.root);
    }

    /// A path below the root.
    pub fn root_path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Where the fake game runs.
    pub fn game_root(&self) -> PathBuf {
        self.root_path(&format!("opt/zlh/minecraft/{VARIANT}/world"))
    }

    /// What the agent printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A good payload for the fake game.
    pub fn payload(&self) -> Value {
        json!({
            "vmid": 5001, "container_type": "game", "game": "minecraft", "variant": VARIANT,
            "version": VERSION, "world": "world", "ports": [self.port.number()], "memory_mb": 512,
            "accept_eula": true,
        })
    }

    /// Sends the good payload.
    #[track_caller]
    pub fn configure(&self) {
        self.configure_with(&self.payload()).expect(202);
    }

    /// Sends a payload.
    #[track_caller]
    pub fn configure_with(&self, payload: &Value) -> Response {
        self.http().post_json("/config", payload).expect("send a payload")
    }

    /// `POST path`, which must be answered with `status`.
    #[track_caller]
    pub fn post(&self, path: &str, status: u16) -> Response {
        self.http().post(path).expect("send a request").expect(status)
    }

    /// The end of the operation that an answer promised.
    #[track_caller]
    pub fn outcome(&self, accepted: &Response) -> Operation {
        let location = accepted.header("location").expect("where to look");
        eventually("the end of the operation", SOON * 3, || {
            let answer = self.http().get(location).map_err(|error| format!("{error}"))?;
            let operation: Operation = answer.expect(200).json();
            if operation.state == OperationState::Running {
                Err(format!("{operation:?}"))
            } else {
                Ok(operation)
            }
        })
    }

    /// Types a console command.
    #[track_caller]
    pub fn command(&self, line: &str) {
        let answer = self.http().post_json("/console/command", &json!({ "command": line }));
        answer.expect("send a command").expect(204);
    }

    /// `GET /status`.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.http().get("/status").expect("ask for the status").expect(200).json()
    }

    /// Waits for a status that `probe` likes.
    #[track_caller]
    pub fn wait_status(&self, what: &str, within: Duration, probe: impl Fn(&Status) -> bool) -> Status {
        eventually(what, within, || {
            let status = self.status();
            if probe(&status) { Ok(status) } else { Err(Box::new(status)) }
        })
    }

    /// Waits for a state; an `error` that was not asked for ends the wait at once.
    #[track_caller]
    pub fn wait_state(&self, state: State) -> Status {
        self.wait_status(state.as_str(), SOON, |status| {
            let surprise = status.state == State::Error && state != State::Error;
            assert!(!surprise, "waiting for {state}: {:?}\n{}", status.error, log_tail(&self.log));
            status.state == state
        })
    }

    /// Waits until it accepts players.
    #[track_caller]
    pub fn wait_ready(&self) -> Status {
        self.wait_status("readiness", SOON, |status| {
            assert!(status.state != State::Error, "{:?}\n{}", status.error, log_tail(&self.log));
            status.ready && status.state == State::Running
        })
    }

    /// The game's process, once an agent that has just begun has found it.
    #[track_caller]
    pub fn game(&self) -> Process {
        let status = self.wait_status("a running game", SOON, |status| status.pid.is_some());
        status.pid.and_then(Process::of).expect("the game the status names")
    }

    /// The agent dies, and then the game ends by itself with a code.
    #[track_caller]
    pub fn ends_unseen(&mut self, code: u8) {
        let game = self.game();
        // What is typed waits in its terminal.
        game.signal(Signal::SIGSTOP);
        self.command(&format!("crash {code}"));
        self.kill();
        game.signal(Signal::SIGCONT);
        until("the end of the game", SOON, || !game.is_alive());
    }

    /// A game that was started with `--stop held` and asked to stop does so now.
    #[track_caller]
    pub fn let_end(&self) {
        fs::write(self.game_root().join(MAY_END), "").expect("write beside the server");
    }

    /// The shims that say they hold something here.
    pub fn shims(&self) -> Vec<Process> {
        let Ok(runs) = fs::read_dir(self.root_path("opt/zlh-agent/run")) else { return Vec::new() };
        let records = runs.flatten().filter_map(|run| fs::read(run.path().join("shim.json")).ok());
        let pids = records.filter_map(|record| {
            let record: Value = serde_json::from_slice(&record).ok()?;
            let shim = &record["body"]["shim"];
            let found = Process::of(i32::try_from(shim["pid"].as_i64()?).ok()?)?;
            (Some(found.start) == shim["start_ticks"].as_u64()).then_some(found)
        });
        pids.collect()
    }

    /// Every living process in the game's folder, whether or not anybody knows of it.
    pub fn living_games(&self) -> Vec<Process> {
        super::process::living_in(&self.game_root())
    }

    /// The mark that every process of the present run carries in its environment.
    #[track_caller]
    pub fn mark(&self) -> String {
        let record = fs::read(self.root_path("opt/zlh-agent/run/game/shim.json")).expect("a run");
        let record: Value = serde_json::from_slice(&record).expect("a record");
        format!("ZLH_INSTANCE={}", record["body"]["instance"].as_str().expect("an instance"))
    }

    /// Writes `agent.toml`, for the next start.
    #[track_caller]
    pub fn config_file(&self, text: &str) {
        let path = self.root_path("opt/zlh-agent/config/agent.toml");
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(path, text).expect("write the configuration");
    }

    /// What the fake game did so far.
    pub fn events(&self) -> Vec<Event> {
        events::read(&self.game_root().join("fake-events.jsonl")).unwrap_or_default()
    }

    /// Waits for something the fake game does.
    #[track_caller]
    pub fn wait_event(&self, what: What, detail: &str) -> Event {
        self.wait_event_within(SOON, what, detail)
    }

    /// Waits that long for something the fake game does.
    #[track_caller]
    pub fn wait_event_within(&self, within: Duration, what: What, detail: &str) -> Event {
        eventually("an event of the game", within, || {
            let events = self.events();
            let found =
                events.iter().find(|event| event.what == what && event.detail.contains(detail)).cloned();
            found.ok_or(events)
        })
    }

    /// The console's history as text.
    #[track_caller]
    pub fn console(&self) -> String {
        let mut bytes = Vec::new();
        let mut since = 0_u64;
        // An answer ends at every gap, and after a megabyte. It breaks off when a gap opens under it.
        loop {
            let answer = eventually("the console log", SOON, || {
                self.http().get(&format!("/console/log?since={since}"))
            });
            let answer = answer.expect(200);
            if answer.body.is_empty() {
                return String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
            }
            bytes.extend_from_slice(&answer.body);
            let next = answer.header("zlh-console-next").and_then(|next| next.parse().ok());
            since = next.expect("where to go on");
        }
    }

    /// The bytes of the console from an offset on, as far as they are there.
    #[track_caller]
    pub fn read_console(&self, since: usize) -> Vec<u8> {
        let answer = self.http().get(&format!("/console/log?since={since}")).expect("ask for the log");
        let answer = answer.expect(200);
        let from = answer.header("zlh-console-offset").and_then(|text| text.parse().ok());
        assert_eq!(from, Some(since), "the log begins later than that");
        answer.body
    }

    /// Waits until the console said something.
    #[track_caller]
    pub fn wait_console(&self, text: &str) {
        eventually(text, SOON, || {
            let console = self.console();
            if console.contains(text) { Ok(()) } else { Err(console) }
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = log_tail(&self.log);
            #[allow(
                clippy::print_stderr,
                reason = "it goes into the captured output of the test that failed"
            )]
            {
                eprintln!("--- agent log ---\n{log}");
            }
        }
        let shims = self.shims();
        let mut doomed: Vec<Process> =
            shims.iter().flat_map(|shim| shim.descendants()).chain(shims.clone()).collect();
        self.kill();
        // Whatever still runs from this root was started by it; it may be starting more.
        let end = Instant::now() + SOON;
        loop {
            doomed.extend(living_in(self.root()));
            doomed.retain(|process| process.is_alive());
            if doomed.is_empty() || Instant::now() > end {
                return;
            }
            for process in &doomed {
                process.signal(Signal::SIGKILL);
            }
            std::thread::sleep(super::wait::STEP);
        }
    }
}

fn log_tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
