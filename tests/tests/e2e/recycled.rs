//! Recycled process numbers: what a record names belongs to somebody else by now, and that
//! somebody is never touched. In a pid namespace of its own, where numbers can be chosen.

use std::fs;
use std::process::{Child, Command};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use zlh_api::State;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::process::Process;
use zlh_tests::harness::wait::{SOON, until};

const INSIDE: &str = "ZLH_TESTS_INSIDE_A_NAMESPACE";

#[test]
fn a_number_that_belongs_to_somebody_else_by_now_gets_no_signal() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let possible = Command::new("unshare").args(["-Urpf", "--mount-proc", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        println!("skipped: this machine allows no user and pid namespaces (unshare -Urpf --mount-proc)");
        return;
    }
    let done = Command::new("unshare")
        .args(["-Urpf", "--mount-proc", "--kill-child=KILL", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "recycled::a_number_that_belongs_to_somebody_else_by_now_gets_no_signal"])
        .args(["--nocapture", "--test-threads", "1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

/// We are pid 1 here: who lost its parents is ours to wait for.
fn inside() {
    assert_eq!(std::process::id(), 1, "in a namespace of its own");
    let mut agent = Agent::with_ready_fake(&[]);
    let (game, shim) = (agent.game(), agent.shims()[0]);
    agent.kill();
    for process in [shim, game] {
        process.signal(Signal::SIGKILL);
        until("it is gone without remains", SOON, || {
            // Its parent may be another still; then it comes to us.
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
            !std::path::Path::new(&format!("/proc/{}", process.pid)).exists()
        });
    }
    let mut strangers = [(game, take_number(game.pid)), (shim, take_number(shim.pid))];
    for (before, stranger) in &strangers {
        let now = Process::of(stranger.id().cast_signed()).unwrap();
        assert_eq!(now.pid, before.pid, "the number is taken");
        assert_ne!(now.start, before.start);
    }
    let record = fs::read_to_string(agent.root_path("opt/zlh-agent/run/game/shim.json")).unwrap();
    assert!(
        record.contains(&format!("\"pid\":{}", game.pid))
            && record.contains(&format!("\"pid\":{}", shim.pid))
    );

    agent.start();
    let status = agent.wait_state(State::Crashed);
    assert_eq!((status.last_crash_exit_code, status.last_crash_signal, status.crashes_total), (None, 0, 1));
    assert!(status.last_crash.unwrap().lost.is_some(), "nobody saw how it ended");
    // Everything that signals anything: a start beside it, a stop, another agent.
    agent.post("/start", 202);
    agent.wait_ready();
    agent.kill();
    agent.start();
    agent.wait_ready();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    for (_, stranger) in &mut strangers {
        assert_eq!(stranger.try_wait().unwrap(), None, "somebody else's process was signalled");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}

/// A process with this very number.
fn take_number(pid: i32) -> Child {
    for _ in 0..1000 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
        if child.id().cast_signed() == pid {
            return child;
        }
        // Somebody else was faster.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    panic!("no process got the number {pid}");
}
