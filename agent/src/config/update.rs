//! `[update]`: whether the agent looks for a newer one, and what it does then.

use std::fmt;
use std::time::Duration;

use zlh_api::UpdateMode;

use super::file::UpdateTable;
use super::{ConfigError, Environment, invalid};

/// How the agent keeps itself up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UpdateConfig {
    /// What is done with a newer version.
    pub mode: UpdateMode,
    /// Between two looks; each is up to a tenth later, so that a fleet does not come at once.
    pub interval: Duration,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self { mode: UpdateMode::Notify, interval: DEFAULT_INTERVAL }
    }
}

impl UpdateConfig {
    /// The environment wins, as everywhere.
    pub(super) fn of(table: &UpdateTable, environment: &Environment) -> Result<Self, ConfigError> {
        let (key, mode) = match (&environment.update_mode, &table.mode) {
            (Some(mode), _) => (MODE_VARIABLE, Some(mode)),
            (None, mode) => ("update.mode", mode.as_ref()),
        };
        let mode = match mode.map(String::as_str) {
            None | Some("notify") => UpdateMode::Notify,
            Some("auto") => UpdateMode::Auto,
            Some("off") => UpdateMode::Off,
            Some(other) => {
                return Err(invalid(key, format!("= {other:?} is none of \"notify\", \"auto\" and \"off\"")));
            }
        };
        let (key, interval) = match (&environment.update_interval, &table.interval) {
            (Some(interval), _) => (INTERVAL_VARIABLE, Some(interval)),
            (None, interval) => ("update.interval", interval.as_ref()),
        };
        let interval = match interval {
            None => DEFAULT_INTERVAL,
            Some(text) => duration(text)
                .filter(|interval| (MIN_INTERVAL..=MAX_INTERVAL).contains(interval))
                .ok_or_else(|| {
                    invalid(key, format!("= {text:?} is no time from 1m to 7d, such as \"30m\""))
                })?,
        };
        Ok(Self { mode, interval })
    }
}

impl fmt::Display for UpdateConfig {
    /// As the table of a configuration file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[update]\nmode = \"{}\"\ninterval = \"{}s\"", self.mode, self.interval.as_secs())
    }
}

/// `90s`, `30m`, `6h`, `1d`, and sums such as `1h30m`.
fn duration(text: &str) -> Option<Duration> {
    let (mut seconds, mut rest) = (0_u64, text.trim());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (!text.trim().is_empty()).then(|| Duration::from_secs(seconds))
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30 * 60);
const MIN_INTERVAL: Duration = Duration::from_secs(60);
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 86_400);
pub(super) const MODE_VARIABLE: &str = "ZLH_AGENT_UPDATE_MODE";
pub(super) const INTERVAL_VARIABLE: &str = "ZLH_AGENT_UPDATE_INTERVAL";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        mode: Option<&str>,
        interval: Option<&str>,
        env: (Option<&str>, Option<&str>),
    ) -> Result<UpdateConfig, String> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let environment =
            Environment { update_mode: own(env.0), update_interval: own(env.1), ..Environment::default() };
        UpdateConfig::of(&UpdateTable { mode: own(mode), interval: own(interval) }, &environment)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let found = of(Some("auto"), Some("2h"), (Some("off"), Some("1h30m"))).unwrap();
        assert_eq!((found.mode, found.interval.as_secs()), (UpdateMode::Off, 5400));
        assert_eq!(of(Some("auto"), Some("2h"), (None, None)).unwrap().interval.as_secs(), 7200);
        assert_eq!(of(None, None, (None, None)).unwrap(), UpdateConfig::default());
    }

    #[test]
    fn nonsense_is_refused_with_what_is_right() {
        for (mode, interval, expected) in [
            (Some("always"), None, "update.mode = \"always\" is none of"),
            (None, Some("30"), "update.interval = \"30\" is no time"),
            (None, Some("1s"), "from 1m to 7d"),
            (None, Some("8d"), "from 1m to 7d"),
            (None, Some(""), "from 1m to 7d"),
            (None, Some("99999999999999999999d"), "from 1m to 7d"),
        ] {
            let error = of(mode, interval, (None, None)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(of(None, None, (Some("x"), None)).unwrap_err().contains(MODE_VARIABLE));
    }
}
