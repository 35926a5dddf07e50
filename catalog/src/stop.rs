//! How a workload is asked to stop and how long it has, as data.
//!
//! Built-in plans hold the numbers of their family, an entry of the catalog can change
//! single ones ([`StopOverride`]), the agent's configuration has the last word.
//!
//! ```text
//! request ── lead (longest warning) ──► command ── grace ──► SIGTERM ── term ──► SIGKILL
//!            only with players online    │ both are put off while the world is written │
//!    └──────────────── cap: SIGTERM is never later ────────┘
//! ```

use serde::{Deserialize, Serialize};

/// How a workload is asked to stop, and how long it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopProtocol {
    /// Typed into the console; none goes straight to SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Time after the command before SIGTERM, seconds.
    #[serde(default = "default_grace_s")]
    pub grace_s: u64,
    /// Time after SIGTERM before SIGKILL, seconds.
    #[serde(default = "default_term_s")]
    pub term_s: u64,
    /// However long it goes on saving: SIGTERM comes this long after the request, seconds;
    /// less than the longest warning and the grace together means as long as those.
    #[serde(default = "default_cap_s")]
    pub cap_s: u64,
    /// What is typed before the command when somebody is online.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warn: Vec<StopWarning>,
}

/// A console command some time before the stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopWarning {
    /// How long before the stop command, seconds.
    pub before_s: u64,
    /// For example `say The server stops in 10 seconds`.
    pub command: String,
}

/// What an entry changes in the plan of its family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOverride {
    /// See [`StopProtocol::command`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// See [`StopProtocol::grace_s`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
    /// See [`StopProtocol::term_s`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term_s: Option<u64>,
    /// See [`StopProtocol::cap_s`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_s: Option<u64>,
    /// See [`StopProtocol::warn`]; replaces the list, an empty one takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<Vec<StopWarning>>,
}

impl StopProtocol {
    /// This, with what `changes` says instead.
    #[must_use]
    pub fn with(mut self, changes: &StopOverride) -> Self {
        if let Some(command) = &changes.command {
            self.command = Some(command.clone());
        }
        self.grace_s = changes.grace_s.unwrap_or(self.grace_s);
        self.term_s = changes.term_s.unwrap_or(self.term_s);
        self.cap_s = changes.cap_s.unwrap_or(self.cap_s);
        if let Some(warn) = &changes.warn {
            self.warn.clone_from(warn);
        }
        self
    }

    /// Everything that is wrong with it, in sentences.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seconds = |what: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("stop.{what} is {value}, it must be {least} to {most} seconds"));
            }
        };
        seconds("grace_s", self.grace_s, 0, MAX_RUNG_S);
        seconds("term_s", self.term_s, 1, MAX_RUNG_S);
        seconds("cap_s", self.cap_s, 0, MAX_CAP_S);
        for warning in &self.warn {
            seconds("warn.before_s", warning.before_s, 1, MAX_WARNING_S);
        }
        if self.warn.len() > MAX_WARNINGS {
            problems.push(format!("stop.warn has {} warnings, {MAX_WARNINGS} at most", self.warn.len()));
        }
        problems
    }
}

fn default_grace_s() -> u64 {
    90
}

fn default_term_s() -> u64 {
    20
}

fn default_cap_s() -> u64 {
    600
}

/// Longest grace and term, seconds.
const MAX_RUNG_S: u64 = 3600;
/// Longest cap, seconds: what the shim grants at most.
const MAX_CAP_S: u64 = 7200;
/// Earliest warning, seconds before the stop.
const MAX_WARNING_S: u64 = 600;
/// Most warnings: what the shim types at most.
const MAX_WARNINGS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stop(value: serde_json::Value) -> StopProtocol {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_a_plan_leaves_out_has_a_default() {
        let plan = stop(json!({ "command": "stop" }));
        assert_eq!((plan.grace_s, plan.term_s, plan.cap_s), (90, 20, 600));
        assert!(plan.warn.is_empty() && plan.problems().is_empty());
    }

    #[test]
    fn an_entry_changes_what_it_names_and_nothing_else() {
        let family = stop(json!({ "command": "stop", "warn": [{ "before_s": 10, "command": "say ten" }] }));
        let changed = |value| family.clone().with(&serde_json::from_value(value).unwrap());
        assert_eq!(changed(json!({})), family);
        let slow = changed(json!({ "grace_s": 300, "cap_s": 1800, "warn": [] }));
        assert_eq!(
            (slow.command.as_deref(), slow.grace_s, slow.term_s, slow.cap_s),
            (Some("stop"), 300, 20, 1800)
        );
        assert!(slow.warn.is_empty());
        assert_eq!(changed(json!({ "command": "end" })).command.as_deref(), Some("end"));
    }

    #[test]
    fn times_that_cannot_be_kept_are_refused() {
        let warn = |before_s: u64| json!([{ "before_s": before_s, "command": "say soon" }]);
        for (value, expected) in [
            (json!({ "grace_s": 9999, "cap_s": 7200 }), "stop.grace_s is 9999"),
            (json!({ "term_s": 0 }), "stop.term_s is 0"),
            (json!({ "cap_s": 8000 }), "stop.cap_s is 8000"),
            (json!({ "warn": warn(0) }), "stop.warn.before_s is 0"),
            (json!({ "warn": warn(3601) }), "stop.warn.before_s is 3601"),
            (json!({ "warn": vec![warn(1)[0].clone(); 17] }), "has 17 warnings, 16 at most"),
        ] {
            let problems = stop(value.clone()).problems().join("\n");
            assert!(problems.contains(expected), "{value}: {problems}");
        }
    }
}
