//! A shim is killed and another takes its place: same process, same terminal, same log.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use zlh_shim::files;
use zlh_shim::kin::Kin;
use zlh_shim::living::Living;
use zlh_shim::process::{ProcessId, stat};
use zlh_shim::proto::{self, kind};
use zlh_shim::record::{Exit, ExitRecord, ShimRecord, StopStage};

use super::client::{Held, eventually, kill, shell};

const SECOND: Duration = Duration::from_secs(1);

/// Takes commands until `exit N`.
const CONSOLE: &str = "echo up; while read -r line; do case $line in exit*) exit ${line#exit };; *) echo got $line;; esac; done; echo no more input";

fn record(held: &Held) -> ExitRecord {
    ExitRecord::read(held.dir(), held.instance()).unwrap()
}

/// What an end may be told as: on a kernel that does not tell it is lost, but never another.
fn assert_told(exit: &Exit, expected: &Exit) {
    match exit {
        Exit::Lost { .. } => assert!(!zlh_shim::living::kernel_tells(), "this kernel tells"),
        told => assert_eq!(told, expected),
    }
}

#[test]
fn everything_goes_on_under_another_shim() {
    let mut held = Held::start(shell(CONSOLE));
    held.wait_log("up");
    let (child, before) = (held.child(), held.status());
    for round in 1..=3 {
        held.kill_shim();
        assert!(child.is_alive(), "the workload outlives its shim");
        held.adopt().unwrap();
        held.input(&format!("hello {round}\n"), true).unwrap();
        held.wait_log(&format!("got hello {round}"));
        let status = held.status();
        assert_eq!(status.adopted, Some(proto::Adopted { times: round, lost_bytes: 0 }));
        assert_eq!(
            (
                status.pid,
                status.start_ticks,
                status.started_boot_ms,
                status.started_unix_ms,
                status.log_run_start
            ),
            (
                before.pid,
                before.start_ticks,
                before.started_boot_ms,
                before.started_unix_ms,
                before.log_run_start
            )
        );
        assert_eq!(status.exit, None);
        let record = ShimRecord::read(held.dir()).unwrap();
        assert_eq!((record.shim.pid, record.child, record.adoptions), (held.shim_pid(), Some(child), round));
    }
    let log = String::from_utf8(held.log()).unwrap();
    assert_eq!(
        log.replace("\r\n", "\n"),
        "up\nhello 1\ngot hello 1\nhello 2\ngot hello 2\nhello 3\ngot hello 3\n"
    );
    // Its terminal's size, a signal, and a stop: all of it reaches the same process.
    held.request_raw(kind::RESIZE, &proto::body(&proto::Resize { rows: 50, cols: 132 })).unwrap();
    held.stop(Some("exit 7"), 60 * SECOND, 60 * SECOND);
    let status = held.wait_exit();
    assert_told(&status.exit.unwrap().exit(), &Exit::Exited { code: 7 });
    let record = record(&held);
    assert_told(&record.exit, &Exit::Exited { code: 7 });
    assert_eq!((record.stop, record.child), (Some(StopStage::Command), Some(child)));
    assert_eq!(record.console_end, status.log_head);
    assert_eq!(record.oom.map(|oom| oom.after >= oom.before), record.oom.map(|_| true));
    held.acknowledge();
    held.wait_gone();
    // And the slot is free.
    let mut next = held.again(shell("echo next"));
    assert_eq!(next.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 0 });
    assert!(String::from_utf8(next.log()).unwrap().ends_with("next\r\n"));
}

#[test]
fn the_true_end_is_told_by_who_is_not_the_parent() {
    for (script, expected) in [
        ("read x; exit 0", Exit::Exited { code: 0 }),
        ("read x; exit 255", Exit::Exited { code: 255 }),
        ("read x; kill -SEGV $$", Exit::Killed { signal: 11, core: false }),
        ("read x; kill -KILL $$", Exit::Killed { signal: 9, core: false }),
    ] {
        let mut held = Held::start(shell(script));
        held.wait_running();
        held.kill_shim();
        held.adopt().unwrap();
        held.input("x\n", true).unwrap();
        let exit = held.wait_exit().exit.unwrap();
        assert!(exit.recorded);
        assert_told(&exit.exit(), &expected);
    }
}

