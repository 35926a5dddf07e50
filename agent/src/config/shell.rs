//! `[shell]`: whom shells run as, how many there may be, how long they wait for a viewer.

use std::fmt;
use std::time::Duration;

use super::file::ShellTable;
use super::{ConfigError, invalid};

/// `[shell]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShellConfig {
    /// User (name or uid) that shells run as; none: `dev`.
    pub user: Option<String>,
    /// How long a shell that nobody looks at lives.
    pub detached: Duration,
    /// Sessions at once.
    pub sessions: usize,
}

impl ShellConfig {
    pub(super) fn of(table: &ShellTable) -> Result<Self, ConfigError> {
        let detached = match table.detached_s.unwrap_or(60) {
            seconds @ 1..=604_800 => Duration::from_secs(seconds),
            seconds => {
                let reason = format!("= {seconds} is not between 1 and 604800 seconds (a week)");
                return Err(invalid("shell.detached_s", reason));
            }
        };
        let sessions = match table.sessions.unwrap_or(8) {
            sessions @ 0..=64 => sessions,
            sessions => {
                return Err(invalid(
                    "shell.sessions",
                    format!("= {sessions} is more than 64; 0 forbids shells"),
                ));
            }
        };
        let user = table.user.as_deref().map(user).transpose()?;
        Ok(Self { user, detached, sessions })
    }
}

fn user(user: &str) -> Result<String, ConfigError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if user.is_empty() || user.len() > 32 || user.starts_with('-') || !user.bytes().all(good) {
        return Err(invalid("shell.user", format!("= {user:?} is neither a user's name nor a uid")));
    }
    Ok(user.to_owned())
}

impl fmt::Display for ShellConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[shell]")?;
        if let Some(user) = &self.user {
            writeln!(f, "user = {user:?}")?;
        }
        writeln!(f, "detached_s = {}\nsessions = {}", self.detached.as_secs(), self.sessions)
    }
}
