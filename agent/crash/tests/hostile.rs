//! What a tenant can print: it costs time in proportion to its (bounded) size, and names no
//! cause that is not there.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use zlh_crash::gather::ConsoleWindow;
use zlh_crash::{Analysis, Cause, Evidence, Exit, Text, analyse};

/// Far more than it takes, on any machine; a quadratic step would need hours.
const PATIENCE: Duration = Duration::from_secs(60);

fn of(bytes: &[u8]) -> Analysis {
    let begun = Instant::now();
    let text = Text { name: "latest.log", bytes, first_line: 1 };
    let analysis = analyse(&Evidence { console: vec![text], ..Evidence::default() });
    assert!(begun.elapsed() < PATIENCE, "{:?} for {} bytes", begun.elapsed(), bytes.len());
    analysis
}

#[test]
fn one_line_of_a_hundred_megabytes_is_cut_by_the_window() {
    let piece = vec![b'x'; 1 << 20];
    let mut window = ConsoleWindow::default();
    for _ in 0..100 {
        window.push(&piece);
    }
    window.push(
        b"\n[12:00:00] [Server thread/ERROR]: A single server tick took 60.00 seconds (should be max 0.05)\n",
    );
    let console = window.texts();
    assert!(console.iter().map(|text| text.bytes.len()).sum::<usize>() <= 1 << 20);
    let analysis = analyse(&Evidence { console, ..Evidence::default() });
    assert_eq!(analysis.cause, Some(Cause::Watchdog));
}

#[test]
fn a_million_stack_lines() {
    let mut log =
        b"[12:00:00] [Server thread/ERROR]: Encountered an unexpected exception\njava.lang.Error: x\n"
            .to_vec();
    for line in 0..1_000_000 {
        log.extend_from_slice(format!("\tat a.b.C.m{line}(C.java:{line})\n").as_bytes());
    }
    assert_eq!(of(&log).cause, Some(Cause::LoopCrash));
}

#[test]
fn a_thousand_causes_of_causes_and_of_plugin_errors() {
    let mut log =
        b"[12:00:00] [Server thread/ERROR]: Encountered an unexpected exception\njava.lang.Error: x\n"
            .to_vec();
    for depth in 0..20_000 {
        log.extend_from_slice(
            format!("Caused by: a.b.E{depth}: {depth}\n\tat a.b.C.d(C.java:1)\n").as_bytes(),
        );
    }
    assert!(of(&log).cause.is_some());
    // What a plugin repeats pushes out neither the beginning nor the end.
    let spam = "[12:00:00] [Server thread/ERROR]: Could not pass event E to Spam v1\njava.lang.Error: y\n\tat s.S.t(S.java:1)\n".repeat(5_000);
    let end = "[12:00:01] [Server thread/ERROR]: Encountered an unexpected exception\njava.lang.OutOfMemoryError: Java heap space\n";
    assert_eq!(of(format!("{spam}{end}").as_bytes()).cause, Some(Cause::Heap));
    assert_eq!(of(format!("{end}{spam}").as_bytes()).cause, Some(Cause::Heap));
}

#[test]
fn noise_names_nothing() {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state.to_be_bytes()[0]
        })
        .collect();
    for bytes in [
        noise.as_slice(),
        &[0; 1 << 16],
        &b"\n".repeat(1 << 20),
        &b"[".repeat(1 << 20),
        &b"at (".repeat(1 << 18),
        b"",
    ] {
        assert!(of(bytes).healthy);
    }
}

#[test]
fn utf_16_reads_like_anything_else() {
    let text = "Error: Unable to access jarfile server.jar\r\n";
    for read in [u16::to_le_bytes, u16::to_be_bytes] {
        let wide: Vec<u8> = text.encode_utf16().flat_map(read).collect();
        assert_eq!(of(&wide).cause, Some(Cause::JarMissing));
    }
}

#[test]
fn secrets_stay_out_of_what_is_kept() {
    let log = "[12:00:00] [Server thread/ERROR]: Encountered an unexpected exception\n\
               java.lang.IllegalStateException: Steve[/203.0.113.7:5000] --accessToken abcdef mail bob@example.org\n\
               \tat a.b.C.d(C.java:1)\n";
    let text = Text { name: "console", bytes: log.as_bytes(), first_line: 1 };
    let exit = Some(Exit { code: Some(1), ..Exit::default() });
    let kept =
        serde_json::to_string(&analyse(&Evidence { exit, console: vec![text], ..Evidence::default() }))
            .unwrap();
    for secret in ["203.0.113.7", "abcdef", "bob@example.org"] {
        assert!(!kept.contains(secret), "{secret} in {kept}");
    }
    assert!(kept.contains("Steve"));
}
