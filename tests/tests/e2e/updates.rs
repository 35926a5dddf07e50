//! The agent's own updates: the new version takes over, or the old one is back within
//! seconds, and the game notices neither.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zlh_api::{ErrorCode, UpdateMode, UpdateState, UpdateStatus};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::http::Http;
use zlh_tests::harness::ports::Port;
use zlh_tests::harness::releases::{self, Release};
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, eventually};

/// The version of the agent that is tested.
const NOW: &str = env!("CARGO_PKG_VERSION");

/// An agent on a port of its own (it has to be found again after it was replaced), with
/// these releases in its store.
struct Bench {
    agent: Agent,
    _port: Port,
}

impl Bench {
    fn new(releases: &[(&str, Release)]) -> Self {
        let mut store = Store::fake(&FakePlan::new(&[])).unwrap();
        releases::publish(&mut store, releases).unwrap();
        let mut agent = Agent::prepare(store).unwrap();
        let port = Port::lease().unwrap();
        agent.listen_on(port.number());
        Self { agent, _port: port }
    }

    fn ready(releases: &[(&str, Release)]) -> Self {
        let mut bench = Self::new(releases);
        bench.agent.start();
        bench.agent.configure();
        bench.agent.wait_ready();
        bench
    }

    /// Whoever listens at the moment.
    fn status(&self) -> Result<UpdateStatus, String> {
        let http = Http::new(self.agent.address());
        let answer = http.get("/agent/update/status").map_err(|error| error.to_string())?;
        Ok(answer.expect(200).json())
    }

