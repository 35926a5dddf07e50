//! The shim as a real process, driven over its real socket.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

mod adoption;
mod client;
mod liars;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use client::{Held, eventually, kill, shell};
use zlh_shim::frame;
use zlh_shim::process::{ProcessId, stat};
use zlh_shim::proto::{self, kind};
use zlh_shim::record::{Exit, ExitRecord, StopStage};
use zlh_shim::spec::{StopPlan, UserIds, Warning};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_end_is_told_exactly_and_is_on_disk_first() {
    for (script, expected) in [
        ("exit 0", Exit::Exited { code: 0 }),
        ("exit 1", Exit::Exited { code: 1 }),
        ("exit 255", Exit::Exited { code: 255 }),
        ("kill -KILL $$", Exit::Killed { signal: 9, core: false }),
        ("kill -SEGV $$", Exit::Killed { signal: 11, core: false }),
    ] {
        let mut held = Held::start(shell(script));
        let status = held.wait_exit();
        let message = status.exit.unwrap();
        assert!(message.recorded);
        assert_eq!(message.exit(), expected, "{script}");
        let record = ExitRecord::read(held.dir(), held.instance()).unwrap();
        assert_eq!(record.exit, expected, "{script}");
        assert_eq!(record.stop, None);
        held.acknowledge();
        held.wait_gone();
    }
}

#[test]
fn no_exit_code_is_taken_for_another() {
    for code in 0..=255 {
        let mut held = Held::start(shell(&format!("exit {code}")));
        assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code }, "{code}");
        held.acknowledge();
        held.wait_gone();
    }
}

#[test]
fn what_cannot_run_says_which_step_failed() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = scratch.path().join("plain");
    fs::write(&plain, "not a program").unwrap();
    let script = scratch.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let cases = [
        (vec!["/no/such/program".to_owned()], nix::libc::ENOENT),
        (vec![plain.display().to_string()], nix::libc::EACCES),
        (vec![script.display().to_string()], nix::libc::ENOENT),
    ];
    for (argv, expected) in cases {
        let mut spec = shell("exit 0");
        spec.argv = argv.clone();
        let mut held = Held::start(spec);
        match held.wait_exit().exit.unwrap().exit() {
            Exit::ExecFailed { step, errno } => {
                assert_eq!(errno, expected, "{argv:?}");
                assert!(step.contains(&argv[0]), "{step}");
            }
            other => panic!("{argv:?} ended as {other:?}"),
        }
    }
    let mut spec = shell("exit 0");
    spec.workdir = "/no/such/folder".into();
    let mut held = Held::start(spec);
    let end = held.wait_exit().exit.unwrap().exit();
    assert!(matches!(&end, Exit::ExecFailed { step, .. } if step.contains("/no/such/folder")), "{end:?}");
    // One argument larger than the kernel takes.
    let mut spec = shell("exit 0");
    spec.argv.push("x".repeat(200 << 10));
    let end = Held::start(spec).wait_exit().exit.unwrap().exit();
    assert!(matches!(end, Exit::ExecFailed { errno: nix::libc::E2BIG, .. }), "{end:?}");
    // A user it cannot become, or who may not enter the folder.
    let locked = scratch.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    let mut spec = shell("exit 0");
    (spec.user, spec.workdir) = (Some(UserIds { uid: 65_534, gid: 65_534, groups: vec![] }), locked);
    let expected = if nix::unistd::geteuid().is_root() { nix::libc::EACCES } else { nix::libc::EPERM };
    let end = Held::start(spec).wait_exit().exit.unwrap().exit();
    assert!(matches!(end, Exit::ExecFailed { errno, .. } if errno == expected), "{end:?}");
}

#[test]
fn exit_127_of_the_workload_is_its_own() {
    let mut held = Held::start(shell("exit 127"));
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 127 });
}

