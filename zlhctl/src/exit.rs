//! How a command ends, and what is said when it fails.
//!
//! An error may carry a hint: what to do about it. A hint travels in the error
//! chain and is printed on its own line at the top, never inside the message.

use std::fmt;
use std::process::ExitCode;

use zlh_api::ErrorCode;
use zlh_api::client::ClientError;

/// The exit codes scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Ok,
    /// It failed.
    Failed,
    /// Some of the fleet failed.
    Partial,
}

impl Exit {
    /// What became of several agents: all well, none, or some.
    pub(crate) fn of(total: usize, failed: usize) -> Self {
        match failed {
            0 => Self::Ok,
            _ if failed == total => Self::Failed,
            _ => Self::Partial,
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            // 2 is clap's: wrong usage.
            Self::Partial => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error with a remedy. Transparent in the chain: it reads as what it wraps.
#[derive(Debug)]
pub(crate) struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Gives an error its remedy.
pub(crate) trait Hint<T> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Hint<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| anyhow::Error::new(Hinted { error: error.into(), hint: hint.into() }))
    }
}

/// The whole chain in one line: `top: cause: cause`. A cause that its parent has
/// already spelled out is not repeated.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) && !is_transport(error) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// The remedy: the outermost one that was given, else the one that goes with the kind of error.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(hinted) = error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()) {
        return Some(hinted.hint.clone());
    }
    match client_error(error)? {
        ClientError::Unreachable { agent, .. } => {
            Some(format!("is the agent running? try: curl http://{agent}/health"))
        }
        ClientError::Timeout { .. } => {
            Some("the machine may be overloaded, or a firewall drops packets".to_owned())
        }
        ClientError::Refused { problem, .. } => match problem.error {
            ErrorCode::Unauthorized => {
                Some("give the agent's token with --token-file, or token_file in the fleet file".to_owned())
            }
            ErrorCode::NotConfigured => {
                Some("send a payload first: zlhctl configure NAME -f payload.json".to_owned())
            }
            ErrorCode::OperationInProgress => Some("zlhctl operations NAME shows what is running".to_owned()),
            _ => None,
        },
        _ => None,
    }
}

fn client_error(error: &anyhow::Error) -> Option<&ClientError> {
    error.chain().find_map(|cause| cause.downcast_ref::<ClientError>())
}

/// Its own text has the innermost reason; the layers between say nothing new.
fn is_transport(error: &anyhow::Error) -> bool {
    matches!(client_error(error), Some(ClientError::Unreachable { .. }))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn codes() {
        assert_eq!(Exit::of(3, 0).code(), 0);
        assert_eq!(Exit::of(3, 3).code(), 1);
        assert_eq!(Exit::of(3, 1).code(), 3);
        assert_eq!(Exit::of(0, 0).code(), 0);
    }

    #[test]
    fn a_hint_is_found_but_not_shown_in_the_message() {
        let error =
            Err::<(), _>(anyhow!("no such file")).context("cannot read x").hint("create it").unwrap_err();
        let error = error.context("step 1 failed");
        assert_eq!(message(&error), "step 1 failed: cannot read x: no such file");
        assert_eq!(hint(&error).as_deref(), Some("create it"));
    }

    #[test]
    fn the_outermost_hint_wins() {
        let inner = Err::<(), _>(anyhow!("x")).hint("inner");
        let error = inner.hint("outer").unwrap_err();
        assert_eq!(hint(&error).as_deref(), Some("outer"));
    }

    #[test]
    fn problems_have_hints_of_their_own() {
        let problem = zlh_api::Problem::new(ErrorCode::Unauthorized, "no token");
        let error =
            anyhow::Error::new(ClientError::Refused { agent: "h:1".to_owned(), problem: Box::new(problem) });
        assert_eq!(message(&error), "h:1: no token");
        assert!(hint(&error).unwrap().contains("--token-file"));
    }
}
