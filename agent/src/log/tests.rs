//! What a log line promises.

use std::sync::{Condvar, Mutex};

use serde_json::Value;
use slog::{error, info};

use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn written(form: Form, vmid: Vmid, act: impl FnOnce(&Logger)) -> String {
    let buffer = Buffer::default();
    let (log, guard) = build(form, LogLevel::Info, vmid, buffer.clone());
    act(&log);
    guard.flush(Duration::from_secs(10));
    buffer.text()
}

#[test]
fn every_json_line_says_when_who_and_where() {
    let text = written(Form::Json, Vmid::new(None), |log| {
        info!(log, "starting"; "pid" => 7_u32, "ready" => true, "reason" => None::<u32>);
        let http = component(log, "http");
        error!(http.new(o!("component" => "inner")), "a \"quoted\"\nline"; "vmid" => 9, "path" => "/x\u{1b}[2J");
    });
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["component"], "agent");
    assert_eq!((&lines[0]["pid"], &lines[0]["ready"]), (&Value::from(7), &Value::from(true)));
    assert_eq!((&lines[0]["vmid"], &lines[0]["reason"]), (&Value::Null, &Value::Null));
    assert_eq!(lines[1]["component"], "inner");
    assert_eq!(lines[1]["level"], "error");
    assert_eq!(lines[1]["msg"], "a \"quoted\"\nline");
    assert!(lines[1]["ts"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(text.matches("\"component\":").count(), 2, "a key twice in a line: {text}");
    assert_eq!(text.matches("\"vmid\":").count(), 2, "a key twice in a line: {text}");
}

#[test]
fn the_vmid_may_become_known_later() {
    let vmid = Vmid::new(None);
    vmid.set(5001);
    let text = written(Form::Json, vmid, |log| info!(log, "configured"));
    assert!(text.contains("\"vmid\":5001"), "{text}");
}

#[test]
fn a_human_line_is_one_line_whatever_is_in_it() {
    let text = written(Form::Human { colour: false }, Vmid::new(Some(5001)), |log| {
        info!(component(log, "http"), "evil\nsecond"; "path" => "/\u{1b}]52;c;x\u{7}\u{202e}\u{9b}1m");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.trim_end().contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
    assert!(text.contains("info  http") && text.contains("vmid=5001"), "{text}");
}

#[test]
fn below_the_level_nothing_is_written() {
    assert_eq!(written(Form::Json, Vmid::default(), |log| slog::debug!(log, "quiet")), "");
}

#[test]
fn a_closed_pipe_is_survived() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let (log, guard) = build(Form::Json, LogLevel::Info, Vmid::default(), Closed);
    for _ in 0..10 {
        info!(log, "into the void");
    }
    guard.flush(Duration::from_secs(10));
}

#[test]
fn a_pipe_nobody_reads_blocks_neither_the_caller_nor_the_end() {
    #[derive(Clone, Default)]
    struct Stuck {
        open: Arc<(Mutex<bool>, Condvar)>,
        buffer: Buffer,
    }
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (open, changed) = &*self.open;
            drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
            self.buffer.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let stuck = Stuck::default();
    let (log, guard) = build(Form::Json, LogLevel::Info, Vmid::default(), stuck.clone());
    // Returning from this loop at all is the point: the queue is far smaller.
    for _ in 0..QUEUED_LINES * 3 {
        info!(log, "flood");
    }
    *stuck.open.0.lock().unwrap() = true;
    stuck.open.1.notify_all();
    // The next lines find room again and bring the count of the dropped ones along.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !stuck.buffer.text().contains("dropped") {
        assert!(std::time::Instant::now() < deadline, "no line says how many were dropped");
        info!(log, "after the flood");
        std::thread::yield_now();
    }
    drop(log);
    guard.flush(Duration::from_secs(10));
    let text = stuck.buffer.text();
    let report = text.lines().find(|line| line.contains("dropped")).unwrap();
    assert!(report.contains("\"component\":") && report.contains("\"vmid\":"), "{report}");
}

#[test]
fn the_end_does_not_wait_for_a_stuck_pipe() {
    struct Never;
    impl Write for Never {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            loop {
                std::thread::park();
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (log, guard) = build(Form::Json, LogLevel::Info, Vmid::default(), Never);
    info!(log, "stuck");
    let started = std::time::Instant::now();
    guard.flush(Duration::from_millis(50));
    assert!(started.elapsed() < Duration::from_secs(60));
}
