//! Login shells: a real bash, a real vim, a real agent, `zlhctl` on real terminals.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chown, geteuid};
use serde_json::{Value, json};
use zlh_api::{CONSOLE_PROTOCOL, ConsoleEvent, ErrorCode, Shell, Shells};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::paths::binary;
use zlh_tests::harness::process::{Process, carrying};
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, eventually, until};
use zlh_tests::harness::websocket::Viewer;
use zlh_tests::harness::zlhctl;

use crate::guards::skip;
use crate::operator::Terminal;

/// A user that is nobody on this machine.
const DEV: u32 = 61_234;

/// An agent in a container with a user `dev`, before its first start.
fn dev_container() -> Agent {
    let agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    if geteuid().is_root() {
        let home = agent.root_path("home/dev");
        fs::create_dir_all(&home).unwrap();
        chown(&home, Some(Uid::from_raw(DEV)), Some(Gid::from_raw(DEV))).unwrap();
        fs::create_dir_all(agent.root_path("etc")).unwrap();
        let passwd = format!("dev:x:{DEV}:{DEV}:Developer:{}:/bin/bash\n", home.display());
        fs::write(agent.root_path("etc/passwd"), passwd).unwrap();
    }
    agent
}

fn running(config: &str) -> Agent {
    let mut agent = dev_container();
    agent.config_file(config);
    agent.start();
    agent
}

fn open(agent: &Agent, wanted: &Value) -> Shell {
    agent.http().post_json("/shells", wanted).unwrap().expect(201).json()
}

fn list(agent: &Agent) -> Vec<Shell> {
    agent.http().get("/shells").unwrap().expect(200).json::<Shells>().shells
}

fn attach(agent: &Agent, name: &str, query: &str) -> Viewer {
    let protocol = [("sec-websocket-protocol", CONSOLE_PROTOCOL)];
    let path = format!("/shells/{name}/stream{query}");
    let mut viewer = Viewer::open(agent.address(), &path, &protocol).unwrap();
    // What is typed before would come as a screen.
    viewer.receive_until("the screen", SOON, |viewer| {
        viewer.events().iter().any(|event| matches!(event, ConsoleEvent::Live { .. }))
    });
    viewer
}

fn process(shell: &Shell) -> Process {
    Process::of(shell.pid).expect("the shell lives")
}

/// Everything that carries the mark of the shell's run.
fn mark(shell: &Shell) -> String {
    let environment = fs::read(format!("/proc/{}/environ", shell.pid)).unwrap();
    let entries = String::from_utf8_lossy(&environment).into_owned();
    entries.split('\0').find(|entry| entry.starts_with("ZLH_INSTANCE=")).unwrap().to_owned()
}

