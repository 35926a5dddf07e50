//! Changing the version of a server: what works is kept, what fails comes back, and no world
//! is lost on the way.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use zlh_api::{ErrorCode, GameVersion, OperationState, State, Status};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::faults::Faults;
use zlh_tests::harness::http::Response;
use zlh_tests::harness::store::{FakePlan, Store, VARIANT, VERSION, fake_version};
use zlh_tests::harness::wait::{SOON, eventually, until};

const NEWER: &str = "1.19";
const BROKEN: &str = "1.20";

/// An agent whose fake game is ready, and whose store has a newer version that works and one
/// that does not.
fn agent() -> Agent {
    let mut agent = prepared();
    agent.start();
    begin(&agent);
    agent
}

fn prepared() -> Agent {
    let mut store = Store::fake(&FakePlan::new(&[])).unwrap();
    for (version, flags) in
        [(NEWER, &[][..]), (BROKEN, &["--exit-after", "100ms", "--exit-code", "3", "--never-done"])]
    {
        let path = format!("minecraft/fake/{version}/server.jar");
        let server = store.put(&path, version.as_bytes(), "application/java-archive").unwrap();
        store.add_version(VARIANT, fake_version(version, server, &FakePlan::new(flags)));
    }
    store.publish().unwrap();
    Agent::prepare(store).unwrap()
}

/// The old version runs, in a world that has something to lose.
fn begin(agent: &Agent) {
    agent.configure();
    agent.wait_ready();
    let region = agent.game_root().join("world/data");
    fs::create_dir_all(&region).unwrap();
    fs::write(region.join("months.dat"), "the work of months").unwrap();
}

fn version(agent: &Agent) -> GameVersion {
    agent.http().get("/game/version").unwrap().expect(200).json()
}

fn change(agent: &Agent, version: &str) -> Response {
    agent.http().post_json("/game/version", &json!({ "version": version })).unwrap()
}

fn region(root: &Path) -> String {
    fs::read_to_string(root.join("world/data/months.dat")).unwrap_or_default()
}

fn jar(agent: &Agent) -> String {
    fs::read_to_string(agent.game_root().join("server.jar")).unwrap_or_default()
}

/// What runs is that version, and it is ready.
#[track_caller]
fn runs(agent: &Agent, expected: &str) -> Status {
    let status = agent.wait_ready();
    assert_eq!(version(agent).version, expected);
    assert_eq!(status.config.as_ref().and_then(|config| config.version.clone()).as_deref(), Some(expected));
    assert_eq!(agent.living_games().len(), 1);
    status
}