#[test]
fn not_a_byte_is_lost_or_doubled_by_kills_under_load() {
    let lines = 1_200_000_u64;
    let mut held = Held::start(shell(&format!("read go; seq -f 'line %010.0f' 0 {}; echo end", lines - 1)));
    held.wait_running();
    // Nothing is printed before somebody is there to kill. Its echo: the terminal has it.
    held.input("go\n", true).unwrap();
    held.wait_log("go");
    let mut kills = 0;
    loop {
        // At ever other moments, while it prints.
        let until = Instant::now() + Duration::from_micros(1000 + kills * 1700 % 20_000);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        held.kill_shim();
        if !held.child().is_alive() {
            break;
        }
        kills += 1;
        if held.adopt().is_err() {
            break; // it has ended meanwhile
        }
    }
    println!("{kills} kills");
    assert!(kills >= 3, "it ended too soon: {kills}");
    held.take_last_words();
    let log = held.log();
    let text = String::from_utf8(log).unwrap();
    let seen: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    // Old segments are given up; from the first kept line on there is no gap and no double.
    let start = seen.iter().position(|line| line.len() == 15).unwrap();
    let begin: u64 = seen[start].trim_start_matches("line ").parse().unwrap();
    let mut next = begin;
    for line in &seen[start..seen.len() - 1] {
        assert_eq!(*line, format!("line {next:010}"), "kept from {begin}");
        next += 1;
    }
    assert_eq!((next, seen.last()), (lines, Some(&"end")), "kept from {begin}");
}

#[test]
fn an_adopting_shim_that_is_killed_at_any_moment_leaves_it_to_the_next() {
    let mut held = Held::start(shell(CONSOLE));
    held.wait_log("up");
    let child = held.child();
    held.kill_shim();
    let mut ready = 0;
    for round in 0..60_u64 {
        let mut process = held.spawn_adopting(held.packed(), "0");
        let until = Instant::now() + Duration::from_micros(round * 150);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        process.kill().unwrap();
        process.wait().unwrap();
        let mut said = String::new();
        process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.is_empty() || said == "ready\n", "round {round}: {said}");
        ready += u32::from(!said.is_empty());
        assert!(child.is_alive(), "round {round}");
    }
    println!("{ready} of 60 were ready when they were killed");
    held.adopt().unwrap();
    held.input("still\n", true).unwrap();
    held.wait_log("got still");
    let log = String::from_utf8(held.log()).unwrap().replace("\r\n", "\n");
    assert_eq!(log, "up\nstill\ngot still\n", "nothing twice, nothing missing");
    held.input("exit 3\n", true).unwrap();
    assert_told(&held.wait_exit().exit.unwrap().exit(), &Exit::Exited { code: 3 });
}

#[test]
fn a_workload_that_ends_while_it_is_adopted_is_told_or_refused() {
    let mut told = 0;
    for round in 0..20_u64 {
        let mut held = Held::start(shell("read x; exit 9"));
        held.wait_running();
        let (child, living) = (held.child(), Living::open(held.child()).unwrap());
        held.kill_shim();
        let adopting = std::thread::scope(|scope| {
            scope.spawn(|| {
                let until = Instant::now() + Duration::from_micros(round * 400);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                living.signal(rustix::process::Signal::KILL).unwrap();
            });
            held.adopt()
        });
        match adopting {
            Ok(()) => {
                assert_told(&held.wait_exit().exit.unwrap().exit(), &Exit::Killed { signal: 9, core: false });
                told += 1;
            }
            Err(said) => {
                assert!(said.contains("it has ended"), "{said}");
                living.wait();
                assert_told(&living.end().unwrap(), &Exit::Killed { signal: 9, core: false });
            }
        }
        assert!(!child.is_alive());
    }
    println!("{told} of 20 ends were recorded by the new shim");
}

