//! Shims of other versions, and processes that only look like one: what is running goes on,
//! can be stopped, and the status says what is the matter and what to do.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use minicbor::Encode;
use nix::sys::signal::Signal;
use zlh_api::{State, Status};
use zlh_shim::frame::{Frame, encode};
use zlh_shim::proto::{self, kind};
use zlh_shim::record::ShimRecord;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::forged_shim::{ForgedShim, Reply, status};
use zlh_tests::harness::process::Process;
use zlh_tests::harness::store::FakePlan;
use zlh_tests::harness::wait::{SOON, until};

fn degraded(status: &Status) -> Option<&String> {
    status.warnings.iter().find(|warning| warning.starts_with("degraded"))
}

fn running() -> (Agent, Process) {
    let agent = Agent::with_fake(&FakePlan { grace_s: 1, term_s: 1, ..FakePlan::new(&[]) });
    agent.configure();
    agent.wait_ready();
    let game = agent.game();
    (agent, game)
}

fn refusal(code: &str, message: &str) -> Reply {
    let refusal = proto::Refusal { code: code.to_owned(), message: message.to_owned() };
    Reply::Frame(kind::ERROR_REPLY, proto::body(&refusal))
}

/// Starts it, and again if it took long: the quickest of a few starts is the agent's own time,
/// one alone measures the machine.
#[track_caller]
pub(crate) fn listens_soon(agent: &mut Agent) {
    const SOON_ENOUGH: Duration = Duration::from_millis(1500);
    let mut times = Vec::new();
    while times.len() < 5 {
        agent.kill();
        agent.start();
        times.push(agent.listened_after());
        if times.last().is_some_and(|time| *time < SOON_ENOUGH) {
            return;
        }
    }
    panic!("exec to listening took {times:?}");
}

/// `GET /health` answers soon, the game is known and degraded, and can be stopped and started.
#[track_caller]
fn known_and_stoppable(mut agent: Agent, game: Process, words: &[&str]) {
    listens_soon(&mut agent);
    let status = agent.wait_status("degraded", SOON, |s| degraded(s).is_some());
    let warning = degraded(&status).unwrap();
    for word in words {
        assert!(warning.contains(word), "`{word}` in: {warning}");
    }
    assert_eq!(status.pid, Some(game.pid));
    agent.wait_ready();
    assert!(game.is_alive());
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    assert!(!game.is_alive() && agent.living_games().is_empty());
    assert_eq!(agent.status().crashes_total, 0);
}

#[test]
fn a_shim_of_the_first_version_is_spoken_to_in_the_first_version() {
    let (mut agent, game) = running();
    let answer = move |frame: &Frame, record: &ShimRecord| {
        let mut status = status(record);
        if !game.is_alive() {
            let told = proto::ExitMessage {
                how: 0,
                number: 143,
                core: false,
                text: String::new(),
                uptime_ms: 1000,
                recorded: false,
            };
            (status.sequence, status.stop_stage, status.exit) = (2, 2, Some(told));
        }
        match frame.kind {
            kind::HELLO => {
                let hello: proto::Hello = minicbor::decode(&frame.body).unwrap();
                assert!(hello.proto_min <= 1 && hello.proto_max >= 1, "{hello:?}");
                let (instance, shim_version) = (record.instance.clone(), "0.0.9".to_owned());
                let welcome = proto::Welcome { proto: 1, shim_version, instance, shim_pid: 1, status };
                Reply::Frame(kind::WELCOME, proto::body(&welcome))
            }
            kind::STATUS => Reply::Frame(kind::STATUS_REPLY, proto::body(&status)),
            kind::WATCH => {
                let watch: proto::Watch = minicbor::decode(&frame.body).unwrap();
                if watch.sequence == status.sequence {
                    // It has to wait, and here it waits for the end.
                    until("the end", SOON, || !game.is_alive());
                    status.sequence = 2;
                    let told = proto::ExitMessage {
                        how: 0,
                        number: 143,
                        core: false,
                        text: String::new(),
                        uptime_ms: 1000,
                        recorded: false,
                    };
                    (status.stop_stage, status.exit) = (2, Some(told));
                }
                Reply::Frame(kind::STATUS_REPLY, proto::body(&status))
            }
            kind::ACK_EXIT => Reply::Frame(kind::OK_REPLY, proto::body(&proto::Done { log_head: 0 })),
            _ => refusal("unsupported", "this is the first version"),
        }
    };
    let forged = ForgedShim::replace(&mut agent, answer).unwrap();
    agent.start();
    let status = agent.wait_ready();
    assert_eq!((status.pid, degraded(&status)), (Some(game.pid), None));
    game.signal(Signal::SIGTERM);
    let status = agent.wait_state(State::Idle);
    assert_eq!(status.crashes_total, 0, "it was told to stop by somebody else");
    let known = [kind::HELLO, kind::STATUS, kind::WATCH, kind::READ, kind::ACK_EXIT];
    assert!(forged.heard().iter().all(|kind| known.contains(kind)), "{:?}", forged.heard());
}

