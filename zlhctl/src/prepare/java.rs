//! Somebody else's Java program, run once: with next to no environment, for a limited time,
//! its last words kept.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::exit::Hint;
use crate::ui::units;

/// Runs it in `dir`, with `home` as its user's folder. An error has the end of what it printed.
pub(super) async fn run(
    java: &Path,
    args: &[OsString],
    dir: &Path,
    home: &Path,
    patience: Duration,
) -> Result<()> {
    let shown = java.display();
    let mut user_home = OsString::from("-Duser.home=");
    user_home.push(home);
    // One pipe for both, so that the order of the lines stays.
    let (output, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut command = Command::new(program(java)?);
    command.arg(user_home).args(args).current_dir(dir).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    command.env("HOME", home).env("LANG", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("cannot make a pipe")?).stderr(writer);
    let child = command
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))
        .hint("--java FILE says where Java is")?;
    // It holds the other end of the pipe.
    drop(command);
    let last_words = tokio::task::spawn_blocking(move || tail(output));
    let status = wait(child, patience).await?;
    // A process that it left behind may hold the pipe open.
    let last_words = match tokio::time::timeout(LATE_WORDS, last_words).await {
        Ok(words) => words?,
        Err(_) => "unknown: something that it started still holds its output".to_owned(),
    };
    let said = if last_words.is_empty() { String::new() } else { format!("; it said: {last_words}") };
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(anyhow!("`{shown}` failed with {status}{said}"))
            .hint("does it need another Java (--java), or the network?"),
        None => Err(anyhow!("`{shown}` was not done after {}{said}", units::duration(patience)))
            .hint("it was killed; is the network slow, or does it wait for something?"),
    }
}

/// A path stays what it is in another folder; a name is looked up on the PATH.
fn program(java: &Path) -> Result<PathBuf> {
    match java.components().count() {
        0 | 1 => Ok(java.to_owned()),
        _ => std::path::absolute(java).with_context(|| format!("cannot find `{}`", java.display())),
    }
}

/// Its status; `None` if it was killed because its time was over.
async fn wait(mut child: Child, patience: Duration) -> Result<Option<ExitStatus>> {
    let interrupted = tokio::select! {
        status = child.wait() => return Ok(Some(status?)),
        () = tokio::time::sleep(patience) => false,
        result = tokio::signal::ctrl_c() => result.map(|()| true)?,
    };
    // Not waited for yet, so the number is still its own.
    if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // One that has just ended is waited for all the same.
        let _ = kill_process_group(group, Signal::KILL);
    }
    child.wait().await?;
    anyhow::ensure!(!interrupted, "interrupted");
    Ok(None)
}

/// The last lines of all that comes, on one line.
fn tail(mut output: impl Read) -> String {
    let (mut kept, mut buffer) = (VecDeque::<u8>::new(), [0; 4096]);
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        kept.extend(&buffer[..count]);
        kept.drain(..kept.len().saturating_sub(MAX_KEPT_BYTES));
    }
    let kept: Vec<u8> = kept.into();
    let text = String::from_utf8_lossy(&kept);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(MAX_LINES)..].join(" / ")
}

const MAX_KEPT_BYTES: usize = 4096;
const MAX_LINES: usize = 12;
const LATE_WORDS: Duration = Duration::from_secs(2);
