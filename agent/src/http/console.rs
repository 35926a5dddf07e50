//! `POST /console/command`: one line, or refused; what followed it, if the caller waits.

use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use tokio::time::timeout_at;
use utoipa::IntoParams;
use zlh_api::{CONSOLE_OFFSET_HEADER, CommandChannel, CommandOutput, CommandRequest, ErrorCode, Problem};

use super::body::{StrictJson, is_one_line};
use super::guard::Caller;
use super::limits::{COMMANDS, Source};
use super::problem::{Answer, Failure};
use super::{App, Inner};
use crate::console::{Console, text};
use crate::game::rcon::{self, Rcon};

/// Whether the caller waits.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wait {
    /// Milliseconds, 10,000 at most: answer with the lines that follow, at the latest then.
    wait: Option<u64>,
}

/// Types one line into the console.
///
/// One line of at most 8,191 bytes, without control characters (C0, DEL, C1)
/// and without U+2028 and U+2029. Deployed callers send `cmd` instead of `command`.
/// With `?wait=` the answer is what the server printed from then on: once it has been silent
/// for 250 ms after its first line, and at the latest after that time. (A console answers
/// nobody in particular: what something else made it print stands there, too. A server that has RCON
/// enabled is asked by it instead, and the answer is its answer; `channel` says which.) A caller has
/// 500 commands at once and 50 more each second. Who typed what stands in `GET /history`.
#[utoipa::path(post, path = "/console/command", operation_id = "console_command", tag = "console", params(Wait), request_body = CommandRequest, responses(
    (status = 200, description = "With `?wait=`: what followed", body = CommandOutput),
    (status = 204, description = "Typed",
     headers(("zlh-console-offset" = u64, description = "Where in the console log what it causes can begin"))),
    (status = 400, description = "`bad_json` or `invalid_command`", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Nothing is running", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "`too_many_requests`: wait as `Retry-After` says", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "`stdin_busy`: the server does not read its console", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn command(
    State(App(app)): State<App>,
    Extension(caller): Extension<Caller>,
    wait: Result<Query<Wait>, QueryRejection>,
    StrictJson(request): StrictJson<CommandRequest>,
) -> Answer<Response> {
    let invalid = |detail: String| Failure::new(ErrorCode::InvalidRequest, detail);
    let Query(Wait { wait }) = wait.map_err(|error| invalid(error.body_text()))?;
    if wait.is_some_and(|wait| wait > MAX_WAIT_MS) {
        return Err(invalid(format!("wait is more than {MAX_WAIT_MS} milliseconds")));
    }
    let line = one_line(&request.command)?;
    app.pace.take(Source::from(caller.peer), Instant::now()).map_err(|wait| {
        let detail = format!("more than {COMMANDS} commands at once; send them more slowly");
        Failure::new(ErrorCode::TooManyRequests, detail).retry_after(wait)
    })?;
    if let Some(wait) = wait
        && let Some(output) = ask(&app, line, Duration::from_millis(wait)).await
    {
        app.audit.command(caller.peer, line);
        let header = [(CONSOLE_OFFSET_HEADER, output.offset.to_string())];
        return Ok((header, Json(output)).into_response());
    }
    let offset = app.handle.send_line(line).await?;
    app.audit.command(caller.peer, line);
    let header = [(CONSOLE_OFFSET_HEADER, offset.to_string())];
    let Some(wait) = wait else { return Ok((StatusCode::NO_CONTENT, header).into_response()) };
    let output = follow(app.handle.console(), offset, line, Duration::from_millis(wait)).await;
    let output = output.map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("the console log cannot be read: {error}"))
    })?;
    Ok((header, Json(output)).into_response())
}

/// By RCON, if the server has it; none when it was not carried out.
async fn ask(app: &Inner, command: &str, within: Duration) -> Option<CommandOutput> {
    let (root, pid) = {
        let changes = app.handle.changes();
        let now = changes.borrow();
        (now.root.clone()?, now.process.as_ref()?.0)
    };
    if command.len() > rcon::MAX_COMMAND {
        return None;
    }
    let rcon = tokio::task::spawn_blocking(move || Rcon::of(&root, pid)).await.ok()??;
    // Not to be reached: the console serves as well.
    let session = rcon.login().await.ok()?;
    let offset = app.handle.console().head();
    let said = session.run(command, within, MAX_OUTPUT_BYTES).await;
    let plain = text::plain(without_colours(&said.text).as_bytes());
    let mut lines: Vec<String> =
        plain.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let truncated = said.truncated || lines.len() > MAX_OUTPUT_LINES;
    lines.truncate(MAX_OUTPUT_LINES);
    let next = app.handle.console().head();
    Some(CommandOutput { offset, next, lines, truncated, channel: CommandChannel::Rcon })
}

