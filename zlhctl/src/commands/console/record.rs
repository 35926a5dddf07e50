//! A recording of what is shown, in the form that players of terminal sessions take
//! (asciicast v2): a header, then one event a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

/// A file that is being recorded into.
#[derive(Debug)]
pub(super) struct Recording {
    file: File,
    began: Instant,
    /// Begin of a character whose end has not come yet.
    partial: Vec<u8>,
}

impl Recording {
    /// Begins a recording. What exists is never overwritten.
    pub(super) fn begin(path: &Path, name: &str, (columns, rows): (u16, u16)) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).with_context(|| format!("cannot record into {}", path.display()))?;
        let mut recording = Self { file, began: Instant::now(), partial: Vec::new() };
        let header = json!({
            "version": 2, "width": columns, "height": rows, "title": name,
            "timestamp": jiff::Timestamp::now().as_second(),
        });
        recording.line(&header)?;
        Ok(recording)
    }

    /// What is shown. A character that is cut by the end of a piece is kept for the next one.
    pub(super) fn shown(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.partial.extend_from_slice(bytes);
        let keep = match std::str::from_utf8(&self.partial) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.partial.len(),
        };
        let rest = self.partial.split_off(keep);
        let text = std::mem::replace(&mut self.partial, rest);
        if text.is_empty() {
            return Ok(());
        }
        self.line(&json!([self.began.elapsed().as_secs_f64(), "o", String::from_utf8_lossy(&text)]))
    }

    /// The window of whoever watches has another size now.
    pub(super) fn resized(&mut self, columns: u16, rows: u16) -> io::Result<()> {
        self.line(&json!([self.began.elapsed().as_secs_f64(), "r", format!("{columns}x{rows}")]))
    }

    /// One write a line: a recording that is cut off is good up to its last line.
    fn line(&mut self, value: &serde_json::Value) -> io::Result<()> {
        self.file.write_all(format!("{value}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_a_header_and_events_of_whole_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evening.cast");
        let mut recording = Recording::begin(&path, "lobby", (80, 24)).unwrap();
        recording.shown(b"hi \xf0\x9f").unwrap();
        recording.shown(b"\x98").unwrap();
        recording.shown(b"\x80\x1b[0m\xff\r\n").unwrap();
        recording.resized(100, 30).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (&lines[0]["version"], &lines[0]["width"], &lines[0]["height"]),
            (&2.into(), &80.into(), &24.into())
        );
        let said: Vec<_> =
            lines[1..].iter().map(|event| (event[1].as_str().unwrap(), event[2].as_str().unwrap())).collect();
        assert_eq!(said, [("o", "hi "), ("o", "😀\u{1b}[0m\u{fffd}\r\n"), ("r", "100x30")]);
        assert!(lines[1][0].as_f64().unwrap() <= lines[2][0].as_f64().unwrap());
        let error = Recording::begin(&path, "lobby", (80, 24)).unwrap_err();
        assert!(error.to_string().contains("evening.cast"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "what exists is kept");
    }
}
