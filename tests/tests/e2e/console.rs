//! The console: what is printed arrives, all of it, everywhere, and once.

use std::time::Duration;

use zlh_tests::fake::events::What;
use zlh_tests::fake::output::{FloodCheck, check_flood, flood_line};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::http::Response;
use zlh_tests::harness::slp;
use zlh_tests::harness::store::FakePlan;
use zlh_tests::harness::wait::{SOON, eventually, until};
use zlh_tests::harness::websocket::{Refused, Viewer};

/// A flood takes as long as it takes.
const FLOODED: Duration = Duration::from_secs(60);

fn viewer(agent: &Agent) -> Viewer {
    Viewer::open(agent.http().address(), "/console/stream", &[]).unwrap()
}

fn log(agent: &Agent, query: &str) -> Response {
    agent.http().get(&format!("/console/log{query}")).unwrap().expect(200)
}

fn number(answer: &Response, header: &str) -> u64 {
    answer.header(header).unwrap().parse().unwrap()
}

#[test]
fn a_viewer_sees_what_was_what_is_and_may_type() {
    let agent = Agent::with_ready_fake(&[]);
    let mut viewer = viewer(&agent);
    viewer.wait_for("Done (");
    viewer.send("say typed by hand\n").unwrap();
    viewer.wait_for("[Server] typed by hand");
    agent.command("say sent by a program");
    viewer.wait_for("[Server] sent by a program");
    let lines = viewer.text().matches("Done (").count();
    assert_eq!(lines, 1, "nothing twice: {}", viewer.text());
}

#[test]
fn the_deployed_paths_are_one_console() {
    let agent = Agent::with_ready_fake(&[]);
    for path in ["/console/ws", "/console/stream?serverId=5001", "/console/ws?serverId="] {
        Viewer::open(agent.http().address(), path, &[]).unwrap().wait_for("Done (");
    }
}

#[test]
fn viewers_come_and_go_and_the_server_stays() {
    let agent = Agent::with_ready_fake(&[]);
    let mut viewers: Vec<Viewer> = (0..5).map(|_| viewer(&agent)).collect();
    for viewer in &mut viewers {
        viewer.wait_for("Done (");
    }
    drop(viewers.remove(0));
    agent.command("echo still-here");
    for viewer in &mut viewers {
        viewer.wait_for("\nstill-here\n");
    }
    drop(viewers);
    agent.command("echo alone-now");
    agent.wait_console("\nalone-now\n");
    slp::ping(agent.port.number(), SOON).unwrap();
}

#[test]
fn an_idle_console_is_accepted_and_waits() {
    let agent = Agent::with_fake(&FakePlan::new(&[]));
    let mut viewer = viewer(&agent);
    agent.configure();
    viewer.wait_for("Done (");
}

#[test]
fn it_is_kept_alive_and_survives_a_restart_of_the_server() {
    let agent = Agent::with_ready_fake(&[]);
    let mut viewer = viewer(&agent);
    viewer.receive_until("a keepalive", Duration::from_secs(12), |viewer| viewer.pings() > 0);
    agent.post("/restart", 202);
    viewer.receive_until("a second start", SOON, |viewer| viewer.text().matches("Done (").count() == 2);
}

#[test]
fn a_page_of_somebody_else_gets_no_console() {
    let agent = Agent::with_ready_fake(&[]);
    let refused =
        Viewer::open(agent.http().address(), "/console/stream", &[("origin", "http://evil.example")]);
    assert!(matches!(refused, Err(Refused::Status(403))), "{refused:?}");
    let plain = agent.http().get("/console/stream").unwrap();
    assert_eq!(plain.status / 100, 4, "{}", plain.text());
    plain.problem();
}

#[test]
fn the_log_is_addressed_by_byte_and_never_starts_over() {
    let agent = Agent::with_ready_fake(&[]);
    agent.command("echo first-marker");
    agent.wait_console("\nfirst-marker\n");
    let all = log(&agent, "?since=0");
    assert_eq!(number(&all, "zlh-console-offset"), 0);
    let next = number(&all, "zlh-console-next");
    assert_eq!(next, all.body.len() as u64);
    let middle = next / 2;
    let half = log(&agent, &format!("?since={middle}"));
    assert_eq!(number(&half, "zlh-console-offset"), middle);
    assert_eq!(half.body, all.body[usize::try_from(middle).unwrap()..]);
    let end = log(&agent, &format!("?since={next}"));
    assert_eq!((end.body.len(), number(&end, "zlh-console-next")), (0, next));
    let tail = log(&agent, "?tail=2");
    assert_eq!(tail.text().lines().count(), 2, "{}", tail.text());
    assert!(all.body.ends_with(&tail.body));
    agent.post("/stop", 204);
    agent.wait_state(zlh_api::State::Idle);
    let stopped = log(&agent, "?since=0");
    assert!(stopped.body.starts_with(&all.body), "also while stopped");
    agent.post("/start", 202);
    agent.wait_ready();
    let later = log(&agent, &format!("?since={next}"));
    assert_eq!(number(&later, "zlh-console-offset"), next);
    assert!(later.text().contains("Done ("), "the second run goes on where the first ended");
    for bad in ["?since=-1", "?since=x", "?tail=x", "?since=99999999999999999999"] {
        let answer = agent.http().get(&format!("/console/log{bad}")).unwrap().expect(400);
        answer.problem();
    }
}

#[test]
fn bytes_that_are_no_text_arrive_as_they_are() {
    let agent = Agent::with_ready_fake(&[]);
    agent.command("noise 5000");
    let noise = zlh_tests::fake::output::noise(zlh_tests::fake::Bytes(5000));
    eventually("the noise", SOON, || {
        let seen = log(&agent, "?since=0").body;
        if seen.windows(noise.len()).any(|part| part == noise) { Ok(()) } else { Err(seen.len()) }
    });
    let mut viewer = viewer(&agent);
    agent.command("echo after-the-noise");
    viewer.wait_for("after-the-noise");
    assert_eq!(agent.status().state, zlh_api::State::Running);
}

