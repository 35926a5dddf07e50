//! What stands before a start: never a second server, never a shell, never a loop around
//! something that cannot run.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use zlh_api::{OperationState, State};
use zlh_tests::fake::events::What;
use zlh_tests::fake::world::World;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::ports::Port;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, until};

fn starts(agent: &Agent) -> usize {
    agent.events().iter().filter(|event| event.what == What::Started).count()
}

/// Stopped, so that the next start is the first thing that happens.
fn stopped(flags: &[&str]) -> Agent {
    let agent = Agent::with_ready_fake(flags);
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    agent
}

#[test]
fn a_world_that_another_server_uses_is_named_with_who_uses_it() {
    let agent = stopped(&[]);
    let begun = starts(&agent);
    // A server that somebody started by hand in the same folder, on another port.
    let port = Port::lease().unwrap();
    let mut other = Command::new(env!("CARGO_BIN_EXE_zlh-fake-game"))
        .current_dir(agent.game_root())
        .args(["--port", &port.number().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the other one has the world", SOON, || zlh_tests::harness::slp::ping(port.number(), SOON).is_ok());
    agent.post("/start", 202);
    let status = agent.wait_state(State::Error);
    let error = status.error.unwrap();
    for part in ["world/session.lock", &other.id().to_string(), "zlh-fake-game", "stop it"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(other.try_wait().unwrap().is_none(), "nothing was killed");
    assert_eq!((starts(&agent), status.crashes_total, status.process_running), (begun, 0, false));
    // A second world counts as well, wherever the server keeps it.
    other.kill().unwrap();
    other.wait().unwrap();
    let nether = agent.game_root().join("worlds/world_nether");
    let mut holder = hold_world(&nether);
    agent.post("/start", 202);
    let error = agent.wait_state(State::Error).error.unwrap();
    assert!(error.contains("worlds/world_nether/session.lock"), "{error}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    // A lock file that nobody holds is a file.
    agent.post("/start", 202);
    agent.wait_ready();
}

#[test]
fn the_lock_of_a_real_jvm_is_seen() {
    const SOURCE: &str = "import java.nio.channels.FileChannel; import java.nio.file.*; \
        public class Lock { public static void main(String[] a) throws Exception { \
        FileChannel c = FileChannel.open(Path.of(a[0]), StandardOpenOption.CREATE, StandardOpenOption.WRITE); \
        if (c.tryLock() == null) throw new IllegalStateException(); \
        System.out.println(\"held\"); System.in.read(); } }";
    let agent = stopped(&[]);
    let source = agent.root_path("Lock.java");
    fs::write(&source, SOURCE).unwrap();
    let java = Command::new("java")
        .arg(&source)
        .arg(agent.game_root().join("world/session.lock"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut line = String::new();
    let mut java = match java {
        Ok(mut java) => {
            BufReader::new(java.stdout.take().unwrap()).read_line(&mut line).unwrap();
            java
        }
        Err(error) => return skip(&format!("no java here: {error}")),
    };
    if line.trim() != "held" {
        java.kill().unwrap();
        java.wait().unwrap();
        return skip("this java compiles no source");
    }
    agent.post("/start", 202);
    let error = agent.wait_state(State::Error).error.unwrap();
    assert!(error.contains(&format!("pid {} (java)", java.id())), "{error}");
    java.kill().unwrap();
    java.wait().unwrap();
    agent.post("/start", 202);
    agent.wait_ready();
}

#[allow(clippy::print_stderr, reason = "a test that cannot run says so")]
pub(crate) fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// A server of which only its world matters.
fn hold_world(world: &std::path::Path) -> std::process::Child {
    let root = world.parent().unwrap();
    fs::create_dir_all(root).unwrap();
    drop(World::open(world, 4096, Duration::ZERO).unwrap());
    let name = world.file_name().unwrap().to_str().unwrap();
    fs::write(root.join("server.properties"), format!("server-port=0\nlevel-name={name}\n")).unwrap();
    let events = root.join("events");
    let holder = Command::new(env!("CARGO_BIN_EXE_zlh-fake-game"))
        .current_dir(root)
        .arg("--events")
        .arg(&events)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("it has the world", SOON, || {
        let events = zlh_tests::fake::events::read(&events).unwrap();
        events.iter().any(|event| event.what == What::Done)
    });
    holder
}

#[test]
fn what_cannot_be_executed_is_an_error_and_no_loop() {
    let agent = stopped(&[]);
    let program = game_program(&agent);
    let whole = fs::read(&program).unwrap();
    let script: &[u8] = b"#!/no/such/interpreter\n";
    for (content, mode, expected) in [
        (whole.as_slice(), 0o644, "Permission denied (os error 13)"),
        (script, 0o755, "No such file or directory (os error 2)"),
        (b"\x7fELF and nothing more".as_slice(), 0o755, "Exec format error (os error 8)"),
    ] {
        let begun = starts(&agent);
        // Replaced, not rewritten: the tree may be shared.
        let staged = program.with_extension("staged");
        fs::write(&staged, content).unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&staged, &program).unwrap();
        agent.post("/start", 202);
        let status = agent.wait_state(State::Error);
        let error = status.error.unwrap();
        assert!(error.contains(expected) && error.contains("zlh-fake-game"), "{expected}: {error}");
        assert_eq!((status.next_restart_at, status.process_running), (None, false), "{expected}");
        assert_eq!(starts(&agent), begun);
        let all: zlh_api::Operations = agent.http().get("/operations").unwrap().json();
        assert_eq!(all.operations[0].state, OperationState::Failed, "{:?}", all.operations[0]);
    }
    let staged = program.with_extension("staged");
    fs::write(&staged, whole).unwrap();
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&staged, &program).unwrap();
    agent.post("/start", 202);
    agent.wait_ready();
}

/// The installed program, found by looking.
fn game_program(agent: &Agent) -> PathBuf {
    fn find(dir: &std::path::Path) -> Option<PathBuf> {
        fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
            let kind = entry.file_type().ok()?;
            if kind.is_dir() {
                return find(&entry.path());
            }
            (kind.is_file() && entry.file_name() == "zlh-fake-game").then(|| entry.path())
        })
    }
    find(&agent.root_path("opt/zlh/runtimes")).expect("an installed runtime")
}

#[test]
fn nothing_a_caller_sends_reaches_a_shell_or_the_environment() {
    let store = Store::fake(&FakePlan::new(&[])).unwrap();
    let mut agent = Agent::prepare(store).unwrap();
    for (name, value) in [
        ("LD_PRELOAD", "/no/such/library.so"),
        ("LD_LIBRARY_PATH", "/tmp"),
        ("JAVA_TOOL_OPTIONS", "-javaagent:/tmp/evil.jar"),
        ("_JAVA_OPTIONS", "-Xmx1m"),
        ("BASH_ENV", "/tmp/evil"),
        ("NODE_OPTIONS", "--require /tmp/evil.js"),
        ("ZLH_SECRET", "evil"),
    ] {
        agent.env(name, value);
    }
    agent.start();
    let hostile = [
        "$(touch pwned)",
        "`touch pwned`",
        "; touch pwned",
        "a && touch pwned",
        "\"'",
        "-Dx=y",
        "--help",
        "a\nb",
        "../x",
    ];
    for field in ["game", "variant", "version", "world", "artifact_path", "java_path"] {
        for value in hostile {
            let mut payload = agent.payload();
            payload[field] = json!(value);
            let answer = agent.configure_with(&payload);
            // Paths of the deployed form are read and not used; all else is refused.
            assert!(answer.status == 400 || field.ends_with("_path"), "{field} = {value:?}: {answer:?}");
            if answer.status == 202 {
                agent.post("/stop", 204);
                agent.wait_state(State::Idle);
            }
        }
    }
    // What only the game's administrator reads may hold anything, and goes nowhere.
    let mut payload = agent.payload();
    for field in ["admin_user", "admin_pass", "steam_user", "steam_pass", "steam_auth", "portal_tag"] {
        payload[field] = json!("$(touch pwned); `id` '\" -Dx=y LD_PRELOAD=/tmp/x.so");
    }
    agent.configure_with(&payload).expect(202);
    agent.wait_ready();
    let pid = agent.game().pid;
    let entries = |file: &str| -> Vec<String> {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        bytes
            .split(|b| *b == 0)
            .map(|e| String::from_utf8_lossy(e).into_owned())
            .filter(|e| !e.is_empty())
            .collect()
    };
    let mut names: Vec<String> =
        entries("environ").iter().map(|e| e.split('=').next().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "TERM", "USER", "ZLH_INSTANCE"]);
    let everything = [entries("environ"), entries("cmdline")].concat().join("\n");
    for trace in ["pwned", "evil", "javaagent", "-Dx=y", "/sh", "bash"] {
        let shells = trace == "/sh" || trace == "bash";
        let text = if shells { entries("cmdline").join("\n") } else { everything.clone() };
        assert!(!text.contains(trace), "{trace}: {text}");
    }
    // Parents of the game are ours: no shell stands in between.
    let exe = agent.game().executable().unwrap();
    assert!(exe.ends_with("bin/zlh-fake-game"), "{}", exe.display());
    let pwned = |dir: PathBuf| dir.join("pwned").exists();
    assert!(!pwned(agent.game_root()) && !pwned(agent.root().to_owned()) && !pwned(".".into()));
}

#[test]
fn fifty_operations_at_once_have_fifty_answers_and_one_server() {
    let agent = Agent::with_ready_fake(&["--save-time", "50ms"]);
    let http = agent.http();
    let done = AtomicBool::new(false);
    let mut other = agent.payload();
    other["memory_mb"] = json!(1024);
    let (most, locations) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(agent.living_games().len());
                // The others want to run, too.
                std::thread::sleep(Duration::from_millis(2));
            }
            most
        });
        let callers: Vec<_> = (0..50_u32)
            .map(|caller| {
                let (http, agent, other) = (&http, &agent, &other);
                scope.spawn(move || {
                    let answer = match caller % 5 {
                        0 => http.post("/start"),
                        1 => http.post("/stop"),
                        2 => http.post("/restart"),
                        3 => http.post_json("/config", &agent.payload()),
                        _ => http.post_json("/config", other),
                    };
                    let answer = answer.expect("an answer");
                    assert!(matches!(answer.status, 202 | 204 | 409), "{answer:?}");
                    answer.header("location").map(str::to_owned)
                })
            })
            .collect();
        let locations: Vec<String> =
            callers.into_iter().filter_map(|caller| caller.join().expect("a caller")).collect();
        let end = Instant::now() + 3 * SOON;
        let running = |location: &String| {
            let operation: zlh_api::Operation = http.get(location).expect("an answer").json();
            operation.state == OperationState::Running
        };
        while locations.iter().any(running) {
            assert!(Instant::now() < end, "an operation without an end: {:?}", agent.status());
            std::thread::sleep(Duration::from_millis(20));
        }
        done.store(true, Ordering::Relaxed);
        (watcher.join().expect("the watcher"), locations)
    });
    assert!(!locations.is_empty());
    assert!(most <= 1, "{most} servers at once");
    let console = agent.console();
    assert!(!console.contains("already locked") && !console.contains("FAILED TO BIND"), "{console}");
    let status = agent.status();
    assert!(matches!(status.state, State::Idle | State::Running), "{status:?}");
    assert_eq!((status.crashes_total, &status.error), (0, &None), "{status:?}");
    // And whatever the outcome, the next word counts.
    agent.post("/start", 202);
    agent.wait_ready();
    assert_eq!(agent.living_games().len(), 1);
}
