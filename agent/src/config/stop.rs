//! `[stop]`: the operator's last word on how long a server has to save and end.

use std::fmt;

use zlh_shim::spec::StopPlan;

use super::file::StopTable;
use super::{ConfigError, invalid};

/// What the operator wants of every stop; what is absent is the launch plan's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StopConfig {
    grace_s: Option<u64>,
    term_s: Option<u64>,
    cap_s: Option<u64>,
    warn: bool,
}

impl Default for StopConfig {
    fn default() -> Self {
        Self { grace_s: None, term_s: None, cap_s: None, warn: true }
    }
}

impl StopConfig {
    pub(super) fn of(table: &StopTable) -> Result<Self, ConfigError> {
        let bounded = |key: &str, value: Option<u64>, least: u64, most: u64| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(invalid(key, format!("= {value} must be {least} to {most} seconds")))
            }
            value => Ok(value),
        };
        Ok(Self {
            grace_s: bounded("stop.grace_s", table.grace_s, 0, MAX_RUNG_S)?,
            term_s: bounded("stop.term_s", table.term_s, 1, MAX_RUNG_S)?,
            cap_s: bounded("stop.cap_s", table.cap_s, 1, MAX_CAP_S)?,
            warn: table.warn.unwrap_or(true),
        })
    }

    /// A plan, as the operator wants it.
    pub(crate) fn over(&self, plan: StopPlan) -> StopPlan {
        let ms = |seconds: u64| seconds.saturating_mul(1000);
        StopPlan {
            command: plan.command,
            grace_ms: self.grace_s.map_or(plan.grace_ms, ms),
            term_ms: self.term_s.map_or(plan.term_ms, ms),
            cap_ms: self.cap_s.map(ms).or(plan.cap_ms),
            warn: if self.warn { plan.warn } else { Vec::new() },
        }
    }
}

impl fmt::Display for StopConfig {
    /// As the table of a configuration file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[stop]")?;
        for (key, value) in [("grace_s", self.grace_s), ("term_s", self.term_s), ("cap_s", self.cap_s)] {
            if let Some(value) = value {
                writeln!(f, "{key} = {value}")?;
            }
        }
        writeln!(f, "warn = {}", self.warn)
    }
}

/// Longest grace and term, seconds.
const MAX_RUNG_S: u64 = 3600;
/// Longest cap, seconds.
const MAX_CAP_S: u64 = 7200;

#[cfg(test)]
mod tests {
    use super::*;
    use zlh_shim::spec::Warning;

    #[test]
    fn the_operator_changes_what_was_named_and_nothing_else() {
        let plan = StopPlan {
            command: Some("stop".to_owned()),
            grace_ms: 90_000,
            term_ms: 20_000,
            cap_ms: Some(600_000),
            warn: vec![Warning { before_ms: 5000, command: "say bye".to_owned() }],
        };
        assert_eq!(StopConfig::default().over(plan.clone()), plan);
        let table = StopTable { grace_s: Some(5), cap_s: Some(7), warn: Some(false), ..StopTable::default() };
        let wanted = StopConfig::of(&table).unwrap().over(plan.clone());
        assert_eq!(wanted, StopPlan { grace_ms: 5000, cap_ms: Some(7000), warn: Vec::new(), ..plan });
        for (table, named) in [
            (StopTable { term_s: Some(0), ..StopTable::default() }, "stop.term_s"),
            (StopTable { grace_s: Some(3601), ..StopTable::default() }, "stop.grace_s"),
            (StopTable { cap_s: Some(u64::MAX), ..StopTable::default() }, "stop.cap_s"),
        ] {
            assert!(StopConfig::of(&table).unwrap_err().to_string().contains(named));
        }
    }
}
