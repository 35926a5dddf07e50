//! Crashes of real JVMs and of servers that lie: what the agent says of them, keeps of them,
//! and does about them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use zlh_api::{CrashActionId, CrashRecord, Crashes, History, HistoryKind, State, Status};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::faults::Faults;
use zlh_tests::harness::jvm::{self, JavaPlan};
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{FLOODED, SOON, eventually, until};

/// A record is there a second after the exit; on a busy machine, in a debug build, a bit later.
/// The second look, which keeps it again, comes after more than that.
const PROMPTLY: Duration = Duration::from_secs(5);

/// An agent whose server is `java ARGUMENTS`.
pub(crate) fn java(plan: &JavaPlan) -> Agent {
    let mut agent = Agent::prepare(jvm::store(plan).unwrap()).unwrap();
    agent.start();
    agent
}

/// The last crash, once its evidence has been looked at.
#[track_caller]
pub(crate) fn explained(agent: &Agent) -> CrashRecord {
    explained_within(SOON, agent)
}

#[track_caller]
fn explained_within(within: Duration, agent: &Agent) -> CrashRecord {
    let is_explained = |status: &Status| status.last_crash.as_ref().is_some_and(|crash| crash.explained);
    agent.wait_status("an explained crash", within, is_explained).last_crash.unwrap()
}

/// How long after its exit the agent said that it had explained a crash; by then the record was
/// on disk. The first time counts: the file itself is written again after a second look.
fn kept_after(agent: &Agent, crash: &CrashRecord) -> Duration {
    assert!(agent.root_path(&format!("opt/zlh-agent/state/crashes/game/{}.json", crash.id)).exists());
    let said: jiff::Timestamp = eventually("the line that it is explained", SOON, || {
        let log = agent.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let of_it = |line: &serde_json::Value| {
            line["msg"] == "the crash is explained" && line["crash"] == crash.id.as_str()
        };
        let found = lines.find(of_it).and_then(|line| line["ts"].as_str()?.parse().ok());
        found.ok_or("not yet")
    });
    since_end(crash, said)
}

/// How long after the end that a record tells of that was.
fn since_end(crash: &CrashRecord, then: jiff::Timestamp) -> Duration {
    let ended_ms: i64 = crash.id.split_once('-').unwrap().0.parse().unwrap();
    Duration::from_millis(u64::try_from(then.as_millisecond() - ended_ms).unwrap_or(0))
}

fn crashes(agent: &Agent) -> Vec<CrashRecord> {
    agent.http().get("/crashes").unwrap().expect(200).json::<Crashes>().crashes
}

/// Runs it until it is dead and explained.
#[track_caller]
fn dies(arguments: &[&str]) -> (Agent, CrashRecord) {
    dies_with(&JavaPlan::new(arguments))
}

#[track_caller]
fn dies_with(plan: &JavaPlan) -> (Agent, CrashRecord) {
    let agent = java(plan);
    agent.configure();
    let crash = explained(&agent);
    (agent, crash)
}

#[track_caller]
pub(crate) fn is(crash: &CrashRecord, cause: &str, class: &str, certain: bool) {
    let found = (crash.cause.as_deref(), crash.classification.as_str(), crash.certain);
    assert_eq!(found, (Some(cause), class, certain), "{crash:#?}");
    assert!(
        !crash.title.is_empty() && !crash.remedy.is_empty() && !crash.fingerprint.is_empty(),
        "{crash:#?}"
    );
    assert!(crash.evidence.iter().any(|line| !line.text.is_empty()), "{crash:#?}");
}

#[test]
fn a_full_heap() {
    let (agent, crash) = dies(&["-Xmx24m", "-cp", "server.jar", "Died", "heap"]);
    is(&crash, "heap", "oom", true);
    assert_eq!(crash.exit_code, Some(1));
    assert!(!crash.restart_useless, "it may be enough the next time");
    // The deployed fields and the list say the same.
    let status = agent.status();
    assert_eq!(status.last_crash_classification.as_deref(), Some("oom"));
    assert_eq!((status.last_crash_exit_code, status.last_crash_signal), (Some(1), 0));
    assert!(status.last_crash_log_tail.iter().any(|line| line.contains("OutOfMemoryError")), "{status:?}");
    let kept = crashes(&agent);
    assert_eq!((kept.len(), kept[0].id.as_str()), (1, crash.id.as_str()));
    let one: CrashRecord = agent.http().get(&format!("/crashes/{}", crash.id)).unwrap().expect(200).json();
    assert_eq!(one.cause, crash.cause);
}

