//! The fake game does what it says: otherwise no other test means anything.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use zlh_tests::fake::events::{self, What};
use zlh_tests::fake::output::{FLOOD_LINE, FloodCheck, check_flood, flood_line, noise};
use zlh_tests::fake::{Bytes, Settings, world};
use zlh_tests::harness::pty::PtyChild;
use zlh_tests::harness::slp;
use zlh_tests::harness::wait::{SOON, eventually, until};

const QUICK: Duration = Duration::from_millis(700);

struct Fake {
    pty: PtyChild,
    dir: TempDir,
}

impl Fake {
    fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    fn start_in(dir: TempDir, arguments: &[&str]) -> Self {
        let events = dir.path().join("events");
        let properties = dir.path().join("server.properties");
        if !properties.exists() {
            std::fs::write(properties, "server-port=0\nmax-players=7\nmotd=hello there\n").unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_zlh-fake-game"));
        command.current_dir(dir.path()).arg("--events").arg(&events).args(arguments);
        Self { pty: PtyChild::spawn(command).unwrap(), dir }
    }

    fn saw(&self, what: What) -> Option<events::Event> {
        let events = events::read(&self.dir.path().join("events")).unwrap();
        events.into_iter().find(|event| event.what == what)
    }

    fn wait_event(&self, what: What) -> events::Event {
        eventually("an event", SOON, || self.saw(what).ok_or(what))
    }

    fn port(&self) -> u16 {
        self.wait_event(What::Listening).detail.parse().unwrap()
    }

    fn world(&self) -> Vec<u64> {
        world::generations(&self.dir.path().join("world")).unwrap()
    }
}

#[test]
fn a_whole_life_looks_like_minecraft() {
    let mut fake = Fake::start(&["--players", "Alice,Bob", "--startup-delay", "50ms"]);
    fake.pty.wait_for(r#"[Server thread/INFO]: Done ("#);
    fake.pty.wait_for(r#"s)! For help, type "help""#);
    let answer = slp::ping(fake.port(), SOON).unwrap();
    assert_eq!(answer.status["players"]["online"], 2);
    assert_eq!(answer.status["players"]["max"], 7);
    assert_eq!(answer.status["players"]["sample"][1]["name"], "Bob");
    assert_eq!(answer.status["description"]["text"], "hello there");
    fake.pty.send("list").unwrap();
    fake.pty.wait_for("There are 2 of a max of 7 players online: Alice, Bob");
    fake.pty.send("say hi").unwrap();
    fake.pty.wait_for("]: [Server] hi");
    fake.pty.send("save-off").unwrap();
    fake.pty.wait_for("Automatic saving is now disabled");
    fake.pty.send("save-all flush").unwrap();
    fake.pty.wait_for("Saved the game");
    assert_eq!(fake.world(), [1]);
    fake.pty.send("nonsense").unwrap();
    fake.pty.wait_for("nonsense<--[HERE]");
    fake.pty.send("stop").unwrap();
    assert_eq!(fake.pty.wait(SOON).code(), Some(0));
    // What it said last is read a moment after its end.
    fake.pty.wait_for("]: Stopping the server\n");
    fake.pty.wait_for("All chunks are saved");
    assert_eq!(fake.world(), [2]);
}

#[test]
fn every_bad_ping_is_bad_in_its_own_way() {
    let mut fake = Fake::start(&[]);
    let port = fake.port();
    for (mode, kinds) in [
        ("silent", "temporarily|timed out"),
        ("refuse", "fill whole buffer|reset"),
        ("garbage", "VarInt"),
        ("truncated", "fill whole buffer"),
        ("stalled", "temporarily|timed out"),
        ("huge", "a block of 2147483647 bytes"),
        ("slow", "temporarily|timed out"),
        ("bad-json", "expected"),
        ("wrong-packet", "not a status response"),
    ] {
        fake.pty.send(&format!("ping {mode}")).unwrap();
        // The console is read a moment after it was typed into.
        eventually(mode, SOON, || match slp::ping(port, QUICK) {
            Ok(answer) => Err(format!("{answer:?}")),
            Err(error) if kinds.split('|').any(|kind| error.to_string().contains(kind)) => Ok(()),
            Err(error) => Err(error.to_string()),
        });
    }
    fake.pty.send("ping answer").unwrap();
    eventually("good again", SOON, || slp::ping(port, SOON));
}

#[test]
fn done_is_no_promise() {
    let fake = Fake::start(&["--ready-delay", "400ms"]);
    let listening = fake.wait_event(What::Listening);
    let done = fake.saw(What::Done).unwrap();
    assert!(listening.at_ns - done.at_ns >= 400_000_000, "{done:?} {listening:?}");
}

#[test]
fn the_port_comes_from_server_properties_and_a_taken_one_ends_it() {
    let first = Fake::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("server.properties"), format!("server-port={}\n", first.port())).unwrap();
    let mut second = Fake::start_in(dir, &[]);
    assert_eq!(second.pty.wait(SOON).code(), Some(1));
    second.pty.wait_for("**** FAILED TO BIND TO PORT!");
}

#[test]
fn without_the_eula_it_says_so_and_is_gone() {
    let mut fake = Fake::start(&["--require-eula"]);
    assert_eq!(fake.pty.wait(SOON).code(), Some(0));
    fake.pty.wait_for("You need to agree to the EULA in order to run the server");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("eula.txt"), "eula=true\n").unwrap();
    Fake::start_in(dir, &["--require-eula"]).pty.wait_for("Done (");
}

#[test]
fn two_servers_never_share_a_world() {
    let fake = Fake::start(&[]);
    fake.pty.wait_for("Done (");
    let mut command = Command::new(env!("CARGO_BIN_EXE_zlh-fake-game"));
    command.current_dir(fake.dir.path()).stdin(Stdio::null());
    let second = command.output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stdout).contains("already locked"));
}