#[test]
fn output_before_the_end_is_all_there() {
    let mut held =
        Held::start(shell("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; printf last"));
    let status = held.wait_exit();
    let log = held.log();
    let text = String::from_utf8(log).unwrap();
    assert_eq!(text.len() as u64, status.log_head);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5001);
    assert!((0..5000).all(|i| lines[i] == format!("line {i}")));
    assert_eq!(lines[5000], "last");
    assert_eq!(ExitRecord::read(held.dir(), held.instance()).unwrap().console_end, status.log_head);
}

#[test]
fn offsets_go_on_over_runs() {
    let mut first = Held::start(shell("echo one"));
    let end = first.wait_exit().log_head;
    first.acknowledge();
    first.wait_gone();
    let mut second = first.again(shell("echo two"));
    let status = second.wait_exit();
    assert_eq!(status.log_run_start, end);
    assert_eq!(second.log(), b"one\r\ntwo\r\n");
}

#[test]
fn nobody_has_to_read() {
    // 80 MB at the speed of the terminal, no client reading: the writer ends by itself.
    let mut held = Held::start(shell(
        "yes 0123456789012345678901234567890123456789012345678 | head -n 1600000; echo END",
    ));
    held.disconnect();
    held.wait_record();
    held.reconnect();
    let status = held.status();
    assert!(status.log_head > 80_000_000, "{}", status.log_head);
    assert!(status.log_head - status.log_start <= 65 << 20, "the log is bounded");
    assert!(held.log().ends_with(b"END\r\n"));
}

#[test]
fn a_second_shim_never_starts_beside_the_first_nor_beside_its_orphan() {
    let held = Held::start(shell("exec sleep 600"));
    let refusal = Held::try_start(held.dir(), shell("echo second")).unwrap_err();
    assert!(refusal.contains("is running already"), "{refusal}");
    // The shim dies; the workload, which holds the lock too, does not.
    held.wait_running();
    let child = held.child();
    kill(held.shim_pid(), nix::libc::SIGKILL);
    eventually("the shim is dead", || !held.shim_alive());
    assert!(child.is_alive(), "the workload outlives its shim");
    let refusal = Held::try_start(held.dir(), shell("echo second")).unwrap_err();
    assert!(refusal.contains("is running already"), "{refusal}");
    kill(child.pid, nix::libc::SIGKILL);
    eventually("the workload is dead", || !child.is_alive());
    let mut third = held.again(shell("echo third"));
    assert_eq!(third.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 0 });
}

#[test]
fn without_its_shim_a_workload_can_still_write_because_the_agent_holds_the_terminal() {
    let scratch = tempfile::tempdir().unwrap();
    let mark = scratch.path().join("mark");
    let held = Held::start(shell(&format!(
        "trap 'echo hup > {0}.hup' HUP; while [ ! -e {0} ]; do sleep 0.05; done; echo still here && echo ok > {0}.ok; sleep 600",
        mark.display()
    )));
    held.wait_running();
    let child = held.child();
    kill(held.shim_pid(), nix::libc::SIGKILL);
    eventually("the shim is dead", || !held.shim_alive());
    fs::write(&mark, "").unwrap();
    eventually("the workload has written", || scratch.path().join("mark.ok").exists());
    assert!(!scratch.path().join("mark.hup").exists(), "it was hung up");
    kill(child.pid, nix::libc::SIGKILL);
}

#[test]
fn a_game_can_not_acquire_the_terminal() {
    let mut held = Held::start(shell(
        "if (exec 3<>/dev/tty) 2>/dev/null; then echo has one; fi; T=$(readlink /proc/self/fd/0); (exec 3<>$T); if (exec 3<>/dev/tty) 2>/dev/null; then echo got one; fi; bash -c 'exec 3<>/dev/tty' 2>/dev/null && echo bash got one; echo done",
    ));
    held.wait_exit();
    assert_eq!(held.log(), b"done\r\n");
}