#[test]
fn full_class_memory() {
    let (_agent, crash) = dies(&["-XX:MaxMetaspaceSize=16m", "-cp", "server.jar", "Died", "metaspace"]);
    is(&crash, "metaspace", "oom", true);
}

#[test]
fn full_buffer_memory() {
    let (_agent, crash) = dies(&["-XX:MaxDirectMemorySize=1m", "-cp", "server.jar", "Died", "direct"]);
    is(&crash, "direct_memory", "oom", true);
}

#[test]
fn no_thread_any_more() {
    let arguments = [
        "-Xss512m",
        "-Xmx64m",
        "-XX:ReservedCodeCacheSize=32m",
        "-XX:CompressedClassSpaceSize=64m",
        "-cp",
        "server.jar",
        "Died",
        "threads",
    ];
    let (_agent, crash) = dies_with(&JavaPlan { limited: true, ..JavaPlan::new(&arguments) });
    is(&crash, "native_threads", "oom", true);
}

#[test]
fn endless_recursion() {
    let (_agent, crash) = dies(&["-cp", "server.jar", "Died", "stack"]);
    assert_eq!((crash.classification.as_str(), crash.exit_code), ("nonzero_exit", Some(1)), "{crash:#?}");
    assert!(
        crash.explanation.contains("StackOverflowError") || crash.title.to_lowercase().contains("recursion"),
        "{crash:#?}"
    );
}

#[test]
fn a_crash_of_java_itself() {
    let (_agent, crash) = dies(&["-cp", "server.jar", "Died", "segv"]);
    is(&crash, "native_crash", "unexpected_exit", true);
    assert_eq!(crash.signal_name.as_deref(), Some("SIGABRT"));
    assert!(crash.evidence.iter().any(|line| line.source == "hs_err"), "{crash:#?}");
}

#[test]
fn a_program_for_a_newer_java() {
    let (agent, crash) = dies(&["-cp", "newer.jar", "Died", "0"]);
    is(&crash, "java_too_old", "nonzero_exit", true);
    let java = crash.java.unwrap();
    assert_eq!(java.need, Some(25));
    assert!(java.have.is_some_and(|have| have >= 17) && crash.restart_useless);
    // The history tells it, too.
    let told = eventually("the cause in the history", SOON, || {
        let history: History = agent.http().get("/history").unwrap().expect(200).json();
        let mut crashes = history.events.into_iter().filter(|event| event.kind == HistoryKind::Crash);
        crashes.next().filter(|one| one.cause.is_some()).ok_or("none yet")
    });
    assert_eq!((told.cause, told.detail), (crash.cause, Some(crash.title)));
}

#[test]
fn an_option_that_java_does_not_know() {
    let (_agent, crash) = dies(&["-XX:+UseNoSuchThing", "-cp", "server.jar", "Died", "0"]);
    is(&crash, "bad_launch_args", "nonzero_exit", true);
    assert!(crash.title.contains("UseNoSuchThing"), "{}", crash.title);
}

#[test]
fn a_corrupt_jar_is_put_in_place_again() {
    let (agent, crash) = dies(&["-jar", "corrupt.jar"]);
    is(&crash, "jar_corrupt", "nonzero_exit", true);
    assert!(crash.title.contains("corrupt.jar"), "{}", crash.title);
    let offered: Vec<_> = crash.remedy.iter().filter_map(|step| step.action.as_ref()).collect();
    assert!(
        offered.iter().any(|action| action.id == CrashActionId::ReinstallServer && action.available),
        "{crash:#?}"
    );
    let corrupt = agent.game_root().join("corrupt.jar");
    fs::write(&corrupt, "tampered with").unwrap();
    // Nothing is taken away before everything is here.
    let catalog = agent.store.path("catalog.json");
    let aside = catalog.with_extension("aside");
    fs::rename(&catalog, &aside).unwrap();
    let failed = agent.outcome(&agent.post(&format!("/crashes/{}/actions/reinstall_server", crash.id), 202));
    assert!(failed.error.as_ref().unwrap().contains("catalog"), "{failed:?}");
    assert_eq!(fs::read(&corrupt).unwrap(), b"tampered with");
    fs::rename(&aside, &catalog).unwrap();
    let begun = agent.post(&format!("/crashes/{}/actions/reinstall_server", crash.id), 202);
    assert!(begun.header("location").is_some());
    until("the verified file is back", SOON, || {
        fs::read(&corrupt).is_ok_and(|bytes| bytes == b"half of a download")
    });
}

