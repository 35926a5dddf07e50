//! `zlhctl logs`: the console log by byte offset, as harmless lines.
//!
//! Following survives an agent that restarts: it goes on at the offset it had
//! reached, so nothing is missed and nothing is shown twice.

use std::time::Duration;

use anyhow::Result;
use zlh_api::client::{Client, ClientError, LogFollow, LogQuery};

use crate::cli::Logs;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::target::Targets;
use crate::ui::escape::Lines;

pub(crate) async fn run(options: &Logs, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (_, client) = targets.one(&options.one.name)?;
    let query =
        LogQuery { since: options.since, tail_lines: options.since.is_none().then_some(options.lines) };
    let mut reader = Reader { client, printer, lines: Lines::default() };
    if options.follow { reader.follow(query).await } else { reader.print(query).await }
}

/// Prints pieces of one log in order.
struct Reader {
    client: Client,
    printer: Printer,
    lines: Lines,
}

impl Reader {
    async fn print(&mut self, query: LogQuery) -> Result<Exit> {
        let mut chunk = self.client.console_log(query).await?;
        self.gap(query.since, chunk.offset);
        // The end as it was when we asked last: a server that never stops writing does not keep us.
        for _ in 0..MAX_PIECES {
            self.piece(&chunk.bytes)?;
            if chunk.bytes.is_empty() || query.since.is_none() {
                break;
            }
            chunk = self.client.console_log(LogQuery { since: Some(chunk.next), tail_lines: None }).await?;
        }
        let mut rest = String::new();
        self.lines.finish(&mut rest);
        self.printer.data(&rest)?;
        Ok(Exit::Ok)
    }

    async fn follow(&mut self, query: LogQuery) -> Result<Exit> {
        let mut stream = self.client.console_follow(query).await?;
        self.gap(query.since, stream.next);
        loop {
            match self.drain(&mut stream).await? {
                None => self.printer.note("the agent ended the log: waiting for it to come back"),
                Some(error) => self.printer.note(&format!("{error}: waiting for it to come back")),
            }
            stream = self.again(stream.next).await?;
            self.printer.note("connected again");
        }
    }

    /// Until the stream ends or breaks; only a terminal that does not take it is an error.
    async fn drain(&mut self, stream: &mut LogFollow) -> Result<Option<ClientError>> {
        loop {
            match stream.chunk().await {
                Ok(Some(bytes)) => self.piece(&bytes)?,
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            }
        }
    }

    async fn again(&mut self, next: u64) -> Result<LogFollow> {
        loop {
            tokio::time::sleep(RETRY).await;
            match self.client.console_follow(LogQuery { since: Some(next), tail_lines: None }).await {
                Ok(stream) => {
                    self.gap(Some(next), stream.next);
                    return Ok(stream);
                }
                Err(
                    ClientError::Unreachable { .. }
                    | ClientError::Timeout { .. }
                    | ClientError::Broken { .. },
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn piece(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut text = String::with_capacity(bytes.len());
        self.lines.push(bytes, &mut text);
        self.printer.data(&text)
    }

    /// What was asked for may have been rotated away.
    fn gap(&self, asked: Option<u64>, got: u64) {
        if let Some(asked) = asked.filter(|&asked| got > asked) {
            self.printer.warning(&format!("bytes {asked} to {got} are no longer kept"));
        }
    }
}

const RETRY: Duration = Duration::from_secs(1);
const MAX_PIECES: usize = 10_000;