#[test]
fn a_newer_version_that_works_stays_and_the_world_of_before_is_kept() {
    let agent = agent();
    let before = agent.game();
    assert_eq!(version(&agent).copies, []);
    let done = agent.outcome(&change(&agent, NEWER).expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    assert!(done.phase.contains(NEWER) && done.phase.contains(VERSION), "{done:?}");
    runs(&agent, NEWER);
    assert!(!before.is_alive());
    assert_eq!((jar(&agent).as_str(), region(&agent.game_root()).as_str()), (NEWER, "the work of months"));
    let copies = version(&agent).copies;
    assert_eq!(copies.len(), 1);
    assert_eq!((copies[0].version.as_str(), copies[0].failed), (VERSION, false));
    assert_eq!(region(Path::new(&copies[0].path)), "the work of months");

    // Back, with the world of then; and back again, with the world of now.
    fs::write(agent.game_root().join("world/data/months.dat"), "changed by the newer one").unwrap();
    let done = agent.outcome(&agent.post("/game/version/rollback", 202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    runs(&agent, VERSION);
    assert_eq!(
        (jar(&agent).as_str(), region(&agent.game_root()).as_str()),
        ("not really a jar", "the work of months")
    );
    let copies = version(&agent).copies;
    assert_eq!(copies.iter().map(|copy| copy.version.as_str()).collect::<Vec<_>>(), [NEWER]);
    let done = agent.outcome(&agent.post("/game/version/rollback", 202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    runs(&agent, NEWER);
    assert_eq!(region(&agent.game_root()), "changed by the newer one");
}

#[test]
fn a_version_that_does_not_become_ready_gives_way_to_the_one_before() {
    let agent = agent();
    let done = agent.outcome(&change(&agent, BROKEN).expect(202));
    assert_eq!(done.state, OperationState::Failed, "{done:?}");
    let why = done.error.unwrap();
    for word in [BROKEN, VERSION, "did not become ready", "are back", "kept as a copy"] {
        assert!(why.contains(word), "`{word}` is not in: {why}");
    }
    let status = runs(&agent, VERSION);
    assert_eq!(status.crash_count, 0, "the attempt does not count against what runs now");
    assert_eq!(
        (jar(&agent).as_str(), region(&agent.game_root()).as_str()),
        ("not really a jar", "the work of months")
    );
    let copies = version(&agent).copies;
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert!(copies[0].failed && copies[0].version == BROKEN, "{copies:?}");
    // Nobody goes back to that by accident.
    let refused = agent.post("/game/version/rollback", 409).problem();
    assert!(refused.detail.contains("no copy to go back to"), "{}", refused.detail);
}

#[test]
fn what_changes_places_is_the_games_own_folder() {
    if !nix::unistd::geteuid().is_root() {
        #[allow(clippy::print_stderr, reason = "a test that cannot run says so")]
        {
            eprintln!("skipped: only root starts a game as somebody else");
        }
        return;
    }
    let mut agent = prepared();
    let etc = agent.root_path("etc");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("passwd"), "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n").unwrap();
    agent.config_file("game_user = \"nobody\"\n");
    agent.start();
    begin(&agent);
    let of_nobody = |path: &Path| {
        let meta = path.metadata().unwrap();
        assert_eq!(
            (meta.uid(), meta.gid(), meta.mode() & 0o777),
            (65534, 65534, 0o750),
            "{}",
            path.display()
        );
    };
    of_nobody(&agent.game_root());
    let done = agent.outcome(&change(&agent, BROKEN).expect(202));
    assert!(done.error.as_ref().unwrap().contains("are back"), "{done:?}");
    runs(&agent, VERSION);
    of_nobody(&agent.game_root());
    let done = agent.outcome(&change(&agent, NEWER).expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    let done = agent.outcome(&agent.post("/game/version/rollback", 202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    runs(&agent, VERSION);
    of_nobody(&agent.game_root());
    assert_eq!(region(&agent.game_root()), "the work of months");
}

#[test]
fn going_back_needs_no_artifact_server() {
    let mut agent = prepared();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    begin(&agent);
    let catalog = agent.store.path("catalog.json");
    let aside = catalog.with_extension("aside");
    // By itself, when the new version cannot even be installed.
    faults.plan("hold change.switching").unwrap();
    let accepted = change(&agent, NEWER).expect(202);
    agent.wait_state(State::Idle);
    fs::rename(&catalog, &aside).unwrap();
    faults.clear().unwrap();
    let done = agent.outcome(&accepted);
    let why = done.error.unwrap_or_default();
    assert!(why.contains("catalog") && why.contains("are back"), "{why}");
    runs(&agent, VERSION);
    fs::rename(&aside, &catalog).unwrap();

    // And when somebody asks for it.
    let done = agent.outcome(&change(&agent, NEWER).expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    fs::rename(&catalog, &aside).unwrap();
    for version in [VERSION, NEWER, VERSION] {
        let done = agent.outcome(&agent.post("/game/version/rollback", 202));
        assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
        runs(&agent, version);
        assert_eq!(region(&agent.game_root()), "the work of months");
    }
    // Of which something is gone, it does.
    fs::remove_file(Path::new(&version(&agent).copies[0].path).join("server.jar")).unwrap();
    let done = agent.outcome(&agent.post("/game/version/rollback", 202));
    assert!(done.error.as_ref().unwrap().contains("catalog"), "{done:?}");
    runs(&agent, VERSION);
    fs::rename(&aside, &catalog).unwrap();
    let done = agent.outcome(&agent.post("/game/version/rollback", 202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    runs(&agent, NEWER);
}

#[test]
fn a_withdrawn_version_comes_back_where_it_ran_and_failed_copies_do_not_pile_up() {
    let mut agent = agent();
    let versions = agent.store.catalog["games"][0]["variants"][0]["versions"].as_array_mut().unwrap();
    let old = versions.iter_mut().find(|version| version["version"] == VERSION).unwrap();
    old["withdrawn"] = json!("it lets anybody in");
    agent.store.publish().unwrap();
    for _ in 0..2 {
        let done = agent.outcome(&change(&agent, BROKEN).expect(202));
        assert!(done.error.as_ref().unwrap().contains("are back"), "{done:?}");
        runs(&agent, VERSION);
        let copies = version(&agent).copies;
        assert_eq!(copies.iter().map(|copy| copy.failed).collect::<Vec<_>>(), [true], "{copies:?}");
    }
    assert_eq!(region(&agent.game_root()), "the work of months");
}

#[test]
fn a_payload_opens_no_world_with_an_older_server() {
    const SNAPSHOT: &str = "24w14a";
    let mut agent = prepared();
    let path = format!("minecraft/fake/{SNAPSHOT}/server.jar");
    let server = agent.store.put(&path, SNAPSHOT.as_bytes(), "application/java-archive").unwrap();
    agent.store.add_version(VARIANT, fake_version(SNAPSHOT, server, &FakePlan::new(&[])));
    agent.store.publish().unwrap();
    agent.start();
    begin(&agent);
    let done = agent.outcome(&change(&agent, NEWER).expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let refused = agent.http().post_json("/config", &agent.payload()).unwrap().expect(409).problem();
    assert!(refused.error == ErrorCode::WrongState && refused.detail.contains("rollback"), "{refused:?}");
    assert_eq!(jar(&agent), NEWER);
    // Another world is nobody's yet; and whoever insists has a way.
    let mut payload = agent.payload();
    payload["world"] = json!("other");
    agent.http().post_json("/config", &payload).unwrap().expect(202);
    agent.wait_ready();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    // The first one is remembered meanwhile.
    let refused = agent.http().post_json("/config", &agent.payload()).unwrap().expect(409).problem();
    assert!(refused.detail.contains(NEWER), "{refused:?}");
    payload["version"] = json!(SNAPSHOT);
    agent.http().post_json("/config", &payload).unwrap().expect(202);
    agent.wait_ready();
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    payload["world"] = agent.payload()["world"].clone();
    payload["version"] = json!(NEWER);
    agent.http().post_json("/config", &payload).unwrap().expect(202);
    agent.wait_ready();
    let forced = json!({ "version": VERSION, "force": true });
    let done = agent.outcome(&agent.http().post_json("/game/version", &forced).unwrap().expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    runs(&agent, VERSION);
    assert_eq!(region(&agent.game_root()), "the work of months");
}

/// The server that was taken back crashed while nobody was there: that is no verdict on it, and
/// nobody waits for a pause.
#[test]
fn what_was_taken_back_and_crashed_meanwhile_is_started_again() {
    let mut agent = prepared();
    let path = "minecraft/fake/1.18/server.jar";
    let server = agent.store.put(path, b"1.18", "application/java-archive").unwrap();
    let slow = fake_version("1.18", server, &FakePlan::new(&["--startup-delay", "10s"]));
    agent.store.add_version(VARIANT, slow);
    agent.store.publish().unwrap();
    agent.start();
    let mut payload = agent.payload();
    payload["version"] = json!("1.18");
    agent.http().post_json("/config", &payload).unwrap().expect(202);
    agent.wait_ready();
    let done = agent.outcome(&change(&agent, NEWER).expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
    agent.post("/game/version/rollback", 202);
    agent.wait_status("the old version starts", SOON, |status| {
        let version = status.config.as_ref().and_then(|config| config.version.as_deref());
        version == Some("1.18") && status.process_running && !status.ready
    });
    let game = agent.game();
    let environment = fs::read_to_string(format!("/proc/{}/environ", game.pid)).unwrap();
    let shims = agent.shims();
    let mark = environment.split('\0').find_map(|entry| entry.strip_prefix("ZLH_INSTANCE=")).unwrap();
    agent.process().signal(Signal::SIGKILL);
    game.signal(Signal::SIGKILL);
    let record = agent.root_path("opt/zlh-agent/run/game/exit.json");
    until("the record of its end", SOON, || {
        fs::read_to_string(&record).is_ok_and(|record| record.contains(mark))
    });
    // A shim that still told of it would be heard as if the agent had been there.
    for shim in &shims {
        shim.signal(Signal::SIGKILL);
    }
    until("the end of the shim", SOON, || shims.iter().all(|shim| !shim.is_alive()));
    agent.kill();
    agent.start();
    let settled = eventually("the end of the rollback", 3 * SOON, || {
        let version = version(&agent);
        if version.change.is_none() && agent.status().ready {
            Ok(version)
        } else {
            Err(format!("{version:?}"))
        }
    });
    assert_eq!(settled.version, "1.18");
    assert_eq!(jar(&agent), "1.18");
}

#[test]
fn the_java_of_a_version_is_not_that_of_another() {
    let agent = agent();
    let java = |agent: &Agent| agent.status().config.unwrap().java_version;
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    let mut payload = agent.payload();
    payload["java_version"] = json!(17);
    agent.http().post_json("/config", &payload).unwrap().expect(202);
    agent.wait_ready();
    assert_eq!(java(&agent), Some(17));
    let done = agent.outcome(&change(&agent, NEWER).expect(202));
    assert_eq!((done.state, java(&agent)), (OperationState::Succeeded, None));
    let done = agent.outcome(&agent.post("/game/version/rollback", 202));
    assert_eq!((done.state, java(&agent)), (OperationState::Succeeded, Some(17)));
    runs(&agent, VERSION);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_touched() {
    let agent = agent();
    let game = agent.game();
    for (body, status, words) in [
        (json!({ "version": "1.17" }), 409, "older than 1.18.2"),
        (json!({ "version": "../x" }), 400, "version"),
        (json!({ "version": "" }), 400, "version"),
        (json!({ "version": "1.19", "world": "x" }), 400, "world"),
        (json!([]), 400, "JSON object"),
    ] {
        let refused = agent.http().post_json("/game/version", &body).unwrap().expect(status).problem();
        assert!(refused.detail.contains(words), "{body}: {}", refused.detail);
    }
    // What the catalog does not have is found out while the server runs on.
    for (body, words) in [
        (json!({ "version": "1.99" }), "unknown version `1.99`"),
        (json!({ "version": "1.17", "force": true }), "unknown version `1.17`"),
    ] {
        let accepted = agent.http().post_json("/game/version", &body).unwrap().expect(202);
        let done = agent.outcome(&accepted);
        assert!(
            done.state == OperationState::Failed && done.error.as_ref().unwrap().contains(words),
            "{done:?}"
        );
    }
    assert!(game.is_alive() && agent.status().ready);
    assert_eq!(version(&agent).copies, []);
    let nothing = Agent::with_fake(&FakePlan::new(&[]));
    assert_eq!(
        nothing.http().get("/game/version").unwrap().expect(409).problem().error,
        ErrorCode::NotConfigured
    );
    assert_eq!(change(&nothing, "1.19").expect(409).problem().error, ErrorCode::NotConfigured);
}

#[test]
fn while_it_changes_nobody_else_does_but_a_stop_is_heard() {
    let mut agent = prepared();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    begin(&agent);
    faults.plan("hold change.switching").unwrap();
    let accepted = change(&agent, NEWER).expect(202);
    for (path, body) in [("/game/version", json!({ "version": NEWER })), ("/config", agent.payload())] {
        let refused = agent.http().post_json(path, &body).unwrap().expect(409).problem();
        assert_eq!(refused.error, ErrorCode::OperationInProgress, "{path}");
    }
    for path in ["/start", "/restart", "/game/version/rollback"] {
        assert_eq!(agent.post(path, 409).problem().error, ErrorCode::OperationInProgress, "{path}");
    }
    agent.wait_state(State::Idle);
    agent.post("/stop", 204);
    faults.clear().unwrap();
    let done = agent.outcome(&accepted);
    assert_eq!(done.state, OperationState::Cancelled, "{done:?}");
    agent.wait_state(State::Idle);
    assert_eq!(region(&agent.game_root()), "the work of months");
    // And then everything goes on as usual.
    agent.post("/start", 202);
    agent.wait_ready();
}

/// The agent is killed at every step of a change: afterwards one of the two versions runs, whole,
/// with its world.
#[test]
fn killed_at_any_step_one_version_is_there_with_its_world() {
    for (target, point) in [
        (NEWER, "change.copying"),
        (NEWER, "change.switching"),
        (BROKEN, "change.switching"),
        (BROKEN, "change.returning"),
        (BROKEN, "change.exchanged"),
    ] {
        let mut agent = prepared();
        let faults = Faults::of(&mut agent).unwrap();
        agent.start();
        begin(&agent);
        // Which of all the points that is, is known when it was reached once.
        faults.plan(&format!("kill-at {point}")).unwrap();
        change(&agent, target).expect(202);
        let status = agent.wait_exit();
        assert!(!status.success(), "{target} at {point}: {status:?}");
        faults.clear().unwrap();
        agent.start();
        let settled = eventually("the end of what was interrupted", Duration::from_secs(60), || {
            let (status, version) = (agent.status(), version(&agent));
            if status.ready && version.change.is_none() && !status.operation_in_progress {
                Ok(version.version)
            } else {
                Err(format!("{status:?} {version:?}"))
            }
        });
        let expected = match (target, point) {
            (NEWER, "change.switching") => NEWER,
            _ => VERSION,
        };
        assert_eq!(settled, expected, "{target} at {point}");
        assert_eq!(region(&agent.game_root()), "the work of months", "{target} at {point}");
        assert_eq!(agent.living_games().len(), 1);
        let files = |version: &str| {
            if version == VERSION { "not really a jar".to_owned() } else { version.to_owned() }
        };
        assert_eq!(jar(&agent), files(&settled), "{target} at {point}");
    }
}

/// Where the new version starts, and takes its time.
fn while_it_starts() -> Agent {
    let mut agent = prepared();
    let path = "minecraft/fake/1.21/server.jar";
    let server = agent.store.put(path, b"1.21", "application/java-archive").unwrap();
    let slow = fake_version("1.21", server, &FakePlan::new(&["--startup-delay", "3s"]));
    agent.store.add_version(VARIANT, slow);
    agent.store.publish().unwrap();
    agent.start();
    begin(&agent);
    change(&agent, "1.21").expect(202);
    agent.wait_status("the new version starts", SOON, |status| {
        let version = status.config.as_ref().and_then(|config| config.version.as_deref());
        version == Some("1.21") && status.state == State::Starting && status.process_running
    });
    agent
}

/// The change ends well with whoever came after that agent.
fn goes_on_well(agent: &mut Agent) {
    let settled = eventually("the end of what was interrupted", Duration::from_secs(60), || {
        let version = version(agent);
        if version.change.is_none() && agent.status().ready {
            Ok(version)
        } else {
            Err(format!("{version:?}"))
        }
    });
    assert_eq!(settled.version, "1.21");
    assert_eq!(settled.copies.iter().map(|copy| copy.failed).collect::<Vec<_>>(), [false]);
    assert_eq!(region(&agent.game_root()), "the work of months");
    // And a later agent has nothing to go on with.
    let game = agent.game();
    agent.kill();
    agent.start();
    agent.wait_ready();
    assert_eq!((version(agent).version.as_str(), agent.game()), ("1.21", game));
}

/// The server outlives its agent, also while it is being tried.
#[test]
fn an_agent_that_is_gone_while_the_new_version_starts_finds_it_ready() {
    for leave in [Agent::kill, |agent: &mut Agent| assert!(agent.terminate().success())] {
        let mut agent = while_it_starts();
        let game = agent.game();
        leave(&mut agent);
        agent.start();
        eventually("the same server", SOON, || if agent.status().ready { Ok(()) } else { Err("not yet") });
        assert_eq!(agent.game(), game, "the very process that was started");
        goes_on_well(&mut agent);
    }
}

/// Nor is a server that ends because its agent does one that failed.
#[test]
fn an_agent_that_takes_the_new_version_with_it_is_no_verdict_on_it() {
    let mut agent = while_it_starts();
    agent.kill();
    agent.config_file("stop_on_agent_shutdown = true\n");
    agent.start();
    agent.recalled();
    let game = agent.game();
    assert!(agent.terminate().success());
    assert!(!game.is_alive(), "it was to be taken along");
    agent.start();
    goes_on_well(&mut agent);
}

#[test]
fn without_room_for_a_copy_nothing_is_changed() {
    // The copy fails at its first write of a record, as on a full disk.
    let mut agent = prepared();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    begin(&agent);
    faults.plan("enospc change. 1").unwrap();
    let done = agent.outcome(&change(&agent, NEWER).expect(202));
    assert_eq!(done.state, OperationState::Failed, "{done:?}");
    faults.clear().unwrap();
    runs(&agent, VERSION);
    assert_eq!(region(&agent.game_root()), "the work of months");
    agent.wait_status("no operation", SOON, |status| !status.operation_in_progress);
    let done = agent.outcome(&change(&agent, NEWER).expect(202));
    assert_eq!(done.state, OperationState::Succeeded, "{done:?}");
}