#[test]
fn a_stop_leaves_nothing_behind_although_nobody_is_the_parent() {
    let scratch = tempfile::tempdir().unwrap();
    let pids = scratch.path().join("pids");
    // Children that stay, that lose their parents, and that flee into sessions of their own.
    let mut held = Held::start(shell(&format!(
        "for i in 1 2 3 4; do
           sh -c 'trap \"\" TERM HUP; echo $$ >> {0}; sleep 600 & echo $! >> {0}; wait' &
           (sh -c 'trap \"\" TERM HUP; echo $$ >> {0}; exec sleep 600' &)
           setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {0}; exec sleep 600' &
           (setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {0}; exec sleep 600' &)
         done; trap '' TERM; while :; do sleep 1; done",
        pids.display()
    )));
    let seen = || fs::read_to_string(&pids).unwrap_or_default();
    eventually("everybody is there", || seen().lines().count() == 20);
    let family: Vec<ProcessId> =
        seen().lines().map(|line| ProcessId::of(line.parse().unwrap()).unwrap()).collect();
    held.kill_shim();
    held.adopt().unwrap();
    held.stop(None, SECOND, SECOND / 5);
    let status = held.wait_exit();
    assert_told(&status.exit.unwrap().exit(), &Exit::Killed { signal: 9, core: false });
    assert_eq!(record(&held).stop, Some(StopStage::Kill));
    for process in family {
        assert!(!process.is_alive(), "{process:?} lives on");
    }
}

#[test]
fn what_must_not_be_adopted_is_not() {
    let mut held = Held::start(shell(CONSOLE));
    held.wait_log("up");
    let refused = |held: &mut Held, why: &str| {
        let said = held.adopt().unwrap_err();
        assert!(said.contains(why), "{said}");
    };
    // Beside a living shim, frozen or not.
    refused(&mut held, "locked");
    kill(held.shim_pid(), nix::libc::SIGSTOP);
    refused(&mut held, "locked");
    kill(held.shim_pid(), nix::libc::SIGCONT);
    // A shim of a version that took no such lock is known by its record.
    fs::remove_file(held.dir().join(files::HOLDER_LOCK)).unwrap();
    refused(&mut held, "is still there");
    let child = held.child();
    held.kill_shim();
    // Without the terminal, with something else, with a head that is none.
    for (input, head, why) in [
        (OwnedFd::from(fs::File::open("/dev/null").unwrap()), "0", "terminal"),
        (OwnedFd::from(UnixStream::pair().unwrap().0), "0", "terminal"),
        (held.packed(), "minus one", "not an offset"),
    ] {
        let mut process = held.spawn_adopting(input, head);
        let mut said = String::new();
        process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!process.wait().unwrap().success());
        assert!(said.starts_with("error ") && said.contains(why), "{said}");
    }
    // A pid that is somebody else's by now: the same number, another start.
    let good = ShimRecord::read(held.dir()).unwrap();
    let mut bad = good.clone();
    bad.child = Some(ProcessId { start_ticks: child.start_ticks + 1, ..child });
    bad.write(held.dir()).unwrap();
    refused(&mut held, "it has ended");
    bad = good.clone();
    bad.generation.init_start_ticks += 1;
    bad.write(held.dir()).unwrap();
    refused(&mut held, "earlier life");
    // Known by nobody's word, not even its own.
    fs::remove_file(held.dir().join(files::CHILD)).unwrap();
    bad = ShimRecord { child: None, ..good.clone() };
    bad.write(held.dir()).unwrap();
    refused(&mut held, "not started anything");
    fs::write(held.dir().join(files::SHIM), "garbage").unwrap();
    refused(&mut held, "damaged");
    assert!(child.is_alive(), "none of this touched it");
    good.write(held.dir()).unwrap();
    held.adopt().unwrap();
    held.input("exit 0\n", true).unwrap();
    held.wait_exit();
}

