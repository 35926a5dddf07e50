//! `POST /console/command`: one line, or refused.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use zlh_api::{CONSOLE_OFFSET_HEADER, CommandRequest, ErrorCode, Problem};

use super::App;
use super::body::StrictJson;
use super::problem::{Answer, Failure};

/// Types one line into the console.
///
/// One line of at most 8,191 bytes, without control characters (C0, DEL, C1)
/// and without U+2028 and U+2029. Deployed callers send `cmd` instead of `command`.
#[utoipa::path(post, path = "/console/command", operation_id = "console_command", tag = "console", request_body = CommandRequest, responses(
    (status = 204, description = "Typed",
     headers(("zlh-console-offset" = u64, description = "Where in the console log what it causes can begin"))),
    (status = 400, description = "`bad_json` or `invalid_command`", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Nothing is running", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "`stdin_busy`: the server does not read its console", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn command(
    State(App(app)): State<App>,
    StrictJson(request): StrictJson<CommandRequest>,
) -> Answer<Response> {
    let offset = app.handle.send_line(one_line(&request.command)?).await?;
    Ok((StatusCode::NO_CONTENT, [(CONSOLE_OFFSET_HEADER, offset.to_string())]).into_response())
}

fn one_line(command: &str) -> Answer<&str> {
    let refuse = |why: &str| Err(Failure::new(ErrorCode::InvalidCommand, format!("the command {why}")));
    if command.trim().is_empty() {
        return refuse("is empty");
    }
    if command.len() > MAX_COMMAND_BYTES {
        return refuse("is longer than 8191 bytes; send it in parts");
    }
    if command.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return refuse("holds a control character or a line break; send one line per call");
    }
    Ok(command)
}

/// With its line feed this is what a terminal passes on uncut.
const MAX_COMMAND_BYTES: usize = 8191;

#[cfg(test)]
mod tests {
    use super::*;

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