#[test]
fn a_shell_has_its_controlling_terminal() {
    let mut spec = shell("exec 3<>/dev/tty && echo has one >&3");
    spec.controlling_terminal = true;
    let mut held = Held::start(spec);
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 0 });
    assert_eq!(held.log(), b"has one\r\n");
}

#[test]
fn a_stop_command_is_obeyed_and_noted() {
    let mut held =
        Held::start(shell("echo up; read line; echo got $line; [ \"$line\" = stop ] && exit 0; exit 9"));
    held.wait_log("up");
    held.stop(Some("stop"), 60 * SECOND, 60 * SECOND);
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 0 });
    assert_eq!(ExitRecord::read(held.dir(), held.instance()).unwrap().stop, Some(StopStage::Command));
}

#[test]
fn a_stop_ends_what_ignores_everything() {
    let mut held =
        Held::start(shell("trap '' TERM HUP INT; echo up; while :; do read line; sleep 0.1; done"));
    held.wait_log("up");
    held.stop(Some("stop"), SECOND / 5, SECOND / 5);
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Killed { signal: 9, core: false });
    assert_eq!(ExitRecord::read(held.dir(), held.instance()).unwrap().stop, Some(StopStage::Kill));
}

#[test]
fn a_stop_is_obeyed_although_somebody_was_typing_and_nobody_was_reading() {
    let script = "echo up; while [ ! -e {0} ]; do sleep 0.02; done; while read line; do [ \"$line\" = stop ] && exit 7; done";
    let scratch = tempfile::tempdir().unwrap();
    let mark = scratch.path().join("mark");
    let mut held = Held::start(shell(&script.replace("{0}", &mark.display().to_string())));
    held.wait_log("up");
    // More than its terminal takes waits in the queue; the last line is not even ended.
    let line = format!("{}\n", "x".repeat(1000));
    while held.input(&line, true).is_ok() {}
    let _ = held.input("say hel", false);
    held.stop(Some("stop"), 60 * SECOND, SECOND);
    fs::write(&mark, "").unwrap();
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 7 });
    assert_eq!(ExitRecord::read(held.dir(), held.instance()).unwrap().stop, Some(StopStage::Command));
}

#[test]
fn players_are_warned_before_a_stop_and_the_next_one_skips_the_rest() {
    let script = "echo up; while read line; do echo got $line; [ \"$line\" = stop ] && exit 0; done";
    let warn = |before_ms: u64, text: &str| Warning { before_ms, command: text.to_owned() };
    let plan = |warn| StopPlan { grace_ms: 60_000, warn, ..shell("").stop };
    let mut held = Held::start(shell(script));
    held.wait_log("up");
    held.stop_as(plan(vec![warn(400, "say first"), warn(200, "say last")]));
    // The agent may be gone meanwhile: it is the shim that warns.
    held.disconnect();
    held.wait_record();
    held.reread();
    let log = String::from_utf8(held.log()).unwrap();
    let got: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("got ")).collect();
    assert_eq!(got, ["say first", "say last", "stop"], "{log}");
    let record = ExitRecord::read(held.dir(), held.instance()).unwrap();
    assert!(record.uptime_ms >= 400, "{record:?}");

    let mut held = Held::start(shell(script));
    held.wait_log("up");
    held.stop_as(plan(vec![warn(600_000, "say in ten minutes"), warn(1000, "say now")]));
    held.wait_log("got say in ten minutes");
    assert_eq!(held.status().stop_stage, 1, "an agent that comes back sees a stop");
    held.stop_as(plan(Vec::new()));
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 0 });
    assert!(!String::from_utf8(held.log()).unwrap().contains("say now"));
}