#[test]
fn a_main_class_that_is_not_there() {
    let (_agent, crash) = dies(&["-cp", "server.jar", "NotHere"]);
    is(&crash, "jar_missing", "nonzero_exit", true);
}

#[test]
fn a_port_that_somebody_else_has() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (_agent, crash) = dies(&["-cp", "server.jar", "Died", "bind", &port]);
    is(&crash, "port_in_use", "nonzero_exit", true);
}

#[test]
fn a_world_that_somebody_else_has_open() {
    let agent = java(&JavaPlan::new(&["-cp", "server.jar", "Died", "lock"]));
    agent.configure();
    agent.wait_console("Preparing level");
    // Locked only now: before a start the agent itself would notice.
    let lock = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(agent.game_root().join("world/session.lock"))
        .unwrap();
    let whole = nix::libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_SETLK(&whole)).unwrap();
    fs::write(agent.game_root().join("go"), "").unwrap();
    let crash = explained(&agent);
    is(&crash, "world_lock", "nonzero_exit", true);
    assert!(crash.explanation.contains("pid"), "who has it: {}", crash.explanation);
}

/// A file system of 64 KiB, unmounted in the end: also when the test fails.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Some("size=64k,mode=777");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), options).unwrap();
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still writes there keeps what is detached.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk() {
    if !nix::unistd::geteuid().is_root() {
        #[allow(clippy::print_stderr, reason = "a test that cannot run says so")]
        {
            eprintln!("skipped: only root can mount a small file system");
        }
        return;
    }
    let small = SmallDisk::mount();
    let (_agent, crash) = dies(&["-cp", "server.jar", "Died", "disk", small.0.path().to_str().unwrap()]);
    is(&crash, "disk_full", "nonzero_exit", true);
}

#[test]
fn an_exit_that_nobody_explains() {
    // A busy machine may be slow; not every time.
    let in_time = (0..3).any(|_| {
        let (agent, crash) = dies(&["-cp", "server.jar", "Died", "7"]);
        assert_eq!(
            (crash.cause.as_deref(), crash.classification.as_str(), crash.exit_code),
            (Some("silent"), "nonzero_exit", Some(7))
        );
        assert!(!crash.certain && !crash.restart_useless);
        let took = kept_after(&agent, &crash);
        println!("kept {took:?} after the exit");
        took < PROMPTLY
    });
    assert!(in_time, "never kept within {PROMPTLY:?}");
}

#[test]
fn the_eula_is_accepted_when_somebody_asks_for_it() {
    let agent = java(&JavaPlan::new(&["-cp", "server.jar", "Died", "eula"]));
    let mut payload = agent.payload();
    payload["accept_eula"] = false.into();
    agent.configure_with(&payload).expect(202);
    let crash = explained(&agent);
    is(&crash, "eula", "unexpected_exit", true);
    assert!(!agent.game_root().join("eula.txt").exists(), "nothing is done unasked");
    agent.post(&format!("/crashes/{}/actions/accept_eula", crash.id), 202);
    agent.wait_console("Done (");
    assert_eq!(agent.status().crashes_total, 1);
    let refused = agent
        .http()
        .post(&format!("/crashes/{}/actions/accept_eula", crash.id))
        .unwrap()
        .expect(409)
        .problem();
    assert!(refused.detail.contains("stop") || refused.detail.contains("progress"), "{}", refused.detail);
}

/// The pause before the confirming retry is really 30 s, and two JVMs start.
#[test]
fn the_same_certain_cause_twice_ends_the_ladder() {
    let (agent, first) = dies(&["-XX:+UseNoSuchThing", "-cp", "server.jar", "Died", "0"]);
    assert_eq!(agent.status().state, State::Crashed);
    let status = agent.wait_status("the confirming retry", 4 * SOON, |status| status.state == State::Error);
    let reason = status.error.unwrap();
    assert!(reason.contains("UseNoSuchThing") && reason.contains("Remove"), "{reason}");
    assert_eq!(status.crashes_total, 2, "one retry and no more");
    let last = status.last_crash.unwrap();
    assert_eq!((last.seen_before, &last.fingerprint), (1, &first.fingerprint));
    assert_eq!(status.next_restart_at, None);
    // A person may try again, and the ladder begins anew.
    agent.post("/start", 202);
    agent.wait_status("another crash", SOON, |status| {
        status.crashes_total == 3 && status.state == State::Crashed
    });
}

