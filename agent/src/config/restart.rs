//! `[restart]`: how many crashes are put up with.

use std::fmt;
use std::time::Duration;

use super::file::RestartTable;
use super::{ConfigError, invalid};
use crate::workload::Limits;

/// What the operator wants of restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartConfig {
    /// Give up early when the same cause shows twice.
    pub cause_aware: bool,
    /// When a loop of crashes ends.
    pub limits: Limits,
}

impl RestartConfig {
    pub(super) fn of(table: &RestartTable) -> Result<Self, ConfigError> {
        let Limits { budget, stable } = Limits::default();
        let budget = table.crash_budget.unwrap_or(budget);
        if !(1..=MAX_BUDGET).contains(&budget) {
            let reason = format!("= {budget} must be 1 (no restart after a crash) to {MAX_BUDGET} crashes");
            return Err(invalid("restart.crash_budget", reason));
        }
        let stable = table.stable_s.unwrap_or(stable.as_secs());
        if !STABLE_S.contains(&stable) {
            let reason = format!("= {stable} must be {} to {} seconds", STABLE_S.start(), STABLE_S.end());
            return Err(invalid("restart.stable_s", reason));
        }
        Ok(Self {
            cause_aware: table.cause_aware.unwrap_or(true),
            limits: Limits { budget, stable: Duration::from_secs(stable) },
        })
    }
}

impl fmt::Display for RestartConfig {
    /// As the table of a configuration file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { budget, stable } = self.limits;
        writeln!(f, "[restart]\ncause_aware = {}", self.cause_aware)?;
        writeln!(f, "crash_budget = {budget}\nstable_s = {}", stable.as_secs())
    }
}

/// Crashes at most.
const MAX_BUDGET: u32 = 1000;
/// Readiness that makes the budget full again, seconds.
const STABLE_S: std::ops::RangeInclusive<u64> = 30..=86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_the_operators_within_reason() {
        let table =
            |crash_budget, stable_s| RestartTable { crash_budget, stable_s, ..RestartTable::default() };
        assert_eq!(RestartConfig::of(&table(None, None)).unwrap().limits, Limits::default());
        let wanted = RestartConfig::of(&table(Some(1), Some(3600))).unwrap();
        assert_eq!(wanted.limits, Limits { budget: 1, stable: Duration::from_secs(3600) });
        assert_eq!(wanted.to_string(), "[restart]\ncause_aware = true\ncrash_budget = 1\nstable_s = 3600\n");
        for (table, named) in [
            (table(Some(0), None), "restart.crash_budget = 0 must be 1"),
            (table(Some(1001), None), "restart.crash_budget = 1001"),
            (table(None, Some(29)), "restart.stable_s = 29 must be 30 to 86400 seconds"),
        ] {
            let error = RestartConfig::of(&table).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