#[test]
fn two_shims_never_hold_one_workload() {
    let mut held = Held::start(shell(CONSOLE));
    held.wait_log("up");
    held.kill_shim();
    let mut rivals: Vec<_> = (0..4).map(|_| held.spawn_adopting(held.packed(), "0")).collect();
    let said: Vec<String> = rivals
        .iter_mut()
        .map(|rival| {
            use std::io::{BufRead, BufReader};
            let mut line = String::new();
            BufReader::new(rival.stdout.take().unwrap()).read_line(&mut line).unwrap();
            line
        })
        .collect();
    assert_eq!(said.iter().filter(|line| *line == "ready\n").count(), 1, "{said:?}");
    held.reconnect();
    held.input("exit 5\n", true).unwrap();
    assert_told(&held.wait_exit().exit.unwrap().exit(), &Exit::Exited { code: 5 });
    held.acknowledge();
    for mut rival in rivals {
        rival.wait().unwrap();
    }
}

#[test]
fn sigterm_to_an_adopting_shim_is_a_graceful_stop_too() {
    let mut held = Held::start(shell("echo up; read line; echo saved $line; exit 0"));
    held.wait_log("up");
    held.kill_shim();
    held.adopt().unwrap();
    kill(held.shim_pid(), nix::libc::SIGTERM);
    held.wait_gone();
    let record = record(&held);
    assert_eq!(record.stop, Some(StopStage::Command));
    assert_told(&record.exit, &Exit::Exited { code: 0 });
    assert!(String::from_utf8(held.log()).unwrap().contains("saved stop"));
}

#[test]
fn a_first_version_agent_gets_one_descriptor_and_no_more() {
    use std::io::Write;
    let held = Held::start(shell(CONSOLE));
    for (versions, expected) in [((1, 1), 1), ((1, 2), 2), ((1, 9), 2)] {
        let hello = proto::Hello {
            proto_min: versions.0,
            proto_max: versions.1,
            agent_version: "test".to_owned(),
            instance: held.instance().to_owned(),
        };
        let mut out = Vec::new();
        zlh_shim::frame::encode(kind::HELLO, 1, &proto::body(&hello), &mut out);
        let mut stream = held.raw();
        stream.write_all(&out).unwrap();
        assert_eq!(super::client::descriptors_received(&stream), expected, "{versions:?}");
    }
}

#[test]
fn no_descriptor_left_is_no_reason_to_spin() {
    let mut spec = shell("echo up; read line; exit 0");
    spec.max_open_files = 64;
    let mut held = Held::start(spec);
    held.wait_log("up");
    let pid = held.shim_pid();
    // The limit of the shim itself: nothing more can be opened than is open now.
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = rustix::process::Rlimit { current: Some(open as u64), maximum: Some(4096) };
    let raw = rustix::process::Pid::from_raw(pid);
    rustix::process::prlimit(raw, rustix::process::Resource::Nofile, limit).unwrap();
    let waiting = held.raw();
    let ticks = || {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let rest = text.rsplit_once(") ").unwrap().1;
        rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = ticks();
    // Not a wait for something: the time over which nothing may happen.
    std::thread::sleep(SECOND);
    let spent = ticks() - before;
    assert!(spent < 20, "{spent} of 100 clock ticks spent on a connection it cannot accept");
    let limit = rustix::process::Rlimit { current: Some(1024), maximum: Some(4096) };
    rustix::process::prlimit(raw, rustix::process::Resource::Nofile, limit).unwrap();
    // Accepted after all: it hangs up on who says nothing within its five seconds.
    let mut end = [0_u8; 1];
    assert_eq!((&waiting).read(&mut end).unwrap(), 0);
    held.input("x\n", true).unwrap();
    held.wait_exit();
}

#[test]
fn leftovers_of_a_shim_killed_at_once_are_found_by_their_lock() {
    let held = Held::start(shell("sleep 600"));
    held.wait_running();
    let child = held.child();
    kill(held.shim_pid(), nix::libc::SIGKILL);
    eventually("the shim is dead", || !held.shim_alive());
    assert!(stat(child.pid).is_ok());
    assert!(Kin::foreign(held.dir(), None).sweep(20 * SECOND));
    assert!(!child.is_alive());
}
