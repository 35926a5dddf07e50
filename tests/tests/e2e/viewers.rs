//! Viewers of `zlh.console.v1` against a real agent: long absences, many at once.

use std::time::Duration;

use zlh_api::{CONSOLE_PROTOCOL, ConsoleEvent};
use zlh_tests::fake::output::{FloodCheck, check_flood, flood_line};
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::wait::{SOON, until};
use zlh_tests::harness::websocket::Viewer;

/// A flood takes as long as it takes.
const FLOODED: Duration = Duration::from_secs(120);

fn viewer(agent: &Agent, query: &str) -> Viewer {
    let protocol = [("sec-websocket-protocol", CONSOLE_PROTOCOL)];
    Viewer::open(agent.http().address(), &format!("/console/stream{query}"), &protocol).unwrap()
}

fn head(agent: &Agent) -> u64 {
    let tail = agent.http().get("/console/log?tail=0").unwrap().expect(200);
    tail.header("zlh-console-offset").unwrap().parse().unwrap()
}

fn end_of_flood(last: u64) -> Vec<u8> {
    flood_line(last).trim_ascii_end().to_vec()
}

/// As many bytes as a server prints in a minute at 1 MB/s.
#[test]
fn whoever_was_away_for_sixty_megabytes_misses_no_byte() {
    const LINES: u64 = 937_500;
    let agent = Agent::with_ready_fake(&[]);
    // What it says of itself has been said.
    agent.wait_console("For help, type");
    let mut before = viewer(&agent, "");
    before.receive_until("live", SOON, |viewer| {
        viewer.events().iter().any(|event| matches!(event, ConsoleEvent::Live { .. }))
    });
    let reached = before.offset();
    assert_eq!(reached, head(&agent));
    drop(before);
    agent.command("flood 60000000 0");
    let last = end_of_flood(LINES - 1);
    let printed = reached + 60_000_000;
    until("sixty megabytes", FLOODED, || head(&agent) >= printed);
    let mut again = viewer(&agent, &format!("?since={reached}"));
    again.receive_until("the end of the flood", FLOODED, |viewer| {
        let seen = viewer.received();
        seen[seen.len().saturating_sub(200)..].windows(last.len()).any(|part| part == last)
    });
    let gaps = again.events().iter().filter(|event| matches!(event, ConsoleEvent::Dropped { .. }));
    assert_eq!(gaps.count(), 0);
    let whole = FloodCheck { range: Some((0, LINES - 1)), missing: 0, damaged: 0 };
    assert_eq!(check_flood(again.received()), whole);
    assert_eq!(again.offset(), reached + again.received().len() as u64);
}

#[test]
fn two_hundred_viewers_cost_little_and_a_stalled_one_holds_up_nobody() {
    const LINES: u64 = 30_000;
    let agent = Agent::with_ready_fake(&[]);
    let before = agent.process().memory().unwrap();
    let _stalled = viewer(&agent, "");
    let viewers: Vec<Viewer> = (0..199).map(|_| viewer(&agent, "")).collect();
    let last = end_of_flood(LINES - 1);
    let watchers: Vec<_> = viewers
        .into_iter()
        .map(|mut viewer| {
            let last = last.clone();
            std::thread::spawn(move || {
                viewer.receive_until("the end of the flood", FLOODED, |viewer| {
                    let seen = viewer.received();
                    seen[seen.len().saturating_sub(200)..].windows(last.len()).any(|part| part == last)
                });
                check_flood(viewer.received())
            })
        })
        .collect();
    agent.command(&format!("flood {} 0", LINES * 64));
    for watcher in watchers {
        let whole = FloodCheck { range: Some((0, LINES - 1)), missing: 0, damaged: 0 };
        assert_eq!(watcher.join().unwrap(), whole);
    }
    let after = agent.process().memory().unwrap();
    let grown = after.rss_kib.saturating_sub(before.rss_kib);
    println!("200 viewers: {} KiB before, {} KiB after", before.rss_kib, after.rss_kib);
    assert!(grown <= 16 << 10, "{grown} KiB more for 200 viewers");
}