#[test]
fn no_agent_can_put_off_the_end_beyond_the_cap() {
    let mut held =
        Held::start(shell("trap '' TERM HUP INT; echo up; while :; do read line; sleep 0.1; done"));
    held.wait_log("up");
    let cap = StopPlan { grace_ms: 100, term_ms: 100, cap_ms: Some(1000), ..shell("").stop };
    let begun = std::time::Instant::now();
    held.stop_as(cap);
    while held.status().exit.is_none() {
        let mad = proto::body(&proto::Extend { from_now_ms: u64::MAX });
        held.request_raw(kind::EXTEND, &mad).unwrap();
    }
    assert!(begun.elapsed() >= SECOND, "it was extended: {:?}", begun.elapsed());
    // It would be put off for hours.
    assert!(begun.elapsed() < 30 * SECOND, "and ended: {:?}", begun.elapsed());
}

#[test]
fn a_stop_ends_what_is_frozen() {
    let mut held = Held::start(shell("echo up; kill -STOP $$; read line; [ \"$line\" = stop ] && exit 3"));
    held.wait_log("up");
    let pid = held.child().pid;
    eventually("it is frozen", || stat(pid).unwrap().state == b'T');
    held.stop(Some("stop"), 30 * SECOND, 30 * SECOND);
    // It is continued, and so it even obeys.
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 3 });
}

#[test]
fn nothing_is_left_behind_that_forked_or_fled_into_a_session_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let pids = scratch.path().join("pids");
    let mut held = Held::start(shell(&format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {0}; sleep 600 & echo $! >> {0}; wait' & done; while [ $(wc -l < {0} 2>/dev/null || echo 0) -lt 20 ]; do sleep 0.05; done; exit 5",
        pids.display()
    )));
    let status = held.wait_exit();
    assert_eq!(status.exit.unwrap().exit(), Exit::Exited { code: 5 });
    let left: Vec<i32> = fs::read_to_string(&pids).unwrap().lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(left.len(), 20);
    for pid in left {
        assert!(stat(pid).map_or(true, |it| matches!(it.state, b'Z' | b'X')), "{pid} lives on");
    }
}

#[test]
fn sigterm_to_the_shim_is_a_graceful_stop_of_the_workload() {
    let mut held = Held::start(shell("echo up; read line; echo saved; exit 0"));
    held.wait_log("up");
    kill(held.shim_pid(), nix::libc::SIGTERM);
    held.wait_gone();
    let record = ExitRecord::read(held.dir(), held.instance()).unwrap();
    assert_eq!((record.exit, record.stop), (Exit::Exited { code: 0 }, Some(StopStage::Command)));
    held.reread();
    assert!(String::from_utf8(held.log()).unwrap().contains("saved"));
}

#[test]
fn hangup_and_interrupt_do_not_end_a_shim() {
    let mut held = Held::start(shell("echo up; read line; exit 0"));
    held.wait_log("up");
    for signal in [nix::libc::SIGHUP, nix::libc::SIGINT, nix::libc::SIGPIPE] {
        kill(held.shim_pid(), signal);
    }
    held.input("x\n", true).unwrap();
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 0 });
}

#[test]
fn lines_longer_than_the_terminals_own_limit_arrive_whole() {
    for length in [10, 4094, 4095, 5000, 20_000, 60_000] {
        let mut held =
            Held::start(shell("stty -echo; echo up; read -r line; echo ${#line}; read -r next; echo $next"));
        held.wait_log("up");
        held.input(&format!("{}\n", "x".repeat(length)), true).unwrap();
        held.input("after\n", true).unwrap();
        held.wait_exit();
        let log = String::from_utf8(held.log()).unwrap();
        assert_eq!(log.lines().collect::<Vec<_>>(), ["up", &length.to_string(), "after"], "{length}");
    }
}

#[test]
fn input_nobody_reads_is_refused_at_last_and_nothing_blocks() {
    let mut held = Held::start(shell("echo up; sleep 600"));
    held.wait_log("up");
    let line = format!("{}\n", "x".repeat(1000));
    let refusal = (0..1000).find_map(|_| held.input(&line, true).err()).expect("a thousand lines fit");
    assert_eq!(refusal.code, "stdin_busy");
    held.stop(None, SECOND, SECOND / 5);
    held.wait_exit();
}