#[test]
fn it_ends_by_the_code_and_the_signal_it_was_told() {
    let mut coded = Fake::start(&["--exit-after", "1ms", "--exit-code", "42"]);
    assert_eq!(coded.pty.wait(SOON).code(), Some(42));
    let mut killed = Fake::start(&["--exit-after", "1ms", "--exit-signal", "KILL"]);
    assert_eq!(killed.pty.wait(SOON).signal(), Some(9));
    let mut segv = Fake::start(&[]);
    segv.pty.wait_for("Done (");
    segv.pty.send("signal SEGV").unwrap();
    assert_eq!(segv.pty.wait(SOON).signal(), Some(11));
    let mut crash = Fake::start(&[]);
    crash.pty.wait_for("Done (");
    crash.pty.send("crash 3").unwrap();
    assert_eq!(crash.pty.wait(SOON).code(), Some(3));
    assert!(crash.world().is_empty(), "a crash saves nothing");
}

#[test]
fn stop_and_sigterm_are_ignored_when_told() {
    let mut fake = Fake::start(&["--stop", "ignore", "--ignore-sigterm"]);
    fake.pty.wait_for("Done (");
    fake.pty.send("stop").unwrap();
    kill(Pid::from_raw(fake.pty.pid().cast_signed()), Signal::SIGTERM).unwrap();
    fake.wait_event(What::Signal);
    fake.pty.send("say alive").unwrap();
    fake.pty.wait_for("[Server] alive");
    assert!(!fake.pty.text().contains("Stopping"));
}