    #[track_caller]
    fn until(&self, what: &str, probe: impl Fn(&UpdateStatus) -> bool) -> UpdateStatus {
        eventually(what, Duration::from_secs(40), || {
            let status = self.status()?;
            if probe(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })
    }

    fn current(&self) -> Option<String> {
        let link = fs::read_link(self.agent.root_path("opt/zlh-agent/current")).ok()?;
        Some(link.display().to_string())
    }

    fn update(&self, body: &Value, status: u16) -> zlh_tests::harness::http::Response {
        self.agent.http().post_json("/agent/update", body).unwrap().expect(status)
    }
}

#[test]
fn a_new_version_takes_over_and_the_game_goes_on() {
    let bench = Bench::ready(&[("99.1.0", Release::Good), ("99.2.0", Release::Good), (NOW, Release::Good)]);
    let (game, agent) = (bench.agent.game(), bench.agent.process());
    bench.agent.command("say before the update");
    bench.update(&json!({ "version": "99.1.0" }), 202);
    let status = bench.until("the new version", |status| {
        status.current == "99.1.0" && status.update_status == UpdateState::Succeeded
    });
    assert_eq!(status.update_status, UpdateState::Succeeded, "{status:?}");
    assert_eq!((status.previous.as_deref(), status.error.as_deref()), (Some(NOW), None));
    assert_eq!(bench.current().as_deref(), Some("releases/99.1.0"));
    assert!(bench.agent.root_path(&format!("opt/zlh-agent/releases/{NOW}/zlh-agent")).is_file());
    // The same game, the same console, under an agent of another version.
    bench.agent.wait_status("ready again", SOON, |status| status.ready);
    assert_eq!(bench.agent.game().pid, game.pid);
    bench.agent.command("say after the update");
    bench.agent.wait_console("after the update");
    assert!(bench.agent.console().contains("before the update"));
    assert_eq!(bench.agent.http().get("/version").unwrap().json::<Value>()["version"], "v99.1.0");
    // Whoever started the old one still has its process.
    assert!(agent.is_alive());

    // Once more, to the newest that is offered, from the version that has just taken over.
    bench.update(&json!({}), 202);
    let status = bench.until("the newest version", |status| {
        status.current == "99.2.0" && status.update_status == UpdateState::Succeeded
    });
    assert_eq!((status.latest, status.previous.as_deref()), (None, Some("99.1.0")));
    assert_eq!(bench.agent.game().pid, game.pid);

    // Down again only by force; and a second time is nothing new.
    for version in [NOW, "99.2.0"] {
        let refused = bench.update(&json!({ "version": version }), 409).problem();
        assert!(refused.error == ErrorCode::WrongState && refused.detail.contains("force"), "{refused:?}");
    }
    bench.update(&json!({ "version": "99.1.0", "force": true }), 202);
    bench.until("the older version", |status| {
        status.current == "99.1.0" && status.update_status == UpdateState::Succeeded
    });
    assert_eq!(bench.agent.game().pid, game.pid);
    bench.agent.wait_status("ready again", SOON, |status| status.ready);
}

#[test]
fn a_version_that_dies_hangs_or_lies_gives_way_within_ten_seconds() {
    let bench = Bench::ready(&[
        ("99.1.0", Release::Script("exit 7")),
        ("99.2.0", Release::Script("exec sleep 600")),
        ("99.3.0", Release::Script("echo never mind >&0; exec sleep 600")),
    ]);
    let (game, agent) = (bench.agent.game(), bench.agent.process());
    for (version, words) in [
        ("99.1.0", "ended before it answered"),
        ("99.2.0", "did not answer within"),
        ("99.3.0", "something else"),
    ] {
        let before = bench.status().unwrap().updated_at;
        bench.update(&json!({ "version": version }), 202);
        let begun = Instant::now();
        let status = bench.until("the old version again", |status| {
            status.update_status == UpdateState::Failed && status.updated_at != before
        });
        assert!(begun.elapsed() < Duration::from_secs(35), "{version}: {:?}", begun.elapsed());
        let error = status.error.unwrap();
        assert!(error.contains(words) && error.contains(version), "{version}: {error}");
        assert_eq!(status.current, NOW);
        assert_eq!(bench.current(), None, "there was no link before");
        bench.agent.wait_status("ready again", SOON, |status| status.ready);
        assert_eq!(bench.agent.game().pid, game.pid, "{version}");
        // The same process: whoever supervises it has seen nothing.
        assert!(agent.is_alive() && bench.agent.process() == agent, "{version}");
    }
}

/// A release that says its word and does not lead the link: the guardian does.
#[test]
fn a_release_that_leads_no_link_is_led_to_by_its_guardian() {
    let bench = Bench::ready(&[("99.1.0", Release::Script("echo ready >&0; exec sleep 5"))]);
    let game = bench.agent.game();
    bench.update(&json!({ "version": "99.1.0" }), 202);
    eventually("the link", Duration::from_secs(20), || match bench.current().as_deref() {
        Some("releases/99.1.0") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(game.is_alive());
}

#[test]
fn what_cannot_be_right_changes_nothing_at_all() {
    let bench = Bench::ready(&[("99.1.0", Release::Untrue), ("99.2.0", Release::Script("exit 1"))]);
    let path = bench.agent.store.path("agents/versions/99.2.0/zlh-agent-linux-amd64");
    fs::write(&path, "#!/bin/sh\necho something else of another size").unwrap();
    let agent = bench.agent.process();
    for (body, words) in [
        (json!({ "version": "99.1.0" }), "no configuration of mine"),
        (json!({ "version": "99.2.0" }), "bytes"),
        (json!({ "version": "99.9.0" }), "unknown version `99.9.0`"),
    ] {
        bench.update(&body, 202);
        let status = bench.until("the end of it", |status| {
            status.error.as_ref().is_some_and(|error| error.contains(words))
        });
        assert_eq!((status.current.as_str(), status.update_status), (NOW, UpdateState::Idle), "{status:?}");
        assert_eq!(bench.current(), None);
    }
    for (body, status) in
        [(json!({ "version": "../x" }), 400), (json!({ "versions": "1" }), 400), (json!([1]), 400)]
    {
        bench.update(&body, status);
    }
    assert!(agent.is_alive() && bench.agent.status().ready);
}

#[test]
fn what_was_withdrawn_after_it_was_installed_says_so_until_it_is_offered_again() {
    let mut bench = Bench::ready(&[]);
    let game = bench.agent.game();
    // A game whose only runtime is withdrawn would be refused with the whole catalog.
    let versions = bench.agent.store.catalog["runtimes"][0]["versions"].as_array_mut().unwrap();
    let other = versions[0].clone();
    versions.push(other);
    versions[1]["version"] = json!("1.0.1");
    let warned =
        |bench: &Bench, words: &str| bench.agent.status().warnings.iter().any(|it| it.contains(words));
    // Whoever asks for an update has the catalog read, as the regular look does.
    let look = |bench: &mut Bench, version: Value, runtime: Value| {
        bench.agent.store.catalog["games"][0]["variants"][0]["versions"][0]["withdrawn"] = version;
        bench.agent.store.catalog["runtimes"][0]["versions"][0]["withdrawn"] = runtime;
        bench.agent.store.publish().unwrap();
        let accepted = bench.update(&json!({}), 202);
        let error = bench.agent.outcome(&accepted).error.unwrap_or_default();
        assert!(error.contains("offers no agent"), "{error}");
    };
    look(&mut bench, json!("CVE-2026-1"), Value::Null);
    assert!(warned(&bench, "fake 1.18.2 is installed and was withdrawn since: CVE-2026-1"));
    assert!(!warned(&bench, "fakert"));
    look(&mut bench, Value::Null, json!("CVE-2026-2"));
    assert!(!warned(&bench, "CVE-2026-1"));
    assert!(warned(
        &bench,
        "fakert 1.0.0, which minecraft/fake 1.18.2 runs with, was withdrawn since: CVE-2026-2"
    ));
    look(&mut bench, Value::Null, Value::Null);
    assert!(!warned(&bench, "withdrawn"));
    // By itself, too, and it goes on running all the while.
    look(&mut bench, json!("CVE-2026-3"), Value::Null);
    bench.agent.kill();
    bench.agent.env("ZLH_AGENT_UPDATE_INTERVAL", "1m");
    bench.agent.start();
    assert!(!warned(&bench, "CVE-2026-3"));
    bench.agent.wait_status("the regular look", Duration::from_secs(60), |status| {
        status.warnings.iter().any(|it| it.contains("CVE-2026-3"))
    });
    assert_eq!(bench.agent.game().pid, game.pid);
}

#[test]
fn the_mode_says_what_is_done_without_being_asked() {
    for (mode, expected) in [("notify", UpdateMode::Notify), ("off", UpdateMode::Off)] {
        let mut bench = Bench::new(&[("99.1.0", Release::Good)]);
        bench.agent.env("ZLH_AGENT_UPDATE_MODE", mode);
        bench.agent.start();
        let status = bench.status().unwrap();
        assert_eq!((status.mode, status.update_available, status.latest), (expected, false, None));
    }
    let mut bench = Bench::new(&[("99.1.0", Release::Good)]);
    bench.agent.env("ZLH_AGENT_UPDATE_MODE", "auto");
    bench.agent.env("ZLH_AGENT_UPDATE_INTERVAL", "1m");
    bench.agent.start();
    let status = bench.until("the new version by itself", |status| {
        status.current == "99.1.0" && status.update_status == UpdateState::Succeeded
    });
    assert_eq!(status.previous.as_deref(), Some(NOW));
    let mut bench = Bench::new(&[]);
    bench.agent.env("ZLH_AGENT_UPDATE_MODE", "sometimes");
    bench.agent.spawn().unwrap();
    assert!(!bench.agent.wait_exit().success());
    assert!(bench.agent.log().contains("none of"), "{}", bench.agent.log());
}

/// What a machine leaves that lost its power while the new version was being tried.
fn interrupted(bench: &Bench, times_before: u32, outcome: &Value) {
    let record = json!({
        "from": NOW, "to": "99.1.0", "at": "2026-01-01T00:00:00Z", "outcome": outcome, "interrupted": times_before,
    });
    let state = bench.agent.root_path("opt/zlh-agent/state");
    fs::create_dir_all(&state).unwrap();
    zlh_shim::durable::write_record(&state.join("update.json"), 1, &record).unwrap();
}

#[test]
fn an_update_that_was_only_interrupted_is_tried_again_by_itself_but_not_for_ever() {
    let auto = |times_before: u32, outcome: Value| {
        let mut bench = Bench::new(&[("99.1.0", Release::Good)]);
        bench.agent.env("ZLH_AGENT_UPDATE_MODE", "auto");
        bench.agent.env("ZLH_AGENT_UPDATE_INTERVAL", "1m");
        interrupted(&bench, times_before, &outcome);
        bench.agent.start();
        // Before it looks again, and tries.
        let error = bench.status().unwrap().error.unwrap();
        (bench, error)
    };
    let (once, error) = auto(0, Value::Null);
    assert!(error.contains("was interrupted") && error.contains("everything ended"), "{error}");
    let (often, _) = auto(2, Value::Null);
    let (failed, error) = auto(0, json!({ "Err": "it ended before it answered" }));
    assert!(error.contains("failed: it ended"), "{error}");
    once.until("the new version by itself", |status| {
        status.current == "99.1.0" && status.update_status == UpdateState::Succeeded
    });
    // The others have looked, too, and leave it to a person.
    for bench in [often, failed] {
        let status = bench.until("its look", |status| status.checked_at.is_some());
        assert_eq!((status.current.as_str(), status.update_status), (NOW, UpdateState::Failed), "{status:?}");
        assert!(status.update_available, "{status:?}");
        bench.update(&json!({ "version": "99.1.0" }), 202);
        bench.until("the new version when asked", |status| status.current == "99.1.0");
    }
}