/// Minecraft's own colour codes are for its clients.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{a7}' => drop(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

/// What is printed from `offset` on: until it is silent, it is enough, or time is up.
async fn follow(
    console: &Console,
    offset: u64,
    command: &str,
    wait: Duration,
) -> std::io::Result<CommandOutput> {
    let end = tokio::time::Instant::now() + wait;
    let mut head = console.subscribe();
    let (mut at, mut bytes, mut quiet) = (offset, Vec::new(), None);
    loop {
        let written = *head.borrow_and_update();
        while at < written && bytes.len() < MAX_OUTPUT_BYTES {
            let piece = console.read(at, MAX_OUTPUT_BYTES - bytes.len()).await?;
            if piece.bytes.is_empty() {
                break;
            }
            at = piece.offset + piece.bytes.len() as u64;
            bytes.extend_from_slice(&piece.bytes);
        }
        if bytes.len() >= MAX_OUTPUT_BYTES {
            break;
        }
        // The first line that is more than the echo: from then on silence is an end.
        if !lines(&bytes, command).is_empty() {
            quiet = Some(tokio::time::Instant::now() + QUIET);
        }
        match timeout_at(quiet.map_or(end, |quiet| quiet.min(end)), head.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let mut lines = lines(&bytes, command);
    let truncated = bytes.len() >= MAX_OUTPUT_BYTES || lines.len() > MAX_OUTPUT_LINES;
    lines.truncate(MAX_OUTPUT_LINES);
    Ok(CommandOutput { offset, next: at, lines, truncated, channel: CommandChannel::Console })
}

/// Harmless lines, without the terminal's echo of the command.
fn lines(bytes: &[u8], command: &str) -> Vec<String> {
    let plain = text::plain(bytes);
    let mut lines: Vec<&str> = plain.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let is_echo = |line: &str| line.trim_start_matches(['>', ' ']) == command.trim();
    if lines.first().is_some_and(|line| is_echo(line)) {
        lines.remove(0);
    }
    lines.into_iter().map(str::to_owned).collect()
}

fn one_line(command: &str) -> Answer<&str> {
    let refuse = |why: &str| Err(Failure::new(ErrorCode::InvalidCommand, format!("the command {why}")));
    if command.trim().is_empty() {
        return refuse("is empty");
    }
    if command.len() > MAX_COMMAND_BYTES {
        return refuse("is longer than 8191 bytes; send it in parts");
    }
    if !is_one_line(command) {
        return refuse("holds a control character or a line break; send one line per call");
    }
    Ok(command)
}

/// With its line feed this is what a terminal passes on uncut.
const MAX_COMMAND_BYTES: usize = 8191;

const MAX_WAIT_MS: u64 = 10_000;
/// Silence after the first line that ends the waiting.
const QUIET: Duration = Duration::from_millis(250);
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
const MAX_OUTPUT_LINES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_is_no_answer() {
        assert!(lines(b"list\r\n", "list").is_empty());
        assert!(lines(b"> list\r\n\r\n", "list ").is_empty());
        let answer = b"list\r\n\x1b[32mThere are 2 players\x1b[0m\r\nlist\r\n";
        assert_eq!(lines(answer, "list"), ["There are 2 players", "list"]);
        assert_eq!(lines(b"Unknown command", "lst"), ["Unknown command"]);
    }

    #[test]
    fn colours_of_the_game_are_left_out() {
        assert_eq!(without_colours("\u{a7}aThere\u{a7}r are 2\u{a7}"), "There are 2");
    }

    #[test]
    fn c1_one_line_or_refused() {
        for good in ["say hi", " x ", "say ünï ☃ 🎮", &"a".repeat(8191)] {
            assert_eq!(one_line(good).unwrap(), good);
        }
        let long = "a".repeat(8192);
        for bad in [
            "",
            "  ",
            "say hi\nstop",
            "say hi\rstop",
            "\n",
            "a\0b",
            "a\u{2028}b",
            "a\u{2029}b",
            "a\u{85}b",
            "a\tb",
            "a\u{7f}",
            "\u{1b}[2J",
            "a\u{9b}31m",
            &long,
        ] {
            let failure = one_line(bad).unwrap_err();
            assert!(failure.to_json().contains("invalid_command"), "{bad:?}");
        }
    }
}