#[test]
fn a_shell_is_a_login_of_its_user_and_knows_nothing_of_the_agent() {
    let mut agent = dev_container();
    agent.env("ZLH_AGENT_TOKEN", "a-very-secret-token-of-the-agent");
    agent.env("LD_PRELOAD", "");
    agent.start();
    let token = [
        ("authorization", "Bearer a-very-secret-token-of-the-agent"),
        ("sec-websocket-protocol", CONSOLE_PROTOCOL),
    ];
    let http = agent.http().with_token("a-very-secret-token-of-the-agent");
    let shell: Shell = http.post_json("/shells", &json!({ "name": "one" })).unwrap().expect(201).json();
    let mut viewer = Viewer::open(agent.address(), "/shells/one/stream", &token).unwrap();
    viewer.type_bytes(b"tty; id -u; echo home=$HOME shell=$SHELL term=$TERM; shopt login_shell; set -m && echo jobs on; env | grep -c -i -E 'token|ld_preload'\n");
    viewer.wait_for("jobs on\n0\n");
    let text = viewer.text();
    assert!(text.contains("/dev/pts/"), "{text}");
    assert!(text.contains("term=xterm-256color"), "{text}");
    assert!(text.contains("login_shell") && text.contains("\ton"), "{text}");
    if geteuid().is_root() {
        assert!(text.contains(&format!("\n{DEV}\n")), "{text}");
        assert!(text.contains(&format!("home={}", agent.root_path("home/dev").display())), "{text}");
        assert_eq!(shell.user, "dev");
    }
    // Its terminal controls it: a hang-up is one, Ctrl-C interrupts.
    viewer.type_bytes(b"sleep 1000\n");
    // Not only a copy of the shell that is about to become it, which would swallow the key.
    until("sleep runs", SOON, || {
        let family = process(&shell).descendants();
        family.iter().any(|one| one.executable().is_some_and(|program| program.ends_with("sleep")))
    });
    viewer.type_bytes(b"\x03");
    viewer.type_bytes(b"echo code $?\n");
    viewer.wait_for("code 130");
    // What was typed may have been a password: it stands nowhere.
    let history = http.get("/history").unwrap().expect(200).text();
    assert!(!history.contains("login_shell") && !agent.log().contains("login_shell"));
    viewer.type_bytes(b"exit 7\n");
    viewer.receive_until("the end", SOON, |viewer| {
        viewer.events().iter().any(
            |event| matches!(event, ConsoleEvent::Closed { reason, .. } if reason == "it exited with code 7"),
        )
    });
    until("it is forgotten", SOON, || http.get("/shells/one").is_ok_and(|answer| answer.status == 404));
    until("nothing is left of it", SOON, || !agent.root_path("opt/zlh-agent/run/shell.one").exists());
}

#[test]
fn shells_have_names_a_number_and_an_end() {
    let agent = running("[shell]\nsessions = 3\n");
    let first = open(&agent, &json!({}));
    let build = open(&agent, &json!({ "name": "build", "columns": 120, "rows": 40 }));
    assert_eq!((first.name.as_str(), build.name.as_str()), ("shell-1", "build"));
    assert_eq!((build.columns, build.rows), (120, 40));
    let refused = |wanted: Value, status: u16| {
        agent.http().post_json("/shells", &wanted).unwrap().expect(status).problem()
    };
    assert!(refused(json!({ "name": "build" }), 409).detail.contains("already"));
    assert!(refused(json!({ "name": "../x" }), 400).detail.contains("no name"));
    assert_eq!(refused(json!({ "nmae": "x" }), 400).error, ErrorCode::BadJson);
    open(&agent, &json!({}));
    assert!(refused(json!({}), 409).detail.contains("raise `sessions`"));
    assert_eq!(
        list(&agent).iter().map(|shell| shell.name.as_str()).collect::<Vec<_>>(),
        ["build", "shell-1", "shell-2"]
    );
    // One that minds nothing, with a family that fled.
    let mut viewer = attach(&agent, "build", "");
    viewer.type_bytes(b"trap '' HUP TERM; setsid sleep 1000 & disown; echo deaf\n");
    viewer.wait_for("\ndeaf");
    let mark = mark(&build);
    until("a process that fled", SOON, || carrying(&mark).len() >= 2);
    agent.http().delete("/shells/build").unwrap().expect(204);
    assert_eq!(carrying(&mark), Vec::new());
    assert!(!agent.root_path("opt/zlh-agent/run/shell.build").exists());
    assert_eq!(list(&agent).len(), 2);
    agent.http().delete("/shells/build").unwrap().expect(404);
}

#[test]
fn a_shell_waits_for_its_viewer_as_long_as_it_is_told_to() {
    let agent = running("[shell]\ndetached_s = 15\n");
    let shell = open(&agent, &json!({ "name": "short" }));
    assert!(shell.closes_at.is_some());
    let viewer = attach(&agent, "short", "");
    until("it has a viewer", SOON, || {
        list(&agent).iter().any(|shell| shell.viewers == 1 && shell.closes_at.is_none())
    });
    let living = process(&shell);
    // Longer than it would wait for one.
    let end = std::time::Instant::now() + Duration::from_secs(18);
    until("eighteen seconds", 2 * SOON, || std::time::Instant::now() > end);
    assert!(living.is_alive());
    drop(viewer);
    until("its end", 3 * SOON, || !living.is_alive() && list(&agent).is_empty());
}