/// As [`proto::Status`], with keys of a version that does not exist yet.
#[derive(Encode)]
#[cbor(map)]
struct NewerStatus {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    pid: i32,
    #[n(2)]
    start_ticks: u64,
    #[n(3)]
    started_boot_ms: u64,
    #[n(4)]
    started_unix_ms: u64,
    #[n(5)]
    log_start: u64,
    #[n(6)]
    log_head: u64,
    #[n(7)]
    log_unwritten: u64,
    #[n(8)]
    stop_stage: u8,
    #[n(9)]
    exit: Option<NewerExit>,
    #[n(10)]
    log_run_start: u64,
    #[n(40)]
    weather: Option<String>,
    #[n(41)]
    temperature: u64,
}

/// As [`proto::ExitMessage`], ditto.
#[derive(Encode)]
#[cbor(map)]
struct NewerExit {
    #[n(0)]
    how: u8,
    #[n(1)]
    number: i32,
    #[n(2)]
    core: bool,
    #[n(3)]
    text: String,
    #[n(4)]
    uptime_ms: u64,
    #[n(5)]
    recorded: bool,
    #[n(50)]
    mood: String,
}

/// As [`proto::Welcome`], ditto.
#[derive(Encode)]
#[cbor(map)]
struct NewerWelcome {
    #[n(0)]
    proto: u16,
    #[n(1)]
    shim_version: String,
    #[n(2)]
    instance: String,
    #[n(3)]
    shim_pid: i32,
    #[n(4)]
    status: NewerStatus,
    #[n(60)]
    greeting: String,
}

fn newer(record: &ShimRecord, alive: bool) -> NewerStatus {
    let old = status(record);
    let exit = (!alive).then(|| NewerExit {
        how: 9,
        number: 0,
        core: false,
        text: "evaporated".to_owned(),
        uptime_ms: 1,
        recorded: false,
        mood: "serene".to_owned(),
    });
    NewerStatus {
        sequence: if alive { 1 } else { 2 },
        pid: old.pid,
        start_ticks: old.start_ticks,
        started_boot_ms: old.started_boot_ms,
        started_unix_ms: old.started_unix_ms,
        log_start: 0,
        log_head: 0,
        log_unwritten: 0,
        stop_stage: 0,
        exit,
        log_run_start: old.log_run_start,
        weather: Some("fair".to_owned()),
        temperature: 21,
    }
}

