//! What the agent does about a crash when somebody asks for it, and what it refuses to do.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use zlh_api::{CrashAction, CrashActionId, CrashRecord, History, HistoryKind, OperationState, State};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::http::Response;
use zlh_tests::harness::jvm::JavaPlan;
use zlh_tests::harness::wait::SOON;

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
    let done = agent.outcome(&ask(&agent, &crash, "disable_addon").expect(202));
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

#[test]
fn a_server_for_a_newer_java_gets_it() {
    let agent = java(&JavaPlan::new(&["-cp", "newer.jar", "Died", "mods"]));
    agent.configure();
    let crash = explained(&agent);
    is(&crash, "java_too_old", "nonzero_exit", true);
    assert_eq!(offered(&crash, CrashActionId::SwitchJava).version, Some(25), "{crash:#?}");
    fs::write(agent.game_root().join("go"), "").unwrap();
    ask(&agent, &crash, "switch_java").expect(202);
    agent.wait_console("Done (");
    let payload = fs::read(agent.root_path("opt/zlh-agent/config/payload.json")).unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(payload["java_version"], 25, "it is a wish like any other: {payload:#}");
    // Whoever sends the payload without it has the catalog's Java again.
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    agent.configure_with(&agent.payload()).expect(202);
    agent.wait_status("the old Java's crash", SOON, |status| {
        status.last_crash.as_ref().is_some_and(|last| last.id != crash.id && last.explained)
    });
    is(&explained(&agent), "java_too_old", "nonzero_exit", true);
}

/// A Java that nobody has: the error says whose wish it was.
#[test]
fn a_java_that_the_catalog_does_not_have_is_named() {
    let agent = java(&JavaPlan::new(&["-cp", "server.jar", "Died", "mods"]));
    let mut payload = agent.payload();
    payload["java_version"] = 98.into();
    agent.configure_with(&payload).expect(202);
    agent.wait_state(State::Error);
    let error = agent.status().error.unwrap();
    assert!(error.contains("no java that satisfies `98`") && error.contains("java_version"), "{error}");
    payload["java_version"] = 1.into();
    assert!(agent.configure_with(&payload).expect(400).problem().detail.contains("java_version"));
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

/// A server whose port was taken between the agent's look and its own, and by whom: a
/// process with the mark that is made of the run before, if there is one.
fn died_of_its_port(mark: impl Fn(&str) -> Option<String>) -> (Agent, CrashRecord, Holder) {
    let agent = java(&JavaPlan::new(&["-cp", "server.jar", "Died", "bind-later", "{port}"]));
    agent.configure();
    agent.wait_console("Starting minecraft server");
    let history: History = agent.http().get("/history").unwrap().expect(200).json();
    let earlier = history.events.iter().find(|event| event.kind == HistoryKind::Start).unwrap();
    let mark = mark(earlier.instance.as_deref().unwrap());
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    agent.post("/start", 202);
    agent.wait_status("the second run", SOON, |status| status.pid.is_some());
    let port = agent.port.number();
    let environment: Vec<(&str, &str)> = mark.iter().map(|mark| ("ZLH_INSTANCE", mark.as_str())).collect();
    let holder = Holder::of(TcpListener::bind(("127.0.0.1", port)).unwrap(), &environment);
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
    // Every process of a run inherits the mark; this one outlived its own.
    let (agent, crash, mut holder) = died_of_its_port(|run| Some(run.to_owned()));
    assert!(!holder.has_ended(), "nothing is done unasked");
    let done = agent.outcome(&ask(&agent, &crash, "free_port").expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    assert!(holder.has_ended());
}

#[test]
fn a_port_is_not_freed_from_a_stranger() {
    // Without a mark, and with one of a run that some other agent began.
    for mark in [None, Some("0123456789abcdef".to_owned())] {
        let (agent, crash, mut holder) = died_of_its_port(|_| mark.clone());
        let done = agent.outcome(&ask(&agent, &crash, "free_port").expect(202));
        assert_eq!(done.state, OperationState::Failed, "{mark:?}: {done:?}");
        let why = done.error.unwrap();
        assert!(why.contains(&format!("pid {}", holder.0.id())), "who has it: {why}");
        assert!(!holder.has_ended(), "{mark:?}");
    }
}