#[test]
fn without_cause_awareness_the_ladder_goes_on() {
    let mut agent = Agent::prepare(jvm::store(&JavaPlan::new(&["-XX:+UseNoSuchThing"])).unwrap()).unwrap();
    agent.config_file("[restart]\ncause_aware = false\n");
    agent.start();
    agent.configure();
    explained(&agent);
    let twice = |status: &Status| {
        status.crashes_total == 2 && status.last_crash.as_ref().is_some_and(|crash| crash.explained)
    };
    let status = agent.wait_status("the second crash", 4 * SOON, twice);
    assert_eq!(status.state, State::Crashed, "it is tried again: {:?}", status.error);
    assert!(status.next_restart_at.is_some());
}

/// What proves each signature, from the files themselves.
fn samples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/crash/signatures");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let signatures = table.get("signature").and_then(toml::Value::as_array);
        for sample in signatures.into_iter().flatten().filter_map(|one| one.get("samples")?.as_array()) {
            found.extend(sample.iter().filter_map(|one| one.as_str()?.lines().next().map(str::to_owned)));
        }
    }
    found
}

/// How what somebody wrote stands in a log: chat, a chat plugin's, commands, signs, names.
const SPEAKERS: [&str; 7] = [
    "[Server thread/INFO]: <Eve> ",
    "[Async Chat Thread - #1/INFO]: [Admin] Eve: ",
    "[Server thread/INFO]: Eve issued server command: /msg Bob ",
    "[Server thread/INFO]: [Server] ",
    "[Server thread/INFO]: [Eve: Set the title to ",
    "[Server thread/INFO]: * Eve ",
    "[User Authenticator #1/INFO]: UUID of player ",
];

/// Everything a signature could be fooled by, as chat.
fn lies(speakers: &[&str]) -> Vec<String> {
    let mut lies: Vec<String> = [
        "[12:00:00] [Server thread/INFO]: [Not Secure] <Eve> Missing or unsupported mandatory dependencies:",
        "[12:00:00] [Server thread/INFO]: [Server] You need to agree to the EULA in order to run the server. Go to eula.txt for more info.",
        "[12:00:00] [Server thread/INFO]: * Eve Encountered an unexpected exception",
        "[12:00:00] [Server thread/INFO]: Eve: **** FAILED TO BIND TO PORT!",
        "[12:00:00] [Async Chat Thread - #0/INFO]: <Eve> [12:00:00] [Server thread/ERROR]: Failed to start the minecraft server",
    ]
    .map(str::to_owned)
    .to_vec();
    let samples = samples();
    assert!(samples.len() > 100, "{} samples", samples.len());
    for who in speakers {
        lies.extend(samples.iter().map(|line| format!("[12:00:00] {who}{line}")));
    }
    lies.push("[12:00:00] [Server thread/INFO]: Stopping the server now, says Eve".to_owned());
    lies
}

#[track_caller]
fn accuses_nobody(crash: &CrashRecord) {
    assert!(!crash.certain && !crash.restart_useless, "{crash:#?}");
    assert!(crash.contributing.is_empty() && crash.culprit.is_empty(), "{crash:#?}");
    assert!(crash.dependency.is_empty() && crash.java.is_none() && crash.place.is_none(), "{crash:#?}");
    assert!(crash.remedy.iter().all(|step| step.action.is_none()), "{crash:#?}");
}

/// Lines that a plugin echoes as they are, too: a signal leaves no doubt about what happened.
#[test]
fn what_players_write_changes_no_class_of_a_killed_server() {
    let agent = Agent::with_ready_fake(&[]);
    let bare = [
        "java.lang.OutOfMemoryError: Java heap space",
        "---- Minecraft Crash Report ----",
        "Description: Ticking entity",
    ];
    for line in bare.map(str::to_owned).into_iter().chain(lies(&SPEAKERS[..1])) {
        agent.command(&format!("echo {line}"));
    }
    agent.wait_console("says Eve");
    agent.command("signal SIGKILL");
    let crash = explained(&agent);
    assert_eq!((crash.cause.as_deref(), crash.classification.as_str()), (Some("killed"), "unexpected_exit"));
    accuses_nobody(&crash);
}

