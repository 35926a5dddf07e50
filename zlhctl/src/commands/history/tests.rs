use serde_json::json;
use zlh_api::HistoryEvent;

use super::*;
use crate::cli::One;

fn history() -> History {
    let summary = |window: &str, uptime: Option<f64>, ready: u64, down: u64| {
        json!({
            "window": window, "uptimePercent": uptime, "readySeconds": ready, "intendedSeconds": 3600,
            "unintendedSeconds": down, "unknownSeconds": 0, "starts": 3, "crashes": u64::from(down > 0) * 2,
            "longestOutageSeconds": down, "meanSecondsBetweenCrashes": (down > 0).then_some(ready / 2),
        })
    };
    serde_json::from_value(json!({
        "now": "2026-01-31T12:00:00Z", "window": "30d", "from": "2026-01-01T12:00:00Z", "coarse": false,
        "summaries": [
            summary("24h", Some(100.0), 82_800, 0), summary("7d", Some(99.653), 600_000, 2_090),
            summary("30d", Some(99.653), 600_000, 2_090),
        ],
        "segments": [
            {"state": "stopped", "intended": true, "from": "2026-01-20T00:00:00Z", "to": "2026-01-22T00:00:00Z"},
            {"state": "ready", "intended": false, "from": "2026-01-22T00:00:00Z", "to": "2026-01-28T03:00:00Z"},
            {"state": "down", "intended": false, "from": "2026-01-28T03:00:00Z", "to": "2026-01-28T03:34:50Z"},
            {"state": "ready", "intended": false, "from": "2026-01-28T03:34:50Z", "to": "2026-01-31T12:00:00Z"},
        ],
        "events": [
            {"seq": 1, "time": "2025-12-31T23:00:00Z", "kind": "agent_started", "detail": "0.1.0"},
            {"seq": 2, "time": "2026-01-28T03:00:00Z", "kind": "crash", "instance": "a",
                "cause": "kernel_oom", "detail": "The kernel killed it for memory", "exit": {
                "code": null, "signal": 9, "signalName": "SIGKILL", "uptimeSeconds": 529_200, "wasReady": true,
                "outOfMemory": true, "seen": "2026-01-28T03:10:00Z"}},
            {"seq": 3, "time": "2026-01-28T03:10:00Z", "kind": "restart", "count": 1, "seconds": 30},
            {"seq": 4, "time": "2026-01-28T03:10:00Z", "kind": "operation_began",
                "operation": {"id": "7", "type": "start"}},
            {"seq": 5, "time": "2026-01-31T03:34:50Z", "kind": "ready", "instance": "b", "seconds": 90,
                "recorded": "2025-01-31T03:34:50Z"},
        ],
        "journal": {"since": "2026-01-20T00:00:00Z", "entries": 5, "pending": 0, "damaged": 0, "lost": 0},
    }))
    .unwrap()
}

fn options(window: HistoryWindow, events: u32) -> HistoryOptions {
    HistoryOptions { one: One { name: "lobby".to_owned() }, window, events }
}

fn drawn(options: &HistoryOptions, format: Format) -> String {
    let history = history();
    let view =
        View { history: &history, options, printer: Printer::new(format, false, true), zone: TimeZone::UTC };
    let events: Vec<&HistoryEvent> = view.events();
    let events = events::table(&events, &view.zone, view.now()).render(None, false);
    format!("{}{}{}\n{events}", view.head("lobby"), view.figures().render(None, false), view.bars())
}

#[test]
fn the_screen() {
    let expected = "\
lobby, ready; the journal goes back 11d 12h

WINDOW  UPTIME    READY   STOPPED  DOWN     STARTS  CRASHES  LONGEST  BETWEEN
24h     100.000%  23h 0m  1h 0m    -        3       0        -        -
7d      99.653%   6d 22h  1h 0m    34m 50s  3       2        34m 50s  3d 11h
30d     99.653%   6d 22h  1h 0m    34m 50s  3       2        34m 50s  3d 11h

24h ago [############################################################] now
 7d ago [###############################x############################] now
30d ago [                                     ....############x######] now
# ready  + starting  . stopped on request  x partly down  X down  blank: unknown

TIME             EVENT    DETAILS
Jan 28 03:00:00  crashed  The kernel killed it for memory (SIGKILL, out of memory after 6d 3h; no agent was there)
Jan 28 03:10:00  restart  crash 1 in a row, starts again after 30s
03:34:50         ready    1m 30s after its start (the clock said 2025-01-31T03:34:50Z)
";
    assert_eq!(drawn(&options(HistoryWindow::Week, 20), Format::Table), expected);
}

#[test]
fn the_window_and_the_count_choose_the_events() {
    let lines = |window, events, format| {
        drawn(&options(window, events), format).split("DETAILS\n").nth(1).unwrap().lines().count()
    };
    assert_eq!(lines(HistoryWindow::Day, 20, Format::Table), 1);
    assert_eq!(lines(HistoryWindow::Month, 20, Format::Wide), 4, "the oldest is older than the window");
    assert_eq!(lines(HistoryWindow::Month, 2, Format::Wide), 2);
}

#[test]
fn it_fits_80_columns() {
    let text = drawn(&options(HistoryWindow::Day, 0), Format::Table);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
