//! What the agent does about a crash when somebody asks for it, and what it refuses to do.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use zlh_api::{CrashAction, CrashActionId, CrashRecord, Operation, OperationState, State};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::http::Response;
use zlh_tests::harness::jvm::JavaPlan;
use zlh_tests::harness::wait::{SOON, eventually};

use super::crashes::{explained, is, java};

/// The one action of that kind that the record offers.
#[track_caller]
fn offered(crash: &CrashRecord, id: CrashActionId) -> &CrashAction {
    let mut found = crash.remedy.iter().filter_map(|step| step.action.as_ref()).filter(|one| one.id == id);
    let action = found.next().unwrap_or_else(|| panic!("{id:?} is not offered: {crash:#?}"));
    assert!(action.available && found.next().is_none(), "{crash:#?}");
    action
}

#[track_caller]
fn ask(agent: &Agent, crash: &CrashRecord, action: &str) -> Response {
    agent.http().post(&format!("/crashes/{}/actions/{action}", crash.id)).unwrap()
}

/// The end of what an answer promised.
#[track_caller]
fn outcome(agent: &Agent, accepted: &Response) -> Operation {
    let location = accepted.header("location").expect("where to look");
    eventually("the end of the operation", SOON, || {
        let operation: Operation = agent.http().get(location).unwrap().expect(200).json();
        if operation.state == OperationState::Running { Err(operation) } else { Ok(operation) }
    })
}

/// A folder with a mod that is no jar; its server may go on.
fn put_broken_mod(root: &Path) {
    fs::create_dir_all(root.join("mods")).unwrap();
    fs::write(root.join("mods/broken-1.0.jar"), "half of a download").unwrap();
    fs::write(root.join("go"), "").unwrap();
}

/// A server that died of a mod that is no jar.
fn died_of_a_mod() -> (Agent, CrashRecord) {
    let agent = java(&JavaPlan::new(&["-cp", "server.jar", "Died", "mods"]));
    agent.configure();
    agent.wait_console("Loading mods");
    put_broken_mod(&agent.game_root());
    let crash = explained(&agent);
    is(&crash, "jar_corrupt", "mod_or_plugin_error", true);
    (agent, crash)
}

#[test]
fn a_mod_that_no_loader_can_open_is_disabled() {
    let (agent, crash) = died_of_a_mod();
    let action = offered(&crash, CrashActionId::DisableAddon);
    assert_eq!(action.file.as_deref(), Some("mods/broken-1.0.jar"), "{crash:#?}");
    let mods = agent.game_root().join("mods");
    assert!(mods.join("broken-1.0.jar").exists(), "nothing is done unasked");
    let done = outcome(&agent, &ask(&agent, &crash, "disable_addon").expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    assert!(mods.join("broken-1.0.jar.disabled").exists() && !mods.join("broken-1.0.jar").exists());
    // It is gone: a second time is refused, and says why.
    let again = ask(&agent, &crash, "disable_addon").expect(409).problem();
    assert!(again.detail.contains("broken-1.0.jar"), "{}", again.detail);
    agent.post("/start", 202);
    agent.wait_console("Done (");
    assert_eq!(agent.status().crashes_total, 1);
}

#[test]
fn a_repair_is_for_the_server_that_crashed() {
    let (agent, crash) = died_of_a_mod();
    // Another world of the same kind, with a file of the same name.
    let mut payload = agent.payload();
    payload["world"] = "other".into();
    agent.configure_with(&payload).expect(202);
    agent.wait_status("the other server", SOON, |status| {
        status.state == State::Running || status.pid.is_some()
    });
    let other = agent.root_path("opt/zlh/minecraft/fake/other");
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    put_broken_mod(&other);
    let refused = ask(&agent, &crash, "disable_addon").expect(409).problem();
    assert!(refused.detail.contains("world"), "it says which server it was: {}", refused.detail);
    for root in [&other, &agent.game_root()] {
        assert!(root.join("mods/broken-1.0.jar").exists(), "{}", root.display());
    }
}

/// A process that holds a port and does nothing else; ended in the end.
struct Holder(Child);

impl Holder {
    fn of(socket: TcpListener, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::from(OwnedFd::from(socket))).envs(environment.iter().copied());
        Self(command.spawn().unwrap())
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server whose port was taken between the agent's look and its own, and by whom.
fn died_of_its_port(environment: &[(&str, &str)]) -> (Agent, CrashRecord, Holder) {
    let agent = java(&JavaPlan::new(&["-cp", "server.jar", "Died", "bind-later", "{port}"]));
    agent.configure();
    agent.wait_console("Starting minecraft server");
    let port = agent.port.number();
    let holder = Holder::of(TcpListener::bind(("127.0.0.1", port)).unwrap(), environment);
    fs::write(agent.game_root().join("go"), "").unwrap();
    let crash = explained(&agent);
    is(&crash, "port_in_use", "nonzero_exit", true);
    assert_eq!(offered(&crash, CrashActionId::FreePort).port, Some(port));
    let pid = format!("pid {}", holder.0.id());
    assert!(crash.explanation.contains(&pid), "who has it ({pid}): {}", crash.explanation);
    (agent, crash, holder)
}

#[test]
fn a_port_is_freed_from_a_process_of_an_earlier_run() {
    // Every process of a run inherits this; this one outlived its own.
    let (agent, crash, mut holder) = died_of_its_port(&[("ZLH_INSTANCE", "0123456789abcdef")]);
    assert!(!holder.has_ended(), "nothing is done unasked");
    let done = outcome(&agent, &ask(&agent, &crash, "free_port").expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    assert!(holder.has_ended());
}

#[test]
fn a_port_is_not_freed_from_a_stranger() {
    let (agent, crash, mut holder) = died_of_its_port(&[]);
    let done = outcome(&agent, &ask(&agent, &crash, "free_port").expect(202));
    assert_eq!(done.state, OperationState::Failed, "{done:?}");
    let why = done.error.unwrap();
    assert!(why.contains(&format!("pid {}", holder.0.id())), "who has it: {why}");
    assert!(!holder.has_ended());
}
