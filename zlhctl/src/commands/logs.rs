//! `zlhctl logs`: console logs by byte offset, as harmless lines.
//!
//! Following survives an agent that restarts: it goes on at the offset it had
//! reached, so nothing is missed and nothing is shown twice. Several servers are followed
//! at once; each line then says whose it is.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use zlh_api::client::{Client, ClientError, LogFollow, LogQuery};

use crate::cli::Logs;
use crate::exit::{Exit, Hint};
use crate::printer::{Paint, Printer};
use crate::target::Targets;
use crate::ui::escape::{Lines, clean};

pub(crate) async fn run(options: &Logs, targets: &Targets, printer: Printer) -> Result<Exit> {
    let query =
        LogQuery { since: options.since, tail_lines: options.since.is_none().then_some(options.lines) };
    if let ([name], true) = (options.names.as_slice(), options.labels.is_empty()) {
        let (_, client) = targets.one(name)?;
        let mut reader = Reader::new(client, printer, options, None);
        return if options.follow { reader.follow(query).await } else { reader.print(query).await };
    }
    let some = targets.some(&options.names, &options.labels)?;
    ensure!(
        options.since.is_none() || some.len() == 1,
        "--since is an offset of one server's log: name one server"
    );
    let width = some.iter().map(|target| target.name.chars().count()).max().unwrap_or(0);
    let (mut readers, total, mut failed) = (Vec::new(), some.len(), 0);
    for (target, paint) in some.into_iter().zip(PAINTS.into_iter().cycle()) {
        let name = clean(&target.name);
        let prefix = format!("{} ", printer.painted(&format!("{name:width$} |"), paint));
        match target.client {
            Ok(client) => readers.push((name, Reader::new(client, printer, options, Some(prefix)))),
            Err(error) => {
                failed += 1;
                printer.error(&error.context(name));
            }
        }
    }
    let read = readers.into_iter().map(|(name, mut reader)| async move {
        let read = if options.follow { reader.follow(query).await } else { reader.print(query).await };
        read.map_err(|error| printer.error(&error.context(name))).is_ok()
    });
    // Logs that end are not mixed; logs that go on are, line by line.
    let all = if options.follow {
        join_all(read).await
    } else {
        let mut all = Vec::new();
        for one in read {
            all.push(one.await);
        }
        all
    };
    failed += all.iter().filter(|well| !**well).count();
    Ok(Exit::of(total, failed))
}

/// Prints pieces of one log in order.
struct Reader {
    client: Client,
    printer: Printer,
    lines: Lines,
    prefix: Option<String>,
    grep: Option<String>,
}

impl Reader {
    fn new(client: Client, printer: Printer, options: &Logs, prefix: Option<String>) -> Self {
        Self { client, printer, lines: Lines::default(), prefix, grep: options.grep.clone() }
    }

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
        self.show(&rest)?;
        Ok(Exit::Ok)
    }

    async fn follow(&mut self, query: LogQuery) -> Result<Exit> {
        let mut stream = self.client.console_follow(query).await?;
        self.gap(query.since, stream.next);
        loop {
            match self.drain(&mut stream).await? {
                None => self.note("the agent ended the log: waiting for it to come back"),
                Some(error) => self.note(&format!("{error}: waiting for it to come back")),
            }
            stream = self.again(stream.next).await?;
            self.note("connected again");
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
                Err(error) => return Err(error).hint("`zlhctl status` shows how it is"),
            }
        }
    }

    fn piece(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut text = String::with_capacity(bytes.len());
        self.lines.push(bytes, &mut text);
        self.show(&text)
    }

    /// Whole lines: the wanted ones, each with whose it is.
    fn show(&self, text: &str) -> std::io::Result<()> {
        if self.prefix.is_none() && self.grep.is_none() {
            return self.printer.data(text);
        }
        let mut out = String::with_capacity(text.len());
        let wanted = |line: &&str| self.grep.as_deref().is_none_or(|grep| line.contains(grep));
        for line in text.lines().filter(wanted) {
            out.push_str(self.prefix.as_deref().unwrap_or_default());
            out.push_str(line);
            out.push('\n');
        }
        self.printer.data(&out)
    }

    fn note(&self, text: &str) {
        self.printer.note(&format!("{}{text}", self.prefix.as_deref().unwrap_or_default()));
    }

    /// What was asked for may have been rotated away.
    fn gap(&self, asked: Option<u64>, got: u64) {
        if let Some(asked) = asked.filter(|&asked| got > asked) {
            self.printer.warning(&format!("bytes {asked} to {got} are no longer kept"));
        }
    }
}

/// Whose line it is: told by the name, and by a colour where there are colours.
const PAINTS: [Paint; 4] = [Paint::Good, Paint::Busy, Paint::Bold, Paint::Bad];
const RETRY: Duration = Duration::from_secs(1);
const MAX_PIECES: usize = 10_000;