#[test]
fn a_flood_is_whole_in_the_log_and_the_server_never_waits() {
    let agent = Agent::with_ready_fake(&[]);
    let start = log(&agent, "?since=0").body.len();
    agent.command("flood 6400000 0");
    let last = flood_line(99_999);
    let last = String::from_utf8(last).unwrap();
    until("the end of the flood", FLOODED, || log(&agent, "?tail=3").text().contains(last.trim_end()));
    let mut captured = Vec::new();
    let mut since = start as u64;
    loop {
        let chunk = log(&agent, &format!("?since={since}"));
        assert_eq!(number(&chunk, "zlh-console-offset"), since, "no gap");
        let next = number(&chunk, "zlh-console-next");
        if next == since {
            break;
        }
        captured.extend_from_slice(&chunk.body);
        since = next;
    }
    let whole = FloodCheck { range: Some((0, 99_999)), missing: 0, damaged: 0 };
    assert_eq!(check_flood(&captured), whole);
    slp::ping(agent.port.number(), SOON).unwrap();
}

#[test]
fn a_viewer_that_does_not_read_holds_up_nobody() {
    let agent = Agent::with_ready_fake(&[]);
    let lazy: Vec<Viewer> = (0..3).map(|_| viewer(&agent)).collect();
    let last = String::from_utf8(flood_line(499_999)).unwrap();
    let (mut reading, end) = (viewer(&agent), last.trim_end().as_bytes().to_vec());
    let reads = std::thread::spawn(move || {
        reading.receive_until("the end of the flood", FLOODED, |viewer| {
            let seen = viewer.received();
            seen[seen.len().saturating_sub(200)..].windows(end.len()).any(|part| part == end)
        });
    });
    agent.command("flood 32000000 0");
    reads.join().expect("who reads sees the flood to its end");
    until("the end of the flood", FLOODED, || log(&agent, "?tail=3").text().contains(last.trim_end()));
    // It reads, and would not have been kept waiting for the length of a flood.
    let mut eager = viewer(&agent);
    agent.command("echo after-the-flood");
    eager.receive_until("life after the flood", SOON, |viewer| {
        viewer.received().windows(16).rev().take(1 << 16).any(|part| part == b"after-the-flood\r")
    });
    let memory = agent.process().memory().unwrap();
    assert!(memory.rss_kib < 96 << 10, "{memory:?}");
    drop(lazy);
}

#[test]
fn one_endless_line_is_bounded_in_memory_and_in_the_status() {
    let agent = Agent::with_ready_fake(&[]);
    agent.command("line 10MB");
    agent.command("echo after-the-line");
    until("its end", FLOODED, || log(&agent, "?tail=1").text().contains("after-the-line"));
    agent.command("crash 1");
    let status = agent.wait_state(zlh_api::State::Crashed);
    let tail: usize = status.last_crash_log_tail.iter().map(String::len).sum();
    assert!(tail < 1 << 20, "{tail} bytes of log tail in a status");
    let memory = agent.process().memory().unwrap();
    assert!(memory.rss_kib < 96 << 10, "{memory:?}");
}

#[test]
fn a_following_reader_gets_what_comes() {
    use std::io::{Read, Write};
    let agent = Agent::with_ready_fake(&[]);
    let mut peer = agent.http().connect().unwrap();
    let address = agent.http().address();
    write!(peer, "GET /console/log?since=0&follow=true HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut seen = Vec::new();
    let mut wait_for = |text: &str| {
        until(text, SOON, || {
            let mut block = [0; 1 << 14];
            if let Ok(count) = peer.read(&mut block) {
                seen.extend_from_slice(&block[..count]);
            }
            String::from_utf8_lossy(&seen).contains(text)
        });
    };
    wait_for("Done (");
    agent.command("echo live-and-later");
    wait_for("live-and-later");
}

/// Old parts of the log are packed while the server is quiet; whoever reads does not notice.
#[test]
fn old_parts_of_the_log_are_packed_and_read_the_same() {
    const LINES: u64 = 200_000;
    let mut agent = Agent::with_ready_fake(&[]);
    agent.command(&format!("flood {} 0", LINES * 64));
    agent.wait_event(What::FloodEnded, "");
    agent.command("say after it");
    agent.wait_console("[Server] after it");
    let dir = agent.root_path("opt/zlh-agent/run/game/console");
    let sizes = || -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(&dir).unwrap().flatten();
        let mut sizes: Vec<_> = entries
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.len())))
            .collect();
        sizes.sort();
        sizes
    };
    let raw = || sizes().iter().filter(|(name, _)| name.ends_with(".log")).count();
    assert!(sizes().len() >= 12);
    until("all but the last two are packed", SOON, || raw() == 2);
    let on_disk: u64 = sizes().iter().map(|(_, size)| size).sum();
    assert!(on_disk < LINES * 64 / 2, "{on_disk} of {} bytes", LINES * 64);
    let whole = |agent: &Agent| {
        let check = check_flood(agent.console().as_bytes());
        assert_eq!((check.range, check.missing, check.damaged), (Some((0, LINES - 1)), 0, 0));
    };
    whole(&agent);
    // The next agent and the next shim go on with it.
    agent.kill();
    agent.start();
    whole(&agent);
    agent.wait_ready();
    agent.post("/restart", 202);
    agent.wait_status("the next run", SOON, |status| status.ready);
    agent.command("say in the next run");
    agent.wait_console("[Server] in the next run");
    whole(&agent);
}
