//! Without a terminal: a player joins, says hello, and leaves.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::Command;
use zlh_api::client::LogQuery;

use super::Running;
use super::signals::Signals;
use crate::exit::Hint;
use crate::ui::escape::{Lines, one_line};
use crate::ui::progress::Progress;

pub(super) async fn tell(running: &Running, signals: &mut Signals, progress: &Progress) -> Result<()> {
    tokio::select! {
        result = hello(running, progress) => result,
        () = signals.next() => bail!("interrupted"),
    }
}

async fn hello(running: &Running, progress: &Progress) -> Result<()> {
    let line = progress.line("player");
    line.text("a bot joins");
    let before = running.client.console_log(LogQuery { since: None, tail_lines: Some(0) }).await?.next;
    // Nobody but this run can have said this.
    let words = format!("hello from zlh {}", std::process::id());
    bot(running, &words).await?;
    let said = format!("<{BOT}> {words}");
    let deadline = Instant::now() + LOG_TIMEOUT;
    while !console_since(running, before).await?.contains(&said) {
        if Instant::now() > deadline {
            return Err(anyhow!("the bot was heard, but its words are not in the console log"))
                .hint(format!("`{} logs {}` shows it", running.layout.wrapper_shown(), super::NAME));
        }
        tokio::time::sleep(POLL).await;
    }
    line.finish(&format!("`{said}` stands in the console log; it left"));
    Ok(())
}

async fn console_since(running: &Running, offset: u64) -> Result<String> {
    let chunk = running.client.console_log(LogQuery { since: Some(offset), tail_lines: None }).await?;
    let (mut lines, mut text) = (Lines::default(), String::new());
    lines.push(&chunk.bytes, &mut text);
    Ok(text)
}

/// Runs the bot on the Node that the agent installed.
async fn bot(running: &Running, words: &str) -> Result<()> {
    let node = running.layout.installed_node();
    let run = Command::new(&node)
        .arg(running.layout.npm.join("bot.mjs"))
        .args(["127.0.0.1", &running.port.to_string(), BOT, words])
        .current_dir(&running.layout.npm)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(BOT_TIMEOUT, run)
        .await
        .map_err(|_| anyhow!("the bot did not end"))?
        .with_context(|| format!("cannot run `{}`", node.display()))?;
    if !output.status.success() {
        bail!(
            "the bot could not play ({}): {}",
            output.status,
            one_line(&String::from_utf8_lossy(&output.stderr))
        );
    }
    Ok(())
}

const BOT: &str = "ZlhBot";
const BOT_TIMEOUT: Duration = Duration::from_secs(45);
const LOG_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);