/// A server that repeats lies and leaves with a code, without a word of its own. It never
/// answered a ping: the signatures of a start count as well.
fn left_after_lies(code: &str) -> CrashRecord {
    let agent = java(&JavaPlan::new(&["-cp", "server.jar", "Died", "chat", code]));
    agent.configure();
    agent.wait_console("Done (");
    fs::write(agent.game_root().join("chat.txt"), lies(&SPEAKERS).join("\n")).unwrap();
    fs::write(agent.game_root().join("go"), "").unwrap();
    let crash = explained(&agent);
    assert!(crash.log_tail.iter().any(|line| line.contains("says Eve")), "{crash:#?}");
    accuses_nobody(&crash);
    crash
}

#[test]
fn what_players_write_changes_no_class_of_a_server_that_left() {
    for (code, class) in [("0", "unexpected_exit"), ("3", "nonzero_exit")] {
        let crash = left_after_lies(code);
        assert_eq!(
            (crash.cause.as_deref(), crash.classification.as_str()),
            (Some("silent"), class),
            "{crash:#?}"
        );
        assert_eq!(crash.exit_code.map(|one| one.to_string()).as_deref(), Some(code));
    }
}

#[test]
fn a_report_that_is_a_trap_is_left_alone() {
    let agent = Agent::with_ready_fake(&[]);
    let secret = agent.root_path("secret.txt");
    fs::write(
        &secret,
        "---- Minecraft Crash Report ----\nDescription: hunter2\n\njava.lang.Error: hunter2\n",
    )
    .unwrap();
    let reports = agent.game_root().join("crash-reports");
    fs::create_dir_all(&reports).unwrap();
    symlink(&secret, reports.join("crash-2026-01-01_00.00.01-server.txt")).unwrap();
    nix::unistd::mkfifo(&reports.join("crash-2026-01-01_00.00.02-server.txt"), nix::sys::stat::Mode::S_IRWXU)
        .unwrap();
    let huge = fs::File::create(reports.join("crash-2026-01-01_00.00.03-server.txt")).unwrap();
    huge.set_len(2 << 30).unwrap();
    agent.command(&format!(
        "echo [12:00:00] [Server thread/ERROR]: This crash report has been saved to: {}",
        secret.display()
    ));
    agent.command("crash 3");
    let crash = explained(&agent);
    assert_eq!(crash.exit_code, Some(3));
    let text = serde_json::to_string(&crash.evidence).unwrap() + &crash.explanation + &crash.title;
    assert!(!text.contains("hunter2"), "{crash:#?}");
}

#[test]
fn a_late_report_and_what_changed_amend_the_record() {
    let agent = Agent::with_ready_fake(&[]);
    let remembered = |what: &str| {
        let good = agent.root_path("opt/zlh-agent/state/last-good.json");
        until("what is good is remembered", SOON, || {
            fs::read_to_string(&good).is_ok_and(|text| text.contains(what))
        });
    };
    remembered("");
    let (mods, reports) = (agent.game_root().join("mods"), agent.game_root().join("crash-reports"));
    fs::create_dir_all(&mods).unwrap();
    fs::create_dir_all(&reports).unwrap();
    let report = reports.join("crash-2026-01-01_00.00.00-server.txt");
    let words = "---- Minecraft Crash Report ----\n// Oops.\n\nTime: 2026-01-01 00:00:00\nDescription: Ticking entity\n\n\
        java.lang.NullPointerException: Ticking entity\n\tat com.example.newmod.Thing.tick(Thing.java:7)\n\n\
        -- Entity being ticked --\nDetails:\n\tEntity Type: newmod:thing (com.example.newmod.Thing)\n\
        \tEntity's Exact location: 1.50, 64.00, -2.50\n";
    // Whoever is slow is too late for the second look, 5 s after the exit: then with another crash.
    let in_time = (1..=3).find_map(|number: u32| {
        if number > 1 {
            fs::remove_file(&report).unwrap();
            agent.post("/start", 202);
            agent.wait_ready();
            remembered(&format!("new{}-1.0.jar", number - 1));
        }
        let added = format!("mods/new{number}-1.0.jar");
        fs::write(agent.game_root().join(&added), "no jar").unwrap();
        agent.command("crash 3");
        let first = agent
            .wait_status("an explained crash", SOON, |status| {
                let explained = status.last_crash.as_ref().is_some_and(|crash| crash.explained);
                explained && status.crashes_total == number
            })
            .last_crash
            .unwrap();
        assert!(
            first.changed_since_last_good.iter().any(|change| change.path == added && change.kind == "added"),
            "{first:#?}"
        );
        fs::write(&report, words).unwrap();
        let gone = since_end(&first, jiff::Timestamp::now());
        println!("the report came {gone:?} after the exit");
        (gone < Duration::from_secs(3)).then_some((first, number))
    });
    let (first, number) = in_time.expect("a first look that was not slow");
    let amended = agent.wait_status("the amended record", SOON, |status| {
        status.last_crash.as_ref().is_some_and(|crash| crash.cause.as_deref() == Some("ticking"))
    });
    let crash = amended.last_crash.unwrap();
    assert_eq!(
        (crash.id.as_str(), crash.classification.as_str()),
        (first.id.as_str(), "mod_or_plugin_error")
    );
    assert_eq!(crash.place.unwrap().block, Some(vec![1, 64, -3]));
    assert_eq!(amended.crashes_total, number, "amended, not counted twice");
    assert_eq!(crashes(&agent).len(), usize::try_from(number).unwrap());
}

