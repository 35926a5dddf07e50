//! What an analysis costs: 2,000 lines of console and a crash report, as the agent looks at
//! after an exit, and a large log as `zlhctl explain` does.
//!
//! `cargo bench -p zlh-crash --bench analysis`

#![allow(clippy::print_stdout, reason = "a benchmark tells its figures")]

use std::fmt::Write as _;
use std::time::Instant;

use zlh_crash::{Evidence, Text, analyse};

fn main() {
    let mut console = String::new();
    for line in 0..2_000 {
        let _ = match line % 10 {
            9 => writeln!(
                console,
                "[12:00:00] [Server thread/WARN] [a.b.Mod/]: Can't keep up! Running {line}ms behind"
            ),
            _ => writeln!(
                console,
                "[12:00:00] [Server thread/INFO] [a.b.Mod/]: Loaded {line} things of the pack"
            ),
        };
    }
    console.push_str(
        "[12:00:01] [Server thread/ERROR]: Encountered an unexpected exception\njava.lang.Error: boom\n",
    );
    let mut report = String::from(
        "---- Minecraft Crash Report ----\n\nTime: 1\nDescription: Ticking entity\n\njava.lang.Error: boom\n",
    );
    for frame in 0..60 {
        let _ = writeln!(
            report,
            "\tat TRANSFORMER/mod{frame}@1.0/com.example.mod{frame}.Thing.tick(Thing.java:{frame})"
        );
    }
    report.push_str(
        "\n-- Entity being ticked --\nDetails:\n\tEntity Type: mod1:thing (com.example.mod1.Thing)\n",
    );
    for one in 0..300 {
        let _ =
            writeln!(report, "\t\tmod{one}-1.0.jar |Mod {one} |mod{one} |1.0 |DONE |Manifest: NOSIGNATURE");
    }
    let text = |name, text: &'static str| Text { name, bytes: text.as_bytes(), first_line: 1 };
    let (console, report): (&str, &str) = (console.leak(), report.leak());
    let crash = Evidence {
        console: vec![text("console", console)],
        reports: vec![text("report", report)],
        ..Evidence::default()
    };
    measure("a crash: 2,000 lines and a report", console.len() + report.len(), 50, &crash);
    let large: &str = console.repeat(64).leak();
    let pasted = Evidence { console: vec![text("latest.log", large)], ..Evidence::default() };
    measure("a large log from anywhere", large.len(), 5, &pasted);
}

fn measure(what: &str, bytes: usize, rounds: u32, evidence: &Evidence<'_>) {
    let mut taken: Vec<f64> = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            std::hint::black_box(analyse(evidence));
            begun.elapsed().as_secs_f64()
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    let median = taken[taken.len() / 2];
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = bytes as f64 / 1e6 / median;
    println!(
        "{what}: {:.2} ms, {rate:.0} MB/s (median of {rounds}, signatures compiled each time)",
        median * 1e3
    );
}