#[test]
fn garbage_and_lies_do_not_disturb_it() {
    use std::io::{Read, Write};
    let mut held = Held::start(shell("echo up; read line; exit 0"));
    for bytes in [
        (1_u32 << 30).to_le_bytes().to_vec(),
        vec![0xff; 300],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![6, 0, 0, 0, 9, 0, 1, 0, 0, 0],
        vec![],
    ] {
        let mut stream = held.raw();
        // It may hang up before everything is written: that is the point.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    // As many silent connections as it takes: one of them gives way in time.
    let silent: Vec<_> = (0..10).map(|_| held.raw()).collect();
    assert_eq!(held.status().exit, None);
    drop(silent);
    let refusal = held.request_raw(777, &[]).unwrap_err();
    assert_eq!(refusal.code, "unsupported");
    let refusal = held.request_raw(kind::STOP, &[0xff, 0xff]).unwrap_err();
    assert_eq!(refusal.code, "malformed");
    held.input("x\n", true).unwrap();
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 0 });
}

#[test]
fn who_never_reads_or_leaves_in_the_middle_holds_up_nobody() {
    use std::io::Write;
    let mut held = Held::start(shell("read go; seq 1 400000; echo over; read line; exit 0"));
    let hello = proto::Hello {
        proto_min: 1,
        proto_max: 2,
        agent_version: "0".to_owned(),
        instance: held.instance().to_owned(),
    };
    let mut greedy = Vec::new();
    frame::encode(kind::HELLO, 1, &proto::body(&hello), &mut greedy);
    for id in 2..200 {
        frame::encode(kind::READ, id, &proto::body(&proto::Read { offset: 0, max: 64 << 10 }), &mut greedy);
    }
    // Half of them ask for megabytes and read nothing, the others are cut off in a frame, a
    // hundred times over.
    let mut deaf: Vec<_> = (0..4).map(|_| held.raw()).collect();
    for stream in &mut deaf {
        stream.set_nonblocking(true).unwrap();
        // What it does not take any more is what this is about.
        let _ = stream.write_all(&greedy);
    }
    held.input("go\n", true).unwrap();
    for cut in 1..100 {
        let mut stream = held.raw();
        // It may have been turned away already.
        let _ = stream.write_all(&greedy[..cut * 7 % greedy.len()]);
    }
    held.wait_log("over");
    let log = String::from_utf8(held.log()).unwrap();
    let numbers: Vec<u32> = log.lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert!(numbers.iter().copied().eq(1..=400_000), "{} lines", numbers.len());
    held.input("x\n", true).unwrap();
    assert_eq!(held.wait_exit().exit.unwrap().exit(), Exit::Exited { code: 0 });
}

#[test]
fn versions_and_runs_that_do_not_match_are_refused_by_name() {
    let held = Held::start(shell("sleep 600"));
    let hello = |min, max, instance: &str| proto::Hello {
        proto_min: min,
        proto_max: max,
        agent_version: "9.9.9".to_owned(),
        instance: instance.to_owned(),
    };
    assert_eq!(held.hello(&hello(7, 9, "")).unwrap_err().code, "version");
    assert_eq!(held.hello(&hello(1, 1, "another")).unwrap_err().code, "instance");
    // Newer and older agents are welcome, each in the highest version it speaks.
    assert_eq!(held.hello(&hello(1, 9, held.instance())).unwrap().proto, 2);
    assert_eq!(held.hello(&hello(1, 1, held.instance())).unwrap().proto, 1);
    assert_eq!(held.hello(&hello(1, 1, "")).unwrap().instance, held.instance());
}

#[test]
fn an_exit_that_is_not_acknowledged_is_kept() {
    let mut held = Held::start(shell("exit 4"));
    held.wait_exit();
    held.disconnect();
    held.reconnect();
    assert_eq!(held.status().exit.unwrap().exit(), Exit::Exited { code: 4 });
    held.acknowledge();
    held.wait_gone();
}

