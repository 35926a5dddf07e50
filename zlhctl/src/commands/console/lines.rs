//! Line by line: for scripts and pipes.

use std::time::Duration;

use anyhow::Result;
use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};
use zlh_api::client::{Client, LogQuery};

use crate::exit::Exit;
use crate::printer::Printer;
use crate::terminal;
use crate::ui::escape;

pub(crate) async fn run(client: &Client, printer: Printer) -> Result<Exit> {
    // The cursor first, so that no answer falls between sending and reading.
    let mut stream = client.console_follow(LogQuery { since: None, tail_lines: Some(0) }).await?;
    let mut input = terminal::input();
    let mut lines = Lines::default();
    let mut output = escape::Lines::default();
    let mut quiet_at: Option<Instant> = None;
    let mut end_at: Option<Instant> = None;
    loop {
        let until = quiet_at.into_iter().chain(end_at).min();
        let chunk = tokio::select! {
            piece = input.recv(), if end_at.is_none() => {
                let at_end = piece.is_none();
                let complete = match piece {
                    Some(bytes) => lines.push(&bytes?)?,
                    None => lines.finish()?,
                };
                for line in complete {
                    client.command(&line).await?;
                }
                if at_end {
                    end_at = Some(Instant::now() + LINGER);
                    quiet_at = Some(Instant::now() + QUIET);
                }
                continue;
            }
            chunk = stream.chunk() => chunk,
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                // On a machine that rested: what has come meanwhile is shown.
                match stream.chunk().now_or_never() {
                    Some(chunk) if end_at.is_some_and(|end| Instant::now() < end) => chunk,
                    _ => return Ok(Exit::Ok),
                }
            }
        };
        let Some(bytes) = chunk? else { return Ok(Exit::Ok) };
        let mut text = String::new();
        output.push(&bytes, &mut text);
        printer.data(&text)?;
        quiet_at = end_at.map(|_| Instant::now() + QUIET);
    }
}

/// Cuts input into lines.
#[derive(Debug, Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>> {
        self.pending.extend_from_slice(bytes);
        let Some(last) = self.pending.iter().rposition(|&b| b == b'\n') else {
            anyhow::ensure!(
                self.pending.len() <= MAX_LINE_BYTES,
                "a line of the input is longer than {MAX_LINE_BYTES} bytes"
            );
            return Ok(Vec::new());
        };
        let rest = self.pending.split_off(last + 1);
        split(&std::mem::replace(&mut self.pending, rest))
    }

    /// The last line, when it has no line feed.
    fn finish(&mut self) -> Result<Vec<String>> {
        split(&std::mem::take(&mut self.pending))
    }
}

fn split(bytes: &[u8]) -> Result<Vec<String>> {
    let text = std::str::from_utf8(bytes).map_err(|_| anyhow::anyhow!("the input is not UTF-8"))?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

/// After the last line of input: until the server has been silent for so long …
const QUIET: Duration = Duration::from_millis(700);
/// … but no longer than this.
const LINGER: Duration = Duration::from_secs(5);
const MAX_LINE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_pieces_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"say h").unwrap(), Vec::<String>::new());
        assert_eq!(lines.push("é\r\n\n  \nlist\nst".as_bytes()).unwrap(), ["say hé", "list"]);
        assert_eq!(lines.push(b"op").unwrap(), Vec::<String>::new());
        assert_eq!(lines.finish().unwrap(), ["stop"]);
        assert_eq!(lines.finish().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_line_without_end_and_binary_noise_are_refused() {
        let mut lines = Lines::default();
        assert!(lines.push(&vec![b'x'; MAX_LINE_BYTES + 1]).is_err());
        assert!(Lines::default().push(b"\xff\n").is_err());
    }
}