#[test]
fn a_shell_outlives_its_agent() {
    let mut agent = running("");
    let shell = open(&agent, &json!({ "name": "long" }));
    let mut viewer = attach(&agent, "long", "");
    viewer.type_bytes(b"x=remembered; echo ready$x\n");
    viewer.wait_for("readyremembered");
    let offset = viewer.offset();
    agent.kill();
    agent.start();
    let found = eventually("the shell", SOON, || {
        list(&agent).into_iter().find(|found| found.name == "long").ok_or(())
    });
    assert_eq!((found.pid, &found.user, &found.created_at), (shell.pid, &shell.user, &shell.created_at));
    let mut again = attach(&agent, "long", &format!("?since={offset}"));
    again.type_bytes(b"echo still $x\n");
    again.wait_for("still remembered");
    let mut fresh = attach(&agent, "long", "");
    fresh.receive_until("its screen", SOON, |viewer| {
        viewer.events().iter().any(
            |event| matches!(event, ConsoleEvent::Screen { data, .. } if data.contains("readyremembered")),
        )
    });
    // Its shim killed: nothing of it is left, and nobody waits for it.
    let shims = shim_of(&agent, "long");
    shims.signal(Signal::SIGKILL);
    until("the end of it", SOON, || list(&agent).is_empty() && !process_lives(&shell));
}