#[test]
fn an_exit_that_nobody_can_ask_for_is_not_kept() {
    let mut held = Held::start(shell("exit 4"));
    held.wait_exit();
    held.disconnect();
    fs::remove_dir_all(held.dir()).unwrap();
    held.wait_gone();
}

#[test]
fn a_root_deeper_than_a_sockets_path_is_no_obstacle() {
    let base = tempfile::tempdir().unwrap();
    let deep = base.path().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    let mut held = Held::start_in(&deep.join("run"), shell("echo hi"));
    held.wait_exit();
    assert_eq!(held.log(), b"hi\r\n");
    let mode = fs::metadata(deep.join("run/s")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_environment_is_only_what_was_given_and_no_descriptor_leaks_but_the_lock() {
    let mut held = Held::start(shell(
        "env -u PWD -u SHLVL -u _ env | sort; ls /proc/self/fd | wc -l; umask; ulimit -c; grep NoNewPrivs /proc/self/status; grep -E 'Sig(Blk|Ign)' /proc/self/status",
    ));
    held.wait_exit();
    let log = String::from_utf8(held.log()).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "PATH=/usr/bin:/bin");
    // 0, 1, 2, the lock, and the directory that ls itself reads.
    assert_eq!(lines[1].trim(), "5", "{log}");
    assert_eq!(lines[2], "0027");
    assert_eq!(lines[3], "0");
    assert!(lines[4].ends_with('1'), "{log}");
    assert!(lines[5].ends_with("0000000000000000") && lines[6].ends_with("0000000000000000"), "{log}");
}

#[test]
fn signals_reach_the_main_process_of_the_named_run_only() {
    let mut held = Held::start(shell("trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done"));
    held.wait_log("up");
    let send = |held: &mut Held, instance: &str| {
        let message = proto::Signal { signal: nix::libc::SIGUSR1, all: false, instance: instance.to_owned() };
        held.request_raw(kind::SIGNAL, &proto::body(&message))
    };
    assert_eq!(send(&mut held, "somebody else").unwrap_err().code, "instance");
    let own = held.instance().to_owned();
    send(&mut held, &own).unwrap();
    held.wait_log("usr1");
    held.stop(None, SECOND, SECOND / 5);
    held.wait_exit();
}

#[test]
fn an_idle_shim_is_small_and_asleep() {
    let held = Held::start(shell("sleep 600"));
    held.wait_running();
    let pid = held.shim_pid();
    assert_eq!(fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(), 1, "one thread");
    let switches = || client::voluntary_switches(pid);
    eventually("it has come to rest", || {
        let before = switches();
        std::thread::sleep(SECOND / 5);
        switches() == before
    });
    let figure = |name: &str| client::smaps(pid, name);
    // A debug build maps more file pages; what it dirties is what it costs. What the start
    // took is given back a moment after.
    eventually("it is small", || {
        let (pss, private) = (figure("Pss"), figure("Private_Dirty"));
        println!("shim: PSS {pss} kB, private dirty {private} kB");
        private <= 1024
    });
    // Not a wait for something: the time over which nothing may happen. What its start left to
    // do may come late on a busy machine; what it does again and again comes every time.
    let woke_up = || {
        let before = switches();
        std::thread::sleep(2 * SECOND);
        switches() - before
    };
    assert!((0..5).any(|_| woke_up() == 0), "it woke up while nothing happened");
}

#[test]
fn run_records_name_the_living() {
    let held = Held::start(shell("sleep 600"));
    held.wait_running();
    let record = zlh_shim::record::ShimRecord::read(held.dir()).unwrap();
    assert_eq!(record.shim.pid, held.shim_pid());
    assert_eq!(record.child, Some(held.child()));
    assert_eq!(ProcessId::of(held.child().pid).unwrap(), held.child());
    assert!(Path::new(held.dir()).join("exit.slot").metadata().unwrap().len() >= 8192);
}