#[test]
fn a_shim_from_the_future_is_understood_as_far_as_can_be() {
    let (mut agent, game) = running();
    let answer = move |frame: &Frame, record: &ShimRecord| match frame.kind {
        kind::HELLO => {
            let hello: proto::Hello = minicbor::decode(&frame.body).unwrap();
            // It speaks 1 to 9.
            let welcome = NewerWelcome {
                proto: proto::negotiate((hello.proto_min, hello.proto_max), (1, 9)).unwrap(),
                shim_version: "9.9.9".to_owned(),
                instance: record.instance.clone(),
                shim_pid: 1,
                status: newer(record, true),
                greeting: "hello from tomorrow".to_owned(),
            };
            Reply::Frame(kind::WELCOME, proto::body(&welcome))
        }
        kind::WATCH => {
            until("the end", SOON, || !game.is_alive());
            Reply::Frame(kind::STATUS_REPLY, proto::body(&newer(record, false)))
        }
        _ => Reply::Frame(kind::OK_REPLY, proto::body(&proto::Done { log_head: 0 })),
    };
    let _forged = ForgedShim::replace(&mut agent, answer).unwrap();
    agent.start();
    let status = agent.wait_ready();
    assert_eq!((status.pid, degraded(&status)), (Some(game.pid), None));
    game.signal(Signal::SIGKILL);
    let status = agent.wait_state(State::Crashed);
    // An end of a kind that nobody knows yet is lost, and never success.
    assert_eq!((status.last_crash_exit_code, status.last_crash_signal, status.crashes_total), (None, 0, 1));
    assert!(status.last_crash.unwrap().lost.unwrap().contains("unknown end"));
}

#[test]
fn a_shim_of_no_common_version_says_what_to_do_and_the_game_can_be_stopped() {
    let (mut agent, game) = running();
    let answer = |_: &Frame, _: &ShimRecord| refusal("version", "this shim speaks protocol 7 to 9");
    let forged = ForgedShim::replace(&mut agent, answer).unwrap();
    let shim = forged.process().unwrap();
    known_and_stoppable(
        agent,
        game,
        &["this shim speaks protocol 7 to 9", "this agent 1 to 2", "go back to the agent version"],
    );
    assert!(!shim.is_alive(), "it was asked to stop the game by its own plan, and to leave");
}

#[test]
fn a_shim_that_holds_another_run_is_none_of_ours() {
    let (mut agent, game) = running();
    let answer = |frame: &Frame, record: &ShimRecord| match frame.kind {
        kind::HELLO => {
            let welcome = proto::Welcome {
                proto: 1,
                shim_version: "1".to_owned(),
                instance: "somebody else's run".to_owned(),
                shim_pid: 1,
                status: proto::Status { pid: 1, start_ticks: 1, ..status(record) },
            };
            Reply::Frame(kind::WELCOME, proto::body(&welcome))
        }
        _ => Reply::Nothing,
    };
    let _forged = ForgedShim::replace(&mut agent, answer).unwrap();
    known_and_stoppable(agent, game, &["another run"]);
}