#[test]
fn sigterm_saves_like_a_jvm() {
    let mut fake = Fake::start(&["--save-time", "100ms"]);
    fake.pty.wait_for("Done (");
    kill(Pid::from_raw(fake.pty.pid().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(fake.pty.wait(SOON).code(), Some(143));
    assert_eq!(fake.world(), [1]);
}

#[test]
fn a_hung_server_hears_nothing_and_pings_on() {
    let mut fake = Fake::start(&[]);
    let port = fake.port();
    fake.pty.send("hang").unwrap();
    until("the hang", SOON, || {
        events::read(&fake.dir.path().join("events")).unwrap().iter().any(|event| event.detail == "hang")
    });
    fake.pty.send("say anybody there").unwrap();
    kill(Pid::from_raw(fake.pty.pid().cast_signed()), Signal::SIGTERM).unwrap();
    fake.wait_event(What::Signal);
    slp::ping(port, SOON).unwrap();
    assert!(!fake.pty.text().contains("[Server] anybody"));
}

#[test]
fn a_flood_arrives_whole_and_at_its_rate() {
    let fake = Fake::start(&["--flood-rate", "64000", "--flood-bytes", "32000"]);
    fake.pty.wait_for(std::str::from_utf8(flood_line(499).trim_ascii_end()).unwrap());
    let took = fake.wait_event(What::FloodEnded).at_ns - fake.wait_event(What::FloodBegan).at_ns;
    assert!(took >= 500_000_000, "half a second's bytes in {took} ns");
    let mut fast = Fake::start(&[]);
    fast.pty.wait_for("Done (");
    fast.pty.send("flood 6400000 0").unwrap();
    fast.pty.wait_for(std::str::from_utf8(flood_line(99_999).trim_ascii_end()).unwrap());
    let whole = FloodCheck { range: Some((0, 99_999)), missing: 0, damaged: 0 };
    assert_eq!(check_flood(&fast.pty.output()), whole);
    assert_eq!(100_000 * FLOOD_LINE, 6_400_000);
}

#[test]
fn one_line_of_ten_megabytes_and_bytes_that_are_no_text() {
    let fake = Fake::start(&["--long-line", "10MB", "--noise", "5000"]);
    fake.pty.wait_for("Done (");
    let expected = noise(Bytes(5000));
    eventually("the noise", SOON, || {
        let seen = fake.pty.output();
        if seen.ends_with(&expected) { Ok(()) } else { Err(seen.len()) }
    });
    let longest = fake.pty.output().split(|byte| *byte == b'\n').map(<[u8]>::len).max();
    assert_eq!(longest, Some(10_000_000), "9,999,999 bytes and the terminal's carriage return");
}

#[test]
fn what_it_leaves_behind_outlives_it_and_ends_by_itself() {
    let mut fake = Fake::start(&["--daemon", "detached", "--forks", "3", "--linger", "10s"]);
    fake.pty.wait_for("Done (");
    let children = || {
        let events = events::read(&fake.dir.path().join("events")).unwrap();
        let of = |event: &events::Event| (event.what == What::Child).then(|| event.detail.clone());
        events.iter().filter_map(of).collect::<Vec<_>>()
    };
    until("a daemon, a parent and its three", SOON, || children().len() == 5);
    let own = std::fs::read_to_string(format!("/proc/{}/stat", fake.pty.pid())).unwrap();
    let session = |stat: &str| stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().to_owned();
    let sessions: Vec<_> = children()
        .iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())
        .map(|stat| session(&stat))
        .collect();
    assert!(sessions.iter().any(|other| *other != session(&own)), "the daemon has a session of its own");
    fake.pty.send("crash 1").unwrap();
    fake.pty.wait(SOON);
    until("all gone", SOON * 2, || {
        let gone = |pid: &String| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        children().iter().all(gone)
    });
}

#[test]
fn a_settings_file_in_the_working_directory_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    Settings { exit_after: Some("1ms".parse().unwrap()), exit_code: Some(9), ..Settings::default() }
        .write(dir.path())
        .unwrap();
    let mut fake = Fake::start_in(dir, &[]);
    assert_eq!(fake.pty.wait(SOON).code(), Some(9));
}

#[test]
fn a_copy_taken_while_it_saves_shows_it() {
    let mut fake = Fake::start(&["--save-time", "2s", "--world-bytes", "80KiB"]);
    fake.pty.wait_for("Done (");
    fake.pty.send("save-all").unwrap();
    fake.wait_event(What::SaveEnded);
    // Whoever sleeps over one save sees the next.
    until("a mixed world", 3 * SOON, || {
        let world = fake.world();
        if world.len() == 1 {
            fake.pty.send("save-all").unwrap();
        }
        world.len() == 2 && world[1] == world[0] + 1
    });
    until("a whole one", 10 * SOON, || fake.world().len() == 1);
    assert!(Path::new(fake.dir.path()).join("world/level.dat").exists());
}
