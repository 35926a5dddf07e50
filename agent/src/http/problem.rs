//! Errors on their way out: every refusal is `application/problem+json`.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use zlh_api::{ErrorCode, Problem};

/// A [`Problem`] with the headers that belong to it.
#[derive(Debug)]
pub(crate) struct Failure {
    problem: Problem,
    retry_after: Option<Duration>,
}

/// What handlers return.
pub(crate) type Answer<T = Response> = Result<T, Failure>;

impl Failure {
    /// A failure with the code's own status.
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    /// The same code under a status that says more.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.problem.status = status.as_u16();
        self.problem.title = status.canonical_reason().unwrap_or_default().to_owned();
        self
    }

    /// Says when it is worth another try.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The status it is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body, for answers given before there is a request.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(&self.problem).unwrap_or_default()
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem, retry_after: None }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"zlh-agent\""));
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

/// Text of the caller's, short enough and tame enough to be repeated to him.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// RFC 9457.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";
const MAX_QUOTED_CHARS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_short_and_tame() {
        assert_eq!(quoted("a\n\u{1b}b"), "`a\\n\\u{1b}b`");
        assert_eq!(quoted(&"x".repeat(1000)).chars().count(), 83);
    }
}