#[test]
fn escape_sequences_and_floods_stay_out_of_the_record() {
    let agent = Agent::with_ready_fake(&[]);
    agent.command("flood 40MiB 0");
    agent.wait_event_within(FLOODED, zlh_tests::fake::events::What::FloodEnded, "");
    // Every byte there is, escape among them.
    agent.command("noise 64KiB");
    agent.command("crash 4");
    let crash = explained_within(FLOODED, &agent);
    let took = kept_after(&agent, &crash);
    println!("kept {took:?} after the exit, 40 MiB behind it");
    assert!(took < FLOODED / 2, "kept {took:?} after the exit");
    assert_eq!(crash.exit_code, Some(4));
    assert!(
        crash.log_tail.len() <= 200 && crash.log_tail.iter().all(|line| !line.contains(['\u{1b}', '\u{9b}']))
    );
    assert!(crash.evidence.iter().all(|line| line.text.len() <= 1000 && !line.text.contains('\u{1b}')));
}

/// Start, be ready, crash: the points that the agent passes on the way.
fn crash_once(plan: &str) -> (Agent, Faults) {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    faults.plan(plan).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    agent.command("crash 3");
    (agent, faults)
}

#[test]
fn an_agent_killed_before_the_record_is_kept_explains_it_the_next_time() {
    let (mut agent, faults) = crash_once("kill-at crash.keep");
    let ended = agent.wait_exit();
    assert_eq!(ended.signal(), Some(nix::libc::SIGKILL), "{ended}");
    let folder = agent.root_path("opt/zlh-agent/state/crashes/game");
    assert!(fs::read_dir(folder).map_or(0, Iterator::count) == 0, "killed before it was kept");
    faults.clear().unwrap();
    agent.start();
    let crash = explained(&agent);
    assert_eq!(crash.exit_code, Some(3));
    until("it is kept", SOON, || crashes(&agent).len() == 1);
}

#[test]
fn a_record_that_the_disk_refuses_is_written_with_the_next_one() {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let faults = Faults::of(&mut agent).unwrap();
    agent.start();
    agent.configure();
    agent.wait_ready();
    let on_disk = |agent: &Agent| {
        let folder = fs::read_dir(agent.root_path("opt/zlh-agent/state/crashes/game"));
        folder
            .into_iter()
            .flatten()
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|e| e == "json"))
            .count()
    };
    faults.plan("enospc durable 1").unwrap();
    agent.command("crash 3");
    let first = explained(&agent);
    assert_eq!((on_disk(&agent), crashes(&agent).len()), (0, 1), "in memory only");
    assert!(!faults.refused().is_empty());
    faults.clear().unwrap();
    agent.post("/start", 202);
    agent.wait_ready();
    agent.command("crash 4");
    agent.wait_status("the second crash", SOON, |status| {
        status.last_crash.as_ref().is_some_and(|crash| crash.explained && crash.exit_code == Some(4))
    });
    assert_eq!(on_disk(&agent), 2);
    agent.kill();
    agent.start();
    let kept: Vec<_> = crashes(&agent).into_iter().map(|crash| crash.exit_code).collect();
    assert_eq!(kept, [Some(4), Some(3)], "the next agent knows both");
    assert_eq!(crashes(&agent)[1].id, first.id);
}
