//! Why a call failed, from the caller's point of view.

use std::time::Duration;

use crate::Problem;

/// What went wrong, from the caller's point of view.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("`{address}` is not the address of an agent: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// Why it will not do.
        reason: String,
    },
    /// The token cannot be sent in a header.
    #[error("the token holds characters that no header can carry")]
    Token,
    /// TLS could not be set up on this machine.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// Nobody answered at the address.
    #[error("{agent} is unreachable: {reason}")]
    Unreachable {
        /// Host and port.
        agent: String,
        /// The innermost cause, for people.
        reason: String,
        /// Everything the HTTP stack had to say.
        #[source]
        source: reqwest::Error,
    },
    /// Connected, but no answer in time.
    #[error("{agent} did not answer within {after:?}")]
    Timeout {
        /// Host and port.
        agent: String,
        /// The deadline of the call.
        after: Duration,
    },
    /// The agent answered with a problem.
    #[error("{agent}: {problem}")]
    Refused {
        /// Host and port.
        agent: String,
        /// Its words.
        problem: Box<Problem>,
    },
    /// Something answered that does not speak the contract.
    #[error("{agent} gave an answer that is not one of a zlh-agent: {reason}")]
    Protocol {
        /// Host and port.
        agent: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The connection broke in the middle of an answer.
    #[error("the connection to {agent} broke off: {reason}")]
    Broken {
        /// Host and port.
        agent: String,
        /// The innermost cause, for people.
        reason: String,
    },
}