#[test]
fn who_does_not_speak_the_protocol_is_not_listened_to() {
    for (name, reply) in [
        ("garbage", Reply::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
        ("a gigabyte", Reply::Raw((1_u32 << 30).to_le_bytes().to_vec())),
        ("not CBOR", Reply::Frame(kind::WELCOME, vec![0xff; 64])),
        ("an answer to nothing", Reply::Frame(kind::DATA_REPLY, Vec::new())),
        ("silence", Reply::Nothing),
        ("a hang-up", Reply::HangUp),
    ] {
        println!("{name}");
        let (mut agent, game) = running();
        let _forged = ForgedShim::replace(&mut agent, move |_, _| reply.clone()).unwrap();
        known_and_stoppable(agent, game, &["cannot be used"]);
    }
}

/// What a shim does with a stop.
#[derive(Debug, Clone, Copy)]
enum Unwilling {
    /// Takes it, and does nothing.
    Takes,
    /// Says no.
    Refuses,
    /// Says nothing.
    Swallows,
    /// Takes it, says how far it is, and does nothing.
    Claims(u8),
}

impl Unwilling {
    /// As a forged shim's answers; one that claims has to answer what was asked before.
    fn answers(self) -> impl Fn(&Frame, &ShimRecord) -> Reply {
        let watch = Mutex::new(None);
        move |frame, record| match (frame.kind, self) {
            (kind::HELLO, _) => {
                let (instance, shim_version) = (record.instance.clone(), "1".to_owned());
                let status = status(record);
                let welcome = proto::Welcome { proto: 1, shim_version, instance, shim_pid: 1, status };
                Reply::Frame(kind::WELCOME, proto::body(&welcome))
            }
            (kind::WATCH, _) => {
                *watch.lock().unwrap() = Some(frame.id);
                Reply::Nothing
            }
            (kind::STOP, Self::Claims(stop_stage)) => {
                let mut bytes = Vec::new();
                encode(kind::OK_REPLY, frame.id, &proto::body(&proto::Done { log_head: 0 }), &mut bytes);
                if let Some(asked) = watch.lock().unwrap().take() {
                    let told = proto::Status { sequence: 2, stop_stage, ..status(record) };
                    encode(kind::STATUS_REPLY, asked, &proto::body(&told), &mut bytes);
                }
                Reply::Raw(bytes)
            }
            (kind::STOP, Self::Refuses) => refusal("unwilling", "this shim does not like to stop"),
            (kind::STOP | kind::EXTEND, Self::Takes | Self::Claims(_)) => {
                Reply::Frame(kind::OK_REPLY, proto::body(&proto::Done { log_head: 0 }))
            }
            _ => Reply::Nothing,
        }
    }

    /// From the request to the end of a game that has to be killed.
    fn stops_within(self) -> Duration {
        let flags = ["--stop", "ignore", "--ignore-sigterm"];
        self.stops(&FakePlan { grace_s: 3, term_s: 2, ..FakePlan::new(&flags) })
    }

    /// The same of any game.
    fn stops(self, plan: &FakePlan) -> Duration {
        let mut agent = Agent::with_fake(plan);
        agent.configure();
        agent.wait_ready();
        let game = agent.game();
        let _forged = ForgedShim::replace(&mut agent, self.answers()).unwrap();
        agent.start();
        agent.wait_ready();
        let asked = Instant::now();
        agent.post("/stop", 204);
        until("the end of it", 2 * SOON, || !game.is_alive());
        let took = asked.elapsed();
        let status = agent.wait_state(State::Idle);
        assert!(agent.living_games().is_empty());
        assert_eq!(status.crashes_total, 0, "{self:?}");
        took
    }
}

#[test]
fn a_shim_that_does_not_stop_the_game_is_done_without() {
    const DEADLINE: Duration = Duration::from_secs(5);
    const SLACK: Duration = Duration::from_secs(2);
    let within_the_deadline = |unwilling: Unwilling| {
        // One stop alone measures the machine.
        let mut seen = Vec::new();
        while seen.last().is_none_or(|took| *took >= DEADLINE + SLACK) {
            assert!(seen.len() < 3, "{unwilling:?}: {seen:?}");
            seen.push(unwilling.stops_within());
        }
        assert!(
            seen.last().is_some_and(|took| *took >= DEADLINE),
            "{unwilling:?} was not given its time: {seen:?}"
        );
    };
    // One after the other: together they would measure each other.
    for unwilling in [Unwilling::Takes, Unwilling::Refuses, Unwilling::Swallows, Unwilling::Claims(1)] {
        within_the_deadline(unwilling);
    }
}

#[test]
fn what_a_shim_claims_to_have_sent_is_sent_again() {
    // And given its time again.
    Unwilling::Claims(2).stops_within();
}

/// However much a game that was never told writes: there is a cap.
#[test]
fn a_shim_that_does_not_stop_a_game_that_writes_is_done_without_at_the_cap() {
    let flags = ["--autosave", "200ms", "--world-bytes", "2MiB", "--ignore-sigterm"];
    let plan = FakePlan { grace_s: 5, term_s: 1, cap_s: 12, ..FakePlan::new(&flags) };
    let took = Unwilling::Claims(1).stops(&plan);
    assert!(took >= Duration::from_secs(8), "what it writes is waited for: {took:?}");
}