fn shim_of(agent: &Agent, name: &str) -> Process {
    let record = fs::read(agent.root_path(&format!("opt/zlh-agent/run/shell.{name}/shim.json"))).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    Process::of(i32::try_from(record["body"]["shim"]["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

fn process_lives(shell: &Shell) -> bool {
    Process::of(shell.pid).is_some()
}

#[test]
fn the_smallest_viewer_decides_the_size() {
    let agent = running("");
    open(&agent, &json!({ "name": "s", "columns": 80, "rows": 24 }));
    let (mut wide, mut narrow) = (attach(&agent, "s", ""), attach(&agent, "s", ""));
    let told = |viewer: &mut Viewer, size: (u16, u16)| {
        viewer.receive_until(&format!("{size:?}"), SOON, |viewer| {
            let last = viewer.events().iter().rev().find_map(|event| match event {
                ConsoleEvent::Size { columns, rows } => Some((*columns, *rows)),
                _ => None,
            });
            last == Some(size)
        });
    };
    wide.resize(200, 50);
    told(&mut wide, (200, 50));
    narrow.resize(100, 60);
    told(&mut narrow, (100, 50));
    told(&mut wide, (100, 50));
    wide.type_bytes(b"stty size\n");
    wide.wait_for("50 100");
    drop(narrow);
    told(&mut wide, (200, 50));
}

/// `zlhctl shell` in a window of tmux, which knows what its terminal shows.
struct Window {
    socket: PathBuf,
}

impl Window {
    fn open(socket: PathBuf, command: &str) -> Self {
        let window = Self { socket };
        window.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "90", "-y", "28", command]);
        window.tmux(&["set", "-g", "status", "off"]);
        window.tmux(&["set", "-g", "remain-on-exit", "on"]);
        window
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command
            .arg("-S")
            .arg(&self.socket)
            .args(arguments)
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm-256color");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Text with its colours, and where the cursor is.
    fn screen(&self) -> String {
        let text = self.tmux(&["capture-pane", "-e", "-p"]);
        let cursor = self.tmux(&[
            "display",
            "-p",
            "#{cursor_x},#{cursor_y} #{alternate_on} #{pane_width}x#{pane_height}",
        ]);
        format!("{text}{cursor}")
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        eventually(text, SOON, || {
            let screen = self.screen();
            if screen.contains(text) { Ok(()) } else { Err(screen) }
        });
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

#[test]
fn who_comes_back_to_an_editor_sees_the_screen_that_was_left() {
    for program in ["tmux", "vim"] {
        if Command::new(program).arg("--version").output().is_err()
            && Command::new(program).arg("-V").output().is_err()
        {
            return skip(&format!("{program} is not installed"));
        }
    }
    let agent = running("");
    let folder = tempfile::tempdir().unwrap();
    let zlhctl = binary("zlhctl").unwrap();
    let shell = format!("{} shell {} edit", zlhctl.display(), agent.address());
    let first = Window::open(folder.path().join("1"), &shell);
    first.wait_for("$");
    first.keys(&[
        "cat > song.sh <<'X'",
        "Enter",
        "#!/bin/sh",
        "Enter",
        "for i in 1 2 3; do echo \"\u{e4}rger $i\" # comment",
        "Enter",
        "done",
        "Enter",
        "X",
        "Enter",
    ]);
    first.keys(&["vim -u NONE -N +'syntax on' +'set number' +3 song.sh", "Enter"]);
    first.wait_for("song.sh\"");
    first.keys(&["i", "typed ", "Escape", "v", "l", "l"]);
    first.wait_for("-- VISUAL --");
    let left = stable(&first);
    assert!(left.contains("typed") && left.contains("\u{e4}rger") && left.contains(" 1 90x28"), "{left}");
    // The first one leaves, another comes.
    first.keys(&["C-]"]);
    first.wait_for("it waits for you");
    let second = Window::open(folder.path().join("2"), &shell);
    second.wait_for("-- VISUAL --");
    // It is drawn piece by piece.
    eventually("the same screen", SOON, || {
        let screen = second.screen();
        if screen == left { Ok(()) } else { Err(screen) }
    });
    // And it is not a picture: the editor goes on, and leads back out of its screen.
    second.keys(&["Escape", ":q!", "Enter"]);
    second.wait_for(" 0 90x28");
    second.keys(&["exit", "Enter"]);
    second.wait_for("has ended: it exited with code 0");
    assert!(second.screen().contains(" 0 90x28"), "{}", second.screen());
}

/// A screen that does not change any more.
fn stable(window: &Window) -> String {
    let mut last = window.screen();
    let mut same = 0;
    until("a screen that stays", SOON, || {
        let now = window.screen();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        std::thread::sleep(Duration::from_millis(20));
        same >= 10
    });
    last
}

#[test]
fn an_operator_lists_and_closes_shells() {
    let agent = running("");
    let address = agent.address().to_string();
    let mut terminal = Terminal::run(&["shell", &address, "work"]);
    terminal.wait_for("$");
    terminal.press("echo it $((20 + 3))\r");
    terminal.wait_for("it 23");
    let table = zlhctl::well(&["shells", "list", &address]);
    assert!(table.contains("work") && table.contains("80x24"), "{table}");
    zlhctl::well(&["shells", "close", &address, "work"]);
    terminal.wait_for("the shell work of");
    assert_eq!(terminal.ended(), 0);
    assert_eq!(list(&agent), Vec::new());
}

#[test]
fn root_gives_no_shell_away_that_nobody_asked_for() {
    if !geteuid().is_root() {
        return skip("the agent has to be root to refuse it");
    }
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    agent.start();
    let refused = agent.http().post_json("/shells", &json!({})).unwrap().expect(409).problem();
    assert!(
        refused.detail.contains("there is no user `dev`") && refused.detail.contains("useradd"),
        "{}",
        refused.detail
    );
    agent.kill();
    agent.config_file("[shell]\nsessions = 0\n");
    agent.start();
    let refused = agent.http().post_json("/shells", &json!({})).unwrap().expect(403).problem();
    assert!(refused.detail.contains("sessions = 0"), "{}", refused.detail);
}
