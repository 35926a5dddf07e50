//! `zlhctl` in the hands of an operator: a real terminal, a real agent.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use zlh_api::{CommandChannel, CommandOutput, State};
use zlh_tests::fake::output::{FloodCheck, check_flood, flood_line};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::paths::binary;
use zlh_tests::harness::ports::Port;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, eventually, until};
use zlh_tests::harness::zlhctl;

/// `zlhctl` on a terminal of its own.
pub(crate) struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    keys: Box<dyn Write + Send>,
    shown: Arc<Mutex<Vec<u8>>>,
    _master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    pub(crate) fn run(arguments: &[&str]) -> Self {
        let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(binary("zlhctl").unwrap());
        command.args(arguments);
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut output = pair.master.try_clone_reader().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut block = [0; 1 << 16];
            // A terminal whose other end is gone answers with an error.
            while let Ok(count @ 1..) = output.read(&mut block) {
                all.lock().unwrap().extend_from_slice(&block[..count]);
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Self { child, keys, shown, _master: pair.master }
    }

    fn shown(&self) -> Vec<u8> {
        self.shown.lock().unwrap().clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown()).into_owned()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        eventually(text, 3 * SOON, || {
            let shown = self.text();
            if shown.contains(text) { Ok(()) } else { Err(shown.chars().rev().take(300).collect::<Vec<_>>()) }
        });
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Its exit code, once it has ended.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> u32 {
        eventually("the end of zlhctl", SOON, || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status.exit_code()),
            None => Err(self.text()),
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was shown without the lines that zlhctl put between the server's.
fn of_the_server(shown: &[u8]) -> Vec<u8> {
    let mark = b"\r\n[zlhctl: ";
    let mut rest = shown;
    let mut out = Vec::new();
    while let Some(at) = rest.windows(mark.len()).position(|window| window == mark) {
        out.extend_from_slice(&rest[..at]);
        let end = rest[at..].windows(3).position(|window| window == b"]\r\n").unwrap();
        rest = &rest[at + end + 3..];
    }
    out.extend_from_slice(rest);
    out
}

fn ready_agent() -> Agent {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    agent.start();
    agent.listen_on(agent.address().port());
    agent.configure();
    agent.wait_ready();
    agent
}

#[test]
fn a_console_comes_back_after_its_agent_and_shows_every_byte_once() {
    let mut agent = ready_agent();
    let folder = tempfile::tempdir().unwrap();
    let cast = folder.path().join("evening.cast");
    let address = agent.address().to_string();
    let mut terminal = Terminal::run(&["console", &address, "--record", cast.to_str().unwrap()]);
    terminal.wait_for("Done (");
    terminal.press("echo typed-by-hand\r");
    terminal.wait_for("\ntyped-by-hand");
    agent.command("flood 6400000 1MB");
    let line = |number: u64| String::from_utf8(flood_line(number)).unwrap().trim_end().to_owned();
    terminal.wait_for(&line(2000));
    for _ in 0..3 {
        let before = terminal.text().matches("connected again").count();
        agent.kill();
        agent.start_at_known_address();
        until("the connection", SOON, || terminal.text().matches("connected again").count() > before);
    }
    terminal.wait_for(&line(99_999));
    let seen = of_the_server(&terminal.shown());
    assert_eq!(check_flood(&seen), FloodCheck { range: Some((0, 99_999)), missing: 0, damaged: 0 });
    assert_eq!(seen.windows(6).filter(|window| window == b"Done (").count(), 1, "nothing twice");
    terminal.press("\x1d");
    assert_eq!(terminal.ended(), 0, "{}", terminal.text());
    // What it said last is read a moment after its end.
    terminal.wait_for("the server goes on");
    agent.wait_ready();
    recorded(&cast, &terminal.shown());
}

/// The recording is what was shown.
fn recorded(cast: &Path, shown: &[u8]) {
    let text = std::fs::read_to_string(cast).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert_eq!(lines.next().unwrap()["width"], 80);
    let all: String = lines.map(|event| event[2].as_str().unwrap().to_owned()).collect();
    assert!(all.contains("typed-by-hand") && all.contains("connected again"));
    assert!(String::from_utf8_lossy(shown).contains(&all[..all.len().min(1 << 20)]), "as it was shown");
}

#[test]
fn a_console_that_waits_for_its_agent_can_be_left() {
    let mut agent = ready_agent();
    let mut terminal = Terminal::run(&["console", &agent.address().to_string()]);
    terminal.wait_for("Done (");
    agent.kill();
    terminal.wait_for("coming back");
    terminal.press("lost");
    terminal.press("\x1d");
    assert_eq!(terminal.ended(), 0, "{}", terminal.text());
    agent.start_at_known_address();
    assert!(!agent.wait_ready().error.is_some_and(|error| error.contains("lost")));
}

#[test]
fn a_crash_is_told_in_the_console() {
    let agent = ready_agent();
    let mut terminal = Terminal::run(&["console", &agent.address().to_string()]);
    terminal.wait_for("Done (");
    terminal.press("crash 3\r");
    terminal.wait_for("the server crashed (exit code 3); `zlhctl explain` says why");
    terminal.press("x");
    terminal.wait_for("input dropped");
}

#[test]
fn a_command_is_answered_and_remembered() {
    let agent = ready_agent();
    let address = agent.address().to_string();
    let (code, out, err) = zlhctl::run(&["send", "--wait=10s", &address, "echo", "an-answer"]);
    assert_eq!((code, out.as_str()), (0, "an-answer\n"), "{err}");
    let (code, out, _) = zlhctl::run(&["history", &address, "-o", "wide"]);
    assert_eq!(code, 0);
    assert!(out.contains("echo an-answer (by uid "), "{out}");
    let (code, out, _) = zlhctl::run(&["logs", &address, "--grep", "an-answer", "--tail", "1000"]);
    assert!(
        code == 0 && out.lines().count() >= 1 && out.lines().all(|line| line.contains("an-answer")),
        "{out}"
    );
    let (code, _, err) = zlhctl::run(&["send", "--wait=1h", &address, "x"]);
    assert!(code != 0 && err.contains("at most"), "{err}");
}

/// Adds to the server's properties, and starts it with them.
fn restarted_with(agent: &Agent, properties: &str) {
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let path = agent.game_root().join("server.properties");
    let old = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{old}\n{properties}\n")).unwrap();
    agent.post("/start", 202);
    agent.wait_ready();
}

fn asked(agent: &Agent, command: &str) -> CommandOutput {
    let body = serde_json::json!({ "command": command });
    agent.http().post_json("/console/command?wait=5000", &body).unwrap().expect(200).json()
}

#[test]
fn a_server_with_rcon_gives_answers_and_nothing_else() {
    let agent = ready_agent();
    let port = Port::lease().unwrap();
    assert_eq!(asked(&agent, "list").channel, CommandChannel::Console);
    let number = port.number();
    restarted_with(&agent, &format!("enable-rcon=true\nrcon.port={number}\nrcon.password=from-the-tenant"));
    agent.command("echo noise between question and answer");
    let list = asked(&agent, "list");
    assert_eq!((list.channel, list.truncated), (CommandChannel::Rcon, false));
    assert_eq!(list.lines, ["There are 0 of a max of 20 players online:"]);
    // An answer of many packets is whole.
    let help = asked(&agent, "help");
    assert_eq!((help.lines.len(), help.truncated), (400, false));
    assert_eq!(help.lines[399], "/command400 <arguments of it>");
    assert!(!agent.console().contains("/command400"), "it was not typed");
    let (_, out, _) = zlhctl::run(&["history", &agent.address().to_string(), "-o", "wide"]);
    assert!(out.contains("help (by uid "), "{out}");
    assert!(!out.contains("from-the-tenant") && !agent.log().contains("from-the-tenant"));
}

#[test]
fn a_password_is_sent_to_nobody_but_the_game() {
    let agent = ready_agent();
    let thief = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    thief.set_nonblocking(true).unwrap();
    let number = thief.local_addr().unwrap().port();
    restarted_with(&agent, &format!("enable-rcon=true\nrcon.port={number}\nrcon.password=from-the-tenant"));
    let list = asked(&agent, "list");
    assert_eq!(list.channel, CommandChannel::Console, "{list:?}");
    assert!(list.lines.iter().any(|line| line.contains("players online")), "{list:?}");
    assert!(thief.accept().is_err(), "nobody called");
    // A link in the place of the file leads nowhere.
    let path = agent.game_root().join("server.properties");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert_eq!(asked(&agent, "list").channel, CommandChannel::Console);
}

#[test]
fn several_logs_say_whose_each_line_is() {
    let agents = [ready_agent(), ready_agent()];
    let folder = tempfile::tempdir().unwrap();
    let fleet = folder.path().join("fleet.toml");
    let fleet = fleet.to_str().unwrap();
    for (name, agent) in ["lobby", "survival"].into_iter().zip(&agents) {
        let url = format!("http://{}", agent.address());
        let (code, _, err) =
            zlhctl::run(&["--fleet", fleet, "fleet", "add", name, &url, "--label", "site=a"]);
        assert_eq!(code, 0, "{err}");
        agent.command(&format!("echo i-am-{name}"));
        agent.wait_console(&format!("\ni-am-{name}\n"));
    }
    let (code, out, err) = zlhctl::run(&["--fleet", fleet, "logs", "-l", "site=a", "--grep", "i-am-"]);
    assert_eq!(code, 0, "{err}");
    for (name, prefix) in [("lobby", "lobby    |"), ("survival", "survival |")] {
        assert!(out.lines().any(|line| line == format!("{prefix} i-am-{name}")), "{out}");
    }
    assert!(out.lines().all(|line| line.contains(" | ") && line.contains("i-am-")), "{out}");
    let (code, _, err) = zlhctl::run(&["--fleet", fleet, "logs", "-l", "site=nowhere"]);
    assert!(code != 0 && err.contains("site=nowhere"), "{err}");
}
